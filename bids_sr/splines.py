"""Cubic B-spline interpolation along one axis, as a matrix."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline


@lru_cache(maxsize=64)
def _unit_responses(n_source: int) -> BSpline:
    """The splines through 1 at one voxel and 0 at the others, all voxels of an axis side by side."""
    # Mirrored about its outermost centres a spline has slope zero there.
    return make_interp_spline(np.arange(n_source), np.eye(n_source), k=3, bc_type="clamped")


def spline_weights(positions: NDArray[np.float64], n_source: int) -> NDArray[np.float32]:
    """Weights of the voxels of one axis in its cubic B-spline interpolation, prefilter included.

    Parameters
    ----------
    positions : ndarray, (n,)
        In voxels, index i being the centre of voxel i; moved to the outermost centres where beyond them. The axis is
        mirrored about these (Unser 1999).
    n_source : int
        Voxels along the axis.

    Returns
    -------
    weights : ndarray, float32, (n, n_source)
        Rows sum to one.
    """
    if n_source == 1:
        return np.ones((len(positions), 1), np.float32)
    return np.asarray(_unit_responses(n_source)(np.clip(positions, 0, n_source - 1)), dtype=np.float32)

"""Diffusion series of BIDS datasets, read as what restorations are compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_sr.bids.inputs import DwiSeries
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import check_gradients, read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.registration import register_rigid
from bids_sr.dwi.t1w import t1w_channel
from bids_sr.errors import EmptyMaskError, NotFourDimensionalError, T1wRegistrationError
from bids_sr.evaluation.benchmark import Degraded, Float, Reference, choose_volumes
from bids_sr.geometry import Grid
from bids_sr.interfaces.core import load_array, load_grid, load_mask
from bids_sr.interfaces.mask import check_same_grid
from bids_sr.records import BLANK_T1W, LEAST_AGREEMENT, NO_T1W


def read_reference(series: DwiSeries, b0_threshold: float, n_weighted: int | None = None) -> Reference:
    """An acquired series with its brain mask, the given one or else what is found in its mean b0.

    Parameters
    ----------
    series : DwiSeries
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    n_weighted : int, optional
        How many weighted volumes are kept, see `choose_volumes`; all if not given.

    Raises
    ------
    InputError
        If the series, its gradients or its mask cannot be used.
    """
    data = load_array(series.dwi)
    if data.ndim != 4:
        raise NotFourDimensionalError(dwi=series.dwi, shape=data.shape)
    gradients = read_gradients(series.bval, series.bvec)
    check_gradients(gradients, data.shape[3], b0_threshold, series.dwi.name)
    if n_weighted is not None:
        chosen = choose_volumes(gradients.bvals, b0_threshold, n_weighted)
        data, gradients = data[..., chosen], gradients.subset(chosen)
        check_gradients(gradients, len(chosen), b0_threshold, f"{len(chosen)} volumes of {series.dwi.name}")
    finite = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    grid = load_grid(series.dwi)
    if series.mask is None:
        mask = brain_mask(mean_b0(finite, gradients.bvals, b0_threshold), grid.voxel_sizes)
    else:
        mask = _given_mask(series, grid)
    return Reference(finite, gradients, grid, mask, b0_threshold)


def _given_mask(series: DwiSeries, grid: Grid) -> NDArray[np.bool_]:
    """The brain mask that comes with a series."""
    check_same_grid(str(series.mask), grid)
    mask = load_mask(str(series.mask))
    if not mask.any():
        raise EmptyMaskError(image=series.mask, reason="it holds no voxel")
    return mask


def read_t1w(series: DwiSeries, degraded: Degraded, reference: Reference) -> tuple[Float | None, str]:
    """The T1w as a model is given it: registered to the degraded mean b0, on the degraded grid.

    Returns
    -------
    channel : ndarray, (x, y, z), or None
        See `bids_sr.dwi.t1w.t1w_channel`; None where there is no T1w that fits.
    reason : str
        Why there is none.
    """
    if series.t1w is None:
        return None, NO_T1W
    voxels, grid = load_array(series.t1w), load_grid(series.t1w)
    if not series.t1w_is_aligned:
        b0 = mean_b0(degraded.data, reference.gradients.bvals, reference.b0_threshold)
        try:
            found = register_rigid(b0, degraded.grid.affine, degraded.mask, voxels, grid.affine)
        except T1wRegistrationError as error:
            return None, str(error.fields["reason"])
        if found.agreement < LEAST_AGREEMENT:
            return None, f"it shares little with the b0 (agreement {found.agreement:.2f} of 1)"
        grid = Grid(grid.shape, found.matrix @ grid.affine)
    channel = t1w_channel(voxels, grid, degraded.grid, degraded.mask)
    return (channel, "") if channel.any() else (None, BLANK_T1W)

"""The image without diffusion weighting of a series."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.gradients import is_b0


class Series(Protocol):
    """A series (x, y, z, n) of which single volumes can be sliced: an array or nibabel's array proxy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Slice as numpy does."""
        ...


def mean_b0(data: Series, bvals: NDArray[np.float64], threshold: float) -> NDArray[np.float32]:
    """Average the volumes with b <= `threshold`.

    Parameters
    ----------
    data : array or array proxy, (x, y, z, n)
        Only the b0 volumes are read, one at a time.
    bvals : ndarray, (n,)
        b-values in s/mm2; at least one is <= `threshold`.
    threshold : float
        s/mm2.

    Returns
    -------
    ndarray, (x, y, z), float32
        In the units of `data`; a voxel is the mean of the volumes in which it is finite, 0 where it is in none.
    """
    total = np.zeros(data.shape[:3], dtype=np.float64)
    counts = np.zeros(data.shape[:3], dtype=np.int64)
    for index in np.flatnonzero(is_b0(bvals, threshold)):
        volume = np.asarray(data[..., int(index)], dtype=np.float64)
        finite = np.isfinite(volume)
        total += np.where(finite, volume, 0)
        counts += finite
    return (total / np.maximum(counts, 1)).astype(np.float32)

"""The noise of a diffusion series, from what its own volumes cannot agree on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from bids_sr.dwi.gradients import tensor_rank

#: Degrees of freedom of a fit to one shell that suffice: the variances of `NEIGHBOURHOOD` voxels are put together.
LEAST_FREEDOM = 2
#: Volumes of a shell that are enough for polynomials of degree four in the direction, which have 15 coefficients.
ENOUGH_FOR_QUARTIC = 30
#: Edge in voxels of the cube over which variances are put together. Noise changes slowly from place to place.
NEIGHBOURHOOD = 5


def noise_sd(
    signals: NDArray[np.float32], bvecs: NDArray[np.float64] | None, mask: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """Standard deviation of the noise of one volume of a shell, voxel by voxel.

    What a smooth function of the direction leaves of the signals is noise: polynomials of degree two (six
    coefficients), of degree four where there are volumes enough; the mean, for b0 volumes. The median of the variances
    around a voxel is taken, so that voxels whose signal is no such function (pulsation, motion at borders) do not
    count unless they are the most. Noise that neighbouring voxels share, as in an interpolated series, is counted in
    full, which differences between neighbours would miss.

    Parameters
    ----------
    signals : ndarray, (n_voxels, n)
        Of the shell, inside the mask.
    bvecs : ndarray, (n, 3), optional
        Unit directions; None for b0 volumes.
    mask : ndarray of bool, (x, y, z)

    Returns
    -------
    ndarray, float32, (n_voxels,), or None where the volumes are too few to tell.
    """
    columns = np.ones((signals.shape[1], 1)) if bvecs is None else _polynomials(bvecs)
    basis = _orthonormal(columns)
    freedom = signals.shape[1] - basis.shape[1]
    if freedom < LEAST_FREEDOM:
        return None
    fitted = signals @ basis.astype(np.float32)
    # Sum of squares minus that of the fit would cancel in float32.
    squares = np.zeros(len(signals), np.float64)
    for volume, weights in enumerate(basis.astype(np.float32)):
        squares += np.square(signals[:, volume] - fitted @ weights, dtype=np.float64)
    return _pooled(squares, freedom, mask)


def noise_sd_between_neighbours(signals: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The same from single volumes: how a voxel differs from the mean of its six neighbours.

    For series whose shells hold too few volumes for `noise_sd`. Anatomy counts as noise where it is as fine as a voxel,
    and noise that neighbours share is missed.

    Parameters
    ----------
    signals : ndarray, (n_voxels, n)
        Inside the mask.
    mask : ndarray of bool, (x, y, z)

    Returns
    -------
    ndarray, float32, (n_voxels,)
    """
    kernel = ndimage.generate_binary_structure(3, 1).astype(np.float32)
    kernel[1, 1, 1] = 0
    neighbours = np.maximum(ndimage.convolve(mask.astype(np.float32), kernel, mode="constant")[mask], 1)
    squares = np.zeros(len(signals), np.float64)
    for signal in signals.T:
        mean = ndimage.convolve(on_grid(signal, mask), kernel, mode="constant")[mask] / neighbours
        squares += np.square(signal - mean, dtype=np.float64) / (1 + 1 / neighbours)
    return _pooled(squares, signals.shape[1], mask)


def on_grid(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values of the voxels of a mask, (n_voxels,), as a volume that is 0 elsewhere."""
    volume = np.zeros(mask.shape, np.float32)
    volume[mask] = values
    return volume


def _polynomials(bvecs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Even polynomials of the directions, (n, 6 or 15), of degree two or four; they hold those of lower degree."""
    x, y, z = bvecs.T
    if len(bvecs) < ENOUGH_FOR_QUARTIC or tensor_rank(bvecs) < 6:
        return np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    powers = [(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]
    return np.stack([x**i * y**j * z**k for i, j, k in powers], axis=1)


def _orthonormal(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal columns that span the same as `columns`, (n, p): (n, rank)."""
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > 1e-6 * values[0]]


def _pooled(squares: NDArray[np.float64], freedom: int, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Standard deviation from sums of squares, (n_voxels,): the median around each voxel of the mask."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside = mask[box]
    # Voxels outside the mask repeat the nearest one inside, so that the median is not that of zeros.
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    filled = on_grid(squares, mask)[box][tuple(nearest)]
    median = ndimage.median_filter(filled, size=NEIGHBOURHOOD, mode="nearest")[inside]
    return np.sqrt(median / stats.chi2.median(freedom)).astype(np.float32)

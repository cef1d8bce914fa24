"""From high to low resolution: what a scanner with larger voxels would have measured."""

import numpy as np
from numpy.typing import NDArray

from bids_sr.geometry import Grid, apply_along_axes

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))


def gaussian_sampling(n_source: int, centres: NDArray[np.float64], fwhm: float) -> NDArray[np.float32]:
    """Weights of a Gaussian point-spread function around each sample of one axis.

    Parameters
    ----------
    n_source : int
        Voxels of the source along the axis.
    centres : ndarray, (n,)
        Where to sample, in source voxel coordinates (index i is a centre).
    fwhm : float
        Full width at half maximum in source voxels. Below half a voxel, where a sampled Gaussian
        means nothing, the samples are linear interpolations.

    Returns
    -------
    weights : ndarray, float32, (n, n_source)
        Rows sum to one, also at the border, where the function is cut off.
    """
    distance = np.arange(n_source)[None, :] - np.asarray(centres, dtype=np.float64)[:, None]
    if fwhm < 0.5:
        weights = np.clip(1 - np.abs(distance), 0, None)
    else:
        weights = np.exp(-0.5 * (distance / (fwhm * FWHM_TO_SIGMA)) ** 2)
        # Four standard deviations hold all but 6e-5 of the function; the sample itself is always kept.
        reach = max(4 * fwhm * FWHM_TO_SIGMA, 0.5)
        weights[np.abs(distance) > reach] = 0
        whole = (distance[:, :1] <= 1 - reach) & (distance[:, -1:] >= reach - 1)
        weights = np.where(whole, _centred(weights, distance), weights)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _centred(weights: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights tilted so that each row's centre of mass lies at its sample.

    A narrow Gaussian known at whole voxels only is off by up to a twentieth of a voxel; ramps would not survive.
    """
    total = weights.sum(axis=1, keepdims=True)
    mean = (weights * distance).sum(axis=1, keepdims=True) / total
    variance = (weights * (distance - mean) ** 2).sum(axis=1, keepdims=True) / total
    tilt = np.divide(-mean, variance, out=np.zeros_like(mean), where=variance > 0)
    return weights * np.clip(1 + tilt * (distance - mean), 0, None)


def low_resolution_grid(source: Grid, scale: NDArray[np.float64]) -> Grid:
    """The grid of the same box with voxels about `scale`, (3,), times as wide (rounded to a whole number of voxels)."""
    return source.scaled(1 / np.asarray(scale))


def degrade(
    data: NDArray[np.float32], source: Grid, scale: NDArray[np.float64], relative_fwhm: float = 1.0
) -> tuple[NDArray[np.float32], Grid]:
    """Sample a scan with larger voxels, through a Gaussian point-spread function, cells aligned.

    Signals are degraded, never ratios of signals.

    Parameters
    ----------
    data : ndarray, (x, y, z) or (x, y, z, n)
        The signal.
    source : Grid
        Its grid.
    scale : ndarray, (3,)
        How many times larger the voxels shall be, per axis.
    relative_fwhm : float
        Full width at half maximum of the point-spread function, in voxels of the result.

    Returns
    -------
    low : ndarray, float32
    grid : Grid
        It fills the same box; its true scale is `source.shape / grid.shape`.
    """
    grid = low_resolution_grid(source, scale)
    true_scale = np.divide(source.shape, grid.shape)
    matrices = [
        gaussian_sampling(n, (np.arange(n_low) + 0.5) * ratio - 0.5, relative_fwhm * ratio if ratio > 1 else 0.0)
        for n, n_low, ratio in zip(source.shape, grid.shape, true_scale, strict=True)
    ]
    return apply_along_axes(np.asarray(data, dtype=np.float32), matrices), grid

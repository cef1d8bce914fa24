"""The T1w as a model sees it: on the voxels of a diffusion series, through their point-spread function, scaled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.degradation import FWHM_TO_SIGMA, gaussian_sampling
from bids_sr.dwi.b0 import Series
from bids_sr.geometry import Grid, apply_along_axes

Float = NDArray[np.float32]

#: Voxels of this size (mm) are what a T1w is read on and measured by, whatever the voxels that it is wanted on.
WORKING_VOXEL = 1.0
#: Percentiles of the brain's intensities that become 0 and 1, and the largest intensity that is kept.
PERCENTILES = (0.5, 99.5)
LARGEST = 1.5
#: Acquired voxels kept around the brain: the point-spread function reaches 1.7 voxels.
MARGIN = 2


@dataclass(frozen=True)
class T1wImage:
    """A T1w in the world of a diffusion series, at its own resolution.

    Attributes
    ----------
    voxels : array or array proxy, (X, Y, Z)
        Any unit; voxels that are not finite count as 0.
    grid : Grid
        Its axes may be oblique to those of the series.
    """

    voxels: Series
    grid: Grid


@dataclass(frozen=True)
class T1wGuide:
    """A T1w as it guides a model at its own resolution, scaled like `t1w_channel`.

    Attributes
    ----------
    parts : ndarray, (8, x, y, z), float32
        Through voxels of half the acquired size, two along each axis of an acquired voxel, see `by_parts`.
    target : ndarray, (X, Y, Z), float32
        Through the voxels of the target grid.
    """

    parts: Float
    target: Float


def t1w_guide(
    t1w: T1wImage, source: Grid, mask: NDArray[np.bool_], target: Grid, target_mask: NDArray[np.bool_]
) -> T1wGuide | None:
    """What guides the restoration of a series.

    Parameters
    ----------
    t1w : T1wImage
    source, target : Grid
        The acquired grid, and the one that is asked for.
    mask, target_mask : ndarray of bool
        The brain on each of them.

    Returns
    -------
    guide : T1wGuide or None
        None where the T1w shows nothing in the brain.
    """
    n_x, n_y, n_z = source.shape
    halves = source.resized((2 * n_x, 2 * n_y, 2 * n_z))
    parts = by_parts(t1w_channel(t1w.voxels, t1w.grid, halves, mask.repeat(2, 0).repeat(2, 1).repeat(2, 2)))
    on_target = t1w_channel(t1w.voxels, t1w.grid, target, target_mask)
    return T1wGuide(parts, on_target) if parts.any() and on_target.any() else None


def by_parts(fine: Float) -> Float:
    """A volume of half the voxel size, (2x, 2y, 2z), as the parts of each voxel.

    Returns
    -------
    parts : ndarray, (8, x, y, z)
        Part (i, j, k) of 0 and 1 along each axis, the last fastest.
    """
    n_x, n_y, n_z = (n // 2 for n in fine.shape)
    parts = fine.reshape(n_x, 2, n_y, 2, n_z, 2).transpose(1, 3, 5, 0, 2, 4)
    return np.ascontiguousarray(parts.reshape(8, n_x, n_y, n_z))


def t1w_channel(t1w: Series, t1w_grid: Grid, grid: Grid, mask: NDArray[np.bool_]) -> Float:
    """A T1w as if it had been acquired with the voxels of a diffusion series.

    The same two steps as in training: read on voxels of about 1 mm, scaled and freed of what is not brain, then seen
    through a Gaussian as wide at half its maximum as an acquired voxel.

    Parameters
    ----------
    t1w : array or array proxy, (X, Y, Z)
        Any unit; voxels that are not finite count as 0.
    t1w_grid : Grid
        Where it lies in the world of the series.
    grid : Grid
        The series' grid; its axes may be oblique to those of the T1w.
    mask : ndarray of bool, (x, y, z)
        Brain on `grid`.

    Returns
    -------
    channel : ndarray, (x, y, z), float32
        0 and 1 at the 0.5th and 99.5th percentile of the brain, from 0 to 1.5; 0 outside the mask and beyond the
        T1w's field of view. All zero (`not channel.any()`) where the T1w shows nothing in the brain: it is constant,
        empty, or lies elsewhere.
    """
    channel = np.zeros(grid.shape, np.float32)
    if not mask.any():
        return channel
    inside = np.argwhere(mask)
    low = np.maximum(inside.min(axis=0) - MARGIN, 0)
    high = np.minimum(inside.max(axis=0) + 1 + MARGIN, mask.shape)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    part = mask[box]
    shape = (part.shape[0], part.shape[1], part.shape[2])
    coarse = grid.cropped(low, shape)
    seen = with_larger_voxels(refined_t1w(t1w, t1w_grid, coarse, part), refinement(grid))
    channel[box] = np.where(part & _within(t1w_grid, coarse), seen, 0)
    return channel


def refined_t1w(t1w: Series, t1w_grid: Grid, grid: Grid, mask: NDArray[np.bool_]) -> Float:
    """A T1w scaled by its intensities in the brain, on voxels of about 1 mm that divide those of a series.

    Parameters
    ----------
    t1w, t1w_grid, grid, mask
        As in `t1w_channel`.

    Returns
    -------
    fine : ndarray, (x * k0, y * k1, z * k2), float32
        k being `refinement(grid)`; 0 outside the mask. Scaled as described there.
    """
    factors = refinement(grid)
    fine_mask = mask.repeat(factors[0], 0).repeat(factors[1], 1).repeat(factors[2], 2)
    shape = (fine_mask.shape[0], fine_mask.shape[1], fine_mask.shape[2])
    return scaled_t1w(t1w_on_grid(t1w, t1w_grid, grid.resized(shape)), fine_mask)


def refinement(grid: Grid) -> tuple[int, int, int]:
    """Whole parts of about 1 mm that the voxels of a grid are divided into, per axis."""
    parts = np.maximum(1, np.rint(grid.voxel_sizes / WORKING_VOXEL)).astype(int)
    return int(parts[0]), int(parts[1]), int(parts[2])


def scaled_t1w(values: Float, mask: NDArray[np.bool_]) -> Float:
    """Intensities scaled by their percentiles in the brain.

    Parameters
    ----------
    values : ndarray, (x, y, z)
        Any unit; what is not finite is unknown.
    mask : ndarray of bool, (x, y, z)
        The brain.

    Returns
    -------
    scaled : ndarray, (x, y, z), float32
        0 and 1 at the 0.5th and 99.5th percentile of the known intensities in the mask, clipped to [0, 1.5]; 0
        outside the mask and where nothing is known. All zero where the brain is all of one intensity, or unknown.
    """
    known = mask & np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.float32)
    low, high = np.percentile(values[known], PERCENTILES)
    if not high > low:
        return np.zeros(values.shape, np.float32)
    scaled = (np.where(known, values, low) - low) / (high - low)
    return np.clip(scaled, 0, LARGEST).astype(np.float32)


def t1w_on_grid(t1w: Series, t1w_grid: Grid, grid: Grid) -> Float:
    """A T1w interpolated on another grid after smoothing to the size of its voxels, so that nothing folds over.

    Parameters
    ----------
    t1w, t1w_grid
        As in `t1w_channel`; only the part that is needed is read.
    grid : Grid
        Any grid. Where its voxels are not cubes and its axes are oblique to the T1w's, the point-spread function is
        that of the voxels along the axes of the T1w only.

    Returns
    -------
    values : ndarray, (x, y, z), float32
        In the units of the T1w; not a number beyond its field of view.
    """
    to_t1w = np.linalg.inv(t1w_grid.affine) @ grid.affine
    sigma = _missing_blur(t1w_grid, grid)
    corners = to_t1w[:3, :3] @ _corner_voxels(grid.shape) + to_t1w[:3, 3:]
    reach = np.ceil(4 * sigma) + 1
    low = np.clip(np.floor(corners.min(axis=1) - reach), 0, t1w.shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=1) + reach) + 1, 0, t1w.shape).astype(int)
    if np.any(high <= low):
        return np.full(grid.shape, np.nan, np.float32)
    part = np.asarray(t1w[low[0] : high[0], low[1] : high[1], low[2] : high[2]], dtype=np.float32)
    smooth = ndimage.gaussian_filter(np.nan_to_num(part, nan=0.0, posinf=0.0, neginf=0.0), sigma, mode="nearest")
    offset = to_t1w[:3, 3] - low
    values = ndimage.affine_transform(smooth, to_t1w[:3, :3], offset, grid.shape, order=1, mode="nearest")
    return np.where(_within(t1w_grid, grid), values, np.float32(np.nan))


def _missing_blur(t1w_grid: Grid, grid: Grid) -> NDArray[np.float64]:
    """Standard deviation, in T1w voxels per T1w axis, of what the point-spread function of `grid` adds to the T1w's."""
    directions = np.linalg.inv(t1w_grid.affine[:3, :3] / t1w_grid.voxel_sizes) @ grid.affine[:3, :3]
    wanted = FWHM_TO_SIGMA**2 * (directions**2).sum(axis=1) / t1w_grid.voxel_sizes**2
    # Linear interpolation between voxels blurs too: its weights have a variance of 1/6 of a voxel on average.
    present = FWHM_TO_SIGMA**2 + 1 / 6
    return np.sqrt(np.clip(wanted - present, 0, None))


def _corner_voxels(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Indices of the eight outermost voxels of a grid, (3, 8)."""
    return np.stack(np.meshgrid(*[(0.0, n - 1.0) for n in shape], indexing="ij")).reshape(3, -1)


def _within(t1w_grid: Grid, grid: Grid) -> NDArray[np.bool_]:
    """Which voxels of a grid have their centre in the T1w's field of view, (x, y, z)."""
    x, y, z = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    inside = np.ones(grid.shape, bool)
    for row, count in zip(np.linalg.inv(t1w_grid.affine) @ grid.affine, t1w_grid.shape, strict=False):
        position = row[0] * x + row[1] * y + row[2] * z + row[3]
        inside &= (position >= -0.5) & (position <= count - 0.5)
    return inside


def with_larger_voxels(fine: Float, factors: tuple[int, int, int]) -> Float:
    """What voxels `factors` times as wide see, through a Gaussian as wide as they are, less that of the fine voxels.

    Parameters
    ----------
    fine : ndarray, (x * k0, y * k1, z * k2)
    factors : tuple of int, (3,)
        k.

    Returns
    -------
    seen : ndarray, (x, y, z), float32
    """
    matrices = [
        gaussian_sampling(n, (np.arange(n // factor) + 0.5) * factor - 0.5, float(np.sqrt(factor**2 - 1)))
        for n, factor in zip(fine.shape, factors, strict=True)
    ]
    return apply_along_axes(fine, matrices)

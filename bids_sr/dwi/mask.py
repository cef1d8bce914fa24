"""The brain in a b0 image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.errors import EmptyMaskError, MaskGridError
from bids_sr.geometry import Grid, from_canonical, same_grid, to_canonical

#: The median filter runs on voxels of about this size (mm), where its window costs little.
WORKING_VOXEL = 4.0

#: Reach (mm) and passes of the median filter. Two working voxels, as DIPY's default has at 2 mm; one where voxels or
#: slices are thicker than 4.5 mm, where two would wear off the top of the head.
MEDIAN_REACH = 9.0
MEDIAN_PASSES = 4


def brain_mask(b0: NDArray[np.floating], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find the brain in a b0 image with DIPY's median_otsu.

    The image is median-filtered and split by Otsu's threshold on voxels of about 4 mm, which gives the same smoothing
    in mm for every scan, then the border is put back on the image's own grid. The largest piece is kept and its holes
    are filled.

    Parameters
    ----------
    b0 : ndarray, (x, y, z)
        Any unit; not finite and negative values count as 0.
    affine : ndarray, (4, 4)
        Voxel index to world, mm, RAS+. How the image is stored does not change what is found.

    Returns
    -------
    ndarray of bool, (x, y, z)

    Raises
    ------
    EmptyMaskError
        If the image is constant, or nothing is left.
    """
    stored = np.clip(np.nan_to_num(b0, nan=0.0, posinf=0.0, neginf=0.0), 0, None).astype(np.float32)
    image, voxel_sizes = to_canonical(stored, affine), Grid(b0.shape, affine).canonical.voxel_sizes
    if image.max() == image.min():
        raise EmptyMaskError(image="mean b0", reason="all its voxels are equal, no brain can be found in it")
    factors = np.maximum(1, np.rint(WORKING_VOXEL / voxel_sizes)).astype(int)
    coarse = block_average(image, factors)
    radius = 2 if np.max(factors * voxel_sizes) <= MEDIAN_REACH / 2 else 1
    smooth, threshold = _median_and_threshold(coarse, radius)
    mask = _spread(smooth, factors, image.shape) > threshold
    mask = fill_slices(largest_piece(mask))
    if not mask.any():
        raise EmptyMaskError(image="mean b0", reason="no brain was found in it")
    return from_canonical(mask, affine)


def _median_and_threshold(image: NDArray[np.float32], radius: int) -> tuple[NDArray[np.float32], float]:
    """The image after median_otsu's median passes, and Otsu's threshold of it."""
    from dipy.segment.mask import multi_median
    from dipy.segment.threshold import otsu

    smooth = multi_median(image, radius, MEDIAN_PASSES).astype(np.float32)
    # The passes erase an object thinner than the window; then the image itself must do.
    if smooth.max() == smooth.min():
        smooth = image
    bright = smooth > otsu(smooth)
    if bright.all() or not bright.any():
        return smooth, float((smooth.max() + smooth.min()) / 2)
    # At Otsu's optimum the threshold is midway between the means of both sides; where no voxel has a value between
    # them any threshold there is as good to him, and the histogram's bins would choose.
    return smooth, float((smooth[bright].mean() + smooth[~bright].mean()) / 2)


def block_average(image: NDArray[np.floating] | NDArray[np.bool_], factors: NDArray[np.integer]) -> NDArray[np.float32]:
    """Mean of blocks of `factors` voxels, (3,), from the first corner on; the last blocks repeat the image's edge."""
    missing = [(0, int(-size % factor)) for size, factor in zip(image.shape, factors, strict=True)]
    padded = np.pad(image, missing, mode="edge")
    shape = [length for size, factor in zip(padded.shape, factors, strict=True) for length in (size // factor, factor)]
    return padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)


def _spread(coarse: NDArray[np.float32], factors: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolate block averages linearly at the voxels they were made of, `shape`."""
    # Voxel i of the image lies at (i + 1/2) / factor - 1/2 of the blocks.
    offset = (0.5 / factors) - 0.5
    return ndimage.affine_transform(coarse, np.diag(1.0 / factors), offset, output_shape=shape, order=1, mode="nearest")


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest face-connected piece of a mask."""
    labels, n_pieces = ndimage.label(mask)
    if n_pieces == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def fill_slices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill the holes of a mask, also those that are closed only within the planes across the last axis.

    Where the field of view cuts the head, a ventricle is open to the outside through its end slice.
    """
    filled = ndimage.binary_fill_holes(mask)
    return np.stack([ndimage.binary_fill_holes(filled[..., z]) for z in range(mask.shape[2])], axis=2)


def check_mask_grid(found: Grid, expected: Grid, name: str) -> None:
    """Refuse a mask that does not lie on the grid of its series; `name` tells which mask.

    Raises
    ------
    MaskGridError
        If shape or affine differ, the places of a corner by more than a fiftieth of a voxel.
    """
    if not same_grid(expected, found):
        raise MaskGridError(mask=name, found=found.shape, expected=expected.shape)


def full_mask_notes(mask: NDArray[np.bool_], name: str) -> list[str]:
    """That a mask masks nothing, in a sentence; `name` tells which mask."""
    if not mask.all():
        return []
    return [f"The brain mask {name} covers the whole field of view, so air counts as brain in every number."]


def millilitres(mask: NDArray[np.bool_], grid: Grid) -> float:
    """Volume of a mask in ml."""
    return round(float(mask.sum() * np.prod(grid.voxel_sizes)) / 1000, 1)

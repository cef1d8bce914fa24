"""Distances between a restored scan and an acquired one, inside the brain."""

import numpy as np
from numpy.typing import NDArray


def psnr(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio in dB inside the mask; the peak is the range of the truth there.

    Parameters
    ----------
    truth, restored : ndarray, (x, y, z)
    mask : ndarray of bool, (x, y, z)
    """
    inside = truth[mask].astype(np.float64)
    error = np.mean((inside - restored[mask]) ** 2)
    return float(10 * np.log10((inside.max() - inside.min()) ** 2 / error)) if error > 0 else float("inf")


def ssim(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Structural similarity (Wang et al. 2004), scikit-image's with a 7^3 window, averaged inside the mask.

    The dynamic range is the range of the truth inside the mask.
    """
    from skimage.metrics import structural_similarity

    inside = truth[mask]
    box = tuple(slice(max(0, low - 4), high + 5) for low, high in zip(*_bounds(mask), strict=True))
    _, similarity = structural_similarity(
        truth[box].astype(np.float64),
        restored[box].astype(np.float64),
        data_range=float(inside.max() - inside.min()),
        full=True,
    )
    return float(similarity[mask[box]].mean())


def _bounds(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last voxel of the mask along each axis."""
    inside = np.argwhere(mask)
    return inside.min(axis=0), inside.max(axis=0)


def mean_absolute_error(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Mean absolute difference inside the mask, in the units of the images."""
    return float(np.abs(truth[mask].astype(np.float64) - restored[mask]).mean())


def direction_error(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Median angle in degrees between two fields of axes, (x, y, z, 3), inside the mask, whatever their signs."""
    cosine = np.abs(np.sum(truth[mask].astype(np.float64) * restored[mask], axis=-1))
    return float(np.degrees(np.median(np.arccos(np.clip(cosine, 0, 1)))))

"""Distances between a restored scan and an acquired one, inside the brain."""

import numpy as np
from numpy.typing import NDArray

#: Voxels along each edge of the window in which structural similarity is measured.
WINDOW = 7


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

    The dynamic range is the range of the truth inside the mask. Where the mask's surroundings are thinner than the
    window there is none: not a number.
    """
    return float(similarity_map(truth, restored, mask)[mask].mean())


def similarity_map(
    truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """What `ssim` averages, (x, y, z); known in the mask and near it, not a number elsewhere."""
    from skimage.metrics import structural_similarity

    similarity = np.full(truth.shape, np.nan)
    inside = truth[mask]
    box = tuple(slice(max(0, low - 4), high + 5) for low, high in zip(*_bounds(mask), strict=True))
    if min(truth[box].shape) >= WINDOW:
        _, similarity[box] = structural_similarity(
            truth[box].astype(np.float64),
            restored[box].astype(np.float64),
            win_size=WINDOW,
            data_range=float(inside.max() - inside.min()),
            full=True,
        )
    return similarity


def _bounds(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last voxel of the mask along each axis."""
    inside = np.argwhere(mask)
    return inside.min(axis=0), inside.max(axis=0)


def mean_absolute_error(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Mean absolute difference inside the mask, in the units of the images."""
    return float(np.abs(truth[mask].astype(np.float64) - restored[mask]).mean())


def mean_squared_error(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Mean squared difference inside the mask, in the squared units of the images."""
    return float(np.mean((truth[mask].astype(np.float64) - restored[mask]) ** 2))


def nrmse(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Root of the mean squared error over the root mean square of the truth, both inside the mask.

    0 is perfect, an image of zeros gets 1; scikit-image's `normalized_root_mse` by the Euclidean norm.
    """
    from skimage.metrics import normalized_root_mse

    return float(normalized_root_mse(truth[mask].astype(np.float64), restored[mask], normalization="euclidean"))


def whole_volume_psnr(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio in dB over all voxels, both images being zero outside the mask.

    The peak is the largest value of the masked truth. The zeros around the brain count as perfectly restored, so it
    exceeds `psnr` by 10 log10(voxels / voxels of the mask) dB, apart from what the two peaks differ. It is how the
    papers on networks of this kind measure (scikit-image on the masked volume).
    """
    from skimage.metrics import peak_signal_noise_ratio

    inside = np.where(mask, truth, 0).astype(np.float64)
    with np.errstate(divide="ignore"):  # equal images have no error to divide by: the ratio is infinite
        return float(peak_signal_noise_ratio(inside, np.where(mask, restored, 0), data_range=float(inside.max())))


def whole_volume_ssim(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Structural similarity over all voxels, both images being zero outside the mask.

    The dynamic range is the largest value of the masked truth; compare `whole_volume_psnr`. Where the volume is thinner
    than the window of 7 voxels there is none: not a number.
    """
    from skimage.metrics import structural_similarity

    if min(truth.shape) < WINDOW:
        return float("nan")
    inside = np.where(mask, truth, 0).astype(np.float64)
    other = np.where(mask, restored, 0).astype(np.float64)
    return float(structural_similarity(inside, other, win_size=WINDOW, data_range=float(inside.max())))


def frechet_distance(truth: NDArray[np.floating], restored: NDArray[np.floating]) -> float:
    """Frechet distance of two sets of features, as if each were normally distributed (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), of their means and covariances. The trace of the root is the sum of the
    singular values of X1 X2', the centred features over the roots of their numbers less one, so that sets smaller than
    the number of features, whose covariances have no stable root, do no harm. Such sets make the distance larger than
    that of many would be: compare only those of the same size.

    Parameters
    ----------
    truth, restored : ndarray, (n, F) and (m, F)
        Two and more of each.
    """
    first, second = truth.astype(np.float64), restored.astype(np.float64)
    means = first.mean(axis=0), second.mean(axis=0)
    spreads = [
        (features - mean) / np.sqrt(len(features) - 1) for features, mean in zip((first, second), means, strict=True)
    ]
    variances = sum(float(np.sum(spread**2)) for spread in spreads)
    root = np.linalg.svd(spreads[0] @ spreads[1].T, compute_uv=False).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + variances - 2 * root)


def direction_error(truth: NDArray[np.floating], restored: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Median angle in degrees between two fields of axes, (x, y, z, 3), inside the mask, whatever their signs.

    Not a number where the mask is empty.
    """
    if not mask.any():
        return float("nan")
    cosine = np.abs(np.sum(truth[mask].astype(np.float64) * restored[mask], axis=-1))
    return float(np.degrees(np.median(np.arccos(np.clip(cosine, 0, 1)))))

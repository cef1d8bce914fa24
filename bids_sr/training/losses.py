"""How far a restored patch is from the true one."""

import math
from typing import Literal

import torch
from torch import Tensor

from bids_sr.errors import TrainingDataError
from bids_sr.evaluation.metrics import WINDOW
from bids_sr.models.grid import fine_shape
from bids_sr.training.settings import Loss

Grid = tuple[int, int, int]

#: Dynamic range of structural similarity, in the units in which signals are put to networks: a level of the scan. With
#: that of each patch, the faintest patches, which are noise, would weigh most.
DYNAMIC_RANGE = 1.0


def fine_grid(channels: Tensor, cell: Tensor, n_points: int) -> Grid:
    """Voxels per axis of the fine patches of a batch.

    Parameters
    ----------
    channels : Tensor, (N, C, p, p, p)
    cell : Tensor, (N, 3)
        Size of a fine voxel in voxels of the patch.
    n_points : int
        Points of a patch.

    Raises
    ------
    TrainingDataError
        If patches differ in their scale, or the points are not all voxels of the fine patch.
    """
    problem = "the fourier and the ssim term need whole patches of one scale: points = 0"
    try:
        shape = fine_shape(channels, cell)
    except ValueError as error:
        raise TrainingDataError(where="[loss]", problem=problem) from error
    if math.prod(shape) != n_points:
        raise TrainingDataError(where="[loss]", problem=problem)
    return shape


def fourier_l1(restored: Tensor, truth: Tensor, grid: Grid, norm: Literal["backward", "ortho"]) -> Tensor:
    """Mean modulus of the difference of two spectra (Wu et al. 2024, eq. 3).

    Parameters
    ----------
    restored, truth : Tensor, (N, x * y * z)
        Whole patches, last axis fastest.
    grid : tuple of int, (3,)
        Their voxels per axis (x, y, z).
    norm : {"backward", "ortho"}
        See `torch.fft.fftn`. The paper does not name it.

    Returns
    -------
    Tensor, ()
    """
    # Half precision has neither the range for a sum over a patch nor transforms of every length.
    with torch.autocast(restored.device.type, enabled=False):
        error = (restored.float() - truth.float()).unflatten(1, grid)
        return torch.fft.fftn(error, dim=(1, 2, 3), norm=norm).abs().mean()


def dissimilarity(restored: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """One minus the mean structural similarity (Wang et al. 2004, eq. 13) of patches.

    It is scikit-image's: means, variances and covariance of all whole windows of `WINDOW` voxels along each axis, the
    latter two those of samples, for a dynamic range of `DYNAMIC_RANGE`.

    Parameters
    ----------
    restored, truth : Tensor, (N, x * y * z)
        Whole patches, last axis fastest.
    grid : tuple of int, (3,)
        Their voxels per axis (x, y, z), `WINDOW` at least.

    Returns
    -------
    Tensor, ()
    """
    # Variances are small differences of squares, which half precision does not resolve.
    with torch.autocast(restored.device.type, enabled=False):
        a, b = (patches.float().unflatten(1, grid) for patches in (restored, truth))
        mean_a, mean_b, aa, bb, ab = window_means(torch.stack([a, b, a * a, b * b, a * b], dim=1)).unbind(1)
        of_samples = WINDOW**3 / (WINDOW**3 - 1)
        variances = of_samples * (aa - mean_a * mean_a + bb - mean_b * mean_b)
        covariance = of_samples * (ab - mean_a * mean_b)
        floor, variance_floor = (0.01 * DYNAMIC_RANGE) ** 2, (0.03 * DYNAMIC_RANGE) ** 2
        luminance = (2 * mean_a * mean_b + floor) / (mean_a * mean_a + mean_b * mean_b + floor)
        return 1 - (luminance * (2 * covariance + variance_floor) / (variances + variance_floor)).mean()


def window_means(volumes: Tensor) -> Tensor:
    """Means over all whole windows of `WINDOW` voxels along each axis of volumes, (N, C, x, y, z)."""
    for window in ((WINDOW, 1, 1), (1, WINDOW, 1), (1, 1, WINDOW)):
        volumes = torch.nn.functional.avg_pool3d(volumes, window, stride=1)
    return volumes


def loss_terms(restored: Tensor, truth: Tensor, grid: Grid | None, weights: Loss) -> dict[str, Tensor]:
    """The terms that have a weight, by their names, and their weighted sum as "loss".

    Parameters
    ----------
    restored, truth : Tensor, (N, Q)
    grid : tuple of int, (3,), optional
        Voxels per axis of the patches; needed for the terms "fourier" and "ssim" only.
    weights : Loss

    Raises
    ------
    TrainingDataError
        If one of these is asked for without whole patches.
    """
    error = restored.float() - truth
    terms = {"l1": error.abs().mean()} if weights.l1 else {}
    if weights.l2:
        terms["l2"] = error.square().mean()
    if weights.of_patches and (grid is None or math.prod(grid) != truth.shape[1]):
        problem = f"the {weights.of_patches[0]} term needs whole patches: points = 0"
        raise TrainingDataError(where="[loss]", problem=problem)
    if weights.fourier and grid is not None:
        terms["fourier"] = fourier_l1(restored, truth, grid, weights.fourier_norm)
    if weights.ssim and grid is not None:
        terms["ssim"] = dissimilarity(restored, truth, grid)
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return {**terms, "loss": total}

"""How far a restored patch is from the true one."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bids_sr.errors import TrainingDataError
from bids_sr.evaluation.metrics import WINDOW
from bids_sr.models.grid import fine_shape
from bids_sr.models.vgg import load_vgg, slices_of
from bids_sr.training.settings import Loss, Perceptual

Grid = tuple[int, int, int]

#: Dynamic range of structural similarity, in the units in which signals are put to networks: a level of the scan. With
#: that of each patch, the faintest patches, which are noise, would weigh most.
DYNAMIC_RANGE = 1.0
#: What VGG is shown as white, in units of the level of the scan; zero is black.
WHITE = 2.0
#: Signals are raised to this part of their level before the logarithm: there is nothing but noise below.
SIGNAL_FLOOR = 0.02


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
    problem = "the fourier, the ssim and the perceptual term need whole patches of one scale: points = 0"
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


class PerceptualLoss:
    """Mean squared difference of the features of slices (Johnson et al. 2016, eq. 2; Ledig et al. 2017, eq. 5).

    VGG19 has learned from photographs. It is shown each slice across each of the three axes as a grey picture, zero as
    black and `WHITE` as white. Its weights stay as they are, and belong to no model.

    Parameters
    ----------
    settings : Perceptual

    Raises
    ------
    WeightsFileError
        If the file cannot be read, or holds the weights of something else.
    """

    def __init__(self, settings: Perceptual) -> None:
        self.layer = settings.layer
        self.network = load_vgg(Path(settings.weights))

    def __deepcopy__(self, memo: Any) -> "PerceptualLoss":
        """Itself: it never changes."""
        return self

    def __call__(self, restored: Tensor, truth: Tensor, grid: Grid) -> Tensor:
        """The term, (), of whole patches, (N, x * y * z)."""
        network = self.network.to(restored.device)
        with torch.autocast(restored.device.type, enabled=False):
            shown = (slices_of(patches.float().unflatten(1, grid) / WHITE) for patches in (restored, truth))
            errors = [network(a, self.layer) - network(b, self.layer) for a, b in zip(*shown, strict=True)]
            return torch.stack([error.square().mean() for error in errors]).mean()


def tensor_l1(restored: Tensor, truth: Tensor, gradients: Tensor, volumes: int) -> Tensor:
    """Mean absolute error of the nine elements of the diffusion tensor, in 1e-3 mm2/s.

    The tensor of a point is the least squares fit to the logarithms of its signals (Basser et al. 1994), which is
    linear; so the error of the tensor is the fit to the errors of the logarithms, whatever units the signals of each
    volume are in. Signals below `SIGNAL_FLOOR` count as that, and are not moved by this term.

    Parameters
    ----------
    restored, truth : Tensor, (N, Q)
        Each `volumes` that follow each other show one place.
    gradients : Tensor, (N, 4)
        b-values in ms/um2 and unit directions.
    volumes : int
        A b0 and six weighted ones at least, whose directions determine a tensor.

    Returns
    -------
    Tensor, ()
    """
    with torch.autocast(restored.device.type, enabled=False):
        error = restored.float().clamp(min=SIGNAL_FLOOR).log() - truth.float().clamp(min=SIGNAL_FLOOR).log()
        elements = _tensor_fit(gradients.float().unflatten(0, (-1, volumes))) @ error.unflatten(0, (-1, volumes))
        diagonal, others = elements.abs().split(3, dim=1)
        return (diagonal.sum(dim=1) + 2 * others.sum(dim=1)).mean() / 9


def _tensor_fit(gradients: Tensor) -> Tensor:
    """From logarithms of signals to Dxx, Dyy, Dzz, Dxy, Dxz and Dyz: (P, V, 4) to (P, 6, V)."""
    b, x, y, z = gradients.double().unbind(dim=-1)
    columns = [x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    design = torch.stack([*(-b * column for column in columns), torch.ones_like(b)], dim=-1)
    return torch.linalg.pinv(design)[:, :6].float()


def loss_terms(
    restored: Tensor,
    truth: Tensor,
    grid: Grid | None,
    weights: Loss,
    *,
    perceptual: PerceptualLoss | None = None,
    gradients: Tensor | None = None,
    volumes: int = 0,
) -> dict[str, Tensor]:
    """The terms that have a weight, by their names, and their weighted sum as "loss".

    Parameters
    ----------
    restored, truth : Tensor, (N, Q)
    grid : tuple of int, (3,), optional
        Voxels per axis of the patches; needed for the terms "fourier", "ssim" and "perceptual" only.
    weights : Loss
    perceptual : PerceptualLoss, optional
        Needed for the term of its name only.
    gradients : Tensor, (N, 4), optional
        See `tensor_l1`; needed for the term "tensor" only.
    volumes : int
        See `tensor_l1`.

    Raises
    ------
    TrainingDataError
        If a term is asked for without what it needs.
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
    if perceptual is not None and grid is not None:
        terms["perceptual"] = perceptual(restored, truth, grid)
    if weights.tensor:
        if gradients is None:
            raise TrainingDataError(where="[loss]", problem="the tensor term needs patches with their gradients")
        terms["tensor"] = tensor_l1(restored, truth, gradients, volumes)
    total = torch.stack([weights.weight(name) * term for name, term in terms.items()]).sum()
    return {**terms, "loss": total}

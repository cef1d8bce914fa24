"""How far a restored patch is from the true one."""

import math
from typing import Literal

import torch
from torch import Tensor

from bids_sr.errors import TrainingDataError
from bids_sr.models.grid import fine_shape
from bids_sr.training.settings import Loss

Grid = tuple[int, int, int]


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
    problem = "the fourier term needs whole patches of one scale: points = 0"
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


def loss_terms(restored: Tensor, truth: Tensor, grid: Grid | None, weights: Loss) -> dict[str, Tensor]:
    """The terms that have a weight, by their names, and their weighted sum as "loss".

    Parameters
    ----------
    restored, truth : Tensor, (N, Q)
    grid : tuple of int, (3,), optional
        Voxels per axis of the patches; needed for the term "fourier" only.
    weights : Loss

    Raises
    ------
    TrainingDataError
        If the term "fourier" is asked for without whole patches.
    """
    error = restored.float() - truth
    terms = {"l1": error.abs().mean()} if weights.l1 else {}
    if weights.l2:
        terms["l2"] = error.square().mean()
    if weights.fourier:
        if grid is None or math.prod(grid) != truth.shape[1]:
            raise TrainingDataError(where="[loss]", problem="the fourier term needs whole patches: points = 0")
        terms["fourier"] = fourier_l1(restored, truth, grid, weights.fourier_norm)
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return {**terms, "loss": total}

"""A scan on a finer grid: each volume is encoded once on the brain's box, then asked for voxels inside the brain."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.normalization import shell_context
from bids_sr.errors import ScaleTooLargeError
from bids_sr.geometry import Grid, cell_in, points_in, sizes_text
from bids_sr.models.base import RestorationModel
from bids_sr.models.interpolation import cubic_on_grid
from bids_sr.models.registry import ModelCard

#: Acquired voxels by which the mask grows before it is restored: the change to interpolation lies outside the brain.
GROWTH = 2
#: Acquired voxels encoded around what is restored. What lies further away changes a value in the brain, two voxels
#: further inside, by less than 1e-4 of the range (the light model: 8e-5; with 4 voxels 6e-4, with 8 voxels 3e-6).
HALO = 6
#: Queries at once: few enough that their activations stay in the processor's cache.
CHUNK = 4096


@dataclass(frozen=True)
class RestorationPlan:
    """What is computed where; the same for all volumes of a series.

    Attributes
    ----------
    box : tuple of slice, (3,)
        Part of the acquired grid that is encoded.
    voxels : ndarray of bool
        On the target grid: restored by the model; the others are interpolated.
    points : Tensor, (Q, 3)
        Where they lie, in voxel coordinates of the box.
    cell : Tensor, (3,)
        Size of a target voxel in acquired voxels.
    """

    box: tuple[slice, slice, slice]
    voxels: NDArray[np.bool_]
    points: Tensor
    cell: Tensor


def check_scale(source: Grid, target: Grid, card: ModelCard, name: str) -> None:
    """Refuse a magnification that the model was not made for, a rounding of the grid apart.

    Raises
    ------
    ScaleTooLargeError
        `name` tells which scan.
    """
    scale = float((1 / cell_in(source, target)).max())
    if scale > card.scale_range[1] * 1.02:
        raise ScaleTooLargeError(
            dwi=name,
            asked=sizes_text(target.voxel_sizes),
            scale=f"{scale:.2f}",
            acquired=sizes_text(source.voxel_sizes),
            model=card.name,
            limit=f"{card.scale_range[1]:g}",
        )


def restore_mask(mask: NDArray[np.bool_], source: Grid, target: Grid) -> NDArray[np.bool_]:
    """A mask on the acquired grid, (x, y, z), carried to the target grid by the nearest voxel."""
    result = np.zeros(target.shape, bool)
    for index in range(target.shape[0]):
        plane = np.indices((1, *target.shape[1:])).reshape(3, -1).T + np.array([index, 0, 0])
        nearest = np.floor(points_in(source, target, plane) + 0.5).astype(int)
        inside = np.all((nearest >= 0) & (nearest < mask.shape), axis=1)
        result[index].reshape(-1)[inside] = mask[tuple(nearest[inside].T)]
    return result


def plan_restoration(mask: NDArray[np.bool_], source: Grid, target: Grid) -> RestorationPlan:
    """Decide what is encoded and what is asked for, from the brain mask, (x, y, z), and the two grids."""
    grown = ndimage.binary_dilation(mask, iterations=GROWTH)
    voxels = restore_mask(grown, source, target)
    inside = np.argwhere(grown)
    low = np.maximum(inside.min(axis=0) - HALO, 0)
    high = np.minimum(inside.max(axis=0) + 1 + HALO, mask.shape)
    points = points_in(source, target, np.argwhere(voxels)) - low
    return RestorationPlan(
        (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])),
        voxels,
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(cell_in(source, target).astype(np.float32)),
    )


def restore_volumes(
    data: Series,
    bvals: NDArray[np.float64],
    source: Grid,
    target: Grid,
    mask: NDArray[np.bool_],
    model: RestorationModel,
    *,
    b0_threshold: float,
    device: torch.device,
) -> Iterator[NDArray[np.float32]]:
    """Restore a series volume by volume.

    Parameters
    ----------
    data : array or array proxy, (x, y, z, n)
        The scan; one volume is read at a time, twice in all.
    bvals : ndarray, (n,)
        b-values in s/mm2.
    source, target : Grid
        Where it was acquired and where it is wanted; any two grids.
    mask : ndarray of bool, (x, y, z)
        The brain. Outside it, and two voxels around it, the result is interpolated by cubic B-splines.
    model : RestorationModel
    b0_threshold : float
        Largest b-value, in s/mm2, that counts as b0.
    device : torch.device

    Yields
    ------
    volume : ndarray, target.shape, float32
        In the units of the scan, never negative; in the order of the series.
    """
    context = shell_context(data, bvals, mask, b0_threshold)
    plan = plan_restoration(mask, source, target)
    for index in range(data.shape[3]):
        volume = np.asarray(data[..., index], dtype=np.float32)
        result = cubic_on_grid(volume, source, target)
        channels = context.channels(volume, index)[(slice(None), *plan.box)]
        result[plan.voxels] = restore_points(model, channels, plan.points, plan.cell, device) * context.level(index)
        yield np.maximum(result, 0, out=result)


@torch.inference_mode()
def restore_points(
    model: RestorationModel, channels: NDArray[np.float32], points: Tensor, cell: Tensor, device: torch.device
) -> NDArray[np.float32]:
    """Encode one volume, (C, h, w, d), and ask for its values at points, (Q, 3): (Q,)."""
    encoded = model.encode(torch.from_numpy(channels)[None].to(device))
    there = cell.to(device)
    values = [model.query(encoded, part.to(device), there)[0].cpu() for part in points.split(CHUNK)]
    return torch.cat(values).numpy()

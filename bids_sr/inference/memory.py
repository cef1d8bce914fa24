"""What a restoration needs, told from the image header before it starts."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bids_sr.models.base import Lattice
from bids_sr.models.fitting import FIT_RATE
from bids_sr.models.grid import GridNetwork, working_grid
from bids_sr.models.registry import FITTED_TO_SCAN, INTERPOLATORS, ModelCard, build_fittable, build_model
from bids_sr.models.slabs import Sliceable, plan_slabs

Shape = tuple[int, int, int]

#: Multiply-adds per second and thread that the networks reach on one AVX2 core; dry runs state times on this basis.
RATE_PER_THREAD = 3.5e10
#: Share of a field of view that brain masks fill, and share that their boxes fill, with the margins that are encoded.
MASK_SHARE, BOX_SHARE = 0.3, 0.75
#: Python, torch and the libraries beside them, in GB.
PROGRAM_GB = 0.6
#: What an interpolation at a point takes, in multiply-adds that take as long.
INTERPOLATION = 3e4


@dataclass(frozen=True)
class Estimate:
    """Peak memory in GB (1024^3 bytes) and duration in seconds of restoring one series."""

    peak_gb: float
    seconds: float


@dataclass(frozen=True)
class Work:
    """Multiply-adds of restoring one volume, values alive at once while it is encoded, and multiply-adds of a fit."""

    operations: float
    values: float
    fit: float = 0.0


def estimate(source_shape: Shape, n_volumes: int, target_shape: Shape, card: ModelCard, threads: int = 1) -> Estimate:
    """Memory and time of `restore_volumes`.

    Parameters
    ----------
    source_shape, target_shape : tuple of int, (3,)
        The two grids.
    n_volumes : int
        Volumes in the series; memory does not depend on them.
    card : ModelCard
    threads : int
        Processor threads.
    """
    acquired, wanted = float(np.prod(source_shape)), float(np.prod(target_shape))
    queries = wanted * MASK_SHARE
    cell = (source_shape[0] / target_shape[0], source_shape[1] / target_shape[1], source_shape[2] / target_shape[2])
    work = _work(_box(source_shape), cell, queries, card)
    # Acquired grid: shell means, a volume, channels. Target grid: result and interpolation steps (float32), and the
    # restored points with their voxel indices (int64) and coordinates (float64, float32).
    arrays = acquired * 4 * 16 + wanted * 4 * 4 + queries * (24 + 24 + 12 + 4)
    if card.guided:
        # The T1w's parts of the acquired voxels, being made and cropped; the T1w on the target grid, padded, while it
        # is smoothed and masked; the restored voxels' places in it (int64).
        arrays += acquired * 4 * 8 * 3 + wanted * 4 * 4 + queries * 8
    seconds = n_volumes * (work.operations / (RATE_PER_THREAD * threads) + wanted * 3e-7)
    seconds += work.fit / (FIT_RATE * threads)
    return Estimate(PROGRAM_GB + (arrays + work.values * 4) / 1024**3, seconds)


def _box(shape: Shape) -> Shape:
    """The part of a grid that is encoded."""
    height, width, depth = np.ceil(np.multiply(shape, BOX_SHARE ** (1 / 3))).astype(int).tolist()
    return height, width, depth


def _work(box: Shape, cell: tuple[float, float, float], queries: float, card: ModelCard) -> Work:
    """What it takes to encode a box and to answer queries for voxels that span `cell`, (3,), of its voxels."""
    encoded = float(np.prod(box))
    if card.architecture in INTERPOLATORS:
        return Work(queries * INTERPOLATION, encoded * 4)
    if card.architecture in FITTED_TO_SCAN:
        cost = build_fittable(card).cost(box, cell, len(card.inputs))
        return Work(cost.operations + queries * INTERPOLATION, cost.values, cost.fit_operations)
    # On this device a network has a shape but no numbers.
    with torch.device("meta"):
        model = build_model(card.architecture, card.arguments, len(card.inputs))
    if isinstance(model, GridNetwork):
        work = _grid_work(model, box, cell, len(card.inputs))
        return Work(work.operations + queries * INTERPOLATION, work.values)
    per_query = multiply_adds(model.decoder) + (multiply_adds(model.filter) if model.filter is not None else 0)
    computed, alive = _in_slabs(model.encoder, box)
    # Where slabs are put together, what is kept is there twice.
    kept = encoded * model.kept * (2 if computed > encoded else 1)
    return Work(computed * multiply_adds(model.encoder) + queries * per_query, alive * model.encoder.live + kept)


def _in_slabs(network: Sliceable, shape: Shape) -> tuple[float, float]:
    """Voxels that a network computes on a grid, surroundings of its slabs included, and those of the largest slab."""
    slabs = [slab.high - slab.low for slab in plan_slabs(shape, network)]
    plane = float(np.prod(shape)) / max(shape)
    return sum(slabs) * plane, max(slabs) * plane


def _grid_work(model: GridNetwork, source_box: Shape, cell: tuple[float, float, float], n_channels: int) -> Work:
    """What it takes to run a network on the fine voxels of a box, slab by slab, surroundings of the slabs included."""
    first = ((cell[0] - 1) / 2, (cell[1] - 1) / 2, (cell[2] - 1) / 2)
    _, fine = working_grid(source_box, Lattice(first, cell), model.scale)
    computed, alive = _in_slabs(model.network.sliced, fine)
    # The interpolated channels, one of them twice, the result in parts and whole; later its coefficients (float64).
    kept = float(np.prod(fine)) * (n_channels + 3)
    operations = computed * multiply_adds(model.network) * model.network.density
    return Work(operations, alive * model.network.sliced.live + kept)


def multiply_adds(module: nn.Module) -> float:
    """Multiply-adds per voxel or query: each weight of a convolution or of a linear layer is used once."""
    return float(sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1))

"""Convolutional networks on volumes that are too large for one pass: slab by slab, with the same result."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: Values that a slab may hold while a network runs: 2 GB of them.
SLAB_VALUES = 2**29


class Sliceable(Protocol):
    """A network from volumes, (N, C, h, w, d), to volumes on the same grid.

    Attributes
    ----------
    radius : int
        How many voxels around a voxel can change its result.
    live : int
        Values per voxel that are held at once when it runs without gradients.
    alignment : int
        A part of a volume gives what the volume gives if it begins at a multiple of this along each axis.
    """

    radius: int
    live: int
    alignment: int

    def __call__(self, volumes: Tensor) -> Tensor:
        """What the network gives, (N, F, h, w, d)."""
        ...


@dataclass(frozen=True)
class Slab:
    """Planes `start` to `stop` of a result, and planes `low` to `high` of the input that they depend on."""

    start: int
    stop: int
    low: int
    high: int


def plan_slabs(shape: tuple[int, ...], network: Sliceable, budget: int | None = None) -> list[Slab]:
    """Slabs along the longest axis of a grid, each with as much around it as the network sees.

    They hold at most `budget` values (`SLAB_VALUES`), unless half of a slab would then be its surroundings.
    """
    length, step = max(shape), network.alignment
    fitting = int((budget or SLAB_VALUES) / (network.live * math.prod(shape) / length))
    around = 2 * network.radius + step - 1
    thickness = length if fitting >= length else max(fitting - around, 2 * network.radius)
    return [
        Slab(start, stop, max(0, start - network.radius) // step * step, min(length, stop + network.radius))
        for start in range(0, length, thickness)
        for stop in [min(length, start + thickness)]
    ]


def run_in_slabs(network: Sliceable, volumes: Tensor) -> Tensor:
    """What the network gives of volumes, (N, C, h, w, d), as one pass would, with the memory of a slab.

    Where a GPU has less than that, the slabs are made smaller as far as they can be.
    """
    shape, budget = (volumes.shape[2], volumes.shape[3], volumes.shape[4]), SLAB_VALUES
    while True:
        slabs = plan_slabs(shape, network, budget)
        try:
            return _put_together(network, volumes, slabs, 2 + shape.index(max(shape)))
        except torch.cuda.OutOfMemoryError:
            while budget > 1 and plan_slabs(shape, network, budget) == slabs:
                budget //= 2
            if budget == 1:
                raise


def _put_together(network: Sliceable, volumes: Tensor, slabs: list[Slab], axis: int) -> Tensor:
    """What the network gives of slabs along an axis of volumes, as one."""
    parts = []
    for slab in slabs:
        part = volumes.narrow(axis, slab.low, slab.high - slab.low)
        result = network(part.contiguous(memory_format=torch.channels_last_3d))
        if len(slabs) == 1:
            return result
        # A copy, so that the memory of the surroundings is free again.
        parts.append(result.narrow(axis, slab.start - slab.low, slab.stop - slab.start).clone())
    return torch.cat(parts, dim=axis)

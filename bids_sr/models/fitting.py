"""Models that learn from the very scan that they are to restore: what they are shown of it, and what they give."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_sr.dwi.t1w import T1wImage
from bids_sr.geometry import Grid
from bids_sr.models.base import Encoded, Lattice, RestorationModel
from bids_sr.models.interpolation import query_splines

Float = NDArray[np.float32]
Shape = tuple[int, int, int]

#: Multiply-adds per second that fits reach on one AVX2 core: what turns a budget of time into a number of steps, so
#: that the result does not depend on how busy the computer is.
FIT_RATE = 2.5e10
#: A step of a fit computes the network, and the gradients by its inputs and by its weights.
PASSES = 3
#: What a step takes beside its multiply-adds, in multiply-adds that take as long (measured: 6 ms).
STEP_OVERHEAD = 5e7
#: Values of a scan that a fit keeps in memory at most.
MOST_VALUES = 5e7


@dataclass(frozen=True)
class Scan:
    """What a model may learn from: the part of a series that it will be given to restore.

    Attributes
    ----------
    channels : callable
        Gives the input channels of volume i, (C, h, w, d), as the model will be given them.
    shells : ndarray of int, (n,)
        Shell of each volume, b0 being shell 0.
    mask : ndarray of bool, (h, w, d)
        The brain.
    grid : Grid
        Where that part lies in the world.
    lattice : Lattice
        What will be asked for, in voxels of that part.
    t1w : T1wImage or None
        In the world of the series, for a model that it guides.
    """

    channels: Callable[[int], Float]
    shells: NDArray[np.int64]
    mask: NDArray[np.bool_]
    grid: Grid
    lattice: Lattice
    t1w: T1wImage | None = None

    @property
    def wanted_sizes(self) -> NDArray[np.float64]:
        """Edge lengths of a target voxel in mm, (3,)."""
        return self.grid.voxel_sizes * np.array(self.lattice.cell)


@dataclass(frozen=True)
class Learning:
    """How a model learns.

    Attributes
    ----------
    material : tuple of ndarray
        All that it learns from.
    n_steps : int
        At least 1.
    loss : callable
        The loss of a step, whose examples are drawn by the generator.
    rate : float
        Of learning, at the first step; it falls to zero as a cosine does.
    """

    material: tuple[NDArray[Any], ...]
    n_steps: int
    loss: Callable[[np.random.Generator], Tensor]
    rate: float


@dataclass(frozen=True)
class Fit:
    """A fit that is about to begin.

    Attributes
    ----------
    model : RestorationModel
        What will restore; a `FittedModel`, if there is something to learn.
    sentence : str
        What it learns and from what, or why it cannot, for the report.
    learning : Learning or None
        None where there is nothing to learn.
    """

    model: RestorationModel
    sentence: str
    learning: Learning | None = None


@dataclass(frozen=True)
class Cost:
    """What a model takes.

    Attributes
    ----------
    fit_operations : float
        Multiply-adds of the fit, of which `FIT_RATE` are done in a second.
    operations : float
        Multiply-adds of restoring a volume, queries not counted.
    values : float
        Values alive at once.
    """

    fit_operations: float
    operations: float
    values: float


class FittableModel(ABC):
    """A model that has nothing learned yet: before it restores a series, it is fitted to it."""

    radius: int
    """How many voxels around a point can change its value, once it is fitted."""

    @abstractmethod
    def begin_fit(self, scan: Scan, device: torch.device) -> Fit:
        """A fit to a scan; random numbers of torch are already seeded."""

    @abstractmethod
    def cost(self, box: Shape, cell: tuple[float, float, float], n_channels: int) -> Cost:
        """What it takes to fit and restore a box of acquired voxels, of which a target voxel spans `cell`, (3,)."""


class FittedModel(nn.Module):
    """A `RestorationModel` that restores voxels side by side, between which is interpolated.

    Parameters
    ----------
    radius : int
    """

    def __init__(self, radius: int) -> None:
        super().__init__()
        self.radius = radius

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Read volumes, (N, C, h, w, d), into spline coefficients of restored voxels; see `RestorationModel`."""
        raise NotImplementedError

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None = None) -> Tensor:
        """Spline values of the restored voxels, (N, Q), at points, (Q, 3); the rest plays no part."""
        nodes = encoded.lattice or Lattice((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        origin, step = (points.new_tensor(values) for values in (nodes.origin, nodes.cell))
        return query_splines(encoded, (points - origin) / step)


def steps_within(seconds: float, operations: float) -> int:
    """Steps of so many multiply-adds each that one processor core computes in a time; one at least."""
    return max(1, int(seconds * FIT_RATE / (PASSES * (operations + STEP_OVERHEAD))))


def spread_volumes(shells: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many volumes, spread evenly over each shell, in order; every shell has one at least.

    Parameters
    ----------
    shells : ndarray of int, (n,)
        Shell of each volume.
    most : int
    """
    kinds, counts = np.unique(shells, return_counts=True)
    shares = np.maximum(1, counts * min(1.0, most / len(shells))).astype(int)
    chosen = [
        np.flatnonzero(shells == kind)[np.arange(share) * count // share]
        for kind, count, share in zip(kinds, counts, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen))

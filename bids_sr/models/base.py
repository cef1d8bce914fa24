"""The one question every restoration model answers: values at points."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from bids_sr.errors import SignalError

#: Volumes that a model may be given, by the names that cards and presets use.
INPUTS = ("volume", "b0", "shell", "t1w")
#: Ways of putting signals to a model.
NORMALIZATIONS = ("shell", "b0")
#: Parts of an encoded voxel, two along each axis, in which a guided model is shown the T1w: so many more channels.
SUBPOSITIONS = 8
#: Target voxels around a point, itself included, at which a guided model is shown the T1w.
NEIGHBOURS = 27
#: What the T1w tells at a point: its values at those neighbours, (i, j, k) in -1, 0, 1 with the last fastest; and 1.
#: Where there is no T1w all are 0.
GUIDE_CHANNELS = NEIGHBOURS + 1


@dataclass(frozen=True)
class Signal:
    """What a model is given of a scan.

    Attributes
    ----------
    inputs : tuple of str
        Names of its input channels, in order; the volume to restore comes first. See `INPUTS`.
    normalization : {"shell", "b0"}
        Divided by a level per shell, or by the mean b0.
    guided : bool
        The T1w guides the model at its own resolution: `SUBPOSITIONS` channels of it follow the inputs, and points come
        with a guide, see `GuidedModel`.

    Raises
    ------
    SignalError
        If the volume is not first, or a name is unknown or given twice; or if the T1w is to guide the model and is
        among the inputs.
    """

    inputs: tuple[str, ...] = ("volume", "b0", "shell")
    normalization: str = "shell"
    guided: bool = False

    def __post_init__(self) -> None:
        """Refuse names that mean nothing."""
        if self.inputs[:1] != ("volume",):
            raise SignalError(problem="the first of the inputs is the volume to restore, named volume")
        if len(set(self.inputs)) < len(self.inputs):
            raise SignalError(problem="an input is named twice")
        for name in self.inputs:
            if name not in INPUTS:
                raise SignalError(problem=f"{name} is not a known input; known: {', '.join(INPUTS)}")
        if self.guided and "t1w" in self.inputs:
            raise SignalError(problem="a model that the T1w guides does not take it as an input too")
        if self.normalization not in NORMALIZATIONS:
            known = ", ".join(NORMALIZATIONS)
            raise SignalError(problem=f"{self.normalization} is not a known normalization; known: {known}")


@dataclass(frozen=True)
class Lattice:
    """A regular lattice of points, origin + i * cell along each axis, in voxels of the encoded grid.

    Attributes
    ----------
    origin : tuple of float, (3,)
        One point of the lattice.
    cell : tuple of float, (3,)
        Distance of neighbours, which is the size of a target voxel.
    """

    origin: tuple[float, float, float]
    cell: tuple[float, float, float]


@dataclass(frozen=True)
class Encoded:
    """A volume that has been read once and can be asked many times.

    Attributes
    ----------
    rows : Tensor, (N, h * w * d, F)
        Features of each voxel, last grid axis fastest.
    shape : tuple of int, (3,)
        The grid of the rows (h, w, d).
    lattice : Lattice, optional
        Where that grid lies: `origin` is its first voxel. The encoded grid itself if not given.
    """

    rows: Tensor
    shape: tuple[int, int, int]
    lattice: Lattice | None = None


def grid_shape(channels: Tensor) -> tuple[int, int, int]:
    """The grid of volumes, (N, C, h, w, d)."""
    height, width, depth = channels.shape[2:]
    return height, width, depth


class RestorationModel(Protocol):
    """What the workflow, the benchmark and the tests know of a model."""

    radius: int
    """How many voxels around a point can change its value."""

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Read volumes, (N, C, h, w, d); channel 0 is the one to restore, the lattice is what will be asked for."""
        ...

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Intensities, (N, Q), at points, (Q, 3), in encoded voxels; a target voxel spans `cell`, (3,), of them."""
        ...


class GuidedModel(RestorationModel, Protocol):
    """A model that the T1w may guide; without it, it restores like any other."""

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None = None) -> Tensor:
        """Intensities as of any model; `guide`, (Q, GUIDE_CHANNELS), is what the T1w tells at the points."""
        ...


class UncertainModel(GuidedModel, Protocol):
    """A guided model that tells how uncertain it is."""

    def query_with_deviations(
        self, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Intensities as of any model, and their standard deviations, (N, Q) each.

        A deviation is that of what an acquisition with these voxels would have measured, its noise included, if it is
        like the scans that the model learned from.
        """
        ...


class TrainableModel(nn.Module, ABC):
    """A `RestorationModel` with weights to learn."""

    radius: int

    @abstractmethod
    def forward(self, channels: Tensor, points: Tensor, cell: Tensor) -> Tensor:
        """Intensities of a batch of patches.

        Parameters
        ----------
        channels : Tensor, (N, C, p, p, p)
        points : Tensor, (N, Q, 3)
            In voxels of each patch.
        cell : Tensor, (N, 3)
            Size of a target voxel in voxels of the patch.

        Returns
        -------
        intensities : Tensor, (N, Q)
        """

    def compared(
        self, channels: Tensor, points: Tensor, cell: Tensor, truth: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the loss compares in training, (N, Q) each: what the model gives of a batch, and what it should give.

        They are the intensities and the true ones, (N, Q), unless a model learns something else to restore them by.
        """
        given = (channels, points, cell) if guide is None else (channels, points, cell, guide)
        return self(*given), truth

    @abstractmethod
    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """See `RestorationModel`."""

    @abstractmethod
    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """See `RestorationModel`."""

"""The one question every restoration model answers: values at points."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """A volume that has been read once and can be asked many times.

    Attributes
    ----------
    rows : Tensor, (N, h * w * d, F)
        Features of each voxel, last grid axis fastest.
    shape : tuple of int, (3,)
        The encoded grid (h, w, d).
    """

    rows: Tensor
    shape: tuple[int, int, int]


class RestorationModel(Protocol):
    """What the workflow, the benchmark and the tests know of a model."""

    radius: int
    """How many voxels around a point can change its value."""

    def encode(self, channels: Tensor) -> Encoded:
        """Read volumes, (N, C, h, w, d); channel 0 is the one to restore."""
        ...

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Intensities, (N, Q), at points, (Q, 3), in encoded voxels; a target voxel spans `cell`, (3,), of them."""
        ...

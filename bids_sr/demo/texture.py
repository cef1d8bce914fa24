"""Smooth random fields in the world: the same field on any grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bids_sr.degradation import gaussian_sampling
from bids_sr.geometry import Grid, apply_along_axes

#: Standard deviations of the kernel, in steps of the lattice, that make the lattice invisible.
_STEPS = 2.0


class Field(Protocol):
    """A function of the world."""

    def on(self, grid: Grid) -> NDArray[np.float32]:
        """Its values, (x, y, z), at the voxels of a grid with the axes of the world."""
        ...


@dataclass(frozen=True)
class SmoothNoise:
    """White noise on a lattice, seen through a Gaussian kernel: a smooth random function of the world.

    Attributes
    ----------
    lattice : ndarray, float32, (i, j, k)
        The white noise.
    origin : ndarray, (3,)
        World coordinates of its first point in mm.
    smoothness : float
        Standard deviation of the kernel in mm, twice the step of the lattice.
    """

    lattice: NDArray[np.float32]
    origin: NDArray[np.float64]
    smoothness: float

    @classmethod
    def draw(cls, grid: Grid, smoothness: float, generator: np.random.Generator) -> SmoothNoise:
        """A new field that covers `grid`, whose axes are the world's in any order of storage."""
        step = smoothness / _STEPS
        corners = np.stack([grid.affine[:3, 3], grid.affine[:3, :3] @ np.subtract(grid.shape, 1) + grid.affine[:3, 3]])
        margin = 4 * smoothness
        shape = np.ceil((np.ptp(corners, axis=0) + 2 * margin) / step).astype(int)
        lattice = generator.standard_normal(tuple(shape), dtype=np.float32)
        return cls(lattice, corners.min(axis=0) - margin, smoothness)

    def on(self, grid: Grid) -> NDArray[np.float32]:
        """The field, (x, y, z), on a grid with the axes of the world; mean 0, variance 1 over many draws."""
        step = self.smoothness / _STEPS
        fwhm = _STEPS * np.sqrt(8 * np.log(2))
        matrices = []
        for axis in range(3):
            world = np.arange(grid.shape[axis]) * grid.affine[axis, axis] + grid.affine[axis, 3]
            matrices.append(gaussian_sampling(self.lattice.shape[axis], (world - self.origin[axis]) / step, fwhm))
        # Averaging over a Gaussian kernel leaves 1 / (2 sqrt(pi) sigma) of the variance per axis.
        deviation = (2 * np.sqrt(np.pi) * _STEPS) ** -1.5
        return apply_along_axes(self.lattice, matrices) / np.float32(deviation)

"""Voxel grids: where the voxels of an image lie in the world, and which points a target grid asks for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bids_sr.errors import CoarserGridError


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid in scanner space.

    Attributes
    ----------
    shape : tuple of int, (3,)
        Voxels per axis.
    affine : ndarray, (4, 4)
        Voxel index to world coordinates in mm (RAS+). Index i is the CENTRE of the cell [i - 1/2, i + 1/2].
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @classmethod
    def of(cls, image: SpatialImage) -> "Grid":
        """The grid of an image's first three axes."""
        shape = tuple(int(n) for n in image.shape[:3])
        return cls((shape[0], shape[1], shape[2]), np.asarray(image.affine, dtype=np.float64))

    @property
    def voxel_sizes(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel in mm, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def resized(self, shape: tuple[int, int, int]) -> "Grid":
        """The grid of `shape` voxels that fills the same box: same corners, same axes."""
        return self._centred(shape, np.divide(self.shape, shape))

    def scaled(self, scale: NDArray[np.float64]) -> "Grid":
        """The grid of the same box with `scale` times as many voxels per axis, (3,), rounded to whole voxels."""
        return self.resized(_whole_voxels(np.multiply(self.shape, scale)))

    def at_resolution(self, millimetres: NDArray[np.float64]) -> "Grid":
        """The grid of exactly `millimetres` per voxel, (3,), same centre; its box differs by less than a voxel."""
        ratio = np.asarray(millimetres) / self.voxel_sizes
        return self._centred(_whole_voxels(np.divide(self.shape, ratio)), ratio)

    def cropped(self, start: NDArray[np.int64], shape: tuple[int, int, int]) -> "Grid":
        """The part of the grid that begins at voxel `start`, (3,)."""
        shift = np.eye(4)
        shift[:3, 3] = start
        return Grid(shape, self.affine @ shift)

    @property
    def canonical(self) -> "Grid":
        """The same voxels, their axes reordered and flipped to be closest to R, A and S."""
        stored_axes = np.argsort(io_orientation(self.affine)[:, 0])
        shape = (self.shape[stored_axes[0]], self.shape[stored_axes[1]], self.shape[stored_axes[2]])
        return Grid(shape, canonical_affine(self.affine, self.shape))

    def _centred(self, shape: tuple[int, int, int], ratio: NDArray[np.float64]) -> "Grid":
        """The grid of `shape` voxels, each `ratio` of ours wide, whose box has the same centre."""
        to_ours = np.diag([*ratio, 1.0])
        to_ours[:3, 3] = (np.subtract(self.shape, 1) - ratio * np.subtract(shape, 1)) / 2
        return Grid(shape, self.affine @ to_ours)


def to_canonical(volume: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """The volume, (x, y, z, ...), with its axes reordered and flipped to be closest to R, A, S; no value changes."""
    return np.ascontiguousarray(apply_orientation(volume, io_orientation(affine)))


def from_canonical(volume: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """What `to_canonical` made of an image with this affine, as it was stored."""
    return np.ascontiguousarray(apply_orientation(volume, ornt_transform(axcodes2ornt("RAS"), io_orientation(affine))))


def canonical_affine(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The affine of `to_canonical` of a volume of this shape."""
    return affine @ inv_ornt_aff(io_orientation(affine), shape[:3])


def _whole_voxels(counts: NDArray[np.float64]) -> tuple[int, int, int]:
    """Counts rounded to at least one voxel; the small term rounds 40.5 up whatever the rounding of the header."""
    whole = np.maximum(1, np.rint(counts + 1e-4)).astype(int)
    return int(whole[0]), int(whole[1]), int(whole[2])


def target_grid(
    source: Grid, resolution: tuple[float, float, float] | None, scale: tuple[float, float, float] | None, name: str
) -> Grid:
    """The grid that the user asked for, by voxel size in mm (`resolution`) or else by `scale`.

    Raises
    ------
    CoarserGridError
        If a voxel would be larger than acquired, by more than a thousandth; `name` tells which scan.
    """
    if resolution is None:
        return source.scaled(np.array(scale))
    if np.any(np.array(resolution) > source.voxel_sizes * 1.001):
        raise CoarserGridError(
            dwi=name, asked=sizes_text(np.array(resolution)), acquired=sizes_text(source.voxel_sizes)
        )
    return source.at_resolution(np.array(resolution))


def sizes_text(millimetres: NDArray[np.float64]) -> str:
    """Voxel sizes as people write them."""
    return " x ".join(f"{size:.4g}" for size in millimetres)


def points_in(source: Grid, target: Grid, voxels: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Centres of the target's voxels as voxel coordinates of the source.

    Parameters
    ----------
    voxels : ndarray of int, (Q, 3), optional
        The target's voxels; all of them, last axis fastest, if not given.

    Returns
    -------
    points : ndarray, (Q, 3)
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    index = np.indices(target.shape).reshape(3, -1).T if voxels is None else voxels
    return index @ to_source[:3, :3].T + to_source[:3, 3]


def cell_in(source: Grid, target: Grid) -> NDArray[np.float64]:
    """How many source voxels a target voxel spans along each source axis, (3,)."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    return np.linalg.norm(to_source[:3, :3], axis=1)


def axis_aligned(source: Grid, target: Grid) -> bool:
    """Whether the axes of both grids point the same way, to a thousandth of a voxel across the field of view."""
    to_source = (np.linalg.inv(source.affine) @ target.affine)[:3, :3]
    ratios = np.diag(to_source)
    drift = np.abs(to_source - np.diag(ratios)) @ np.array(target.shape)
    return bool(np.all(ratios > 0) and np.all(drift < 1e-3))


def same_grid(one: Grid, other: Grid) -> bool:
    """Whether two grids are the same, to a fiftieth of a voxel in every corner."""
    tolerance = 0.02 * float(one.voxel_sizes.min())
    return one.shape == other.shape and largest_distance(one.affine, other.affine, one.shape) <= tolerance


def largest_distance(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest distance (mm) between the places of a corner voxel of an image of this shape by two affines."""
    corners = np.stack(np.meshgrid(*[[0, n - 1] for n in shape[:3]]), axis=-1).reshape(-1, 3)
    difference = np.asarray(one) - np.asarray(other)
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def _overlap_matrix(n_source: int, n_target: int, ratio: float, offset: float) -> NDArray[np.float64]:
    """Length that target cells, `ratio` wide around `offset + i * ratio`, share with source cells: (target, source)."""
    centres = offset + ratio * np.arange(n_target)[:, None]
    cells = np.arange(n_source)[None, :]
    low = np.maximum(centres - ratio / 2, cells - 0.5)
    high = np.minimum(centres + ratio / 2, cells + 0.5)
    return np.clip(high - low, 0, None)


def overlap_average(
    data: NDArray[np.float32],
    source: Grid,
    target: Grid,
    weights: NDArray[np.floating] | NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Average data over the cells of a target grid that has the same axes.

    Parameters
    ----------
    data : ndarray, (x, y, z) or (x, y, z, n)
        Values on the source grid.
    source, target : Grid
        Same axes; sizes and positions may differ.
    weights : ndarray, (x, y, z), optional
        A mask, or weights of the source voxels.

    Returns
    -------
    averages : ndarray, float32
        On the target grid; 0 where no weight falls into a cell.

    Raises
    ------
    ValueError
        If the axes of the grids differ.
    """
    if not axis_aligned(source, target):
        raise ValueError("Averages over cells need grids with the same axes.")
    to_source = np.linalg.inv(source.affine) @ target.affine
    ratios = np.diag(to_source)[:3]
    matrices = [
        _overlap_matrix(source.shape[a], target.shape[a], ratios[a], to_source[a, 3]).astype(np.float32)
        for a in range(3)
    ]
    weight = np.ones(source.shape, np.float32) if weights is None else weights.astype(np.float32)
    expanded = weight.reshape(*source.shape, *[1] * (data.ndim - 3))
    total = apply_along_axes(data * expanded, matrices)
    share = apply_along_axes(weight, matrices).reshape(*target.shape, *[1] * (data.ndim - 3))
    return np.divide(total, share, out=np.zeros_like(total), where=share > 1e-6)


def apply_along_axes(data: NDArray[np.float32], matrices: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Apply one matrix, (n_out, n_in), along each of the first three axes."""
    for axis, matrix in enumerate(matrices):
        data = np.moveaxis(np.tensordot(matrix, data, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(data)

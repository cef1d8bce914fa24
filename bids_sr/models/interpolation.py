"""Interpolation of voxel grids: of whole grids, and behind the interface of the trained models."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bids_sr.geometry import Grid, apply_along_axes, axis_aligned, points_in
from bids_sr.models.base import Encoded, Lattice, grid_shape
from bids_sr.models.implicit import lookup, trilinear_corners
from bids_sr.splines import spline_weights

#: Points evaluated at once where grids do not share their axes; bounds the memory for their coordinates.
POINTS_AT_ONCE = 1_000_000
#: The response of the prefilter of B-splines falls below 1e-6 within this many voxels.
SPLINE_RADIUS = 12


def spline_coefficients(volume: NDArray[np.floating]) -> NDArray[np.float32]:
    """B-spline coefficients of a volume, (x, y, z), mirrored at its border (Unser 1999)."""
    return ndimage.spline_filter(volume, order=3, output=np.float64, mode="mirror").astype(np.float32)


def cubic_on_grid(volume: NDArray[np.floating], source: Grid, target: Grid) -> NDArray[np.float32]:
    """A volume, (x, y, z), on the source grid, interpolated by cubic B-splines at the voxels of the target grid.

    Where the grids share their axes the splines are separable and evaluated as three matrix products.
    """
    finite = np.nan_to_num(volume, nan=0.0, posinf=0.0, neginf=0.0)
    to_source = np.linalg.inv(source.affine) @ target.affine
    if axis_aligned(source, target):
        positions = [to_source[a, a] * np.arange(target.shape[a]) + to_source[a, 3] for a in range(3)]
        weights = [spline_weights(p, n) for p, n in zip(positions, source.shape, strict=True)]
        return apply_along_axes(finite.astype(np.float32), weights)
    coefficients = spline_coefficients(finite)
    result = np.empty(int(np.prod(target.shape)), np.float32)
    for start in range(0, len(result), POINTS_AT_ONCE):
        flat = np.arange(start, min(start + POINTS_AT_ONCE, len(result)))
        voxels = np.stack(np.unravel_index(flat, target.shape), axis=1)
        result[flat] = _spline_values(coefficients, points_in(source, target, voxels))
    return result.reshape(target.shape)


def _spline_values(coefficients: NDArray[np.float32], points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Spline at points, (Q, 3), clamped to the outermost centres."""
    clamped = np.clip(points, 0, np.subtract(coefficients.shape, 1)).T
    return ndimage.map_coordinates(coefficients, clamped, order=3, mode="mirror", prefilter=False)


def encode_splines(volumes: Tensor) -> Tensor:
    """B-spline coefficients of volumes, (N, h, w, d), as the rows of `Encoded`, (N, h * w * d, 1), on the CPU."""
    coefficients = np.stack([spline_coefficients(volume) for volume in volumes.detach().cpu().numpy()])
    return torch.from_numpy(coefficients).flatten(1)[..., None]


def query_splines(encoded: Encoded, points: Tensor) -> Tensor:
    """Spline values, (N, Q), at points, (Q, 3), in voxels of the grid of the rows; evaluated on the CPU by scipy.

    A cubic spline has 64 neighbours; scipy visits them in a half of the time that torch needs to gather them.
    """
    where = points.cpu().numpy()
    values = [_spline_values(rows.numpy().reshape(encoded.shape), where) for rows in encoded.rows]
    return torch.from_numpy(np.stack(values)).to(points)


class CubicSpline:
    """Cubic B-splines as a model: the prefilter runs once per volume."""

    radius = SPLINE_RADIUS

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """B-spline coefficients of channel 0 of (N, C, h, w, d); the lattice plays no part."""
        return Encoded(encode_splines(channels[:, 0]), grid_shape(channels))

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Spline values, (N, Q); `cell` plays no part."""
        return query_splines(encoded, points)


class Trilinear:
    """Trilinear interpolation as a model."""

    radius = 1

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Channel 0 of (N, C, h, w, d) as it is; the lattice plays no part."""
        return Encoded(channels[:, 0].flatten(1)[..., None], grid_shape(channels))

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Interpolated values, (N, Q); `cell` plays no part."""
        corners = trilinear_corners(points, encoded.shape)
        return torch.stack([lookup(rows, *corners)[:, 0] for rows in encoded.rows])

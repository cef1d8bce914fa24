"""Cubic B-spline interpolation: of whole grids, and behind the interface of the trained models."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bids_sr.geometry import Grid, apply_along_axes, axis_aligned, points_in
from bids_sr.models.base import Encoded

#: Points evaluated at once where grids do not share their axes; bounds the memory for their coordinates.
POINTS_AT_ONCE = 1_000_000


def _coefficients(volume: NDArray[np.floating]) -> NDArray[np.float32]:
    """B-spline coefficients of a volume mirrored at its border (Unser 1999)."""
    return ndimage.spline_filter(volume, order=3, output=np.float64, mode="mirror").astype(np.float32)


def _spline_matrix(positions: NDArray[np.float64], n_source: int) -> NDArray[np.float32]:
    """Weights of the coefficients of one axis at each position, (n, n_source); positions are clamped to the centres."""
    clamped = np.clip(positions, 0, n_source - 1)
    matrix = np.zeros((len(positions), n_source), np.float32)
    low = np.floor(clamped).astype(int)
    for neighbour in range(-1, 3):
        distance = np.abs(clamped - (low + neighbour))
        near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
        mirrored = _mirror(low + neighbour, n_source)
        np.add.at(matrix, (np.arange(len(positions)), mirrored), np.where(distance < 1, near, far))
    return matrix


def _mirror(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Indices reflected about the centres of the first and last voxel."""
    if n == 1:
        return np.zeros_like(index)
    period = 2 * (n - 1)
    folded = np.mod(index, period)
    return np.where(folded >= n, period - folded, folded)


def cubic_on_grid(volume: NDArray[np.floating], source: Grid, target: Grid) -> NDArray[np.float32]:
    """A volume, (x, y, z), on the source grid, interpolated by cubic B-splines at the voxels of the target grid.

    Where the grids share their axes the splines are separable and evaluated as three matrix products.
    """
    coefficients = _coefficients(np.nan_to_num(volume, nan=0.0, posinf=0.0, neginf=0.0))
    to_source = np.linalg.inv(source.affine) @ target.affine
    if axis_aligned(source, target):
        positions = [to_source[a, a] * np.arange(target.shape[a]) + to_source[a, 3] for a in range(3)]
        return apply_along_axes(
            coefficients, [_spline_matrix(p, n) for p, n in zip(positions, source.shape, strict=True)]
        )
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


class CubicSpline:
    """The spline as a model: the prefilter runs once per volume, points are evaluated on the CPU by scipy."""

    radius = 12
    """The prefilter's response falls below 1e-6 within 11 voxels."""

    def encode(self, channels: Tensor) -> Encoded:
        """B-spline coefficients of channel 0 of (N, C, h, w, d)."""
        coefficients = np.stack([_coefficients(volume) for volume in channels[:, 0].cpu().numpy()])
        height, width, depth = channels.shape[2:]
        return Encoded(torch.from_numpy(coefficients).flatten(1)[..., None], (height, width, depth))

    def query(self, encoded: Encoded, points: Tensor, cell: Tensor) -> Tensor:
        """Spline values, (N, Q); `cell` plays no part."""
        where = points.cpu().numpy()
        values = [_spline_values(rows.numpy().reshape(encoded.shape), where) for rows in encoded.rows]
        return torch.from_numpy(np.stack(values)).to(points)

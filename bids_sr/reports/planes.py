"""Slices through the brain: where they lie, which voxels they show and which piece of a picture each voxel fills.

Positions are given in the FRAME of the acquired grid: its axes reordered and flipped to be closest to R, A, S, in mm
along each axis, with zero at the centre of the first voxel after that reordering. Nothing is resampled for it, so an
oblique scan is shown along its own axes. Pictures follow the radiological convention: R (axial, coronal) or A
(sagittal) on the left, A or S on top.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates, uniform_filter

from bids_sr.geometry import canonical_affine, to_canonical

MARGIN = 6.0  # mm shown around the brain
ZOOM = 46.0  # mm, edge of the enlarged region


@dataclass(frozen=True)
class Plane:
    """A cut: the axis it is normal to, those along its columns and rows (0 R, 1 A, 2 S), the letters at its edges."""

    name: str
    normal: int
    column: int
    row: int
    left: str
    right: str
    top: str
    bottom: str


PLANES = (
    Plane("sagittal", 0, 1, 2, "A", "P", "S", "I"),
    Plane("coronal", 1, 0, 2, "R", "L", "S", "I"),
    Plane("axial", 2, 0, 1, "R", "L", "A", "P"),
)


@dataclass(frozen=True)
class Window:
    """A rectangle of a plane in mm of the frame: its lower and upper bounds along the plane's column and row axes."""

    low: tuple[float, float]
    high: tuple[float, float]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in mm."""
        return self.high[0] - self.low[0], self.high[1] - self.low[1]

    def box_of(self, low: tuple[float, float], high: tuple[float, float]) -> tuple[float, float, float, float]:
        """Where a rectangle lies in this window: left, top, width and height as fractions of it."""
        width, height = self.size
        return (
            (self.high[0] - high[0]) / width,
            (self.high[1] - high[1]) / height,
            (high[0] - low[0]) / width,
            (high[1] - low[1]) / height,
        )


@dataclass(frozen=True)
class Cut:
    """The voxels of one slice as pixels, (rows, columns) or (rows, columns, 3), and the box of the window they fill."""

    pixels: NDArray[Any]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """The axes, the centre and the window that every picture of a series shares.

    Attributes
    ----------
    affine : ndarray, (4, 4)
        Voxel of the reordered acquired grid to world coordinates in mm (RAS+).
    shape : tuple of int, (3,)
        The reordered acquired grid.
    centre : ndarray, (3,)
        Frame position of the cuts in mm: the centre of the acquired voxel next to the brain's centre of mass.
    low, high : ndarray, (3,)
        Bounds of what is shown in mm.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    centre: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def voxel_sizes(self) -> NDArray[np.float64]:
        """Edges of an acquired voxel in mm, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def window(self, plane: Plane) -> Window:
        """What is shown of a plane."""
        axes = [plane.column, plane.row]
        return Window(_pair(self.low[axes]), _pair(self.high[axes]))

    def world(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """World coordinates in mm of frame positions, (..., 3)."""
        return positions / self.voxel_sizes @ self.affine[:3, :3].T + self.affine[:3, 3]


def make_frame(affine: NDArray[np.float64], mask: NDArray[np.bool_]) -> Frame:
    """The frame of an acquired grid: cuts through the mask's centre of mass, the brain with a margin in the window."""
    canonical = canonical_affine(affine, mask.shape)
    brain = to_canonical(mask, affine)
    if not brain.any():
        brain = np.ones_like(brain)
    sizes = np.linalg.norm(canonical[:3, :3], axis=0)
    voxels = np.argwhere(brain)
    margin = np.ceil(MARGIN / sizes)
    low = np.maximum(voxels.min(axis=0) - margin, 0) - 0.5
    high = np.minimum(voxels.max(axis=0) + margin, np.subtract(brain.shape, 1)) + 0.5
    centre = np.rint(voxels.mean(axis=0))
    return Frame(canonical, _triple(brain.shape), centre * sizes, low * sizes, high * sizes)


def cut(
    frame: Frame, volume: NDArray[Any], affine: NDArray[np.float64], plane: Plane, window: Window | None = None
) -> Cut:
    """The slice of a volume, (x, y, z) or (x, y, z, c), nearest to the frame's centre, whole voxels only.

    The volume's grid may be any that shares its axes with the acquired one. Voxels at the window's edge are kept whole:
    their box then reaches beyond the window, and the page hides what is outside.
    """
    window = window or frame.window(plane)
    origin, step = placement(frame, affine, volume.shape)
    canonical = to_canonical(volume, affine)
    index = np.rint((frame.centre[plane.normal] - origin[plane.normal]) / step[plane.normal])
    slice_at = int(np.clip(index, 0, canonical.shape[plane.normal] - 1))
    # Plain indexing: numpy's take copies the whole of a flipped volume first.
    slab = canonical[(slice(None),) * plane.normal + (slice_at,)]
    axes = [plane.column, plane.row]
    (start, stop), (first, last) = (
        _span(window, side, origin[axis], step[axis], canonical.shape[axis]) for side, axis in enumerate(axes)
    )
    pixels = np.swapaxes(slab[start:stop, first:last][::-1, ::-1], 0, 1)
    low = origin[axes] + (np.array([start, first]) - 0.5) * step[axes]
    high = origin[axes] + (np.array([stop, last]) - 0.5) * step[axes]
    return Cut(pixels, window.box_of(_pair(low), _pair(high)))


def placement(
    frame: Frame, affine: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where a grid lies in the frame in mm: the centre of its first reordered voxel (3,) and its voxel's edges (3,)."""
    to_frame = np.linalg.inv(frame.affine) @ canonical_affine(affine, shape)
    return to_frame[:3, 3] * frame.voxel_sizes, np.diag(to_frame)[:3] * frame.voxel_sizes


def most_detailed(
    frame: Frame, values: NDArray[Any], mask: NDArray[np.bool_], affine: NDArray[np.float64], plane: Plane
) -> Window:
    """The square of `ZOOM` mm in a plane where the values, (x, y, z), change most inside the mask."""
    window = frame.window(plane)
    inside = cut(frame, mask, affine, plane).pixels
    picture = np.where(inside, cut(frame, values, affine, plane).pixels, 0.0)
    sizes = frame.voxel_sizes[[plane.row, plane.column]]
    pixels = np.clip(np.rint(ZOOM / sizes).astype(int), 1, picture.shape)
    # Noise changes from voxel to voxel, anatomy over a few; and values step at the mask's edge, where no anatomy does.
    smooth = gaussian_filter(picture, 1.0)
    slopes = np.stack(
        [np.gradient(smooth, axis=axis) / sizes[axis] for axis in (0, 1) if smooth.shape[axis] > 1] or [smooth]
    )
    deep = binary_erosion(inside, iterations=2)
    return _window_at(window, _best_corner(np.where(deep, np.linalg.norm(slopes, axis=0), 0.0), pixels), pixels, sizes)


def sample_plane(
    frame: Frame, plane: Plane, volume: NDArray[Any], affine: NDArray[np.float64], step: float, order: int
) -> NDArray[np.float32]:
    """Any volume, (x, y, z), on a plane of the frame: pixels of about `step` mm that fill the window, 0 outside.

    For images that do not share the acquired axes, such as the T1w. Order 0 takes the nearest voxel, order 1
    interpolates linearly.
    """
    window = frame.window(plane)
    n_columns, n_rows = (max(1, round(edge / step)) for edge in window.size)
    positions = np.empty((n_rows, n_columns, 3))
    positions[..., plane.normal] = frame.centre[plane.normal]
    positions[..., plane.column] = window.high[0] - (np.arange(n_columns) + 0.5) * window.size[0] / n_columns
    positions[..., plane.row] = (window.high[1] - (np.arange(n_rows) + 0.5) * window.size[1] / n_rows)[:, None]
    to_voxel = np.linalg.inv(affine)
    voxels = frame.world(positions) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    return map_coordinates(
        volume, np.moveaxis(voxels, -1, 0), output=np.float32, order=order, mode="constant", cval=0.0
    )


def _best_corner(energy: NDArray[np.float64], pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """First row and column of the block of `pixels` (rows, columns) with the largest sum of energy."""
    mean = uniform_filter(energy, size=tuple(pixels.tolist()), mode="constant")
    half = pixels // 2
    valid = mean[tuple(slice(h, h + n - p + 1) for h, n, p in zip(half, mean.shape, pixels, strict=True))]
    return np.array(np.unravel_index(np.argmax(valid), valid.shape))


def _window_at(
    window: Window, corner: NDArray[np.int64], pixels: NDArray[np.int64], sizes: NDArray[np.float64]
) -> Window:
    """The window of a block of acquired pixels that begins at `corner` (row, column) of the picture."""
    top, left = corner * sizes
    height, width = pixels * sizes
    high = (window.high[0] - left, window.high[1] - top)
    return Window(_pair((high[0] - width, high[1] - height)), _pair(high))


def _span(window: Window, side: int, origin: float, step: float, count: int) -> tuple[int, int]:
    """First voxel and one past the last that touch the window along one of its sides."""
    # A hair's breadth, so that rounding does not pull in a voxel that only touches the edge.
    first = int(np.floor((window.low[side] - origin) / step + 0.5 + 1e-6))
    last = int(np.ceil((window.high[side] - origin) / step + 0.5 - 1e-6))
    first = min(max(first, 0), count - 1)
    return first, min(max(last, first + 1), count)


def _pair(values: Any) -> tuple[float, float]:
    first, second = (float(value) for value in values)
    return first, second


def _triple(values: Any) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in values)
    return first, second, third

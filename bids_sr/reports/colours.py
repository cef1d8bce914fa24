"""From values to colours: one rule for each panel, so that a difference in a picture is a difference in the data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]

FA_RANGE: Range = (0.0, 0.8)
MD_RANGE: Range = (0.0, 3e-3)  # mm2/s; free water at body temperature is 3e-3
DIFFERENCE_RANGES: dict[str, Range] = {"fa": (-0.25, 0.25), "md": (-5e-4, 5e-4)}
# Blue, nearly black, orange: told apart by every kind of colour vision, and no difference is as dark as the background.
_DIVERGING = np.array([[120, 200, 255], [30, 110, 200], [18, 18, 22], [205, 95, 20], [255, 205, 110]], dtype=np.float64)


def grey_range(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> Range:
    """Grey window of a signal, (x, y, z): its 1st and 99th percentile inside the mask; (0, 1) if the mask is empty."""
    inside = values[mask & np.isfinite(values)]
    if inside.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(inside, [1, 99]))
    return (low, high) if high > low else (low, low + 1.0)


def to_grey(values: NDArray[np.float32], window: Range) -> NDArray[np.uint8]:
    """Values of any shape as grey levels 0-255, clipped to the window."""
    return np.rint(255 * _fraction(values, window)).astype(np.uint8)


def to_diverging(values: NDArray[np.float32], window: Range) -> NDArray[np.uint8]:
    """Differences, (...), as colours (..., 3): blue below zero, dark at zero, orange above."""
    position = 4 * _fraction(values, window)
    channels = [np.interp(position, range(5), _DIVERGING[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def direction_colours(fa: NDArray[Any], v1: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colour FA, (..., 3), of FA (...) and V1 (..., 3): red left-right, green back-front, blue up-down.

    Brightness is FA / 0.8 (Pajevic and Pierpaoli 1999).

    The eigenvector comes in the frame of the b-vectors. FSL's convention writes those along the voxel axes, with x
    flipped where the affine's determinant is positive; undoing the flip and turning by the affine gives world axes, so
    that red is left-right in a sagittal or oblique acquisition too.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(affine[:3, :3]) > 0:
        axes = axes * [-1.0, 1.0, 1.0]
    world = np.abs(np.nan_to_num(v1) @ axes.T)
    brightness = _fraction(fa, FA_RANGE)[..., None]
    return np.rint(255 * np.clip(world, 0, 1) * brightness).astype(np.uint8)


def _fraction(values: NDArray[np.float32], window: Range) -> NDArray[np.float64]:
    """Values as fractions of the window, 0 to 1; what is not a number becomes 0."""
    low, high = window
    return np.clip(np.nan_to_num((np.asarray(values, dtype=np.float64) - low) / (high - low)), 0.0, 1.0)

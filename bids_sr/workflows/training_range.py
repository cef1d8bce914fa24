"""Whether a scan is one of the kind that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

#: Scanners give b-values that differ by some percent from those asked for, and grids are rounded.
BVAL_TOLERANCE = 0.1
SIZE_TOLERANCE = 0.02


def outside_training(
    model: str, training: Mapping[str, Any], bvals: ArrayLike, voxel_sizes: ArrayLike, scale: ArrayLike
) -> list[str]:
    """Sentences on what of a scan lies outside of the range that a model's card tells; none where it tells nothing.

    Parameters
    ----------
    model : str
    training : mapping
        Of the card. Read are ``range``, with the smallest and largest ``bvals`` (s/mm2, weighted volumes) and
        ``voxel_sizes`` (mm) of the scans trained on, and the ``scale_range`` of its ``patches``.
    bvals : array_like, (n,)
        b-values of the weighted volumes, in s/mm2.
    voxel_sizes : array_like, (3,)
        Asked for, in mm: what a model has learned to restore are the voxels of its scans.
    scale : array_like, (3,)
        Magnification of each axis; those that keep their voxels (1) do not count.
    """
    seen, sizes, scales = training.get("range", {}), np.asarray(voxel_sizes), np.asarray(scale)
    magnified = scales[np.abs(scales - 1) > SIZE_TOLERANCE]
    kinds = [
        (np.unique(np.round(np.asarray(bvals), -1)), seen.get("bvals"), BVAL_TOLERANCE, "b = {} s/mm2"),
        (np.unique(np.round(sizes, 3)), seen.get("voxel_sizes"), SIZE_TOLERANCE, "voxels of {} mm"),
        (
            np.unique(np.round(magnified, 2)),
            training.get("patches", {}).get("scale_range"),
            SIZE_TOLERANCE,
            "a magnification of {}",
        ),
    ]
    found = []
    for values, limits, tolerance, text in kinds:
        if limits is None:
            continue
        low, high = limits
        outside = values[(values < low * (1 - tolerance)) | (values > high * (1 + tolerance))]
        if outside.size:
            what = text.format(", ".join(f"{value:g}" for value in outside))
            found.append(f"{what} (trained on {low:g} to {high:g})")
    if not found:
        return []
    return [f"Outside of what the model {model} was trained on: {'; '.join(found)}. Trust what it adds less."]

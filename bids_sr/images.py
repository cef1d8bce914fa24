"""Images as arrays and grids, and arrays as images that the stages of a run hand on."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from bids_sr.errors import UnreadableImageError, is_memory_error
from bids_sr.geometry import Grid


def load_array(file: str | Path) -> NDArray[np.float32]:
    """All voxels of an image as float32."""
    return np.asarray(_voxels(file), dtype=np.float32)


def load_volume(file: str | Path) -> NDArray[np.float32]:
    """A single volume as (x, y, z) float32."""
    return as_volume(load_array(file))


def load_mask(file: str | Path) -> NDArray[np.bool_]:
    """A mask image as (x, y, z) bool."""
    return as_volume(np.asarray(_voxels(file) > 0.5))


def as_volume(voxels: NDArray[Any]) -> NDArray[Any]:
    """The voxels of a single volume as (x, y, z); some converters write a fourth axis of one entry."""
    return voxels.reshape(voxels.shape[:3])


def _voxels(file: str | Path) -> NDArray[Any]:
    """The voxels of an image.

    Raises
    ------
    UnreadableImageError
        If the file is damaged.
    """
    try:
        return np.asarray(nib.load(file).dataobj)
    except (EOFError, OSError, zlib.error, ImageFileError) as error:
        if is_memory_error(error):
            raise
        raise UnreadableImageError(path=file, reason=" ".join(str(error).split())) from error


def load_grid(file: str | Path) -> Grid:
    """The grid of an image."""
    return Grid.of(nib.load(file))


def save_working(data: NDArray[Any], affine: NDArray[np.float64], folder: Path, name: str) -> str:
    """Write an uncompressed NIfTI, which later stages can map into memory; return its path."""
    file = folder / f"{name}.nii"
    stored = data.astype(np.uint8) if data.dtype == np.bool_ else data
    image = nib.Nifti1Image(stored, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(file)
    return str(file)

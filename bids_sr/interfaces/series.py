"""The stage that unpacks a series, so that later stages map single volumes instead of decompressing them all."""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File

from bids_sr.errors import UnreadableImageError
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec


class _UnpackSeriesInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, compressed or not")


class _UnpackSeriesOutputSpec(CoreOutputSpec):
    dwi_file = File(exists=True, desc="the same series, not compressed and known to be whole")


class UnpackSeries(CoreInterface):
    """Unpack a compressed series into the work folder; refuse one that is cut short or damaged."""

    input_spec = _UnpackSeriesInputSpec
    output_spec = _UnpackSeriesOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        file = Path(self.inputs.dwi_file)
        plain = unpack(file, folder / "dwi.nii") if file.suffix == ".gz" else file
        check_whole(plain, file)
        return {"dwi_file": str(plain)}


def unpack(packed: Path, plain: Path) -> Path:
    """Decompress a file; the checksum at its end is checked too.

    Raises
    ------
    UnreadableImageError
        If it is cut short or damaged.
    """
    try:
        with gzip.open(packed) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableImageError(path=packed, reason=str(error)) from error
    return plain


def check_whole(plain: Path, named: Path) -> None:
    """Refuse an uncompressed image that holds fewer bytes than its header says; `named` is the file the user knows.

    Raises
    ------
    UnreadableImageError
        If it is too short.
    """
    image = nib.load(plain)
    needed = int(np.prod(image.shape)) * image.get_data_dtype().itemsize + image.dataobj.offset
    if plain.stat().st_size < needed:
        raise UnreadableImageError(path=named, reason=f"{plain.stat().st_size} bytes of {needed}")

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
from nipype.interfaces.base import File, isdefined

from bids_sr.dwi.normalization import check_volumes
from bids_sr.errors import T1wRegistrationError, UnreadableImageError
from bids_sr.headers import check_whole, read_voxels
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec


class _UnpackSeriesInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, compressed or not")
    t1w_file = File(exists=True, desc="T1w image that goes with it")


class _UnpackSeriesOutputSpec(CoreOutputSpec):
    dwi_file = File(exists=True, desc="the same series, not compressed and known to be whole")


class UnpackSeries(CoreInterface):
    """Unpack a compressed series into the work folder; refuse it, or its T1w, where it is damaged or empty."""

    input_spec = _UnpackSeriesInputSpec
    output_spec = _UnpackSeriesOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        file = Path(self.inputs.dwi_file)
        plain = unpack(file, folder / "dwi.nii") if file.suffix == ".gz" else file
        image = nib.load(plain)
        check_whole(image, file)
        check_volumes(image.dataobj, file.name)
        if isdefined(self.inputs.t1w_file):
            check_t1w(Path(self.inputs.t1w_file))
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


def check_t1w(file: Path) -> None:
    """Refuse a T1w that is damaged or shows nothing, before the series is restored.

    Raises
    ------
    UnreadableImageError
        If it is cut short or damaged.
    T1wRegistrationError
        If all its voxels are the same, or none is a finite number.
    """
    voxels = read_voxels(nib.load(file), file)
    finite = voxels[np.isfinite(voxels)]
    if finite.size == 0 or finite.max() == finite.min():
        raise T1wRegistrationError(reason=f"{file.name} is empty or constant")

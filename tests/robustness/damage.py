"""A tiny dataset, and ways to damage it."""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.skeleton import BVALS, Skeleton

SHAPE = (10, 9, 8)
DWI, T1W, MASK = "sub-01_dwi.nii.gz", "sub-01_T1w.nii.gz", "sub-01_desc-brain_mask.nii.gz"


class Made(Skeleton):
    """One subject with a series of seven volumes, a T1w and a brain mask, and shortcuts to damage them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.dwi("sub-01", shape=(*SHAPE, len(BVALS)))
        self.t1w("sub-01", shape=(12, 12, 12))
        self.image("sub-01_desc-brain", "mask", "dwi", shape=SHAPE)
        inside = np.zeros(SHAPE, np.uint8)
        inside[2:-2, 2:-2, 2:-2] = 1
        self.write(self.brain, inside)

    @property
    def series(self) -> Path:
        """The series."""
        return self.root / "sub-01" / "dwi" / DWI

    @property
    def bval(self) -> Path:
        """Its b-values."""
        return self.series.with_name("sub-01_dwi.bval")

    @property
    def bvec(self) -> Path:
        """Its b-vectors."""
        return self.series.with_name("sub-01_dwi.bvec")

    @property
    def sidecar(self) -> Path:
        """Its metadata."""
        return self.series.with_name("sub-01_dwi.json")

    @property
    def brain(self) -> Path:
        """Its brain mask."""
        return self.series.with_name(MASK)

    @property
    def anatomy(self) -> Path:
        """The T1w."""
        return self.root / "sub-01" / "anat" / T1W

    def write(self, file: Path, data: Any = None, affine: Any = None, **header: Any) -> None:
        """An image anew: other voxels, another affine, other fields of its header (written as they are)."""
        old = nib.load(file)
        data = np.asarray(old.dataobj) if data is None else data
        image = nib.Nifti1Image(data, old.affine if affine is None else affine, dtype=data.dtype)
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(file)
        if header:
            self.edit_header(file, **header)

    def edit_header(self, file: Path, **fields: Any) -> None:
        """Fields of a compressed image's header set to what no library would write."""
        content = gzip.decompress(file.read_bytes())
        header = nib.Nifti1Header(content[:348], check=False)
        for name, value in fields.items():
            header[name] = value
        file.write_bytes(gzip.compress(header.binaryblock + content[348:], mtime=0))

    def table(self, file: Path, change: Any) -> None:
        """A gradient file, its numbers changed by a function."""
        numbers = np.atleast_2d(change(np.loadtxt(file, ndmin=2)))
        file.write_text("\n".join(" ".join(f"{value:g}" for value in row) for row in numbers) + "\n")

    def mixed(self) -> None:
        """A noisy ball instead of ones, so that a run can go to its end."""
        random = np.random.default_rng(0)
        distance = np.linalg.norm(np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2, axis=-1).T
        ball = np.where(distance < 3.5, 1000.0, 10.0)
        series = ball[..., None] * np.where(BVALS > 0, 0.4, 1.0) + random.uniform(0, 5, (*SHAPE, len(BVALS)))
        self.write(self.series, series.astype(np.float32))
        self.write(self.brain, (distance < 3.5).astype(np.uint8))


def cut(file: Path, kept: float = 0.6) -> None:
    """The end of a file lost."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])


def flip_bytes(file: Path, count: int = 8) -> None:
    """The checksum at the end of a compressed file, or what it is of, changed."""
    content = bytearray(file.read_bytes())
    content[-count:] = bytes(value ^ 0xFF for value in content[-count:])
    file.write_bytes(bytes(content))


def unpacked(file: Path) -> Path:
    """A compressed image replaced by one that is not."""
    plain = file.with_suffix("")
    plain.write_bytes(gzip.decompress(file.read_bytes()))
    file.unlink()
    return plain


def into_folder(file: Path) -> None:
    """A folder of that name in the place of a file."""
    file.unlink()
    file.mkdir()
    (file / "inside").write_text("x")


def into_link(file: Path, target: str) -> None:
    """A link in the place of a file."""
    file.unlink()
    file.symlink_to(target)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """This thread without the right to pass over permissions, which root has (Linux, capabilities(7))."""
    library = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(0x20080522, 0), (_Sets * 2)()
    if os.geteuid() != 0 or not hasattr(library, "capset"):
        yield
        return
    library.capget(ctypes.byref(header), sets)
    before = sets[0].effective
    sets[0].effective = before & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    library.capset(ctypes.byref(header), sets)
    try:
        yield
    finally:
        sets[0].effective = before
        library.capset(ctypes.byref(header), sets)

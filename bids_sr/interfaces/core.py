"""What all interfaces share: a timed run, a fixed seed, and a note of what went wrong."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
from numpy.typing import NDArray

from bids_sr.errors import UnreadableImageError
from bids_sr.geometry import Grid
from bids_sr.interfaces.failure import Failure, is_memory_error
from bids_sr.resources import reserve_blas_buffers


class CoreInputSpec(BaseInterfaceInputSpec):
    """Inputs of every interface."""

    random_seed = traits.Int(0, usedefault=True, desc="seed of the random number generators")


class CoreOutputSpec(TraitedSpec):
    """Outputs of every interface."""

    seconds = traits.Float(desc="wall-clock time of the stage")


class CoreInterface(SimpleInterface):
    """An interface that calls one function of the core.

    A subclass gives `_execute`, which returns its outputs by name. Whatever it raises is also written into the node's
    folder, because nipype hands on only the text of a traceback, and only in some of its plugins.
    """

    input_spec = CoreInputSpec
    output_spec = CoreOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        """Run the stage in the node's folder, as nipype asks."""
        folder = Path(runtime.cwd)
        start = time.monotonic()
        seed_generators(self.inputs.random_seed)
        try:
            reserve_blas_buffers()
            self._results.update(self._execute(folder))
        except BaseException as error:
            Failure.of(error).write(folder)
            raise
        self._results["seconds"] = time.monotonic() - start
        return runtime

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        """Read the inputs, call the core, write into `folder`; return the outputs by name."""
        raise NotImplementedError


def seed_generators(seed: int) -> None:
    """Start the global random number generators of Python and numpy, which DIPY uses, from `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def load_array(file: str | Path) -> NDArray[np.float32]:
    """All voxels of an image as float32."""
    return np.asarray(_voxels(file), dtype=np.float32)


def load_mask(file: str | Path) -> NDArray[np.bool_]:
    """A mask image as (x, y, z) bool."""
    return np.asarray(_voxels(file) > 0.5)


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


def as_grid(shape: list[int], affine: list[list[float]]) -> Grid:
    """The grid that two nipype inputs describe."""
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), np.array(affine, dtype=np.float64))

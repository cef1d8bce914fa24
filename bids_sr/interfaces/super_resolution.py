"""The stage that restores a diffusion series on the target grid, volume by volume."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nipype.interfaces.base import File, isdefined, traits
from numpy.typing import NDArray

from bids_sr.dwi.t1w import t1w_channel
from bids_sr.geometry import Grid
from bids_sr.inference.device import resolve_device
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.interfaces.core import (
    CoreInputSpec,
    CoreInterface,
    CoreOutputSpec,
    as_grid,
    load_array,
    load_grid,
    load_mask,
)
from bids_sr.interfaces.progress import show_progress
from bids_sr.models.registry import load_model
from bids_sr.records import BLANK_T1W, NO_T1W, UNTRUSTED_T1W, stage_warnings, trusts_registration


class _RestoreInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, (x, y, z, n)")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")
    t1w_file = File(exists=True, desc="T1w in the world of the series, for a model that uses it; zeros without it")
    registration = traits.Dict(
        desc="how the T1w was brought there, with its agreement; undefined where it was given so"
    )
    target_shape = traits.List(traits.Int(), mandatory=True, desc="voxels per axis of the target grid, (3,)")
    target_affine = traits.List(traits.List(traits.Float()), mandatory=True, desc="affine of the target grid, (4, 4)")
    model = traits.Str(mandatory=True, desc="name in the registry, or path of a model card")
    device = traits.Str("cpu", usedefault=True, desc="cpu, cuda or cuda:N")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")
    label = traits.Str("", usedefault=True, nohash=True, desc="name of the series in the progress shown")
    use_gpu = traits.Bool(False, usedefault=True, desc="read by nipype's scheduler, which then grants a GPU slot")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processors that the model may use")


class _RestoreOutputSpec(CoreOutputSpec):
    dwi_file = File(exists=True, desc="restored series on the target grid, uncompressed float32")
    t1w = traits.Dict(desc="used: whether the model saw the T1w; reason: why not. Empty if the model does not use it")


class Restore(CoreInterface):
    """Restore every volume of a series on the target grid and write each as soon as it is there."""

    input_spec = _RestoreInputSpec
    output_spec = _RestoreOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        image = nib.load(self.inputs.dwi_file)
        target = as_grid(self.inputs.target_shape, self.inputs.target_affine)
        device = resolve_device(self.inputs.device)
        torch.set_num_threads(self.inputs.num_threads)
        torch.manual_seed(self.inputs.random_seed)
        model, card = load_model(self.inputs.model, device)
        grid, mask = Grid.of(image), load_mask(self.inputs.mask_file)
        t1w, t1w_part = self._t1w(grid, mask) if card.uses_t1w else (None, {})
        volumes = restore_volumes(
            image.dataobj,
            np.loadtxt(self.inputs.bval_file, ndmin=1).ravel(),
            grid,
            target,
            mask,
            model,
            signal=card.signal,
            t1w=t1w,
            b0_threshold=self.inputs.b0_threshold,
            device=device,
        )
        n_volumes = image.shape[3]
        shown = show_progress(volumes, n_volumes, f"{self.inputs.label}: volumes restored ({card.name})")
        file = write_volumes(folder / "restored.nii", shown, target, n_volumes)
        return {"dwi_file": str(file), "t1w": t1w_part}

    def _t1w(self, grid: Grid, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32] | None, dict[str, Any]]:
        """The T1w as the model sees it, if it sees one, and what the record tells of that."""
        channel, reason = self._t1w_or_reason(grid, mask)
        part = {"used": channel is not None, "reason": reason}
        for warning in stage_warnings({"t1w": part}):
            print(f"{self.inputs.label}: {warning}", file=sys.stderr, flush=True)
        return channel, part

    def _t1w_or_reason(self, grid: Grid, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32] | None, str]:
        """The T1w as the model sees it, or why it sees none."""
        if not isdefined(self.inputs.t1w_file):
            return None, NO_T1W
        if isdefined(self.inputs.registration) and not trusts_registration(self.inputs.registration):
            return None, UNTRUSTED_T1W
        channel = t1w_channel(load_array(self.inputs.t1w_file), load_grid(self.inputs.t1w_file), grid, mask)
        return (channel, "") if channel.any() else (None, BLANK_T1W)


def write_volumes(file: Path, volumes: Iterable[NDArray[np.float32]], grid: Grid, n_volumes: int) -> Path:
    """Write a series into an uncompressed NIfTI, holding one volume at a time in memory.

    Parameters
    ----------
    file : Path
        To write.
    volumes : iterable of ndarray, (x, y, z)
        All volumes in the order of the series.
    grid : Grid
        On which they lie.
    n_volumes : int
        How many there are.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*grid.shape, n_volumes))
    header.set_sform(grid.affine, code=1)
    header.set_qform(grid.affine, code=1)
    header.set_xyzt_units("mm", "sec")
    with file.open("wb") as stream:
        header["vox_offset"] = header.single_vox_offset
        header.write_to(stream)
        for volume in volumes:
            stream.write(volume.astype("<f4", copy=False).tobytes(order="F"))
    return file

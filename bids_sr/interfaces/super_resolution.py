"""The stage that restores a diffusion series on the target grid, volume by volume."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nipype.interfaces.base import File, isdefined, traits
from numpy.typing import NDArray

from bids_sr.dwi.gradients import read_bvals
from bids_sr.dwi.t1w import T1wImage
from bids_sr.geometry import Grid
from bids_sr.images import load_grid, load_mask, load_volume
from bids_sr.inference.device import resolve_device, use_processors
from bids_sr.inference.fitting import FitLog
from bids_sr.inference.shown_t1w import ShownT1w, show_t1w
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec, as_grid
from bids_sr.interfaces.progress import show_progress
from bids_sr.models.registry import load_model
from bids_sr.records import stage_warnings


class RestoreInputSpec(CoreInputSpec):
    """Inputs of a stage that restores a series."""

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
    deviations = traits.Bool(False, usedefault=True, desc="write the standard deviations that the model tells too")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processors that the model may use")


class RestoreOutputSpec(CoreOutputSpec):
    """Outputs of a stage that restores a series."""

    dwi_file = File(exists=True, desc="restored series on the target grid, uncompressed float32")
    deviations_file = File(exists=True, desc="standard deviations of the series, where they were asked for")
    t1w = traits.Dict(desc="used: whether the model saw the T1w; reason: why not. Empty if the model does not use it")
    fit = traits.Dict(desc="how the model was fitted to the series. Empty for a model that is not")


class Restore(CoreInterface):
    """Restore every volume of a series on the target grid and write each as soon as it is there."""

    input_spec = RestoreInputSpec
    output_spec = RestoreOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        return self._restored(folder, "volumes restored")

    def _restored(self, folder: Path, shown: str, only: Sequence[int] | None = None) -> dict[str, Any]:
        """The restored series, or `only` some of its volumes, as a file; `shown` leads the progress."""
        image = nib.load(self.inputs.dwi_file)
        target = as_grid(self.inputs.target_shape, self.inputs.target_affine)
        device = resolve_device(self.inputs.device)
        use_processors(self.inputs.num_threads)
        torch.manual_seed(self.inputs.random_seed)
        model, card = load_model(self.inputs.model, device)
        grid, mask = Grid.of(image), load_mask(self.inputs.mask_file)
        shown_t1w = self._t1w(grid, mask) if card.uses_t1w else ShownT1w()
        log = fit_log(folder, self.inputs.random_seed, f"{self.inputs.label}: steps of the fit ({card.name})")
        volumes = restore_volumes(
            image.dataobj,
            read_bvals(Path(self.inputs.bval_file)),
            grid,
            target,
            mask,
            model,
            signal=card.signal,
            t1w=shown_t1w.channel,
            guide=shown_t1w.image,
            b0_threshold=self.inputs.b0_threshold,
            device=device,
            volumes=only,
            deviations=self.inputs.deviations,
            fit_log=log,
        )
        n_volumes = image.shape[3] if only is None else len(only)
        watched = show_progress(volumes, n_volumes, f"{self.inputs.label}: {shown} ({card.name})")
        files = {"dwi_file": folder / "restored.nii"}
        if self.inputs.deviations:
            files["deviations_file"] = folder / "deviations.nii"
        write_volumes(list(files.values()), watched, target, n_volumes)
        part = shown_t1w.record if card.uses_t1w else {}
        for warning in stage_warnings({"fit": log.record}):
            print(f"{self.inputs.label}: {warning}", file=sys.stderr, flush=True)
        return {**{name: str(file) for name, file in files.items()}, "t1w": part, "fit": log.record}

    def _t1w(self, grid: Grid, mask: NDArray[np.bool_]) -> ShownT1w:
        """The T1w as the model is to see it; that it cannot is said at once."""
        file = self.inputs.t1w_file if isdefined(self.inputs.t1w_file) else None
        image = None if file is None else T1wImage(load_volume(file), load_grid(file))
        registration = self.inputs.registration if isdefined(self.inputs.registration) else {}
        shown = show_t1w(image, registration, grid, mask)
        for warning in stage_warnings({"t1w": shown.record}):
            print(f"{self.inputs.label}: {warning}", file=sys.stderr, flush=True)
        return shown


def fit_log(folder: Path, seed: int, label: str) -> FitLog:
    """How a model is fitted by a stage: told as it goes, and kept beside the stage's folder, which a rerun empties."""
    return FitLog(seed, folder.parent / "fits", lambda steps, total: show_progress(steps, total, label, unit="step"))


def write_volumes(files: Sequence[Path], volumes: Iterable[NDArray[np.float32]], grid: Grid, n_volumes: int) -> None:
    """Write series into uncompressed NIfTIs, holding one volume of each at a time in memory.

    Parameters
    ----------
    files : sequence of Path
        To write, one for each series.
    volumes : iterable of ndarray, (x, y, z) or (len(files), x, y, z)
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
    header["vox_offset"] = header.single_vox_offset
    with ExitStack() as opened:
        streams = [opened.enter_context(file.open("wb")) for file in files]
        for stream in streams:
            header.write_to(stream)
        for volume in volumes:
            parts = volume.reshape(len(files), *grid.shape)
            for stream, part in zip(streams, parts, strict=True):
                stream.write(part.astype("<f4", copy=False).tobytes(order="F"))

"""The stage that tries the restoration on the user's own scan, degraded, where what was acquired is the truth."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nipype.interfaces.base import File, isdefined, traits
from numpy.typing import NDArray

from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.t1w import T1wImage, t1w_channel
from bids_sr.evaluation.benchmark import Degraded, Reference
from bids_sr.evaluation.self_check import SelfCheck, self_check, verdict, volumes_to_check
from bids_sr.geometry import Grid
from bids_sr.images import load_grid, load_mask, load_volume
from bids_sr.inference.device import resolve_device, use_processors
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.interfaces.failure import Failure
from bids_sr.interfaces.progress import show_progress
from bids_sr.interfaces.super_resolution import fit_log
from bids_sr.models.registry import load_model
from bids_sr.records import stage_warnings, undone_check
from bids_sr.reports.checks import save_check_figures


class _RunSelfCheckInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series as acquired, (x, y, z, n)")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    bvec_file = File(exists=True, mandatory=True, desc="b-vectors, FSL format")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")
    tissue_file = File(exists=True, mandatory=True, desc="tissue classes on the acquired grid")
    t1w_file = File(exists=True, desc="T1w in the world of the series")
    t1w = traits.Dict(desc="whether the model saw the T1w when it restored the series")
    scale = traits.Tuple((1.0, 1.0, 1.0), mandatory=True, desc="how many times as wide the degraded voxels are")
    model = traits.Str(mandatory=True, desc="name in the registry, or path of a model card")
    device = traits.Str("cpu", usedefault=True, desc="cpu, cuda or cuda:N")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")
    figures_dir = traits.Str(mandatory=True, desc="the subject's figures folder")
    stem = traits.Str(mandatory=True, desc="beginning of each picture's name")
    label = traits.Str("", usedefault=True, nohash=True, desc="name of the series in the progress shown")
    use_gpu = traits.Bool(False, usedefault=True, desc="read by nipype's scheduler, which then grants a GPU slot")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processors that the model may use")


class _RunSelfCheckOutputSpec(CoreOutputSpec):
    self_check = traits.Dict(desc="what came of the check, as the record keeps it")
    rows = traits.List(traits.Dict(), desc="one dictionary per measure and tissue; none where it could not be done")


class RunSelfCheck(CoreInterface):
    """Degrade the scan, restore it and compare; whatever fails is told in place of the result, and fails nothing."""

    # Its pictures lie outside the work folder, where nipype does not look whether they are still there.
    _always_run = True
    input_spec = _RunSelfCheckInputSpec
    output_spec = _RunSelfCheckOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        try:
            part = self._part(*self._check(folder))
        except Exception as error:
            part = undone_check(Failure.of(error).message, failed=True)
        for warning in stage_warnings({"self_check": part}):
            print(f"{self.inputs.label}: {warning}", file=sys.stderr, flush=True)
        return {"self_check": part, "rows": part.get("rows", [])}

    def _check(self, folder: Path) -> tuple[SelfCheck, NDArray[np.int64]]:
        """The check, and which volumes it was done with."""
        given = self.inputs
        use_processors(given.num_threads)
        torch.manual_seed(given.random_seed)
        image = nib.load(given.dwi_file)
        gradients = read_gradients(Path(given.bval_file), Path(given.bvec_file))
        volumes = volumes_to_check(gradients, given.b0_threshold)
        acquired = [np.nan_to_num(np.asarray(image.dataobj[..., v], np.float32), posinf=0, neginf=0) for v in volumes]
        reference = Reference(
            np.stack(acquired, axis=-1),
            gradients.subset(volumes),
            Grid.of(image),
            load_mask(given.mask_file),
            given.b0_threshold,
        )
        tissues = np.asarray(nib.load(given.tissue_file).dataobj, dtype=np.uint8)
        return self_check(reference, given.scale, lambda low: self._restore(low, reference, folder), tissues), volumes

    def _restore(self, degraded: Degraded, reference: Reference, folder: Path) -> Iterator[NDArray[np.float32]]:
        """What the model makes of the degraded scan, given what it was given for the scan itself."""
        device = resolve_device(self.inputs.device)
        model, card = load_model(self.inputs.model, device)
        t1w = self._t1w() if card.uses_t1w else None
        channel = None if t1w is None else t1w_channel(t1w.voxels, t1w.grid, degraded.grid, degraded.mask)
        restored = restore_volumes(
            degraded.data,
            reference.gradients.bvals,
            degraded.grid,
            reference.grid,
            degraded.mask,
            model,
            signal=card.signal,
            t1w=channel,
            guide=t1w,
            b0_threshold=self.inputs.b0_threshold,
            device=device,
            fit_log=fit_log(folder, self.inputs.random_seed, f"{self.inputs.label}: steps of the self-check's fit"),
        )
        label = f"{self.inputs.label}: volumes of the self-check restored ({card.name})"
        return show_progress(restored, len(reference.gradients), label)

    def _t1w(self) -> T1wImage | None:
        """The T1w; None where the model did not see it when it restored the series."""
        used = isdefined(self.inputs.t1w) and self.inputs.t1w.get("used", False)
        if not used or not isdefined(self.inputs.t1w_file):
            return None
        return T1wImage(load_volume(self.inputs.t1w_file), load_grid(self.inputs.t1w_file))

    def _part(self, check: SelfCheck, volumes: NDArray[np.int64]) -> dict[str, Any]:
        """The check as the record keeps it, with its pictures drawn."""
        reference, told = check.reference, verdict(check.rows)
        return {
            "done": True,
            "level": told.level,
            "sentence": told.sentence,
            "scale": _rounded(np.divide(reference.grid.shape, check.degraded.grid.shape)),
            "voxel_sizes": _rounded(check.degraded.grid.voxel_sizes),
            "n_b0": int((~reference.weighted).sum()),
            "n_weighted": int(reference.weighted.sum()),
            "volumes": volumes.tolist(),
            "rows": check.rows,
            "figures": save_check_figures(Path(self.inputs.figures_dir), self.inputs.stem, check, volumes),
        }


def _rounded(values: NDArray[np.floating]) -> list[float]:
    """Numbers for people: four decimals."""
    return [round(float(value), 4) for value in values]

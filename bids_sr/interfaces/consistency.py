"""The stage that asks what of the restored series the acquired one does not support."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, OutputMultiObject, isdefined, traits

from bids_sr.dwi.ablation import (
    ChosenVolumes,
    T1wEffect,
    determine_tensor,
    effect_sentence,
    summarize_effect,
    t1w_effect,
    with_tensor,
)
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.consistency import Support, acquired_support, departure, sentence, summarize
from bids_sr.dwi.gradients import Gradients, is_b0, read_gradients
from bids_sr.dwi.tensor import TensorMaps, fit_tensor
from bids_sr.geometry import Grid
from bids_sr.images import load_mask, save_working
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.interfaces.failure import Failure
from bids_sr.interfaces.tensor import load_maps
from bids_sr.records import stage_warnings, undone_check
from bids_sr.reports.consistency_figure import Pair, save_departure_figures, save_effect_figures
from bids_sr.reports.figures import Panel


class _CheckConsistencyInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="acquired series")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    bvec_file = File(exists=True, mandatory=True, desc="b-vectors, FSL format")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")
    target_mask_file = File(exists=True, mandatory=True, desc="brain mask on the target grid")
    tissue_file = File(exists=True, mandatory=True, desc="tissue classes on the acquired grid")
    acquired_maps = InputMultiObject(File(exists=True), mandatory=True, desc="tensor maps of the acquired series")
    sr_file = File(exists=True, mandatory=True, desc="restored series")
    cubic_file = File(exists=True, desc="interpolated series; undefined where this is the restored one")
    without_t1w_file = File(exists=True, desc="some volumes restored without the T1w, on the target grid")
    without_t1w_volumes = traits.List(traits.Int(), desc="which volumes of the series they are")
    without_t1w_failure = traits.Dict(desc="why there are none, as the record keeps it; empty where nothing failed")
    figures_dir = traits.Str(mandatory=True, desc="the subject's figures folder")
    stem = traits.Str(mandatory=True, desc="beginning of each picture's name")
    label = traits.Str("", usedefault=True, nohash=True, desc="name of the series in warnings")


class _CheckConsistencyOutputSpec(CoreOutputSpec):
    departure_file = File(exists=True, desc="departure in standard errors, one volume per shell, on the acquired grid")
    departure = traits.Dict(desc="sr, cubic: numbers; sentence; figures; or why there are none, as the record keeps it")
    departure_fields = traits.Dict(desc="metadata of the map")
    t1w_effect_files = OutputMultiObject(
        File(exists=True), desc="change by the T1w in SD of the noise; of FA and MD where there is a tensor"
    )
    t1w_effect = traits.Dict(desc="the same for the T1w; empty where the model did not see one")
    t1w_effect_fields = traits.Dict(desc="metadata of the maps")


@dataclass(frozen=True)
class _Scan:
    """The acquired scan, and the series that was restored from it."""

    gradients: Gradients
    support: Support
    panel: Panel
    restored: nib.Nifti1Image


class CheckConsistency(CoreInterface):
    """Map where the restored series departs from the acquired one, and what the T1w changed in it.

    What fails is told in place of the result, and fails nothing.
    """

    # Its pictures lie outside the work folder, where nipype does not look whether they are still there.
    _always_run = True
    input_spec = _CheckConsistencyInputSpec
    output_spec = _CheckConsistencyOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        scan = cache(self._scan)
        found = _told("departure", lambda: self._departure(scan(), folder))
        found |= _told("t1w_effect", lambda: self._effect(scan, folder))
        for warning in stage_warnings(found):
            print(f"{self.inputs.label}: {warning}", file=sys.stderr, flush=True)
        return found

    def _scan(self) -> _Scan:
        """What both guards need."""
        given = self.inputs
        image, mask = nib.load(given.dwi_file), load_mask(given.mask_file)
        gradients = read_gradients(Path(given.bval_file), Path(given.bvec_file))
        b0 = mean_b0(image.dataobj, gradients.bvals, given.b0_threshold)
        panel = Panel(image.affine, b0, mask, fa=load_maps(given.acquired_maps).fa)
        support = acquired_support(image.dataobj, gradients, given.b0_threshold, mask, Grid.of(image))
        return _Scan(gradients, support, panel, nib.load(given.sr_file))

    def _departure(self, scan: _Scan, folder: Path) -> dict[str, Any]:
        """Where the restored series departs from the acquired one: the map, its metadata, and the record's part."""
        series = {"sr": scan.restored}
        if isdefined(self.inputs.cubic_file):
            series["cubic"] = nib.load(self.inputs.cubic_file)
        departures = {name: departure(scan.support, one.dataobj, Grid.of(one)) for name, one in series.items()}
        numbers = {name: summarize(departed, scan.support) for name, departed in departures.items()}
        figures = save_departure_figures(
            Path(self.inputs.figures_dir),
            self.inputs.stem,
            acquired=scan.panel,
            support=scan.support,
            departures=departures,
            worst=next(iter(numbers["sr"]["regions"]), None),
        )
        told = {"done": True, "sentence": sentence(numbers["sr"], numbers.get("cubic")), "figures": figures}
        return {
            "departure_file": save_working(departures["sr"].region_z, scan.panel.affine, folder, "departure"),
            "departure": numbers | told,
            "departure_fields": {"BValues": [round(b, 1) for b in scan.support.bvals]},
        }

    def _effect(self, scan_of: Callable[[], _Scan], folder: Path) -> dict[str, Any]:
        """What the T1w changed: maps, their metadata, and the record's part; nothing where no T1w was used."""
        if not isdefined(self.inputs.without_t1w_file):
            failure = self.inputs.without_t1w_failure
            return {"t1w_effect": dict(failure) if isdefined(failure) else {}}
        scan, mask = scan_of(), load_mask(self.inputs.target_mask_file)
        without, volumes = nib.load(self.inputs.without_t1w_file), self.inputs.without_t1w_volumes
        restored, target = ChosenVolumes(scan.restored.dataobj, volumes), Grid.of(scan.restored)
        pairs = ((_volume(restored, index), _volume(without.dataobj, index)) for index in range(len(volumes)))
        effect = t1w_effect(pairs, volumes, scan.support, target, mask)
        chosen = scan.gradients.subset(np.array(volumes))
        if determine_tensor(chosen, self.inputs.b0_threshold):
            fits = [fit_tensor(one, chosen, self.inputs.b0_threshold, mask) for one in (restored, without.dataobj)]
            effect = with_tensor(effect, fits[0], fits[1], scan.support.grid, target, mask)
            pair = _fa_pair(fits, target, mask)
        else:
            shown = int(np.flatnonzero(~is_b0(chosen.bvals, self.inputs.b0_threshold))[0])
            pair = Pair(_volume(restored, shown), _volume(without.dataobj, shown), target.affine, mask, is_fa=False)
        return self._described(effect, pair, scan, folder)

    def _described(self, effect: T1wEffect, pair: Pair, scan: _Scan, folder: Path) -> dict[str, Any]:
        """The T1w's effect as files, numbers, words and pictures."""
        tissues = np.asarray(nib.load(self.inputs.tissue_file).dataobj, dtype=np.uint8)
        summary = summarize_effect(effect, tissues, scan.support.grid)
        figures = save_effect_figures(
            Path(self.inputs.figures_dir),
            self.inputs.stem,
            acquired=scan.panel,
            effect=effect,
            pair=pair,
            centre_mm=summary["most"]["centre_mm"],
        )
        maps = {"t1w_effect": effect.change, "t1w_effect_fa": effect.fa, "t1w_effect_md": effect.md}
        affine = scan.panel.affine
        return {
            "t1w_effect_files": [save_working(m, affine, folder, name) for name, m in maps.items() if m is not None],
            "t1w_effect": {"done": True, **summary, "sentence": effect_sentence(summary), "figures": figures},
            "t1w_effect_fields": {"Volumes": list(self.inputs.without_t1w_volumes)},
        }


def _told(part: str, guard: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a guard found; where it fails, the part of the record that says so."""
    try:
        return guard()
    except Exception as error:
        return {part: undone_check(Failure.of(error).message, failed=True)}


def _volume(series: Any, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One volume of a series."""
    return np.asarray(series[..., index], dtype=np.float32)


def _fa_pair(fits: list[TensorMaps], target: Grid, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Pair:
    """FA with the T1w and without it."""
    return Pair(fits[0].fa, fits[1].fa, target.affine, mask, is_fa=True)

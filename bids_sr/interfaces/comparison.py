"""The stages that compare tensor maps: with those of the acquired scan, and with a known truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, isdefined, traits

from bids_sr.dwi.comparison import compare, tissue_classes
from bids_sr.dwi.t1w import t1w_on_grid
from bids_sr.images import load_array, load_grid, load_mask, load_volume, save_working
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.interfaces.tensor import load_maps


class _CompareTensorsInputSpec(CoreInputSpec):
    b0_file = File(exists=True, mandatory=True, desc="mean b0 on the acquired grid")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")
    t1w_file = File(exists=True, desc="T1w in the world of the series, at its own resolution")
    acquired_maps = InputMultiObject(File(exists=True), mandatory=True, desc="tensor maps of the acquired series")
    sr_maps = InputMultiObject(File(exists=True), mandatory=True, desc="restored maps on the acquired grid")
    cubic_maps = InputMultiObject(File(exists=True), mandatory=True, desc="interpolated maps on the acquired grid")


class _CompareTensorsOutputSpec(CoreOutputSpec):
    rows = traits.List(traits.Dict(), desc="one dictionary per map, tissue and method")
    tissue_file = File(exists=True, desc="tissue classes: 1 CSF, 2 GM, 3 WM")


class CompareTensors(CoreInterface):
    """Compare restored and interpolated tensor maps with the acquired ones, by tissue."""

    input_spec = _CompareTensorsInputSpec
    output_spec = _CompareTensorsOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        grid = load_grid(self.inputs.b0_file)
        mask = load_mask(self.inputs.mask_file)
        acquired = load_maps(self.inputs.acquired_maps)
        file = self.inputs.t1w_file
        t1w = t1w_on_grid(load_volume(file), load_grid(file), grid) if isdefined(file) else None
        tissues = tissue_classes(acquired.fa, acquired.md, load_array(self.inputs.b0_file), mask, t1w)
        restored = {"cubic": load_maps(self.inputs.cubic_maps), "sr": load_maps(self.inputs.sr_maps)}
        tissue_file = save_working(tissues, grid.affine, folder, "tissues")
        return {"rows": compare(acquired, restored, tissues, mask), "tissue_file": tissue_file}


class _CompareWithTruthInputSpec(CoreInputSpec):
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the target grid")
    truth_mask_file = File(exists=True, mandatory=True, desc="the true brain on the same grid")
    tissue_file = File(exists=True, mandatory=True, desc="true tissues: 1 CSF, 2 GM, 3 WM")
    truth_maps = InputMultiObject(File(exists=True), mandatory=True, desc="tensor maps of the true series")
    sr_maps = InputMultiObject(File(exists=True), mandatory=True, desc="restored maps on the target grid")
    cubic_maps = InputMultiObject(File(exists=True), mandatory=True, desc="interpolated maps on the target grid")


class _CompareWithTruthOutputSpec(CoreOutputSpec):
    rows = traits.List(traits.Dict(), desc="one dictionary per map, tissue and method")


class CompareWithTruth(CoreInterface):
    """Compare restored and interpolated tensor maps with their known truth."""

    input_spec = _CompareWithTruthInputSpec
    output_spec = _CompareWithTruthOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        mask = load_mask(self.inputs.mask_file) & load_mask(self.inputs.truth_mask_file)
        tissues = np.asarray(nib.load(self.inputs.tissue_file).dataobj, dtype=np.uint8)
        restored = {"cubic": load_maps(self.inputs.cubic_maps), "sr": load_maps(self.inputs.sr_maps)}
        rows = compare(load_maps(self.inputs.truth_maps), restored, tissues, mask)
        return {"rows": [row | {"method": "truth"} if row["method"] == "orig" else row for row in rows]}

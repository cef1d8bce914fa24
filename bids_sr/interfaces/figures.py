"""The stage that draws the pictures of a series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, isdefined, traits
from numpy.typing import NDArray

from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import Gradients, read_gradients, shells
from bids_sr.images import load_mask, load_volume
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.interfaces.tensor import load_maps
from bids_sr.reports.figures import Anatomy, Panel, save_series_figures


class _MakeFiguresInputSpec(CoreInputSpec):
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    bvec_file = File(exists=True, mandatory=True, desc="b-vectors, FSL format")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")
    target_mask_file = File(exists=True, mandatory=True, desc="brain mask on the target grid")
    acquired_file = File(exists=True, mandatory=True, desc="acquired series")
    sr_file = File(exists=True, mandatory=True, desc="restored series")
    cubic_file = File(exists=True, mandatory=True, desc="interpolated series")
    acquired_maps = InputMultiObject(File(exists=True), mandatory=True, desc="tensor maps of the acquired series")
    sr_maps = InputMultiObject(File(exists=True), mandatory=True, desc="tensor maps of the restored series")
    cubic_maps = InputMultiObject(File(exists=True), mandatory=True, desc="tensor maps of the interpolated series")
    averaged_sr_maps = InputMultiObject(File(exists=True), mandatory=True, desc="restored maps on the acquired grid")
    averaged_cubic_maps = InputMultiObject(File(exists=True), mandatory=True, desc="interpolated maps there")
    tissue_file = File(exists=True, mandatory=True, desc="tissue classes on the acquired grid")
    t1w_file = File(exists=True, desc="T1w in the world of the series")
    figures_dir = traits.Str(mandatory=True, desc="the subject's figures folder")
    stem = traits.Str(mandatory=True, desc="beginning of each picture's name")


class _MakeFiguresOutputSpec(CoreOutputSpec):
    figures = traits.Dict(desc="what was drawn, as the record keeps it")


class MakeFigures(CoreInterface):
    """Draw the acquired, the interpolated and the restored scan side by side."""

    # Its pictures lie outside the work folder, where nipype does not look whether they are still there.
    _always_run = True
    input_spec = _MakeFiguresInputSpec
    output_spec = _MakeFiguresOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        given = self.inputs
        gradients = read_gradients(Path(given.bval_file), Path(given.bvec_file))
        volume = volume_to_show(gradients, given.b0_threshold)
        figures = save_series_figures(
            Path(given.figures_dir),
            given.stem,
            acquired=self._panel("acquired", given.mask_file, gradients, volume),
            sr=self._panel("sr", given.target_mask_file, gradients, volume),
            cubic=self._panel("cubic", given.target_mask_file, gradients, volume),
            dwi_volume=volume,
            dwi_b=float(gradients.bvals[volume]),
            t1w=load_anatomy(given.t1w_file) if isdefined(given.t1w_file) else None,
            averaged={"sr": load_maps(given.averaged_sr_maps), "cubic": load_maps(given.averaged_cubic_maps)},
            tissues=np.asarray(nib.load(given.tissue_file).dataobj, dtype=np.uint8),
            bvals=gradients.bvals,
            bvecs=gradients.bvecs,
        )
        return {"figures": figures}

    def _panel(self, name: str, mask_file: str, gradients: Gradients, volume: int) -> Panel:
        """One version of the scan: its mean b0, one weighted volume and its tensor maps."""
        image = nib.load(getattr(self.inputs, f"{name}_file"))
        maps = load_maps(getattr(self.inputs, f"{name}_maps"))
        b0 = mean_b0(image.dataobj, gradients.bvals, self.inputs.b0_threshold)
        dwi = np.asarray(image.dataobj[..., volume], dtype=np.float32)
        return Panel(image.affine, b0, load_mask(mask_file), dwi, maps.fa, maps.md, maps.v1)


def volume_to_show(gradients: Gradients, b0_threshold: float) -> int:
    """The weighted volume that is shown: the first of the lowest shell, which has the best signal."""
    return int(np.flatnonzero(shells(gradients.bvals, b0_threshold) == 1)[0])


def load_anatomy(file: str) -> Anatomy:
    """The T1w image with its affine."""
    affine: NDArray[np.float64] = nib.load(file).affine
    return Anatomy(load_volume(file), affine)

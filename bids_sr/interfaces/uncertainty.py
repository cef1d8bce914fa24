"""The stage that carries the uncertainty of the restored series to FA and MD, and shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, traits
from numpy.typing import NDArray

from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import is_b0, read_bvals, read_gradients
from bids_sr.dwi.tensor_deviations import relative_deviation, tensor_deviations
from bids_sr.images import load_mask, save_working
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.interfaces.tensor import load_maps
from bids_sr.reports.figures import Panel
from bids_sr.reports.uncertainty_figure import save_uncertainty_figures


class _TellUncertaintyInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="acquired series")
    acquired_maps = InputMultiObject(File(exists=True), mandatory=True, desc="tensor maps of the acquired series")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")
    sr_file = File(exists=True, mandatory=True, desc="restored series")
    deviations_file = File(exists=True, mandatory=True, desc="its standard deviations")
    target_mask_file = File(exists=True, mandatory=True, desc="brain mask on the target grid")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    bvec_file = File(exists=True, mandatory=True, desc="b-vectors, FSL format")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")
    model_facts = traits.Dict(mandatory=True, desc="`uncertainty` of the model card")
    figures_dir = traits.Str(mandatory=True, desc="the subject's figures folder")
    stem = traits.Str(mandatory=True, desc="beginning of each picture's name")


class _TellUncertaintyOutputSpec(CoreOutputSpec):
    fa_file = File(exists=True, desc="standard deviation of FA on the target grid")
    md_file = File(exists=True, desc="standard deviation of MD in mm2/s on the target grid")
    uncertainty = traits.Dict(desc="medians in the brain, sentence, calibration, figures")


class TellUncertainty(CoreInterface):
    """Standard deviations of FA and MD from those of the signals, and what the report tells of them."""

    # Its pictures lie outside the work folder, where nipype does not look whether they are still there.
    _always_run = True
    input_spec = _TellUncertaintyInputSpec
    output_spec = _TellUncertaintyOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        given = self.inputs
        restored, deviations = nib.load(given.sr_file), nib.load(given.deviations_file)
        gradients = read_gradients(Path(given.bval_file), Path(given.bvec_file))
        mask, facts = load_mask(given.target_mask_file), given.model_facts
        random = np.random.default_rng(given.random_seed)
        tensor = tensor_deviations(
            restored.dataobj, deviations.dataobj, gradients, given.b0_threshold, mask, facts.get("shared", 0.0), random
        )
        weighted = np.flatnonzero(~is_b0(gradients.bvals, given.b0_threshold))
        relative = relative_deviation(restored.dataobj, deviations.dataobj, weighted, mask)
        maps = {"dwi": relative, "fa": tensor.fa, "md": tensor.md}
        medians = {name: float(np.median(volume[mask])) for name, volume in maps.items()}
        files = {name: save_working(maps[name], restored.affine, folder, f"deviation_{name}") for name in ("fa", "md")}
        told = {"done": True, "medians": medians, "sentence": sentence(medians), "calibration": calibration_of(facts)}
        figures = self._figures(maps, restored.affine, mask)
        return {"fa_file": files["fa"], "md_file": files["md"], "uncertainty": {**told, "figures": figures}}

    def _figures(
        self, maps: Mapping[str, NDArray[np.float32]], affine: NDArray[np.float64], mask: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Pictures of the maps."""
        given = self.inputs
        image, bvals = nib.load(given.dwi_file), read_bvals(Path(given.bval_file))
        b0 = mean_b0(image.dataobj, bvals, given.b0_threshold)
        acquired = Panel(image.affine, b0, load_mask(given.mask_file), fa=load_maps(given.acquired_maps).fa)
        return save_uncertainty_figures(
            Path(given.figures_dir),
            given.stem,
            acquired=acquired,
            target=Panel(affine, maps["dwi"], mask),
            deviations=maps,
        )


def calibration_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's 90 % intervals were scaled to hold for, and how often they held in the scans it was fitted to.

    Returns
    -------
    dict
        "scaled_to", names of scans, and "least" and "most", shares of intensities; empty where it is not known.
    """
    fitted = [facts["coverage"][name] for name in facts.get("scans", ())]
    if not fitted:
        return {}
    return {"scaled_to": list(facts["validation_scans"]), "least": min(fitted), "most": max(fitted)}


def sentence(medians: Mapping[str, float]) -> str:
    """What the deviations come to, for the report."""
    return (
        f"In the median voxel of the brain the standard deviation is {100 * medians['dwi']:.0f} % of the typical "
        f"weighted signal, {medians['fa']:.3f} in FA and {medians['md'] * 1e3:.3f} x 10^-3 mm2/s in MD."
    )

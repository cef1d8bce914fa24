"""The stage that refuses gradients which cannot belong to the series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, traits

from bids_sr.dwi.gradients import Gradients, check_gradients, read_gradients, shells
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec


class _CheckGradientsInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, (x, y, z, n)")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    bvec_file = File(exists=True, mandatory=True, desc="b-vectors, FSL format")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")


class _CheckGradientsOutputSpec(CoreOutputSpec):
    dwi_file = File(exists=True, desc="the series, now known to have its gradients")
    bval_file = File(exists=True, desc="the b-values, untouched")
    bvec_file = File(exists=True, desc="the b-vectors, untouched")
    summary = traits.Dict(desc="n_volumes, n_b0 and shells (b and n of each)")


class CheckGradients(CoreInterface):
    """Check that b-values and b-vectors fit the series; hand the files on unchanged."""

    input_spec = _CheckGradientsInputSpec
    output_spec = _CheckGradientsOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        files = {name: getattr(self.inputs, name) for name in ("dwi_file", "bval_file", "bvec_file")}
        gradients = read_gradients(Path(files["bval_file"]), Path(files["bvec_file"]))
        n_volumes = nib.load(files["dwi_file"]).shape[3]
        check_gradients(gradients, n_volumes, self.inputs.b0_threshold, Path(files["dwi_file"]).name)
        return {**files, "summary": summarize(gradients, self.inputs.b0_threshold)}


def summarize(gradients: Gradients, b0_threshold: float) -> dict[str, Any]:
    """How many volumes there are at which diffusion weighting; the b of a shell is the mean of its volumes."""
    shell = shells(gradients.bvals, b0_threshold)
    weighted = [
        {"b": round(float(gradients.bvals[shell == number].mean())), "n": int((shell == number).sum())}
        for number in np.unique(shell[shell > 0])
    ]
    return {"n_volumes": len(shell), "n_b0": int((shell == 0).sum()), "shells": weighted}

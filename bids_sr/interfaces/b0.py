"""The stage that averages the volumes without diffusion weighting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
from nipype.interfaces.base import File, traits

from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import read_bvals
from bids_sr.images import save_working
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec


class _MeanB0InputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, (x, y, z, n)")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")


class _MeanB0OutputSpec(CoreOutputSpec):
    b0_file = File(exists=True, desc="mean b0, (x, y, z)")


class MeanB0(CoreInterface):
    """Average the volumes that carry no diffusion weighting."""

    input_spec = _MeanB0InputSpec
    output_spec = _MeanB0OutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        image = nib.load(self.inputs.dwi_file)
        bvals = read_bvals(Path(self.inputs.bval_file))
        b0 = mean_b0(image.dataobj, bvals, self.inputs.b0_threshold)
        return {"b0_file": save_working(b0, image.affine, folder, "b0")}

"""The stages that say where the brain is, on the acquired and on the target grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
from nipype.interfaces.base import File, isdefined, traits

from bids_sr.dwi.gradients import read_bvals
from bids_sr.dwi.mask import brain_mask, check_mask_grid, millilitres
from bids_sr.dwi.normalization import describe_odd_volumes
from bids_sr.images import load_array, load_grid, load_mask, save_working
from bids_sr.inference.upsampler import restore_mask
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec, as_grid


class _BrainMaskInputSpec(CoreInputSpec):
    b0_file = File(exists=True, mandatory=True, desc="mean b0, (x, y, z)")
    given_file = File(exists=True, desc="a mask on the same grid, which then wins")
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, (x, y, z, n)")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")


class _BrainMaskOutputSpec(CoreOutputSpec):
    mask_file = File(exists=True, desc="brain mask on the acquired grid")
    summary = traits.Dict(desc="source (given or median_otsu), volume_ml, and odd_volumes, which stand out")


class BrainMask(CoreInterface):
    """Take the mask that is given, or find the brain in the mean b0."""

    input_spec = _BrainMaskInputSpec
    output_spec = _BrainMaskOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        grid = load_grid(self.inputs.b0_file)
        given = isdefined(self.inputs.given_file)
        if given:
            check_mask_grid(load_grid(self.inputs.given_file), grid, self.inputs.given_file)
            mask = load_mask(self.inputs.given_file)
        else:
            mask = brain_mask(load_array(self.inputs.b0_file), grid.affine)
        bvals = read_bvals(Path(self.inputs.bval_file))
        data = nib.load(self.inputs.dwi_file).dataobj
        summary = {
            "source": "given" if given else "median_otsu",
            "volume_ml": millilitres(mask, grid),
            "odd_volumes": describe_odd_volumes(data, bvals, mask, self.inputs.b0_threshold),
        }
        return {"mask_file": save_working(mask, grid.affine, folder, "mask"), "summary": summary}


class _TargetMaskInputSpec(CoreInputSpec):
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")
    target_shape = traits.List(traits.Int(), mandatory=True, desc="voxels per axis of the target grid, (3,)")
    target_affine = traits.List(traits.List(traits.Float()), mandatory=True, desc="affine of the target grid, (4, 4)")


class _TargetMaskOutputSpec(CoreOutputSpec):
    mask_file = File(exists=True, desc="brain mask on the target grid")


class TargetMask(CoreInterface):
    """Carry the brain mask to the target grid."""

    input_spec = _TargetMaskInputSpec
    output_spec = _TargetMaskOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        target = as_grid(self.inputs.target_shape, self.inputs.target_affine)
        mask = restore_mask(load_mask(self.inputs.mask_file), load_grid(self.inputs.mask_file), target)
        return {"mask_file": save_working(mask, target.affine, folder, "target_mask")}

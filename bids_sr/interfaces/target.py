"""The stage that finds the grid that is asked for, where the series is known only when the workflow runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, isdefined, traits

from bids_sr.geometry import target_grid
from bids_sr.images import load_grid
from bids_sr.inference.upsampler import check_scale
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.models.registry import read_trained_card


class _FindTargetInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, (x, y, z, n)")
    model = traits.Str(mandatory=True, desc="name in the registry, or path of a model card")
    scale = traits.List(traits.Float(), xor=["voxel_size"], desc="new voxels per acquired voxel, (3,)")
    voxel_size = traits.List(traits.Float(), xor=["scale"], desc="new voxel size in mm, (3,)")


class _FindTargetOutputSpec(CoreOutputSpec):
    target_shape = traits.List(traits.Int(), desc="voxels per axis of the target grid, (3,)")
    target_affine = traits.List(traits.List(traits.Float()), desc="affine of the target grid, (4, 4)")


class FindTarget(CoreInterface):
    """Find the target grid of a series; refuse one that the model was not made for."""

    input_spec = _FindTargetInputSpec
    output_spec = _FindTargetOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        source, name = load_grid(self.inputs.dwi_file), Path(self.inputs.dwi_file).name
        target = target_grid(source, _three(self.inputs.voxel_size), _three(self.inputs.scale), name)
        check_scale(source, target, read_trained_card(self.inputs.model), name)
        return {"target_shape": list(target.shape), "target_affine": target.affine.tolist()}


def _three(given: Any) -> tuple[float, float, float] | None:
    """An input of three numbers, or None where it is not set."""
    if not isdefined(given):
        return None
    x, y, z = given
    return x, y, z

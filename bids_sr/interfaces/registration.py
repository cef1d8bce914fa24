"""The stage that brings the T1w image into the world of the diffusion series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, traits

from bids_sr.dwi.registration import register_rigid
from bids_sr.images import load_array, load_mask, load_volume, save_working
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec


class _RegisterT1wInputSpec(CoreInputSpec):
    b0_file = File(exists=True, mandatory=True, desc="mean b0, (x, y, z)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the grid of the b0")
    t1w_file = File(exists=True, mandatory=True, desc="T1w image of the same person")
    sloppy = traits.Bool(False, usedefault=True, desc="fewer iterations, for tests")


class _RegisterT1wOutputSpec(CoreOutputSpec):
    t1w_file = File(exists=True, desc="T1w in the world of the series, voxels untouched")
    summary = traits.Dict(
        desc="rotation_degrees, translation_mm, mutual_information, start, agreement, contrast, coverage, matrix"
    )


class RegisterT1w(CoreInterface):
    """Find the rigid motion from the T1w image to the mean b0 and apply it to the affine alone."""

    input_spec = _RegisterT1wInputSpec
    output_spec = _RegisterT1wOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        b0, t1w = nib.load(self.inputs.b0_file), nib.load(self.inputs.t1w_file)
        voxels = load_volume(self.inputs.t1w_file)
        found = register_rigid(
            load_array(self.inputs.b0_file),
            b0.affine,
            load_mask(self.inputs.mask_file),
            voxels,
            t1w.affine,
            sloppy=self.inputs.sloppy,
        )
        summary = {
            "rotation_degrees": _plain(found.rotation_degrees),
            "translation_mm": _plain(found.translation_mm),
            "mutual_information": float(found.mutual_information),
            "agreement": float(found.agreement),
            "contrast": float(found.contrast),
            "coverage": float(found.coverage),
            "start": found.start,
            "matrix": found.matrix.tolist(),
        }
        return {"t1w_file": save_working(voxels, found.matrix @ t1w.affine, folder, "t1w"), "summary": summary}


def _plain(value: Any) -> Any:
    """A number or an array of numbers as plain Python, which JSON can hold."""
    return np.asarray(value, dtype=float).tolist()

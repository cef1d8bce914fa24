"""The stages that fit the diffusion tensor and bring its maps back onto the acquired grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, OutputMultiObject, traits
from numpy.typing import NDArray

from bids_sr.dwi.averaging import average_maps
from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.tensor import TensorMaps, colour_fa, fit_tensor, fit_tensor_elements
from bids_sr.images import load_array, load_grid, load_mask, save_working
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec

MAPS = ("fa", "md", "ad", "rd", "v1")
ELEMENTS = ("tensor", "eigenvalues", "eigenvectors")


class _FitTensorInputSpec(CoreInputSpec):
    dwi_file = File(exists=True, mandatory=True, desc="diffusion series, (x, y, z, n)")
    bval_file = File(exists=True, mandatory=True, desc="b-values, FSL format")
    bvec_file = File(exists=True, mandatory=True, desc="b-vectors, FSL format")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the grid of the series")
    b0_threshold = traits.Float(mandatory=True, desc="volumes with b up to this count as b0, s/mm2")
    keep_elements = traits.Bool(False, usedefault=True, desc="write the tensor too, not its maps alone")


class _FitTensorOutputSpec(CoreOutputSpec):
    map_files = OutputMultiObject(File(exists=True), desc="FA, MD, AD, RD and V1")
    derivative_files = OutputMultiObject(File(exists=True), desc="FA, MD and colour FA, as they are published")
    element_files = OutputMultiObject(
        File(exists=True), desc="tensor, eigenvalues, eigenvectors; undefined if not kept"
    )


class FitTensor(CoreInterface):
    """Fit the diffusion tensor by weighted least squares."""

    input_spec = _FitTensorInputSpec
    output_spec = _FitTensorOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        image = nib.load(self.inputs.dwi_file)
        gradients = read_gradients(Path(self.inputs.bval_file), Path(self.inputs.bvec_file))
        mask = load_mask(self.inputs.mask_file)
        kept = {}
        if self.inputs.keep_elements:
            maps, elements = fit_tensor_elements(image.dataobj, image.affine, gradients, self.inputs.b0_threshold, mask)
            kept["element_files"] = [
                save_working(getattr(elements, name), image.affine, folder, name) for name in ELEMENTS
            ]
        else:
            maps = fit_tensor(image.dataobj, gradients, self.inputs.b0_threshold, mask)
        files = save_maps(maps, image.affine, folder)
        colours = save_working(colour_fa(maps, image.affine), image.affine, folder, "colour_fa")
        return {"map_files": files, "derivative_files": [*files[:2], colours], **kept}


class _AverageMapsInputSpec(CoreInputSpec):
    map_files = InputMultiObject(File(exists=True), mandatory=True, desc="FA, MD, AD, RD and V1 on a fine grid")
    fine_mask_file = File(exists=True, mandatory=True, desc="brain mask on the fine grid")
    coarse_mask_file = File(exists=True, mandatory=True, desc="brain mask on the acquired grid")


class _AverageMapsOutputSpec(CoreOutputSpec):
    map_files = OutputMultiObject(File(exists=True), desc="the maps, averaged over the acquired voxels")


class AverageMaps(CoreInterface):
    """Average tensor maps of a fine grid over the voxels of the acquired grid."""

    input_spec = _AverageMapsInputSpec
    output_spec = _AverageMapsOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        fine, coarse = load_grid(self.inputs.fine_mask_file), load_grid(self.inputs.coarse_mask_file)
        mask = load_mask(self.inputs.fine_mask_file)
        maps = average_maps(load_maps(self.inputs.map_files), fine, coarse, mask)
        return {"map_files": save_maps(maps, coarse.affine, folder)}


def load_maps(files: list[str]) -> TensorMaps:
    """Tensor maps from files in the order of `MAPS`."""
    return TensorMaps(*(load_array(file) for file in files))


def save_maps(maps: TensorMaps, affine: NDArray[np.float64], folder: Path) -> list[str]:
    """Write tensor maps into a node's folder, in the order of `MAPS`."""
    return [save_working(getattr(maps, name), affine, folder, name) for name in MAPS]

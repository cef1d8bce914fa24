"""The stages that put finished files into the output dataset."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, OutputMultiObject, isdefined, traits

from bids_sr.bids.outputs import COLUMNS, save_image, save_table, write_atomically
from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec


class _SaveDerivativesInputSpec(CoreInputSpec):
    in_files = InputMultiObject(File(exists=True), desc="files in the work folder")
    out_files = traits.List(traits.Str(), mandatory=True, desc="where each goes in the output dataset")
    sidecars = traits.List(traits.Dict(), mandatory=True, desc="metadata of each; empty for none")
    found = traits.Dict(desc="metadata that the stage found, for every sidecar")
    optional = traits.Bool(False, usedefault=True, desc="save the first of `out_files` for as many files as there are")
    header_file = File(exists=True, mandatory=True, desc="image whose units and form codes are kept")


class _SaveDerivativesOutputSpec(CoreOutputSpec):
    out_files = OutputMultiObject(File(exists=True), desc="the files in the output dataset")


class SaveDerivatives(CoreInterface):
    """Save images compressed with their sidecars; copy other files byte for byte."""

    # What it wrote lies outside the work folder, where nipype does not look whether it is still there.
    _always_run = True
    input_spec = _SaveDerivativesInputSpec
    output_spec = _SaveDerivativesOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        sources = self.inputs.in_files if isdefined(self.inputs.in_files) else []
        outputs, found = self.inputs.out_files, self.inputs.found if isdefined(self.inputs.found) else {}
        if self.inputs.optional:
            for left in outputs[len(sources) :]:
                remove_image(Path(left))
            outputs = outputs[: len(sources)]
        for source, target, sidecar in zip(sources, outputs, self.inputs.sidecars, strict=not self.inputs.optional):
            if target.endswith(".nii.gz"):
                self._save_image(source, Path(target), joined(sidecar, found))
            else:
                copy(Path(source), Path(target))
        return {"out_files": outputs}

    def _save_image(self, source: str, target: Path, sidecar: Mapping[str, Any]) -> None:
        image = nib.load(source)
        # The array is mapped, not read: a restored series may be larger than memory.
        data = np.asanyarray(image.dataobj)
        header = nib.load(self.inputs.header_file).header
        save_image(target, data, image.affine, header_from=header, sidecar=sidecar)


class _SaveTableInputSpec(CoreInputSpec):
    rows = traits.List(traits.Dict(), mandatory=True, desc="one dictionary per row")
    out_file = traits.Str(mandatory=True, desc="TSV file in the output dataset")
    columns = traits.Dict(COLUMNS, usedefault=True, desc="what each column means")


class _SaveTableOutputSpec(CoreOutputSpec):
    out_files = OutputMultiObject(File(exists=True), desc="the table and the dictionary of its columns")


class SaveTable(CoreInterface):
    """Save a comparison as a TSV with the dictionary of its columns."""

    # What it wrote lies outside the work folder, where nipype does not look whether it is still there.
    _always_run = True
    input_spec = _SaveTableInputSpec
    output_spec = _SaveTableOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        save_table(Path(self.inputs.out_file), self.inputs.rows, self.inputs.columns)
        return {"out_files": [self.inputs.out_file, str(Path(self.inputs.out_file).with_suffix(".json"))]}


def joined(sidecar: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that were known before with those that a stage found; warnings of both."""
    warnings = [*sidecar.get("Warnings", []), *found.get("Warnings", [])]
    return {**sidecar, **found, **({"Warnings": warnings} if warnings else {})}


def remove_image(file: Path) -> None:
    """Remove an image that an earlier run left, with its sidecar: it would be taken for a part of this result."""
    for path in (file, file.with_name(file.name.removesuffix(".nii.gz") + ".json")):
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file byte for byte; it appears whole or not at all."""
    with write_atomically(target) as temporary:
        shutil.copyfile(source, temporary)

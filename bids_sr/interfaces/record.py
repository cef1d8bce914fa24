"""The last stage of a series: the record that reports are made from and that says the series is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, isdefined, traits

from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.records import GUARDS, complete_record, write_record
from bids_sr.reports.figures import picture_files

STAGES = ("preprocess", "super_resolution", "tensor", "self_check", "guards", "uncertainty", "report")
#: Parts of the record with pictures of their own.
DRAWN = ("self_check", *GUARDS, "uncertainty")
PARTS = ("gradients", "mask", "registration", "t1w", "fit", "tensor_table", "truth_table", *DRAWN, "figures")


class _WriteRecordInputSpec(CoreInputSpec):
    record = traits.Dict(mandatory=True, desc="what was known before the run")
    gradients = traits.Dict(desc="volumes and shells")
    mask = traits.Dict(desc="where the mask comes from and how large it is")
    registration = traits.Dict(desc="motion found between T1w and series")
    t1w = traits.Dict(desc="whether the model saw the T1w, and why not")
    fit = traits.Dict(desc="how the model was fitted to the series; empty for a model that is not")
    tensor_table = traits.List(traits.Dict(), desc="comparison with the acquired maps")
    truth_table = traits.List(traits.Dict(), desc="comparison with the truth")
    self_check = traits.Dict(desc="what came of the self-check; undefined where none was asked for")
    departure = traits.Dict(desc="where the result departs from the acquired scan")
    t1w_effect = traits.Dict(desc="what the T1w changed; undefined or empty where the model saw none")
    uncertainty = traits.Dict(desc="how uncertain the result is; undefined where it was not asked for")
    figures = traits.Dict(mandatory=True, desc="pictures drawn")
    preprocess_seconds = traits.List(traits.Float(), desc="times of the stages before super-resolution")
    super_resolution_seconds = traits.List(traits.Float(), desc="times of restoring and interpolating")
    tensor_seconds = traits.List(traits.Float(), desc="times of the fits and comparisons")
    self_check_seconds = traits.List(traits.Float(), desc="time of the self-check")
    guards_seconds = traits.List(traits.Float(), desc="times of the guards")
    uncertainty_seconds = traits.List(traits.Float(), desc="time of carrying the uncertainty to the tensor")
    report_seconds = traits.List(traits.Float(), desc="times of saving and drawing")
    outputs = InputMultiObject(InputMultiObject(File(exists=True)), desc="files in the output dataset")
    output_dir = traits.Str(mandatory=True, desc="root of the output dataset")
    out_file = traits.Str(mandatory=True, desc="the record's file")


class _WriteRecordOutputSpec(CoreOutputSpec):
    out_file = File(exists=True, desc="the record")


class WriteRecord(CoreInterface):
    """Gather what the stages found and write the record of the series."""

    # It lies outside the work folder, where nipype does not look whether it is still there.
    _always_run = True
    input_spec = _WriteRecordInputSpec
    output_spec = _WriteRecordOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        parts = {name: getattr(self.inputs, name) for name in PARTS if isdefined(getattr(self.inputs, name))}
        times = {stage: getattr(self.inputs, f"{stage}_seconds") for stage in STAGES}
        seconds = {stage: sum(values) for stage, values in times.items() if isdefined(values)}
        record = complete_record(self.inputs.record, parts, seconds, self._relative_outputs())
        write_record(Path(self.inputs.out_file), record)
        return {"out_file": self.inputs.out_file}

    def _relative_outputs(self) -> list[str]:
        """List the files written, relative to the root of the output dataset."""
        root, figures_dir = Path(self.inputs.output_dir), Path(self.inputs.out_file).parent
        # nipype makes an undefined value of the empty list of what a check that failed has saved.
        files = [Path(file) for group in self.inputs.outputs if isdefined(group) for file in group]
        parts = [getattr(self.inputs, name) for name in DRAWN]
        drawn = [part.get("figures", {}) for part in parts if isdefined(part)]
        files += [figures_dir / name for figures in (self.inputs.figures, *drawn) for name in picture_files(figures)]
        return sorted(str(file.relative_to(root)) for file in files)

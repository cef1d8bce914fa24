"""The last stage of a series: the record that reports are made from and that says the series is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, isdefined, traits

from bids_sr.interfaces.core import CoreInputSpec, CoreInterface, CoreOutputSpec
from bids_sr.records import complete_record, write_record
from bids_sr.reports.figures import picture_files

STAGES = ("preprocess", "super_resolution", "tensor", "report")
PARTS = ("gradients", "mask", "registration", "t1w", "tensor_table", "truth_table", "figures")


class _WriteRecordInputSpec(CoreInputSpec):
    record = traits.Dict(mandatory=True, desc="what was known before the run")
    gradients = traits.Dict(desc="volumes and shells")
    mask = traits.Dict(desc="where the mask comes from and how large it is")
    registration = traits.Dict(desc="motion found between T1w and series")
    t1w = traits.Dict(desc="whether the model saw the T1w, and why not")
    tensor_table = traits.List(traits.Dict(), desc="comparison with the acquired maps")
    truth_table = traits.List(traits.Dict(), desc="comparison with the truth")
    figures = traits.Dict(mandatory=True, desc="pictures drawn")
    preprocess_seconds = traits.List(traits.Float(), desc="times of the stages before super-resolution")
    super_resolution_seconds = traits.List(traits.Float(), desc="times of restoring and interpolating")
    tensor_seconds = traits.List(traits.Float(), desc="times of the fits and comparisons")
    report_seconds = traits.List(traits.Float(), desc="times of saving and drawing")
    outputs = InputMultiObject(InputMultiObject(File(exists=True)), desc="files in the output dataset")
    output_dir = traits.Str(mandatory=True, desc="root of the output dataset")
    out_file = traits.Str(mandatory=True, desc="the record's file")


class _WriteRecordOutputSpec(CoreOutputSpec):
    out_file = File(exists=True, desc="the record")


class WriteRecord(CoreInterface):
    """Gather what the stages found and write the record of the series."""

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
        files = [Path(file) for group in self.inputs.outputs for file in group]
        files += [figures_dir / name for name in picture_files(self.inputs.figures)]
        return sorted(str(file.relative_to(root)) for file in files)

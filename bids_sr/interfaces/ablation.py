"""The stage that restores some volumes without the T1w, so that it can be seen what the T1w changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, traits

from bids_sr.dwi.gradients import read_gradients
from bids_sr.evaluation.ablation import volumes_to_ablate
from bids_sr.interfaces.failure import Failure
from bids_sr.interfaces.super_resolution import Restore, RestoreInputSpec, RestoreOutputSpec
from bids_sr.records import undone_check


class _RestoreWithoutT1wInputSpec(RestoreInputSpec):
    bvec_file = File(exists=True, mandatory=True, desc="b-vectors, FSL format")
    t1w = traits.Dict(mandatory=True, desc="whether the model saw the T1w when it restored the series")


class _RestoreWithoutT1wOutputSpec(RestoreOutputSpec):
    volumes = traits.List(traits.Int(), desc="which volumes of the series were restored; none where no T1w was used")
    failure = traits.Dict(desc="why it could not be done, as the record keeps it; empty where nothing failed")


class RestoreWithoutT1w(Restore):
    """Restore a few volumes without the T1w where the series was restored with it; whatever fails, fails no run."""

    # A failure is an output like any other, which nipype would keep; a later run is to try again.
    _always_run = True
    input_spec = _RestoreWithoutT1wInputSpec
    output_spec = _RestoreWithoutT1wOutputSpec

    def _execute(self, folder: Path) -> Mapping[str, Any]:
        if not self.inputs.t1w.get("used", False):
            return {"volumes": [], "failure": {}}
        try:
            gradients = read_gradients(Path(self.inputs.bval_file), Path(self.inputs.bvec_file))
            volumes = volumes_to_ablate(gradients, self.inputs.b0_threshold).tolist()
            restored = self._restored(folder, "volumes restored without the T1w", volumes)
        except Exception as error:
            return {"volumes": [], "failure": undone_check(Failure.of(error).message, failed=True)}
        return {**restored, "volumes": volumes, "failure": {}}

"""The graph of a run: one branch per series, from its files to its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces.utility import Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.interfaces.figures import MakeFigures
from bids_sr.interfaces.record import WriteRecord
from bids_sr.interfaces.uncertainty import TellUncertainty
from bids_sr.records import undone_check
from bids_sr.workflows.derivatives import init_derivatives_wf
from bids_sr.workflows.guards import ablation_node, guard_node
from bids_sr.workflows.memory import PROCESS_GB, figures_gb, uncertainty_gb
from bids_sr.workflows.plan import CUBIC, SeriesPlan
from bids_sr.workflows.preprocess import INPUTS as FILES
from bids_sr.workflows.self_check import self_check_node
from bids_sr.workflows.settings import Restoration
from bids_sr.workflows.super_resolution import connect_restoration
from bids_sr.workflows.tensor import init_tensor_wf

NAME = "participant"
SERIES_FIELDS = ("dwi_file", "bval_file", "bvec_file", "b0_file", "mask_file", "t1w_file")
MAP_FIELDS = ("acquired_maps", "sr_maps", "cubic_maps", "averaged_sr_maps", "averaged_cubic_maps", "tissue_file")
CHECK_FIELDS = ("dwi_file", "bval_file", "bvec_file", "mask_file", "t1w_file")
GUARD_FIELDS = ("dwi_file", "bval_file", "bvec_file", "mask_file")
SAVED_MAPS = ("acquired_derivatives", "sr_derivatives", "cubic_derivatives", "tensor_table")
SAVED_ELEMENTS = ("acquired_elements", "sr_elements", "cubic_elements")


def init_participant_wf(
    plans: Sequence[SeriesPlan], records: Sequence[Mapping[str, Any]], name: str = NAME
) -> Workflow:
    """One branch per series; branches know nothing of each other, so one that fails stops no other.

    Parameters
    ----------
    plans : sequence of SeriesPlan
    records : sequence of mappings
        Opening record of each.
    """
    workflow = Workflow(name=name)
    workflow.add_nodes([init_series_wf(plan, record) for plan, record in zip(plans, records, strict=True)])
    return workflow


def init_series_wf(plan: SeriesPlan, record: Mapping[str, Any]) -> Workflow:
    """A series: preprocessed, restored, fitted and compared, checked, saved, drawn, recorded."""
    workflow = Workflow(name=plan.workflow_name)
    preprocess, restore = connect_restoration(workflow, Restoration.of(plan))
    given = {field: getattr(plan.series, field.removesuffix("_file")) for field in FILES}
    preprocess.get_node("inputs").inputs.trait_set(**{field: str(file) for field, file in given.items() if file})
    tensor, derivatives = init_tensor_wf(plan), init_derivatives_wf(plan)
    figures = figures_node(plan)
    workflow.connect(
        [
            (preprocess, tensor, [(f"outputs.{name}", f"inputs.{name}") for name in SERIES_FIELDS]),
            (restore, tensor, [("outputs.mask_file", "inputs.target_mask_file")]),
            (restore, tensor, [(f"outputs.{name}", f"inputs.{name}") for name in ("sr_file", "cubic_file")]),
            (
                preprocess,
                derivatives,
                [(f"outputs.{name}", f"inputs.{name}") for name in ("t1w_file", "mask_file", "bval_file", "bvec_file")],
            ),
            (restore, derivatives, [("outputs.mask_file", "inputs.target_mask_file")]),
            (restore, derivatives, [(f"outputs.{name}", f"inputs.{name}") for name in ("sr_file", "cubic_file")]),
            (tensor, derivatives, [(f"outputs.{name}", f"inputs.{name}") for name in SAVED_MAPS]),
            (preprocess, figures, [("outputs.dwi_file", "acquired_file")]),
            (
                preprocess,
                figures,
                [(f"outputs.{name}", name) for name in ("bval_file", "bvec_file", "mask_file", "t1w_file")],
            ),
            (restore, figures, [("outputs.mask_file", "target_mask_file")]),
            (restore, figures, [(f"outputs.{name}", name) for name in ("sr_file", "cubic_file")]),
            (tensor, figures, [(f"outputs.{name}", name) for name in MAP_FIELDS]),
        ]
    )
    _connect_record(workflow, plan, record, figures)
    _connect_sidecar(workflow)
    if plan.config.save_tensor:
        workflow.connect([(tensor, derivatives, [(f"outputs.{name}", f"inputs.{name}") for name in SAVED_ELEMENTS])])
    if plan.checks_itself:
        _connect_self_check(workflow, plan)
    _connect_guards(workflow, plan)
    if plan.config.uncertainty:
        _connect_uncertainty(workflow, plan)
    return workflow


def figures_node(plan: SeriesPlan) -> Node:
    """The node that draws a series."""
    interface = MakeFigures(
        b0_threshold=plan.config.b0_threshold,
        figures_dir=str(plan.layout.figures(plan.series)),
        stem=plan.stem,
        random_seed=plan.config.random_seed,
    )
    return Node(interface, name="figures", mem_gb=figures_gb(plan))


def _connect_self_check(workflow: Workflow, plan: SeriesPlan) -> None:
    """Add the check, which the model enters with the T1w that it was given for the series itself."""
    check = self_check_node(plan)
    preprocess, restore, tensor, derivatives, record = _stages(workflow)
    workflow.connect(
        [
            (preprocess, check, [(f"outputs.{name}", name) for name in CHECK_FIELDS]),
            (restore, check, [("outputs.t1w", "t1w")]),
            (tensor, check, [("outputs.tissue_file", "tissue_file")]),
            (check, derivatives, [("rows", "inputs.self_check_table")]),
            (check, record, [("self_check", "self_check"), (("seconds", _as_list), "self_check_seconds")]),
        ]
    )


def _stages(workflow: Workflow) -> list[Any]:
    """The graphs that the checks take from, and those that they give to."""
    return [workflow.get_node(name) for name in ("preprocess", "super_resolution", "tensor", "derivatives", "record")]


def _connect_guards(workflow: Workflow, plan: SeriesPlan) -> None:
    """Add the guards against invention."""
    guard = guard_node(plan)
    preprocess, restore, tensor, derivatives, record = _stages(workflow)
    times = Node(Merge(2), name="guard_times", run_without_submitting=True)
    workflow.connect(
        [
            (preprocess, guard, [(f"outputs.{name}", name) for name in GUARD_FIELDS]),
            (restore, guard, [("outputs.sr_file", "sr_file"), ("outputs.mask_file", "target_mask_file")]),
            (tensor, guard, [(f"outputs.{name}", name) for name in ("acquired_maps", "tissue_file")]),
            (guard, derivatives, [(f"departure_{name}", f"inputs.departure_{name}") for name in ("file", "fields")]),
            (guard, record, [("departure", "departure")]),
            (guard, times, [("seconds", "in1")]),
            (times, record, [("out", "guards_seconds")]),
        ]
    )
    if plan.card.name != CUBIC:
        workflow.connect(restore, "outputs.cubic_file", guard, "cubic_file")
    if plan.tests_t1w:
        _connect_ablation(workflow, plan, guard, times)


def _connect_ablation(workflow: Workflow, plan: SeriesPlan, guard: Node, times: Node) -> None:
    """Add the restoration of some volumes without the T1w, which is skipped where the model did not see it anyway."""
    ablate = ablation_node(plan)
    preprocess, restore, _, derivatives, record = _stages(workflow)
    given = {"dwi_file": "without_t1w_file", "volumes": "without_t1w_volumes", "failure": "without_t1w_failure"}
    workflow.connect(
        [
            (preprocess, ablate, [(f"outputs.{name}", name) for name in GUARD_FIELDS]),
            (restore, ablate, [("outputs.t1w", "t1w")]),
            (ablate, guard, list(given.items())),
            (ablate, times, [("seconds", "in2")]),
            (guard, derivatives, [(f"t1w_effect_{name}", f"inputs.t1w_effect_{name}") for name in ("files", "fields")]),
            (guard, record, [("t1w_effect", "t1w_effect")]),
        ]
    )


def _connect_uncertainty(workflow: Workflow, plan: SeriesPlan) -> None:
    """Add what carries the uncertainty of the series to the tensor."""
    interface = TellUncertainty(
        b0_threshold=plan.config.b0_threshold,
        model_facts=dict(plan.card.uncertainty),
        figures_dir=str(plan.layout.figures(plan.series)),
        stem=plan.stem,
        random_seed=plan.config.random_seed,
    )
    node = Node(interface, name="uncertainty", mem_gb=uncertainty_gb(plan))
    preprocess, restore, tensor, derivatives, record = _stages(workflow)
    restored = [
        ("outputs.mask_file", "target_mask_file"),
        *((f"outputs.{n}", n) for n in ("sr_file", "deviations_file")),
    ]
    workflow.connect(
        [
            (preprocess, node, [(f"outputs.{name}", name) for name in GUARD_FIELDS]),
            (restore, node, restored),
            (restore, derivatives, [("outputs.deviations_file", "inputs.deviations_file")]),
            (tensor, node, [("outputs.acquired_maps", "acquired_maps")]),
            (node, derivatives, [(f"{name}_file", f"inputs.{name}_deviation_file") for name in ("fa", "md")]),
            (node, record, [("uncertainty", "uncertainty"), (("seconds", _as_list), "uncertainty_seconds")]),
        ]
    )


def _connect_sidecar(workflow: Workflow) -> None:
    """Let the restored series' sidecar tell what the stages found to be wrong; the registration may be undefined."""
    preprocess, restore, _, derivatives, _ = _stages(workflow)
    told = Node(Merge(4), name="told", run_without_submitting=True)
    workflow.connect(
        [
            (restore, told, [("outputs.t1w", "in1"), ("outputs.fit", "in2")]),
            (preprocess, told, [("outputs.mask", "in3"), ("outputs.registration", "in4")]),
            (told, derivatives, [(("out", _sidecar_fields), "inputs.sr_fields")]),
        ]
    )


def _sidecar_fields(parts: list[dict[str, object]]) -> dict[str, object]:
    """Metadata of a restored series; the import is here because nipype hands on the text of this function alone."""
    from bids_sr.records import sidecar_fields

    return sidecar_fields(dict(zip(("t1w", "fit", "mask", "registration"), parts, strict=False)))


def _as_list(seconds: float) -> list[float]:
    """One time as a list of times."""
    return [seconds]


def _connect_record(workflow: Workflow, plan: SeriesPlan, record: Mapping[str, Any], figures: Node) -> None:
    """Add the record, which is written after everything else and so says that the series is done."""
    write = WriteRecord(record=dict(record), output_dir=str(plan.config.output_dir), out_file=str(plan.record_file))
    if plan.config.self_check and plan.self_check_hindrance:
        write.inputs.self_check = undone_check(plan.self_check_hindrance)
    node = Node(write, name="record", mem_gb=PROCESS_GB)
    report_times = Node(Merge(2), name="report_times", run_without_submitting=True)
    preprocess, restore, tensor, derivatives = (
        workflow.get_node(name) for name in ("preprocess", "super_resolution", "tensor", "derivatives")
    )
    workflow.connect(
        [
            (preprocess, node, [(f"outputs.{name}", name) for name in ("gradients", "mask", "registration")]),
            (preprocess, node, [("outputs.seconds", "preprocess_seconds")]),
            (restore, node, [("outputs.t1w", "t1w"), ("outputs.fit", "fit")]),
            (restore, node, [("outputs.seconds", "super_resolution_seconds")]),
            (tensor, node, [(f"outputs.{name}", name) for name in ("tensor_table", "truth_table")]),
            (tensor, node, [("outputs.seconds", "tensor_seconds")]),
            (derivatives, node, [("outputs.files", "outputs")]),
            (derivatives, report_times, [("outputs.seconds", "in1")]),
            (figures, report_times, [("seconds", "in2")]),
            (report_times, node, [("out", "report_seconds")]),
            (figures, node, [("figures", "figures")]),
        ]
    )

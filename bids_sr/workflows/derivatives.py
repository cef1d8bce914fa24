"""The graph that puts results into the output dataset, each with the metadata that says what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.bids.outputs import sidecar_of
from bids_sr.interfaces.derivatives import SaveDerivatives, SaveTable
from bids_sr.workflows.memory import PROCESS_GB, save_gb
from bids_sr.workflows.plan import SeriesPlan, opening_warnings

TENSOR = "diffusion tensor fitted by weighted least squares (DIPY)"
MAPS = {
    "FA": f"Fractional anisotropy of the {TENSOR}.",
    "ADC": f"Mean diffusivity in mm^2/s of the {TENSOR}.",
    "colFA": f"Principal direction of the {TENSOR}: red left-right, green front-back, blue feet-head, as bright as FA.",
}
INPUTS = [
    "t1w_file",
    "mask_file",
    "target_mask_file",
    "sr_file",
    "cubic_file",
    "bval_file",
    "bvec_file",
    "acquired_derivatives",
    "sr_derivatives",
    "cubic_derivatives",
    "tensor_table",
]


@dataclass(frozen=True)
class Derivative:
    """Where a result goes, and what is said of it (nothing for files that are only copied)."""

    path: Path
    sidecar: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Results that one node saves: the fields of the graph's inputs that hold them, and where they go."""

    name: str
    fields: tuple[str, ...]
    derivatives: tuple[Derivative, ...]


def init_derivatives_wf(plan: SeriesPlan, name: str = "derivatives") -> Workflow:
    """Every result saved in the output dataset.

    Inputs (node ``inputs``): results of the other graphs. Outputs (node ``outputs``): `files`, a list of lists of what
    was written, and `seconds`.
    """
    groups = list(saved_groups(plan))
    workflow = Workflow(name=name)
    inputs = Node(IdentityInterface(INPUTS), name="inputs")
    outputs = Node(IdentityInterface(["files", "seconds"]), name="outputs")
    table_file = plan.layout.path(plan.series, "stats", extension=".tsv", desc="tensor")
    table = Node(SaveTable(out_file=str(table_file)), name="save_table", mem_gb=PROCESS_GB)
    files = Node(Merge(len(groups) + 1, no_flatten=True), name="files", run_without_submitting=True)
    times = Node(Merge(len(groups) + 1), name="times", run_without_submitting=True)
    workflow.connect(
        [
            (inputs, table, [("tensor_table", "rows")]),
            (table, files, [("out_files", "in1")]),
            (table, times, [("seconds", "in1")]),
            (files, outputs, [("out", "files")]),
            (times, outputs, [("out", "seconds")]),
        ]
    )
    for number, group in enumerate(groups, start=2):
        save = _connect_group(workflow, plan, group, inputs)
        workflow.connect(save, "out_files", files, f"in{number}")
        workflow.connect(save, "seconds", times, f"in{number}")
    return workflow


def _connect_group(workflow: Workflow, plan: SeriesPlan, group: Group, inputs: Node) -> Node:
    """Add the node that saves one group of results."""
    gather = Node(Merge(len(group.fields)), name=f"gather_{group.name}", run_without_submitting=True)
    interface = SaveDerivatives(
        out_files=[str(derivative.path) for derivative in group.derivatives],
        sidecars=[dict(derivative.sidecar) for derivative in group.derivatives],
        header_file=str(plan.series.dwi),
    )
    save = Node(interface, name=f"save_{group.name}", mem_gb=save_gb(plan))
    for position, name in enumerate(group.fields, start=1):
        workflow.connect(inputs, name, gather, f"in{position}")
    workflow.connect(gather, "out", save, "in_files")
    return save


def saved_groups(plan: SeriesPlan) -> Iterator[Group]:
    """What is saved of a series."""
    yield Group("masks", ("mask_file", "target_mask_file"), _masks(plan))
    yield Group("sr", ("sr_file", "bval_file", "bvec_file"), _series(plan, "sr", _sr_text(plan), _sr_fields(plan)))
    yield Group("maps_orig", ("acquired_derivatives",), _maps(plan, "orig"))
    yield Group("maps_sr", ("sr_derivatives",), _maps(plan, "sr"))
    if plan.config.save_cubic:
        text = "Series interpolated by cubic B-splines: the baseline that super-resolution is compared with."
        yield Group("cubic", ("cubic_file", "bval_file", "bvec_file"), _series(plan, "cubic", text, {}))
        yield Group("maps_cubic", ("cubic_derivatives",), _maps(plan, "cubic"))
    if plan.registers_t1w and plan.series.t1w is not None:
        yield Group("t1w", ("t1w_file",), (_t1w(plan, plan.series.t1w),))


def _masks(plan: SeriesPlan) -> tuple[Derivative, ...]:
    """Brain masks on both grids."""
    sources = [plan.uri(plan.series.mask or plan.series.dwi)]
    how = "given with the input" if plan.series.mask else "found in the mean b0 by DIPY's median_otsu"
    acquired = plan.layout.path(plan.series, "mask", extension=".nii.gz", desc="brain")
    text = f"Brain mask on the acquired grid, {how}."
    fine = plan.layout.path(plan.series, "mask", extension=".nii.gz", desc="brain", res=plan.resolution)
    fine_text = "Brain mask on the grid of the restored series, carried over from the acquired grid by nearest voxel."
    return (
        Derivative(acquired, sidecar_of(acquired, plan.series, description=text, sources=sources)),
        Derivative(
            fine,
            sidecar_of(
                fine,
                plan.series,
                description=fine_text,
                sources=[plan.uri(acquired)],
                voxel_sizes=plan.target.voxel_sizes,
            ),
        ),
    )


def _series(plan: SeriesPlan, desc: str, text: str, fields: Mapping[str, Any]) -> tuple[Derivative, ...]:
    """A series on the target grid with its gradients, which are copies."""
    start = {"desc": desc, "res": plan.resolution}
    image = plan.layout.path(plan.series, "dwi", extension=".nii.gz", **start)
    sidecar = sidecar_of(
        image,
        plan.series,
        description=text,
        sources=[plan.uri(plan.series.dwi)],
        voxel_sizes=plan.target.voxel_sizes,
        extra=fields,
    )
    gradients = [plan.layout.path(plan.series, "dwi", extension=end, **start) for end in (".bval", ".bvec")]
    return (Derivative(image, sidecar), *(Derivative(path) for path in gradients))


def _sr_text(plan: SeriesPlan) -> str:
    """What the restored series is, and what in it was not measured."""
    return (
        f"Series super-resolved by the model {plan.card.name}. Inside the brain, detail finer than the acquired voxels "
        "is estimated, not measured. Outside the brain, the values are interpolated by cubic B-splines."
    )


def _sr_fields(plan: SeriesPlan) -> dict[str, Any]:
    """Model, device and warnings of the restored series."""
    fields: dict[str, Any] = {
        "Model": plan.card.name,
        "ModelWeightsSHA256": plan.card.weights_sha256,
        "ModelUsesT1w": plan.card.uses_t1w,
        "Device": plan.device,
        "AcquiredVoxelSizes": [round(float(size), 4) for size in plan.source.voxel_sizes],
        "AcquiredShape": list(plan.source.shape),
        "B0Threshold": plan.config.b0_threshold,
    }
    warnings = opening_warnings(plan)
    return fields | ({"Warnings": warnings} if warnings else {})


def _maps(plan: SeriesPlan, desc: str) -> tuple[Derivative, ...]:
    """FA, mean diffusivity and colour FA of one version of the series."""
    res = None if desc == "orig" else plan.resolution
    source = plan.uri(plan.series.dwi)
    if desc == "sr" or (desc == "cubic" and plan.config.save_cubic):
        source = plan.uri(plan.layout.path(plan.series, "dwi", extension=".nii.gz", desc=desc, res=res))
    derivatives = []
    for suffix, text in MAPS.items():
        path = plan.layout.path(plan.series, suffix, extension=".nii.gz", desc=desc, res=res)
        sidecar = sidecar_of(
            path,
            plan.series,
            description=f"{text} Zero outside the brain mask.",
            sources=[source],
            voxel_sizes=None if res is None else plan.target.voxel_sizes,
            extra={"SkullStripped": True},
        )
        derivatives.append(Derivative(path, sidecar))
    return tuple(derivatives)


def _t1w(plan: SeriesPlan, original: Path) -> Derivative:
    """The T1w in the world of the series."""
    series = plan.series
    path = plan.layout.path(series, "T1w", extension=".nii.gz", desc="preproc", space="dwi", datatype="anat")
    text = (
        "T1w image in the world of the diffusion series: its affine was moved rigidly (DIPY, mutual information), its "
        "voxels are as acquired."
    )
    sources = [plan.uri(original), plan.uri(series.dwi)]
    reference = plan.uri(series.dwi)
    return Derivative(path, sidecar_of(path, series, description=text, sources=sources, spatial_reference=reference))

"""The graph that puts results into the output dataset, each with the metadata that says what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.bids.outputs import COLUMNS, SELF_CHECK_COLUMNS, sidecar_of
from bids_sr.dwi.consistency import REGION_MM
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
    "sr_fields",
    "cubic_file",
    "bval_file",
    "bvec_file",
    "acquired_derivatives",
    "sr_derivatives",
    "cubic_derivatives",
    "acquired_elements",
    "sr_elements",
    "cubic_elements",
    "tensor_table",
    "self_check_table",
    "departure_file",
    "departure_fields",
    "t1w_effect_files",
    "t1w_effect_fields",
    "deviations_file",
    "fa_deviation_file",
    "md_deviation_file",
]


@dataclass(frozen=True)
class Derivative:
    """Where a result goes, and what is said of it (nothing for files that are only copied)."""

    path: Path
    sidecar: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Results that one node saves: the fields of the graph's inputs that hold them, and where they go.

    `found` is the field that holds more metadata of them. Those of a check may be fewer than planned, or none
    (`optional`).
    """

    name: str
    fields: tuple[str, ...]
    derivatives: tuple[Derivative, ...]
    found: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """A table that one node saves: the field of the graph's inputs that holds its rows, where it goes, its columns."""

    name: str
    field: str
    path: Path
    columns: Mapping[str, str]


def init_derivatives_wf(plan: SeriesPlan, name: str = "derivatives") -> Workflow:
    """Every result saved in the output dataset.

    Inputs (node ``inputs``): results of the other graphs. Outputs (node ``outputs``): `files`, a list of lists of what
    was written, and `seconds`.
    """
    workflow = Workflow(name=name)
    inputs = Node(IdentityInterface(INPUTS), name="inputs")
    outputs = Node(IdentityInterface(["files", "seconds"]), name="outputs")
    saves = [_connect_table(workflow, inputs, table) for table in saved_tables(plan)]
    saves += [_connect_group(workflow, plan, group, inputs) for group in saved_groups(plan)]
    files = Node(Merge(len(saves), no_flatten=True), name="files", run_without_submitting=True)
    times = Node(Merge(len(saves)), name="times", run_without_submitting=True)
    workflow.connect([(files, outputs, [("out", "files")]), (times, outputs, [("out", "seconds")])])
    for number, save in enumerate(saves, start=1):
        workflow.connect(save, "out_files", files, f"in{number}")
        workflow.connect(save, "seconds", times, f"in{number}")
    return workflow


def _connect_table(workflow: Workflow, inputs: Node, table: Table) -> Node:
    """Add the node that saves one table."""
    interface = SaveTable(out_file=str(table.path), columns=dict(table.columns))
    save = Node(interface, name=table.name, mem_gb=PROCESS_GB)
    workflow.connect(inputs, table.field, save, "rows")
    return save


def _connect_group(workflow: Workflow, plan: SeriesPlan, group: Group, inputs: Node) -> Node:
    """Add the node that saves one group of results."""
    gather = Node(Merge(len(group.fields)), name=f"gather_{group.name}", run_without_submitting=True)
    interface = SaveDerivatives(
        out_files=[str(derivative.path) for derivative in group.derivatives],
        sidecars=[dict(derivative.sidecar) for derivative in group.derivatives],
        header_file=str(plan.series.dwi),
        optional=group.optional,
    )
    save = Node(interface, name=f"save_{group.name}", mem_gb=save_gb(plan))
    for position, name in enumerate(group.fields, start=1):
        workflow.connect(inputs, name, gather, f"in{position}")
    workflow.connect(gather, "out", save, "in_files")
    if group.found:
        workflow.connect(inputs, group.found, save, "found")
    return save


def saved_tables(plan: SeriesPlan) -> Iterator[Table]:
    """The tables that are saved of a series."""
    path = plan.layout.path(plan.series, "stats", extension=".tsv", desc="tensor", res=plan.resolution)
    yield Table("save_table", "tensor_table", path, COLUMNS)
    if plan.checks_itself:
        path = plan.layout.path(plan.series, "stats", extension=".tsv", desc="selfcheck", res=plan.resolution)
        yield Table("save_self_check", "self_check_table", path, SELF_CHECK_COLUMNS)


def saved_groups(plan: SeriesPlan) -> Iterator[Group]:
    """What is saved of a series."""
    yield Group("masks", ("mask_file", "target_mask_file"), _masks(plan))
    series = _series(plan, "sr", _sr_text(plan), _sr_fields(plan))
    yield Group("sr", ("sr_file", "bval_file", "bvec_file"), series, "sr_fields")
    yield Group("maps_orig", ("acquired_derivatives",), _maps(plan, "orig"))
    yield Group("maps_sr", ("sr_derivatives",), _maps(plan, "sr"))
    if plan.config.save_cubic:
        text = "Series interpolated by cubic B-splines: the baseline that super-resolution is compared with."
        yield Group("cubic", ("cubic_file", "bval_file", "bvec_file"), _series(plan, "cubic", text, {}))
        yield Group("maps_cubic", ("cubic_derivatives",), _maps(plan, "cubic"))
    if plan.config.save_tensor:
        yield Group("tensor_orig", ("acquired_elements",), _elements(plan, "orig"))
        yield Group("tensor_sr", ("sr_elements",), _elements(plan, "sr"))
        if plan.config.save_cubic:
            yield Group("tensor_cubic", ("cubic_elements",), _elements(plan, "cubic"))
    if plan.registers_t1w and plan.series.t1w is not None:
        yield Group("t1w", ("t1w_file",), (_t1w(plan, plan.series.t1w),))
    if plan.config.uncertainty:
        fields = ("deviations_file", "fa_deviation_file", "md_deviation_file")
        yield Group("uncertainty", fields, _deviations(plan))
    yield Group("departure", ("departure_file",), _guard_maps(plan, "departure"), "departure_fields", optional=True)
    if plan.tests_t1w:
        yield Group(
            "t1w_effect", ("t1w_effect_files",), _guard_maps(plan, "t1weffect"), "t1w_effect_fields", optional=True
        )


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
    paths = {s: plan.layout.path(plan.series, s, extension=".nii.gz", desc=desc, res=res) for s in MAPS}
    return tuple(_of_tensor(plan, desc, path, MAPS[suffix], {}) for suffix, path in paths.items())


#: What is saved of the tensor itself, by its `param`: what it is, and metadata after the draft of BIDS (BEP016).
ELEMENTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tensor": (
        f"Elements Dxx, Dyy, Dzz, Dxy, Dxz, Dyz in mm^2/s of the {TENSOR}, in the axes of the world (RAS+).",
        {"OrientationEncoding": {"EncodingAxis": 3, "Reference": "xyz", "Type": "tensor"}},
    ),
    "evals": (f"Eigenvalues in mm^2/s of the {TENSOR}, the largest first; negative ones were raised.", {}),
    "evecs": (
        f"Unit eigenvectors of the {TENSOR}, that of the largest eigenvalue first: x, y, z of each in the axes of the "
        "world (RAS+). Their signs have no meaning.",
        {},
    ),
}


def _elements(plan: SeriesPlan, desc: str) -> tuple[Derivative, ...]:
    """Tensor, eigenvalues and eigenvectors of one version of the series."""
    res = None if desc == "orig" else plan.resolution
    paths = {
        param: plan.layout.path(
            plan.series, "dwimap", extension=".nii.gz", model="tensor", param=param, desc=desc, res=res
        )
        for param in ELEMENTS
    }
    return tuple(_of_tensor(plan, desc, path, *ELEMENTS[param]) for param, path in paths.items())


def _of_tensor(plan: SeriesPlan, desc: str, path: Path, text: str, extra: Mapping[str, Any]) -> Derivative:
    """An image made from the tensor of one version of the series."""
    res = None if desc == "orig" else plan.resolution
    source = plan.uri(plan.series.dwi)
    if desc == "sr" or (desc == "cubic" and plan.config.save_cubic):
        source = plan.uri(plan.layout.path(plan.series, "dwi", extension=".nii.gz", desc=desc, res=res))
    sidecar = sidecar_of(
        path,
        plan.series,
        description=f"{text} Zero outside the brain mask.",
        sources=[source],
        voxel_sizes=None if res is None else plan.target.voxel_sizes,
        extra={"SkullStripped": True, **extra},
    )
    return Derivative(path, sidecar)


#: What the maps of the uncertainty show, by their suffix.
DEVIATION_MAPS = {
    "dwimap": "Standard deviation of each volume of the restored series, in its units: what an acquisition with these "
    "voxels would differ by, its noise included, if it is like the scans that the model learned from. Zero where the "
    "series is interpolated.",
    "FA": "STANDARD DEVIATION of fractional anisotropy, not FA itself.",
    "ADC": "STANDARD DEVIATION of mean diffusivity in mm^2/s, not the diffusivity itself.",
}


def _deviations(plan: SeriesPlan) -> tuple[Derivative, ...]:
    """Standard deviations on the target grid."""
    layout, series = plan.layout, plan.series
    source = plan.uri(layout.path(series, "dwi", extension=".nii.gz", desc="sr", res=plan.resolution))
    paths = {
        s: layout.path(series, s, extension=".nii.gz", desc="uncertainty", res=plan.resolution) for s in DEVIATION_MAPS
    }
    return tuple(
        Derivative(
            path,
            sidecar_of(
                path, series, description=DEVIATION_MAPS[suffix], sources=[source], voxel_sizes=plan.target.voxel_sizes
            ),
        )
        for suffix, path in paths.items()
    )


_CHANGED = f"{TENSOR} to the volumes that were restored without it too (Volumes, from 0)"
#: What the maps of the guards show, by their desc and suffix.
GUARD_MAPS = {
    "departure": {
        "dwimap": "How far the restored series, sampled again with the acquired voxels, lies from the acquired one: "
        f"for each shell (BValues, s/mm2) its mean, averaged over {REGION_MM:g} mm, in standard errors by the noise of "
        "the acquired series. Positive where the restored series is brighter; of noise alone, 0.27 % lie beyond 3.",
    },
    "t1weffect": {
        "dwimap": "Absolute change of the restored signal by the T1w image, averaged over the acquired voxel and over "
        "the volumes that were restored without it too (Volumes, from 0), in standard deviations of the noise of one "
        "acquired volume.",
        "FA": "Absolute CHANGE of fractional anisotropy by the T1w image, averaged over the acquired voxel, not FA "
        f"itself: {_CHANGED}.",
        "ADC": "Absolute CHANGE of mean diffusivity in mm^2/s by the T1w image, averaged over the acquired voxel, not "
        f"the diffusivity itself: {_CHANGED}.",
    },
}


def _guard_maps(plan: SeriesPlan, desc: str) -> tuple[Derivative, ...]:
    """Maps of a guard: on the acquired grid, so without `res`; the sidecars tell of which restored series they are."""
    restored = plan.layout.path(plan.series, "dwi", extension=".nii.gz", desc="sr", res=plan.resolution)
    sizes = [round(float(size), 4) for size in plan.target.voxel_sizes]
    derivatives = []
    for suffix, text in GUARD_MAPS[desc].items():
        path = plan.layout.path(plan.series, suffix, extension=".nii.gz", desc=desc)
        sidecar = sidecar_of(
            path,
            plan.series,
            description=f"{text} On the acquired grid; zero outside the brain mask.",
            sources=[plan.uri(plan.series.dwi), plan.uri(restored)],
            extra={"SkullStripped": True, "RestoredVoxelSizes": sizes},
        )
        derivatives.append(Derivative(path, sidecar))
    return tuple(derivatives)


def _t1w(plan: SeriesPlan, original: Path) -> Derivative:
    """The T1w in the world of the series."""
    series = plan.series
    path = plan.layout.path(series, "T1w", extension=".nii.gz", desc="preproc", space="dwi", datatype="anat")
    text = (
        "T1w image in the world of the diffusion series: its affine was moved rigidly (mutual information), its "
        "voxels are as acquired."
    )
    sources = [plan.uri(original), plan.uri(series.dwi)]
    reference = plan.uri(series.dwi)
    return Derivative(path, sidecar_of(path, series, description=text, sources=sources, spatial_reference=reference))

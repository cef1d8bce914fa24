"""The graph that fits the tensor before and after, and compares the maps."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.bids.truth import Truth
from bids_sr.interfaces.comparison import CompareTensors, CompareWithTruth
from bids_sr.interfaces.tensor import AverageMaps, FitTensor
from bids_sr.workflows.memory import average_gb, fit_gb
from bids_sr.workflows.plan import CUBIC, SeriesPlan

INPUTS = [
    "dwi_file",
    "bval_file",
    "bvec_file",
    "b0_file",
    "mask_file",
    "t1w_file",
    "sr_file",
    "cubic_file",
    "target_mask_file",
]
OUTPUTS = [
    "acquired_maps",
    "sr_maps",
    "cubic_maps",
    "averaged_sr_maps",
    "averaged_cubic_maps",
    "acquired_derivatives",
    "sr_derivatives",
    "cubic_derivatives",
    "acquired_elements",
    "sr_elements",
    "cubic_elements",
    "tissue_file",
    "tensor_table",
    "truth_table",
    "seconds",
]


def init_tensor_wf(plan: SeriesPlan, name: str = "tensor") -> Workflow:
    """Tensors of the acquired, the restored and the interpolated series, and how they differ.

    Inputs (node ``inputs``): the series before and after, masks on both grids, mean b0 and T1w. Outputs (node
    ``outputs``): maps of each on its own grid, the finer ones also averaged onto the acquired grid, tissue classes,
    `tensor_table`, `truth_table` (undefined where no truth is known) and `seconds`; with --save-tensor the tensors.
    """
    workflow = Workflow(name=name)
    inputs = Node(IdentityInterface(INPUTS), name="inputs")
    outputs = Node(IdentityInterface(OUTPUTS), name="outputs")
    times = Node(Merge(5), name="times", run_without_submitting=True)
    compare = Node(
        CompareTensors(random_seed=plan.config.random_seed), name="compare", mem_gb=fit_gb(plan.source.shape, 10)
    )
    acquired = _connect_fit(workflow, plan, "acquired", inputs, outputs)
    sr = _connect_fit(workflow, plan, "sr", inputs, outputs)
    cubic = sr if plan.card.name == CUBIC else _connect_fit(workflow, plan, "cubic", inputs, outputs)
    if cubic is sr:
        workflow.connect(sr, "map_files", outputs, "cubic_maps")
        workflow.connect(sr, "derivative_files", outputs, "cubic_derivatives")
        if plan.config.save_tensor:
            workflow.connect(sr, "element_files", outputs, "cubic_elements")
    for method, fit in (("sr", sr), ("cubic", cubic)):
        average = Node(
            AverageMaps(random_seed=plan.config.random_seed), name=f"average_{method}", mem_gb=average_gb(plan)
        )
        workflow.connect(
            [
                (fit, average, [("map_files", "map_files")]),
                (inputs, average, [("target_mask_file", "fine_mask_file"), ("mask_file", "coarse_mask_file")]),
                (average, compare, [("map_files", f"{method}_maps")]),
                (average, outputs, [("map_files", f"averaged_{method}_maps")]),
            ]
        )
    workflow.connect(
        [
            (inputs, compare, [("b0_file", "b0_file"), ("mask_file", "mask_file"), ("t1w_file", "t1w_file")]),
            (acquired, compare, [("map_files", "acquired_maps")]),
            (compare, outputs, [("rows", "tensor_table"), ("tissue_file", "tissue_file")]),
            (acquired, times, [("seconds", "in1")]),
            (sr, times, [("seconds", "in2")]),
            (compare, times, [("seconds", "in3")]),
            (times, outputs, [("out", "seconds")]),
        ]
    )
    if cubic is not sr:
        workflow.connect(cubic, "seconds", times, "in4")
    if plan.truth is not None:
        _connect_truth(workflow, plan, plan.truth, (sr, cubic), inputs, outputs)
    return workflow


def _connect_fit(workflow: Workflow, plan: SeriesPlan, method: str, inputs: Node, outputs: Node) -> Node:
    """Add the fit of one version of the series."""
    is_acquired = method == "acquired"
    shape = plan.source.shape if is_acquired else plan.target.shape
    fit = fit_node(plan, f"fit_{method}", shape)
    mask_file = "mask_file" if is_acquired else "target_mask_file"
    dwi_file = "dwi_file" if is_acquired else f"{method}_file"
    workflow.connect(
        [
            (inputs, fit, [("bval_file", "bval_file"), ("bvec_file", "bvec_file")]),
            (inputs, fit, [(dwi_file, "dwi_file"), (mask_file, "mask_file")]),
            (fit, outputs, [("map_files", f"{method}_maps"), ("derivative_files", f"{method}_derivatives")]),
        ]
    )
    if plan.config.save_tensor:
        fit.inputs.keep_elements = True
        workflow.connect(fit, "element_files", outputs, f"{method}_elements")
    return fit


def fit_node(plan: SeriesPlan, name: str, shape: tuple[int, int, int]) -> Node:
    """A tensor fit of a series on a grid of `shape`."""
    interface = FitTensor(b0_threshold=plan.config.b0_threshold, random_seed=plan.config.random_seed)
    return Node(interface, name=name, mem_gb=fit_gb(shape, plan.n_volumes, plan.config.save_tensor))


def _connect_truth(
    workflow: Workflow, plan: SeriesPlan, truth: Truth, fits: tuple[Node, Node], inputs: Node, outputs: Node
) -> None:
    """Add the comparison of `fits`, restored and interpolated, with the truth that the demo's dataset carries."""
    fit = fit_node(plan, "fit_truth", plan.target.shape)
    fit.inputs.trait_set(dwi_file=str(truth.dwi), bval_file=str(truth.bval), bvec_file=str(truth.bvec))
    fit.inputs.mask_file = str(truth.mask)
    interface = CompareWithTruth(truth_mask_file=str(truth.mask), tissue_file=str(truth.tissues))
    compare = Node(interface, name="compare_truth", mem_gb=fit_gb(plan.target.shape, 10))
    workflow.connect(
        [
            (fit, compare, [("map_files", "truth_maps")]),
            (fits[0], compare, [("map_files", "sr_maps")]),
            (fits[1], compare, [("map_files", "cubic_maps")]),
            (inputs, compare, [("target_mask_file", "mask_file")]),
            (compare, outputs, [("rows", "truth_table")]),
        ]
    )

"""The graph that restores a series on the target grid, and interpolates it there as the baseline."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.interfaces.mask import TargetMask
from bids_sr.interfaces.super_resolution import Restore
from bids_sr.workflows.memory import preprocess_gb
from bids_sr.workflows.plan import CUBIC, SeriesPlan

SERIES = ["dwi_file", "bval_file", "mask_file"]
INPUTS = [*SERIES, "t1w_file", "registration"]
OUTPUTS = ["sr_file", "cubic_file", "deviations_file", "mask_file", "t1w", "seconds"]


def init_super_resolution_wf(plan: SeriesPlan, name: str = "super_resolution") -> Workflow:
    """Every volume restored on the target grid by the model, and by cubic interpolation.

    Inputs (node ``inputs``): `dwi_file`, `bval_file`, `mask_file`, and for a model that uses it `t1w_file` with its
    `registration`. Outputs (node ``outputs``): `sr_file`, `cubic_file`, `mask_file` on the target grid, `t1w` (whether
    the model saw it), `seconds`; `deviations_file` where the uncertainty is asked for.
    """
    inputs = Node(IdentityInterface(INPUTS), name="inputs")
    mask = Node(
        TargetMask(**plan.target_inputs, random_seed=plan.config.random_seed), name="mask", mem_gb=preprocess_gb(plan)
    )
    restore = restore_node(plan, plan.config.model, "restore")
    restore.inputs.deviations = plan.config.uncertainty
    # With cubic interpolation as the model the baseline is the result itself.
    cubic = restore if plan.card.name == CUBIC else restore_node(plan, CUBIC, "cubic")
    times = Node(Merge(2), name="times", run_without_submitting=True)
    outputs = Node(IdentityInterface(OUTPUTS), name="outputs")
    workflow = Workflow(name=name)
    workflow.connect(
        [
            (inputs, mask, [("mask_file", "mask_file")]),
            (inputs, restore, [(field, field) for field in SERIES]),
            (mask, outputs, [("mask_file", "mask_file")]),
            (restore, outputs, [("dwi_file", "sr_file"), ("t1w", "t1w")]),
            (cubic, outputs, [("dwi_file", "cubic_file")]),
            (restore, times, [("seconds", "in1")]),
            (times, outputs, [("out", "seconds")]),
        ]
    )
    if plan.config.uncertainty:
        workflow.connect(restore, "deviations_file", outputs, "deviations_file")
    if cubic is not restore:
        workflow.connect([(inputs, cubic, [(field, field) for field in SERIES])])
        workflow.connect(cubic, "seconds", times, "in2")
    if plan.is_guided:
        # Other models need not wait for the registration.
        workflow.connect(inputs, "t1w_file", restore, "t1w_file")
        workflow.connect(inputs, "registration", restore, "registration")
    return workflow


def restore_node(plan: SeriesPlan, model: str, name: str) -> Node:
    """The node that restores a series by a model; on a GPU it takes nipype's GPU slot, so that one runs at a time."""
    interface = Restore(
        **plan.target_inputs,
        model=model,
        device="cpu" if model == CUBIC else plan.device,
        b0_threshold=plan.config.b0_threshold,
        label=plan.series.label,
        random_seed=plan.config.random_seed,
    )
    interface.inputs.use_gpu = model != CUBIC and plan.device != "cpu"
    # A GPU node takes as many GPU slots as it has processors: one.
    threads = 1 if interface.inputs.use_gpu else plan.threads
    return Node(interface, name=name, n_procs=threads, mem_gb=plan.restore_gb(model))

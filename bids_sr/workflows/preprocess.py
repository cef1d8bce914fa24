"""The graph from the files of a series to what super-resolution needs: gradients, mean b0, brain mask, T1w."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.interfaces.b0 import MeanB0
from bids_sr.interfaces.gradients import CheckGradients
from bids_sr.interfaces.mask import BrainMask
from bids_sr.interfaces.registration import RegisterT1w
from bids_sr.interfaces.series import UnpackSeries
from bids_sr.workflows.memory import preprocess_gb, registration_gb
from bids_sr.workflows.plan import SeriesPlan

OUTPUTS = [
    "dwi_file",
    "bval_file",
    "bvec_file",
    "b0_file",
    "mask_file",
    "t1w_file",
    "gradients",
    "mask",
    "registration",
    "seconds",
]


def init_preprocess_wf(plan: SeriesPlan, name: str = "preprocess") -> Workflow:
    """Gradients checked, mean b0 and mask made, T1w brought into the world of the series.

    Inputs: none, the files come from `plan`. Outputs (node ``outputs``): `dwi_file` unpacked, `bval_file`, `bvec_file`
    as given, `b0_file`, `mask_file`, `t1w_file` (undefined without a T1w), and for the record `gradients`, `mask`,
    `registration` (undefined without one) and `seconds`.
    """
    series, config = plan.series, plan.config
    seed, memory = config.random_seed, preprocess_gb(plan)
    files = {"dwi_file": str(series.dwi), "bval_file": str(series.bval), "bvec_file": str(series.bvec)}
    check = Node(
        CheckGradients(**files, b0_threshold=config.b0_threshold, random_seed=seed), name="gradients", mem_gb=memory
    )
    unpack = Node(UnpackSeries(random_seed=seed), name="unpack", mem_gb=memory)
    b0 = Node(MeanB0(b0_threshold=config.b0_threshold, random_seed=seed), name="b0", mem_gb=memory)
    mask = Node(BrainMask(random_seed=seed), name="mask", mem_gb=memory)
    if series.mask is not None:
        mask.inputs.given_file = str(series.mask)
    times = Node(Merge(5), name="times", run_without_submitting=True)
    outputs = Node(IdentityInterface(OUTPUTS), name="outputs")
    workflow = Workflow(name=name)
    workflow.connect(
        [
            (check, unpack, [("dwi_file", "dwi_file")]),
            (unpack, b0, [("dwi_file", "dwi_file")]),
            (check, b0, [("bval_file", "bval_file")]),
            (b0, mask, [("b0_file", "b0_file")]),
            (unpack, outputs, [("dwi_file", "dwi_file")]),
            (check, outputs, [("bval_file", "bval_file"), ("bvec_file", "bvec_file")]),
            (check, outputs, [("summary", "gradients")]),
            (b0, outputs, [("b0_file", "b0_file")]),
            (mask, outputs, [("mask_file", "mask_file"), ("summary", "mask")]),
            (check, times, [("seconds", "in1")]),
            (b0, times, [("seconds", "in2")]),
            (mask, times, [("seconds", "in3")]),
            (unpack, times, [("seconds", "in4")]),
            (times, outputs, [("out", "seconds")]),
        ]
    )
    if plan.registers_t1w:
        _connect_registration(workflow, plan, b0, mask, times, outputs)
    elif series.t1w is not None:
        outputs.inputs.t1w_file = str(series.t1w)
    return workflow


def _connect_registration(
    workflow: Workflow, plan: SeriesPlan, b0: Node, mask: Node, times: Node, outputs: Node
) -> None:
    """Add the registration of the T1w to the mean b0."""
    interface = RegisterT1w(
        t1w_file=str(plan.series.t1w), sloppy=plan.config.sloppy, random_seed=plan.config.random_seed
    )
    register = Node(interface, name="register", mem_gb=registration_gb(plan.t1w_shape), n_procs=plan.threads)
    workflow.connect(
        [
            (b0, register, [("b0_file", "b0_file")]),
            (mask, register, [("mask_file", "mask_file")]),
            (register, outputs, [("t1w_file", "t1w_file"), ("summary", "registration")]),
            (register, times, [("seconds", "in5")]),
        ]
    )

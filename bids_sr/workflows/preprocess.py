"""The graph from the files of a series to what super-resolution needs: gradients, mean b0, brain mask, T1w."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.interfaces.b0 import MeanB0
from bids_sr.interfaces.gradients import CheckGradients
from bids_sr.interfaces.mask import BrainMask
from bids_sr.interfaces.registration import RegisterT1w
from bids_sr.interfaces.series import UnpackSeries
from bids_sr.workflows.settings import Restoration

INPUTS = ["dwi_file", "bval_file", "bvec_file", "mask_file", "t1w_file"]
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


def init_preprocess_wf(restoration: Restoration, name: str = "preprocess") -> Workflow:
    """Gradients checked, mean b0 and mask made, T1w brought into the world of the series.

    Inputs (node ``inputs``): `dwi_file`, `bval_file`, `bvec_file`, and where there are any `mask_file` and `t1w_file`.
    Outputs (node ``outputs``): `dwi_file` unpacked, `bval_file`, `bvec_file` as given, `b0_file`, `mask_file`,
    `t1w_file` (undefined without a T1w), and for the record `gradients`, `mask`, `registration` (undefined without
    one) and `seconds`.
    """
    seed, memory = restoration.random_seed, restoration.preprocess_gb
    threshold = restoration.b0_threshold
    inputs = Node(IdentityInterface(INPUTS), name="inputs")
    check = Node(CheckGradients(b0_threshold=threshold, random_seed=seed), name="gradients", mem_gb=memory)
    unpack = Node(UnpackSeries(random_seed=seed), name="unpack", mem_gb=memory)
    b0 = Node(MeanB0(b0_threshold=threshold, random_seed=seed), name="b0", mem_gb=memory)
    mask = Node(BrainMask(b0_threshold=threshold, random_seed=seed), name="mask", mem_gb=memory)
    times = Node(Merge(5), name="times", run_without_submitting=True)
    outputs = Node(IdentityInterface(OUTPUTS), name="outputs")
    workflow = Workflow(name=name)
    workflow.connect(
        [
            (inputs, check, [(field, field) for field in ("dwi_file", "bval_file", "bvec_file")]),
            (inputs, mask, [("mask_file", "given_file")]),
            (check, unpack, [("dwi_file", "dwi_file")]),
            (inputs, unpack, [("t1w_file", "t1w_file")]),
            (unpack, b0, [("dwi_file", "dwi_file")]),
            (check, b0, [("bval_file", "bval_file")]),
            (b0, mask, [("b0_file", "b0_file")]),
            (unpack, mask, [("dwi_file", "dwi_file")]),
            (check, mask, [("bval_file", "bval_file")]),
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
    if restoration.t1w == "native":
        _connect_registration(workflow, restoration)
    elif restoration.t1w == "aligned":
        workflow.connect(inputs, "t1w_file", outputs, "t1w_file")
    return workflow


def _connect_registration(workflow: Workflow, restoration: Restoration) -> None:
    """Add the registration of the T1w to the mean b0."""
    interface = RegisterT1w(sloppy=restoration.sloppy, random_seed=restoration.random_seed)
    register = Node(interface, name="register", mem_gb=restoration.registration_gb, n_procs=restoration.threads)
    inputs, b0, mask, times, outputs = (
        workflow.get_node(name) for name in ("inputs", "b0", "mask", "times", "outputs")
    )
    workflow.connect(
        [
            (inputs, register, [("t1w_file", "t1w_file")]),
            (b0, register, [("b0_file", "b0_file")]),
            (mask, register, [("mask_file", "mask_file")]),
            (register, outputs, [("t1w_file", "t1w_file"), ("summary", "registration")]),
            (register, times, [("seconds", "in5")]),
        ]
    )

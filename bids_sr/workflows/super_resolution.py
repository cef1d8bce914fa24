"""The graphs that restore a series on the target grid: in the app, and to embed in other nipype workflows."""

from __future__ import annotations

from typing import Any

import numpy as np
from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline.engine import Node, Workflow

from bids_sr.errors import ConfigurationError
from bids_sr.inference.device import resolve_device
from bids_sr.interfaces.mask import TargetMask
from bids_sr.interfaces.super_resolution import Restore
from bids_sr.interfaces.target import FindTarget
from bids_sr.models.registry import check_tells_uncertainty, read_trained_card
from bids_sr.workflows.plan import CUBIC
from bids_sr.workflows.preprocess import INPUTS as FILES
from bids_sr.workflows.preprocess import init_preprocess_wf
from bids_sr.workflows.settings import Restoration, T1w

SERIES = ["dwi_file", "bval_file", "mask_file"]
INPUTS = [*SERIES, "t1w_file", "registration"]
OUTPUTS = ["sr_file", "cubic_file", "deviations_file", "mask_file", "t1w", "fit", "seconds"]
GRID = ["target_shape", "target_affine"]
#: What an embedded workflow gives, and the graph and field that each comes from.
EMBEDDED_OUTPUTS = {
    "dwi_file": ("super_resolution", "sr_file"),
    "mask_file": ("super_resolution", "mask_file"),
    "deviations_file": ("super_resolution", "deviations_file"),
    "bval_file": ("preprocess", "bval_file"),
    "bvec_file": ("preprocess", "bvec_file"),
    "acquired_mask_file": ("preprocess", "mask_file"),
    "t1w_file": ("preprocess", "t1w_file"),
}


def init_super_resolution_wf(
    *,
    scale: float | tuple[float, float, float] | None = None,
    voxel_size: float | tuple[float, float, float] | None = None,
    model: str = "default",
    device: str = "auto",
    t1w: T1w = "none",
    b0_threshold: float = 50.0,
    uncertainty: bool = False,
    n_threads: int = 1,
    mem_gb: float = 8.0,
    random_seed: int = 0,
    name: str = "super_resolution_wf",
) -> Workflow:
    """A workflow that restores a diffusion series on a finer grid, to embed in another nipype workflow.

    The stages are those of the app. The series need not be known before the workflow runs.

    Parameters
    ----------
    scale : float or tuple of float, (3,), optional
        New voxels per acquired voxel, from 1 to 4.
    voxel_size : float or tuple of float, (3,), optional
        New voxel size in mm. One of `scale` and `voxel_size` is given.
    model : str
        Name of a model, or path of a model card.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. On a GPU the node takes one of nipype's GPU slots.
    t1w : {"none", "native", "aligned"}
        Whether a `t1w_file` will come, and whether it lies in the world of the series (aligned) or has to be registered
        (native).
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    uncertainty : bool
        Tell standard deviations too, if the model does.
    n_threads : int
        Processors of a stage.
    mem_gb : float
        Memory that nipype's scheduler sets aside for a stage, in GB.
    random_seed : int
    name : str

    Returns
    -------
    Workflow
        Inputs (node ``inputnode``): `dwi_file`, `bval_file`, `bvec_file`; `mask_file` where there is one (else the
        brain is found in the mean b0); `t1w_file` as `t1w` says. Outputs (node ``outputnode``): `dwi_file`, the
        restored series (float32, not compressed), `bval_file` and `bvec_file` as given, `mask_file` on its grid,
        `acquired_mask_file`, `t1w_file` in the world of the series, `deviations_file` with `uncertainty`.

    Raises
    ------
    InputError
        If the grid, the model or the device cannot be used.
    """
    card = read_trained_card(model)
    if uncertainty:
        check_tells_uncertainty(card)
    restoration = Restoration(
        model=model,
        card=card,
        device=str(resolve_device(device)),
        grid=_asked_grid(scale, voxel_size),
        t1w=t1w,
        b0_threshold=b0_threshold,
        uncertainty=uncertainty,
        baseline=False,
        random_seed=random_seed,
        threads=n_threads,
        label=name,
        preprocess_gb=mem_gb,
        registration_gb=mem_gb,
        restore_gb=mem_gb,
    )
    workflow = Workflow(name=name)
    graphs = dict(zip(("preprocess", "super_resolution"), connect_restoration(workflow, restoration), strict=True))
    inputs = Node(IdentityInterface(FILES), name="inputnode")
    outputs = Node(IdentityInterface(list(EMBEDDED_OUTPUTS)), name="outputnode")
    workflow.connect([(inputs, graphs["preprocess"], [(field, f"inputs.{field}") for field in FILES])])
    for field, (graph, source) in EMBEDDED_OUTPUTS.items():
        workflow.connect(graphs[graph], f"outputs.{source}", outputs, field)
    return workflow


def _asked_grid(scale: Any, voxel_size: Any) -> dict[str, list[float]]:
    """The grid that is asked for, as inputs of the stage that finds it."""
    if (scale is None) == (voxel_size is None):
        raise ConfigurationError(option="init_super_resolution_wf", reason="give one of scale and voxel_size.")
    name, given = ("scale", scale) if voxel_size is None else ("voxel_size", voxel_size)
    numbers = np.broadcast_to(np.asarray(given, dtype=np.float64), 3)
    return {name: numbers.tolist()}


def connect_restoration(workflow: Workflow, restoration: Restoration) -> tuple[Workflow, Workflow]:
    """Add both graphs, from the files of a series to the restored one, to a workflow; return them."""
    preprocess, restore = init_preprocess_wf(restoration), init_restore_wf(restoration)
    fields = [*SERIES, *(["t1w_file", "registration"] if restoration.t1w != "none" else [])]
    workflow.connect([(preprocess, restore, [(f"outputs.{field}", f"inputs.{field}") for field in fields])])
    return preprocess, restore


def init_restore_wf(restoration: Restoration, name: str = "super_resolution") -> Workflow:
    """Every volume restored on the target grid by the model, and by cubic interpolation.

    Inputs (node ``inputs``): `dwi_file`, `bval_file`, `mask_file`, and for a model that uses it `t1w_file` with its
    `registration`. Outputs (node ``outputs``): `sr_file`, `cubic_file`, `mask_file` on the target grid, `t1w` (whether
    the model saw it), `fit` (how it was fitted to the series, if it was), `seconds`; `deviations_file` where the
    uncertainty is asked for.
    """
    inputs = Node(IdentityInterface(INPUTS), name="inputs")
    grid = restoration.grid if restoration.knows_grid else {}
    mask = Node(TargetMask(**grid, random_seed=restoration.random_seed), name="mask", mem_gb=restoration.preprocess_gb)
    restore = restore_node(restoration, restoration.model, "restore")
    restore.inputs.deviations = restoration.uncertainty
    times = Node(Merge(2), name="times", run_without_submitting=True)
    outputs = Node(IdentityInterface(OUTPUTS), name="outputs")
    workflow = Workflow(name=name)
    workflow.connect(
        [
            (inputs, mask, [("mask_file", "mask_file")]),
            (inputs, restore, [(field, field) for field in SERIES]),
            (mask, outputs, [("mask_file", "mask_file")]),
            (restore, outputs, [("dwi_file", "sr_file"), ("t1w", "t1w"), ("fit", "fit")]),
            (restore, times, [("seconds", "in1")]),
            (times, outputs, [("out", "seconds")]),
        ]
    )
    if restoration.uncertainty:
        workflow.connect(restore, "deviations_file", outputs, "deviations_file")
    if restoration.baseline:
        _connect_baseline(workflow, restoration)
    if restoration.is_guided:
        # Other models need not wait for the registration.
        workflow.connect(inputs, "t1w_file", restore, "t1w_file")
        workflow.connect(inputs, "registration", restore, "registration")
    if not restoration.knows_grid:
        _connect_target(workflow, restoration)
    return workflow


def _connect_baseline(workflow: Workflow, restoration: Restoration) -> None:
    """Add the cubic interpolation; with it as the model the baseline is the result itself."""
    inputs, restore, times, outputs = (workflow.get_node(name) for name in ("inputs", "restore", "times", "outputs"))
    if restoration.card.name == CUBIC:
        workflow.connect(restore, "dwi_file", outputs, "cubic_file")
        return
    cubic = restore_node(restoration, CUBIC, "cubic")
    workflow.connect(
        [
            (inputs, cubic, [(field, field) for field in SERIES]),
            (cubic, outputs, [("dwi_file", "cubic_file")]),
            (cubic, times, [("seconds", "in2")]),
        ]
    )


def _connect_target(workflow: Workflow, restoration: Restoration) -> None:
    """Add the stage that finds the target grid when the series is there."""
    interface = FindTarget(**restoration.grid, model=restoration.model, random_seed=restoration.random_seed)
    find = Node(interface, name="target", mem_gb=restoration.preprocess_gb)
    workflow.connect(workflow.get_node("inputs"), "dwi_file", find, "dwi_file")
    for name in ("mask", "restore", *(["cubic"] if workflow.get_node("cubic") else [])):
        workflow.connect([(find, workflow.get_node(name), [(field, field) for field in GRID])])


def restore_node(restoration: Restoration, model: str, name: str) -> Node:
    """The node that restores a series by a model; on a GPU it takes nipype's GPU slot, so that one runs at a time."""
    is_baseline = name == "cubic"
    interface = Restore(
        **(restoration.grid if restoration.knows_grid else {}),
        model=model,
        device="cpu" if model == CUBIC else restoration.device,
        b0_threshold=restoration.b0_threshold,
        label=restoration.label,
        random_seed=restoration.random_seed,
    )
    interface.inputs.use_gpu = model != CUBIC and restoration.device != "cpu"
    # A GPU node takes as many GPU slots as it has processors: one.
    threads = 1 if interface.inputs.use_gpu else restoration.threads
    memory = restoration.baseline_gb if is_baseline else restoration.restore_gb
    return Node(interface, name=name, n_procs=threads, mem_gb=memory)

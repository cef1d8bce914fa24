"""The node that tries the restoration on the user's own scan."""

from __future__ import annotations

from nipype.pipeline.engine import Node

from bids_sr.evaluation.self_check import checked_scale
from bids_sr.interfaces.self_check import RunSelfCheck
from bids_sr.workflows.plan import SeriesPlan


def self_check_node(plan: SeriesPlan, name: str = "self_check") -> Node:
    """The check of a series by the model that restores it; on a GPU it takes nipype's GPU slot, as restoring does."""
    interface = RunSelfCheck(
        scale=checked_scale(plan.source, plan.target),
        model=plan.config.model,
        device=plan.device,
        b0_threshold=plan.config.b0_threshold,
        figures_dir=str(plan.layout.figures(plan.series)),
        stem=plan.stem,
        label=plan.series.label,
        random_seed=plan.config.random_seed,
    )
    interface.inputs.use_gpu = plan.device != "cpu"
    # A GPU node takes as many GPU slots as it has processors: one.
    threads = 1 if interface.inputs.use_gpu else plan.threads
    return Node(interface, name=name, n_procs=threads, mem_gb=plan.self_check_gb)

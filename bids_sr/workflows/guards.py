"""The nodes that guard against invention: where the result departs from the scan, and what the T1w changed in it."""

from __future__ import annotations

from nipype.pipeline.engine import Node

from bids_sr.interfaces.ablation import RestoreWithoutT1w
from bids_sr.interfaces.consistency import CheckConsistency
from bids_sr.workflows.memory import guards_gb
from bids_sr.workflows.plan import SeriesPlan


def guard_node(plan: SeriesPlan, name: str = "guard") -> Node:
    """The node that maps both."""
    interface = CheckConsistency(
        b0_threshold=plan.config.b0_threshold,
        figures_dir=str(plan.layout.figures(plan.series)),
        stem=plan.stem,
        label=plan.series.label,
        random_seed=plan.config.random_seed,
    )
    return Node(interface, name=name, mem_gb=guards_gb(plan))


def ablation_node(plan: SeriesPlan, name: str = "ablate") -> Node:
    """The node that restores some volumes without the T1w; on a GPU it takes nipype's GPU slot, as restoring does."""
    interface = RestoreWithoutT1w(
        **plan.target_inputs,
        model=plan.config.model,
        device=plan.device,
        b0_threshold=plan.config.b0_threshold,
        label=plan.series.label,
        random_seed=plan.config.random_seed,
    )
    interface.inputs.use_gpu = plan.device != "cpu"
    # A GPU node takes as many GPU slots as it has processors: one.
    threads = 1 if interface.inputs.use_gpu else plan.threads
    return Node(interface, name=name, n_procs=threads, mem_gb=plan.restore_gb(plan.card.name))

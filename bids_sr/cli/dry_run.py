"""The table of ``--dry-run``: what would run, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from bids_sr.bids.inputs import DwiSeries, scan_series
from bids_sr.config import Config
from bids_sr.degradation import low_resolution_grid
from bids_sr.errors import BidsSrError
from bids_sr.evaluation import ablation
from bids_sr.evaluation.self_check import MOST_WEIGHTED, N_B0, checked_scale
from bids_sr.geometry import Grid
from bids_sr.inference.device import resolve_device
from bids_sr.inference.memory import estimate
from bids_sr.models.registry import ModelCard
from bids_sr.workflows.memory import peak_gb
from bids_sr.workflows.plan import SeriesPlan, card_of_run, check_memory, opening_warnings, sketch_series


@dataclass(frozen=True)
class Row:
    """One series as text; the names are the table's headings."""

    series: str
    volumes: str
    t1w: str
    mask: str
    acquired: str
    asked: str
    self_check: str
    time: str
    memory: str


def run(config: Config) -> int:
    """Print the table of what would run.

    Returns
    -------
    int
        0, or 2 where a series cannot run, or 137 where one needs more memory than there is.
    """
    resolve_device(config.device)
    card = card_of_run(config)
    series, problems = scan_series(config)
    rows, notes = [], []
    refused: list[BidsSrError] = [*problems]
    for one in series:
        try:
            plan = sketch_series(one, config, card, "cpu")
            rows.append(row_of(plan))
            notes += [f"note: {one.label}: {note}" for note in opening_warnings(plan)]
            check_memory(plan)
        except BidsSrError as error:
            refused.append(error)
    print(format_table(rows))
    print(
        f"Model {card.name}; processors: {config.nprocs}, memory: {config.memory_gb:.1f} GB. No GPU is reckoned with. "
        "Times are those of the model, the self-check and the restoration without the T1w included."
    )
    for line in [*notes, *(f"cannot run: {problem}" for problem in refused)]:
        print(line)
    return max((problem.exit_code for problem in refused), default=0)


def row_of(plan: SeriesPlan) -> Row:
    """A plan in the words of the table."""
    series, config, card = plan.series, plan.config, plan.card
    return Row(
        series=series.label,
        volumes=str(plan.n_volumes),
        t1w=_t1w_text(series, card),
        mask="given" if series.mask else "made",
        acquired=_grid_text(plan.source),
        asked=_grid_text(plan.target),
        self_check="yes" if plan.checks_itself else "cannot be done" if config.self_check else "no",
        time=_duration(seconds(plan)),
        memory=f"{peak_gb(plan):.1f} GB",
    )


def seconds(plan: SeriesPlan) -> float:
    """How long the model takes for a series, on processors: for the result, and for the checks of it."""
    threads = plan.config.omp_nthreads
    taken = estimate(plan.source.shape, plan.n_volumes, plan.target.shape, plan.card, threads).seconds
    if plan.checks_itself:
        low = low_resolution_grid(plan.source, np.array(checked_scale(plan.source, plan.target)))
        n_checked = min(plan.n_volumes, N_B0 + MOST_WEIGHTED)
        taken += estimate(low.shape, n_checked, plan.source.shape, plan.card, threads).seconds
    if plan.tests_t1w:
        n_again = min(max(2, plan.n_volumes // ablation.ONE_IN), 1 + ablation.MOST_WEIGHTED)
        taken += estimate(plan.source.shape, n_again, plan.target.shape, plan.card, threads).seconds
    return taken


def _t1w_text(series: DwiSeries, card: ModelCard) -> str:
    """The T1w, and for a model that uses it whether it will be guided."""
    if series.t1w is None:
        return "none (zeros for the model)" if card.uses_t1w else "none"
    return f"{series.t1w.name} ({series.t1w_note}{'; guides the model' if card.uses_t1w else ''})"


def format_table(rows: Sequence[Row]) -> str:
    """Rows under their headings, columns aligned."""
    names = [item.name for item in fields(Row)]
    headings = [name.replace("_", "-") for name in names]
    lines = [headings, *([getattr(row, name) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _grid_text(grid: Grid) -> str:
    """Shape and voxel size."""
    return "x".join(map(str, grid.shape)) + " @ " + "x".join(f"{size:.4g}" for size in grid.voxel_sizes) + " mm"


def _duration(seconds: float) -> str:
    """A duration for people."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )

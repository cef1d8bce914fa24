"""The table of ``--dry-run``: what would run, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import nibabel as nib

from bids_sr.bids.inputs import DwiSeries, scan_series
from bids_sr.config import Config
from bids_sr.errors import InputError, NotFourDimensionalError, UnreadableImageError
from bids_sr.geometry import Grid, target_grid
from bids_sr.inference.device import resolve_device
from bids_sr.inference.memory import estimate
from bids_sr.inference.upsampler import check_scale
from bids_sr.models.registry import ModelCard, read_trained_card


@dataclass(frozen=True)
class Row:
    """One series as text; the names are the table's headings."""

    series: str
    volumes: str
    t1w: str
    mask: str
    acquired: str
    asked: str
    time: str
    memory: str


def run(config: Config) -> int:
    """Print the table of what would run.

    Returns
    -------
    int
        0, or 2 where a series cannot run.
    """
    resolve_device(config.device)
    card = read_trained_card(config.model)
    series, problems = scan_series(config)
    rows = []
    for one in series:
        try:
            rows.append(row_of(one, config, card))
        except InputError as error:
            problems.append(error)
    print(format_table(rows))
    print(
        f"Model {card.name}; processors: {config.nprocs}, memory: {config.memory_gb:.1f} GB. No GPU is reckoned with."
    )
    for problem in problems:
        print(f"cannot run: {problem}")
    return InputError.exit_code if problems else 0


def row_of(series: DwiSeries, config: Config, card: ModelCard) -> Row:
    """What is known of a series before it runs.

    Raises
    ------
    InputError
        Where its image cannot be read or the grid asked for cannot be made.
    """
    image = _open(series)
    source = Grid.of(image)
    target = target_grid(source, config.output_resolution, config.scale, series.dwi.name)
    check_scale(source, target, card, series.dwi.name)
    need = estimate(source.shape, image.shape[3], target.shape, card, config.omp_nthreads)
    return Row(
        series=series.label,
        volumes=str(image.shape[3]),
        t1w=_t1w_text(series, card),
        mask="given" if series.mask else "made",
        acquired=_grid_text(source),
        asked=_grid_text(target),
        time=_duration(need.seconds),
        memory=f"{need.peak_gb:.1f} GB",
    )


def _t1w_text(series: DwiSeries, card: ModelCard) -> str:
    """The T1w, and for a model that uses it whether it will be guided."""
    if series.t1w is None:
        return "none (zeros for the model)" if card.uses_t1w else "none"
    return f"{series.t1w.name} ({series.t1w_note}{'; guides the model' if card.uses_t1w else ''})"


def format_table(rows: Sequence[Row]) -> str:
    """Rows under their headings, columns aligned."""
    names = [item.name for item in fields(Row)]
    lines = [names, *([getattr(row, name) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _open(series: DwiSeries) -> nib.Nifti1Image:
    """The image of a series, its header read."""
    try:
        image = nib.Nifti1Image.from_filename(series.dwi)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise UnreadableImageError(path=series.dwi, reason=" ".join(str(error).split())) from error
    if image.ndim != 4:
        raise NotFourDimensionalError(dwi=series.dwi, shape=image.shape)
    return image


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

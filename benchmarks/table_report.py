"""What a table leaves behind: Markdown, a figure, CSV, and the configuration and log of each training."""

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.table_layout import (
    Cost,
    Results,
    Table,
    figure_table,
    groups,
    markdown,
    order_found,
    overview_table,
    published_table,
    signal_table,
)
from bids_sr import __version__
from bids_sr.evaluation.figure import save_figure
from bids_sr.evaluation.tables import as_csv, mean_and_spread
from bids_sr.models.registry import ModelCard, list_models, read_card


@dataclass(frozen=True)
class Trained:
    """A network that has been trained: its preset, its seed, its card and the folder of its training."""

    model: str
    seed: int
    card: ModelCard
    folder: Path

    @property
    def row(self) -> dict[str, Any]:
        """What the training took and gave."""
        training, progress = self.card.training, self.card.training["progress"]
        return {
            "model": self.model,
            "seed": self.seed,
            "parameters": self.card.parameters,
            "steps": progress["steps"],
            "patches": progress["patches"],
            "seconds": progress["seconds"],
            "validation_loss": progress["validation_loss"],
            "precision": training["optimization"]["precision"],
            "device": training["hardware"]["device"],
            "threads": training["hardware"]["threads"],
            "weights_sha256": self.card.weights_sha256,
        }


@dataclass(frozen=True)
class Trial:
    """What the models were put to: the dataset, its subjects, and the volumes of each (all if None)."""

    dataset: str
    subjects: Sequence[str]
    n_volumes: int | None


def write_report(
    name: str,
    table: Table,
    results: Results,
    trained: Sequence[Trained],
    trial: Trial,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
) -> None:
    """Write all that a table leaves behind.

    Parameters
    ----------
    name : str
        Of the Markdown file, without its ending.
    table : Table
    results : Results
    trained : sequence of Trained
    trial : Trial
    rows : mapping of str to rows
        Further tables, written as CSV under their names.
    folder : Path
    """
    for part in ("presets", "cards", "logs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for training in trained:
        _keep(training, table.presets, folder)
    for stem, content in {**rows, "trainings": [training.row for training in trained]}.items():
        (folder / f"{stem}.csv").write_text(as_csv(content), encoding="utf-8")
    if results:
        save_figure(groups(table, results), [folder / "figure.svg"])
    without = scales_without_t1w(rows.get("scans", ()), trained)
    (folder / f"{name}.md").write_text(report(table, results, trained, trial, without), encoding="utf-8")


def scales_without_t1w(scans: Sequence[Mapping[str, Any]], trained: Sequence[Trained]) -> list[str]:
    """Scales at which a network that takes a T1w had to do without it, by the rows of the tests."""
    takes = {training.card.name for training in trained if training.card.uses_t1w}
    return sorted({row["scale"] for row in scans if row["model"] in takes and row["t1w"] == "False"}, key=float)


def _keep(training: Trained, presets: Path, folder: Path) -> None:
    """Copy the configuration, the card and the logs of a training."""
    preset, card = f"{training.model}.toml", f"{training.card.name}.json"
    shutil.copyfile(presets / preset, folder / "presets" / preset)
    shutil.copyfile(training.folder / card, folder / "cards" / card)
    # A training that was cut and went on has a log of each part.
    for log in (training.folder / "log").glob("run-*/metrics.csv"):
        shutil.copyfile(log, folder / "logs" / f"{training.card.name}_{log.parent.name}.csv")


def report(table: Table, results: Results, trained: Sequence[Trained], trial: Trial, without_t1w: Sequence[str]) -> str:
    """The Markdown file; `without_t1w` are the scales of `scales_without_t1w`."""
    seeds = sorted({training.seed for training in trained})
    spread = f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}." if len(seeds) > 1 else ""
    sections = {
        "Overview": [spread, overview_table(table, results, costs(table, trained))],
        "PSNR (dB) / SSIM in the brain": [spread, signal_table(table, results, "mask")],
        "PSNR (dB) / SSIM of whole volumes, the paper's protocol": [spread, signal_table(table, results, "volume")],
        **(_beside_the_paper(table, results) if any(method.published for method in table.methods) else {}),
        "Mean absolute error of FA": [figure_table(table, results, "fa_error", 4)],
        "Mean absolute error of MD (1e-4 mm²/s)": [figure_table(table, results, "md_error", 3, 1e4)],
        "Seconds per volume": [figure_table(table, results, "seconds_per_volume", 1)],
        "Most resident memory (GB)": [figure_table(table, results, "peak_gb", 1)],
        "Trainings": [training_table(trained)],
    }
    parts = [f"## {table.title}", introduction(table, trained, trial)]
    if any(training.card.uses_t1w for training in trained):
        scales = ", ".join(f"{scale}x" for scale in without_t1w)
        parts[-1] += f"\nThe T1w was used where a network takes one{f', but not at {scales}' if scales else ''}."
    if results:
        parts.append("![PSNR in the brain and error of FA over the scale](figure.svg)")
    for heading, content in sections.items():
        parts += [f"### {heading}", *filter(None, content)]
    return "\n\n".join(parts) + "\n"


def _beside_the_paper(table: Table, results: Results) -> dict[str, list[str]]:
    """The sections that compare with what a paper found."""
    return {
        "Beside the published figures": [
            "Whole volumes. The published figures are of other scans (Human Connectome Project, 1.25 mm); a dash where "
            "no printed figure was at hand.",
            published_table(table, results),
        ],
        "Order by PSNR in the brain": [order_found(table, results)],
    }


def costs(table: Table, trained: Sequence[Trained]) -> dict[str, Cost]:
    """Parameters of the models of a table that have some, with the mean seconds of their trainings over the seeds."""
    found = {}
    for name in dict.fromkeys(name for method in table.methods for name in method.models.values()):
        if name in list_models() and read_card(name).parameters:
            found[name] = Cost(read_card(name).parameters)
    for name in dict.fromkeys(training.model for training in trained):
        rows = [training.row for training in trained if training.model == name]
        found[name] = Cost(rows[0]["parameters"], fmean(float(row["seconds"]) for row in rows))
    return found


def introduction(table: Table, trained: Sequence[Trained], trial: Trial) -> str:
    """What was trained on what, for how long, and tested on what."""
    volumes = "all volumes" if trial.n_volumes is None else f"the b0 volumes and {trial.n_volumes} weighted ones"
    lines = [
        f"bids_sr {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {date.today()}.",
        f"Test: {', '.join(trial.subjects)} of {trial.dataset}, {volumes}, degraded by the profile {table.profile}.",
    ]
    if trained:
        lines += [_budget([training.card.training["optimization"] for training in trained]), _data(trained[0])]
    return "\n".join(lines)


def _budget(options: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the budget of the trainings, which differ in nothing but their seeds, or else in more."""
    first = options[0]
    length = f"{first['max_steps']:,} steps"
    if all({**other, "seed": 0} == {**first, "seed": 0} for other in options):
        return (
            f"Training of every network: {length} of {first['batch_size']} patches, Adam from "
            f"{first['learning_rate']:g}, {first['schedule']} schedule, {first['precision']}."
        )
    if all((other["max_steps"], other["precision"]) == (first["max_steps"], first["precision"]) for other in options):
        return f"Training of every network: {length}, {first['precision']}; the rest is in the presets."
    return "Networks were trained for as long as their presets say; see the table of trainings."


def _data(trained: Trained) -> str:
    """A sentence on the data of the trainings."""
    training = trained.card.training
    scans = training["scans"]
    acquired = [scan for scan in scans if not scan.startswith("simulated")]
    simulated = f" and {training['simulated_scans']} simulated scans" if training["simulated_scans"] else ""
    return (
        f"Training scans: {', '.join(acquired)}{simulated}, {training['scans_with_t1w']} of {len(scans)} with a T1w; "
        f"validation: {', '.join(training['validation_scans'])}."
    )


def training_table(trained: Sequence[Trained]) -> str:
    """For each network: parameters, steps, patches, seconds over the seeds, and where it was trained."""
    rows = []
    for model in dict.fromkeys(training.model for training in trained):
        members = [training.row for training in trained if training.model == model]
        first = members[0]
        seconds = torch.tensor([float(member["seconds"]) for member in members])
        rows.append(
            [
                model,
                f"{first['parameters']:,}",
                f"{first['steps']:,}",
                f"{first['patches']:,}",
                mean_and_spread(float(seconds.mean()), float(seconds.std()) if len(members) > 1 else float("nan"), 0),
                f"{first['device']}, threads: {first['threads']}, {first['precision']}",
            ]
        )
    return markdown(["Network", "Parameters", "Steps", "Patches", "Seconds", "Hardware"], rows)

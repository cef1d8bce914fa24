r"""Tune a trained network to a scanner by one scan, and measure what that gives there and costs elsewhere.

    python -m benchmarks.transfer BIDS_DIR --subject trio --first nimhans xa30 uih --others sag \
        --packs simulated.safetensors --output benchmarks/results/transfer.md

A subject with several series is tuned on its first and tested on its second; one with a single series on the first and
the second half of its volumes, a single b0 being in both. So both are of one head: the gain is what tuning can give at
best. The first network is trained on the subjects of `--first`, which are to be of other scanners, or is the one of
`--model`. T1w images take no part. Trainings are kept below `--work`; one that was cut short goes on, one that is
finished is left alone.
"""

import argparse
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.table_layout import LIGHT_PRESETS, markdown
from benchmarks.tables import only_one
from bids_sr import __version__
from bids_sr.bids.inputs import DwiSeries, find_series
from bids_sr.bids.outputs import write_text
from bids_sr.config import Config
from bids_sr.dwi.gradients import check_gradients
from bids_sr.errors import BidsSrError, TrainingDataError
from bids_sr.evaluation.benchmark import (
    Reference,
    choose_volumes,
    compare_tensors,
    compare_volumes,
    degrade_reference,
)
from bids_sr.evaluation.reading import read_reference
from bids_sr.evaluation.tables import signal_means
from bids_sr.inference.device import resolve_device
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.models.base import TrainableModel
from bids_sr.models.registry import ModelCard, load_model, read_card
from bids_sr.training.checkpoints import checkpoints_in, difference
from bids_sr.training.packing import PackedScan, load_pack, pack_scan
from bids_sr.training.run import Hardware, card_of, train
from bids_sr.training.settings import TrainingSettings, load_settings
from bids_sr.training.subjects import subject_of, trained_on

B0_THRESHOLD = 50.0
BASELINE, BEFORE, AFTER = "cubic", "before", "after"
HEADINGS = ("scan", "what it is", "model", "PSNR (dB)", "SSIM", "FA error", "MD error (1e-4 mm²/s)")
#: Of the columns after the model's name: figure, factor, digits.
COLUMNS = (("psnr_mask", 1.0, 2), ("ssim_mask", 1.0, 3), ("fa_error", 1.0, 4), ("md_error", 1e4, 3))

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Scan:
    """A series, or some of its volumes, as it was acquired; `name` begins with that of the subject."""

    name: str
    reference: Reference

    def part(self, name: str, volumes: NDArray[np.int64]) -> "Scan":
        """Some of its volumes under another name; the mask is that of all.

        Raises
        ------
        InputError
            If they determine no tensor, or none of them is a b0.
        """
        whole = self.reference
        gradients = whole.gradients.subset(volumes)
        check_gradients(gradients, len(volumes), whole.b0_threshold, name)
        return Scan(name, Reference(whole.data[..., volumes], gradients, whole.grid, whole.mask, whole.b0_threshold))

    def packed(self) -> PackedScan:
        """The scan as trainings take it, without a T1w."""
        reference = self.reference
        return pack_scan(
            self.name, reference.data, reference.gradients.bvals, reference.mask, reference.b0_threshold,
            voxel_sizes=reference.grid.voxel_sizes, bvecs=reference.gradients.bvecs,
        )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What a model makes of a scan."""

    scan: str
    role: str
    model: str
    figures: Figures

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        numbers = (f"{factor * self.figures[name]:.{digits}f}" for name, factor, digits in COLUMNS)
        return [self.scan, self.role, self.model, *numbers]


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.transfer`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="dataset of the scans")
    parser.add_argument("--subject", required=True, metavar="LABEL", help="whom to tune to, and to test on")
    parser.add_argument("--others", nargs="+", required=True, metavar="LABEL", help="of other scanners, to test on")
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--first", nargs="+", metavar="LABEL", help="subjects to train the first network on")
    begin.add_argument("--model", metavar="MODEL", help="the first network, by the name or card of a trained one")
    parser.add_argument("--packs", type=Path, nargs="+", default=[], metavar="PACK", help="to train the first on too")
    parser.add_argument("--preset", default=str(LIGHT_PRESETS / "m1.toml"), help="of both trainings (%(default)s)")
    parser.add_argument("--first-steps", type=int, metavar="N", help="of the first training (default: the preset's)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="of the tuning (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, metavar="R", help="of the tuning (%(default)s)")
    parser.add_argument("--scale", type=float, default=2.0, metavar="F", help="to test at (default: %(default)s)")
    parser.add_argument("--volumes", type=int, metavar="N", help="test on the b0 volumes and N others (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of both trainings (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="processor threads (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("work/transfer"), metavar="DIR", help="(%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/transfer.md"), metavar="FILE", help="(%(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Tune, test and write; the exit code: 0 done, 2 bad arguments or data, 130 interrupted."""
    options = build_parser().parse_args(argv)
    # Leave out what lightning says to programmers.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        with only_one(options.work):
            _run(options)
    except BidsSrError as error:
        print(f"benchmarks.transfer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    """Both trainings, the tests, the page."""
    check_subjects(options)
    tuned_on, repeat = repeats(series_of([options.subject], options))
    others = [read_scan(series) for series in series_of(options.others, options)]
    # Validated on another scanner, for the log alone: the weights of the last step are taken, whatever it says.
    watched = [others[0].packed()]
    before = first_model(watched, options)
    settings = tuning_settings(load_settings(options.preset), options)
    after = trained_model(AFTER, [tuned_on.packed()], watched, settings, before, options)
    known = {subject_of(name) for name in trained_on(read_card(before).training)}
    roles = ["of another scanner" + (", learned from before" if subject_of(s.name) in known else "") for s in others]
    rows = []
    for scan, role in ((repeat, "repeat of the tuned scan"), *zip(others, roles, strict=True)):
        for label, model in ((BASELINE, BASELINE), (BEFORE, before), (AFTER, after)):
            rows.append(Row(scan.name, role, label, figures_of(scan, model, options)))
            print(f"{scan.name}, {label}: {rows[-1].figures['psnr_mask']:.2f} dB", flush=True)
    write_text(options.output, report(rows, read_card(before), read_card(after), tuned_on, options))


# The scans


def check_subjects(options: argparse.Namespace) -> None:
    """Refuse a subject to tune to that is not new, or that is to stand for others too.

    Raises
    ------
    TrainingDataError
    """
    subject = options.subject.removeprefix("sub-")
    for option, labels in (("--first", options.first or ()), ("--others", options.others)):
        if subject in {label.removeprefix("sub-") for label in labels}:
            raise TrainingDataError(where=f"{option} {subject}", problem="the subject that is tuned to (--subject)")


def series_of(labels: Sequence[str], options: argparse.Namespace) -> list[DwiSeries]:
    """The series of subjects."""
    nowhere = Path(tempfile.gettempdir())
    wanted = tuple(label.removeprefix("sub-") for label in labels)
    return find_series(Config(options.bids_dir.resolve(), nowhere, nowhere, participants=wanted, use_t1w=False))


def read_scan(series: DwiSeries) -> Scan:
    """A whole series."""
    return Scan(series.stem, read_reference(series, B0_THRESHOLD))


def repeats(series: Sequence[DwiSeries]) -> tuple[Scan, Scan]:
    """What to tune on and what to test on, of one subject: two series, or the halves of a single one.

    A single b0 is in both halves.

    Raises
    ------
    InputError
        If a half is no scan by itself.
    """
    if len(series) > 1:
        return read_scan(series[0]), read_scan(series[1])
    whole = read_scan(series[0])
    b0, weighted = np.flatnonzero(~whole.reference.weighted), np.flatnonzero(whole.reference.weighted)
    b0_halves = (b0, b0) if len(b0) == 1 else np.array_split(b0, 2)
    first, second = (np.sort(np.concatenate(part)) for part in zip(b0_halves, np.array_split(weighted, 2), strict=True))
    return whole.part(f"{whole.name}_part-1", first), whole.part(f"{whole.name}_part-2", second)


# The trainings


def first_model(watched: Sequence[PackedScan], options: argparse.Namespace) -> str:
    """The card of the network to begin with, trained now if none was named."""
    if options.model is not None:
        return str(options.model)
    scans = [read_scan(series).packed() for series in series_of(options.first, options)]
    scans += [scan for file in options.packs for scan in load_pack(file)]
    settings = load_settings(options.preset)
    steps = options.first_steps or settings.optimization.max_steps
    settings = replace(settings, optimization=replace(settings.optimization, max_steps=steps, seed=options.seed))
    return trained_model(BEFORE, scans, watched, settings, None, options)


def tuning_settings(settings: TrainingSettings, options: argparse.Namespace) -> TrainingSettings:
    """A preset made shorter and slower."""
    short = replace(
        settings.optimization, max_steps=options.steps, learning_rate=options.learning_rate, seed=options.seed
    )
    return replace(settings, optimization=short)


def trained_model(
    name: str,
    scans: Sequence[PackedScan],
    watched: Sequence[PackedScan],
    settings: TrainingSettings,
    initial: str | None,
    options: argparse.Namespace,
) -> str:
    """The card of a network trained on scans; one that is finished is left alone, one that was cut short goes on."""
    if not any(scan.simulated for scan in scans):
        settings = replace(settings, patches=replace(settings.patches, simulated_share=None))
    folder: Path = options.work / name
    card = folder / f"{name}.json"
    beginning = None if initial is None else _with_weights(initial)
    if not _finished(card, scans, settings, "" if beginning is None else beginning[1].weights_sha256):
        resume = folder if checkpoints_in(folder / "checkpoints") else None
        hardware = Hardware(options.device, threads=options.threads)
        train(scans, watched, settings, name, folder, hardware, resume=resume, initial=beginning)
    return str(card)


def _with_weights(name: str) -> tuple[TrainableModel, ModelCard]:
    """A network that can learn more, and its card."""
    model, card = load_model(name, torch.device("cpu"))
    if not isinstance(model, TrainableModel):
        raise TrainingDataError(where=f"--model {name}", problem="it has no weights")
    return model, card


def _finished(file: Path, scans: Sequence[PackedScan], settings: TrainingSettings, begun_with: str) -> bool:
    """Whether a network has been trained so, from these weights, to the end."""
    if not file.is_file():
        return False
    card = read_card(str(file))
    expected = card_of(card.name, settings, scans, (), Hardware())
    return (
        not difference(json.loads(json.dumps(asdict(card))), expected)
        and card.training["progress"]["steps"] == settings.optimization.max_steps
        and card.training.get("started_from", {}).get("weights_sha256", "") == begun_with
    )


# The tests


def figures_of(scan: Scan, name: str, options: argparse.Namespace) -> Figures:
    """How close a model comes to a scan that was degraded."""
    torch.set_num_threads(options.threads)
    if options.volumes is not None:
        chosen = choose_volumes(scan.reference.gradients, B0_THRESHOLD, options.volumes)
        scan = scan.part(scan.name, chosen)
    reference = scan.reference
    degraded = degrade_reference(reference, (options.scale,) * 3)
    device = resolve_device(options.device)
    model, card = load_model(name, device)
    volumes = restore_volumes(
        degraded.data, reference.gradients.bvals, degraded.grid, reference.grid, degraded.mask, model,
        signal=card.signal, b0_threshold=B0_THRESHOLD, device=device,
    )  # fmt: skip
    restored = np.stack(list(volumes), axis=-1)
    return signal_means(compare_volumes(reference, restored)) | asdict(compare_tensors(reference, restored))


# The page


def report(
    rows: Sequence[Row], before: ModelCard, after: ModelCard, tuned_on: Scan, options: argparse.Namespace
) -> str:
    """The page: what was done, the figures, and the change that tuning made."""
    parts = [
        "\n".join(introduction(before, after, tuned_on, options)),
        markdown(HEADINGS, [row.cells for row in rows]),
        "What tuning changed:",
        markdown(("scan", *HEADINGS[3:]), changes(rows)),
    ]
    return "\n\n".join(parts) + "\n"


def introduction(before: ModelCard, after: ModelCard, tuned_on: Scan, options: argparse.Namespace) -> Iterator[str]:
    """Which network, data, budget, seed and machine."""
    training, tested = after.training, f"the b0 volumes and {options.volumes} others" if options.volumes else "all"
    hardware, rate = training["hardware"], training["optimization"]["learning_rate"]
    yield (
        f"bids_sr {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {hardware['device']}, "
        f"threads: {options.threads}, {date.today()}."
    )
    yield (
        f"- before: {before.architecture}, {before.parameters:,} parameters, weights {before.weights_sha256[:12]}, "
        f"trained on {', '.join(dict.fromkeys(trained_on(before.training))) or 'scans that its card does not name'}."
    )
    yield (
        f"- after: tuned on {tuned_on.name} ({len(tuned_on.reference.gradients)} volumes), "
        f"{training['progress']['steps']:,} steps of {training['optimization']['batch_size']} patches from a rate of "
        f"{rate:g}, seed {options.seed}, {training['progress']['seconds']:.0f} s."
    )
    yield f"- tested at {options.scale:g}x by the profile gaussian, volumes of each scan: {tested}. No T1w took part."
    seen = sorted({subject_of(name) for name in trained_on(before.training)} & {subject_of(tuned_on.name)})
    if seen:
        yield f"- **The network had learned from scans of {seen[0]} before; what tuning gives a new scanner is more.**"


def changes(rows: Sequence[Row]) -> Iterator[list[str]]:
    """After less before, a row for each scan."""
    figures = {(row.scan, row.model): row.figures for row in rows}
    for scan in dict.fromkeys(row.scan for row in rows):
        before, after = figures[scan, BEFORE], figures[scan, AFTER]
        yield [scan, *(f"{factor * (after[name] - before[name]):+.{digits}f}" for name, factor, digits in COLUMNS)]


if __name__ == "__main__":
    sys.exit(main())

r"""Restore degraded scans by the model that ships, and say which of the bars it clears.

    python -m benchmarks.default_model BIDS_DIR --jobs 2

`bids-sr-evaluate` does the restorations, one job per scale, and keeps what it has done below `--work`, so the same
command goes on wherever it was stopped and does only what is missing. With it run "light", cubic interpolation, and, if
the model uses the T1w, the model without it. The table is written again after each job.
"""

import argparse
import csv
import dataclasses
import json
import platform
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks.noise_ceiling import Ceiling, ceilings, definition, is_repeated
from benchmarks.tables import Job, only_one
from bids_sr import __version__
from bids_sr.bids.inputs import DwiSeries, scan_series
from bids_sr.bids.outputs import write_text
from bids_sr.cli.evaluate import Scale, parse_scale, scale_text
from bids_sr.config import Config
from bids_sr.dwi.gradients import read_gradients
from bids_sr.errors import BidsSrError
from bids_sr.evaluation.reading import read_reference
from bids_sr.models.registry import ModelCard, read_trained_card
from bids_sr.records import fingerprint
from bids_sr.training.subjects import trained_on

BASELINE, COMPANION = "cubic", "light"
WITHOUT_T1W = " without T1w"
B0_THRESHOLD = 50.0
SCALES: tuple[Scale, ...] = (
    *((s, s, s) for s in (1.25, 1.5, 1.6, 2.0, 2.4, 3.0, 4.0)),
    (1.0, 1.0, 2.0),
    (2.0, 2.0, 1.0),
)

#: dB over cubic that are asked for at a scale, and the largest part of cubic's errors of FA and MD.
PSNR_BARS = {"2": 2.6, "2.4": 2.6, "3": 2.4, "4": 2.0}
ERROR_BARS = {"2": 0.60}
#: The far goal: the model at the first scale as close to the truth as cubic at the second.
FAR_GOAL = ("4", "2")
#: What a restoration must not be worse in than cubic, with the sign of what is better.
SIGNS = {"psnr_mask": 1, "ssim_mask": 1, "fa_error": -1, "md_error": -1}
NAMES = {"psnr_mask": "PSNR", "ssim_mask": "SSIM", "fa_error": "FA", "md_error": "MD"}

Figures = Mapping[str, float]
#: Figures by subject, scale and model.
Table = Mapping[tuple[str, str, str], Figures]


@dataclass(frozen=True)
class Bar:
    """Something that the model should reach on a subject; `met` tells whether it does."""

    subject: str
    text: str
    asked: str
    reached: str
    met: bool


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.default_model`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.default_model", description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="dataset of the scans")
    parser.add_argument("--subjects", nargs="+", default=["elition"], metavar="LABEL", help="(default: elition)")
    parser.add_argument("--scales", nargs="+", type=parse_scale, default=SCALES, metavar="F", help="(default: all)")
    parser.add_argument("--model", default="default", help="name or card of the model (default: %(default)s)")
    parser.add_argument("--volumes", type=int, metavar="N", help="the b0 volumes and N others (default: all)")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="processor threads of a job (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="jobs at a time (default: 1)")
    parser.add_argument("--work", type=Path, default=Path("work/default"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/default.md"), metavar="FILE", help="(%(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the table; the exit code: 0 done, 1 some of it failed, 2 bad arguments or data, 130 interrupted."""
    options = build_parser().parse_args(argv)
    try:
        with only_one(options.work):
            return _run(options)
    except BidsSrError as error:
        print(f"benchmarks.default_model: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    """Run the jobs, some at a time, and write the table after each."""
    card = read_trained_card(options.model)
    conditions = (True, False) if card.uses_t1w else (True,)
    jobs = [evaluation_job(scale, with_t1w, card, options) for with_t1w in conditions for scale in options.scales]
    noise = noise_rows(options)
    writing = threading.Lock()

    def done(job: Job) -> bool:
        went_well = job.run(options.threads)
        with writing:
            write_text(options.output, report(read_table(options), noise, card, options))
        return went_well

    with ThreadPoolExecutor(options.jobs) as pool:
        went_well = list(pool.map(done, jobs))
    print(f"written: {options.output}", flush=True)
    return 0 if all(went_well) else 1


# The restorations


def evaluation_job(scale: Scale, with_t1w: bool, card: ModelCard, options: argparse.Namespace) -> Job:
    """The restorations at one scale; without the T1w, only those by the model."""
    folder = evaluation_folder(scale, with_t1w, options)
    others = [name for name in (COMPANION, BASELINE) if with_t1w and name != card.name]
    words = [sys.executable, "-m", "bids_sr.cli.evaluate", str(options.bids_dir), str(folder)]
    words += ["--models", options.model, *others, "--scales", scale_text(scale)]
    words += ["--participant-label", *options.subjects, "--device", options.device, "--threads", str(options.threads)]
    words += ["--volumes", str(options.volumes)] if options.volumes else []
    words += [] if with_t1w else ["--no-t1w"]
    # It is written again from what is finished; that of another command must not be taken for it.
    (folder / "subjects.csv").unlink(missing_ok=True)
    return Job(f"scale {scale_text(scale)}{'' if with_t1w else WITHOUT_T1W}", words, folder / "log.txt")


def evaluation_folder(scale: Scale, with_t1w: bool, options: argparse.Namespace) -> Path:
    """Where the restorations at one scale are kept."""
    work: Path = options.work
    return work / scale_text(scale) / ("with-t1w" if with_t1w else "without-t1w")


def read_table(options: argparse.Namespace) -> dict[tuple[str, str, str], Figures]:
    """The figures of what is finished."""
    found: dict[tuple[str, str, str], Figures] = {}
    for scale in options.scales:
        for with_t1w, ending in ((True, ""), (False, WITHOUT_T1W)):
            file = evaluation_folder(scale, with_t1w, options) / "subjects.csv"
            for row in csv.DictReader(file.read_text("utf-8").splitlines() if file.is_file() else []):
                figures = {name: _number(row[name]) for name in (*SIGNS, "v1_angle", "n_t1w")}
                found[row["subject"], row["scale"], row["model"] + ending] = figures
    return found


def _number(text: str) -> float:
    """The number in a cell; not a number where there is none."""
    return float("nan") if text == "n/a" else float(text)


# The noise


def noise_rows(options: argparse.Namespace) -> list[tuple[str, Ceiling]]:
    """Each series with what its noise allows: those of the subjects, and others of the dataset that repeat volumes.

    They are of all volumes, and kept in the work folder.
    """
    labels = {label.removeprefix("sub-") for label in options.subjects}
    found = []
    for series in scan_series(Config(options.bids_dir.resolve(), options.work, options.work, use_t1w=False))[0]:
        asked = series.entities["sub"] in labels
        if asked or is_repeated(read_gradients(series.bval, series.bvec), B0_THRESHOLD):
            found += [(series.stem, ceiling) for ceiling in _ceilings_of(series, options.work)]
    return found


def _ceilings_of(series: DwiSeries, work: Path) -> list[Ceiling]:
    """What the noise of a series allows, from the work folder where it is known."""
    key = fingerprint([series.dwi, series.bval, series.bvec, series.mask], {"b0_threshold": B0_THRESHOLD}, "")
    file = work / "noise" / f"{series.stem}_{key[:12]}.json"
    if not file.is_file():
        found = ceilings(read_reference(series, B0_THRESHOLD))
        write_text(file, json.dumps([dataclasses.asdict(ceiling) for ceiling in found]))
    return [Ceiling(**content) for content in json.loads(file.read_text("utf-8"))]


# The bars


def bars(table: Table, model: str) -> Iterator[Bar]:
    """What is asked of the model on each subject, and what it reached."""
    for subject in dict.fromkeys(key[0] for key in table):
        scales = [scale for of, scale, name in table if (of, name) == (subject, model)]
        pairs = {
            scale: (table[subject, scale, model], table[subject, scale, BASELINE])
            for scale in scales
            if (subject, scale, BASELINE) in table
        }
        yield from _gains(subject, pairs)
        yield from (_never_worse(subject, scale, *pair) for scale, pair in pairs.items())
        high, low = FAR_GOAL
        if high in pairs and low in pairs:
            reached, asked = pairs[high][0]["psnr_mask"], pairs[low][1]["psnr_mask"]
            text = f"far goal: as close at {high}x as {BASELINE} at {low}x, PSNR"
            yield Bar(subject, text, f"{asked:.2f} dB", f"{reached:.2f} dB", reached >= asked)


def _gains(subject: str, pairs: Mapping[str, tuple[Figures, Figures]]) -> Iterator[Bar]:
    """The bars that are numbers, of scales that were tried."""
    for scale, asked in PSNR_BARS.items():
        if scale in pairs:
            gain = pairs[scale][0]["psnr_mask"] - pairs[scale][1]["psnr_mask"]
            yield Bar(
                subject, f"PSNR over {BASELINE} at {scale}x", f"+{asked:.1f} dB", f"{gain:+.2f} dB", gain >= asked
            )
    for scale, most in ERROR_BARS.items():
        for name in ("fa_error", "md_error"):
            if scale in pairs:
                part = pairs[scale][0][name] / pairs[scale][1][name]
                text = f"{NAMES[name]} error at {scale}x, of {BASELINE}'s"
                yield Bar(subject, text, f"at most {most:.2f}", f"{part:.2f}", part <= most)


def _never_worse(subject: str, scale: str, ours: Figures, baseline: Figures) -> Bar:
    """Whether nothing is worse than by cubic interpolation; a figure that there is not counts as worse."""
    worse = [NAMES[name] for name, sign in SIGNS.items() if not sign * ours[name] >= sign * baseline[name]]
    text = f"never worse than {BASELINE} at {scale}: {', '.join(NAMES.values())}"
    return Bar(subject, text, "none", ", ".join(worse) or "none", not worse)


# What is written


def report(table: Table, noise: Sequence[tuple[str, Ceiling]], card: ModelCard, options: argparse.Namespace) -> str:
    """The page: what was run, the bars, the figures, what the noise allows."""
    parts = [
        introduction(card, options),
        "## Bars",
        markdown(BAR_HEADINGS, (_bar_row(bar) for bar in bars(table, card.name))),
        "## Figures",
        f"Gains and parts are over and of {BASELINE}'s, in the mask of the acquired scan.",
        markdown(FIGURE_HEADINGS, figure_rows(table)),
        "## What the noise of the truth allows",
        definition([ceiling for _, ceiling in noise]),
        markdown(NOISE_HEADINGS, (_noise_row(stem, ceiling) for stem, ceiling in noise)),
    ]
    return "\n\n".join(parts) + "\n"


BAR_HEADINGS = ("subject", "bar", "asked", "reached", "cleared")
FIGURE_HEADINGS = (
    *("subject", "scale", "model", "T1w", "PSNR (dB)", "gain", "SSIM"),
    *("FA error", "part", "MD error (1e-4 mm2/s)", "part", "V1 (deg)"),
)
NOISE_HEADINGS = ("series", "noise from", "PSNR (dB)", "FA error", "MD error (1e-4 mm2/s)")


def introduction(card: ModelCard, options: argparse.Namespace) -> str:
    """What was run, on what."""
    volumes = f"the b0 volumes and {options.volumes} others" if options.volumes else "all volumes"
    lines = [
        f"bids_sr {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, "
        f"{options.device}, {date.today()}; {volumes} of each series.",
    ]
    for name in dict.fromkeys([card.name, COMPANION]):
        about = card if name == card.name else read_trained_card(name)
        scans = ", ".join(dict.fromkeys(trained_on(about.training))) or "no scans that its card names"
        lines.append(
            f"- {name}: {about.parameters:,} parameters, weights {about.weights_sha256[:12]}, trained on {scans}."
        )
    return "\n".join(lines)


def _bar_row(bar: Bar) -> Sequence[str]:
    """A row of the table of the bars."""
    return bar.subject, bar.text, bar.asked, bar.reached, "yes" if bar.met else "**no**"


def figure_rows(table: Table) -> Iterator[Sequence[str]]:
    """A row per subject, scale and model, those of a subject together, finer scales first."""
    for (subject, scale, model), ours in sorted(table.items(), key=lambda item: (item[0][0], _order(item[0][1]))):
        baseline = table.get((subject, scale, BASELINE), {})
        gain = ours["psnr_mask"] - baseline.get("psnr_mask", float("nan"))
        fa, md = (ours[name] / baseline.get(name, float("nan")) for name in ("fa_error", "md_error"))
        t1w = "yes" if ours["n_t1w"] else "no"
        numbers = (
            f"{ours['psnr_mask']:.2f}", f"{gain:+.2f}", f"{ours['ssim_mask']:.3f}", f"{ours['fa_error']:.4f}",
            f"{fa:.2f}", f"{1e4 * ours['md_error']:.3f}", f"{md:.2f}", f"{ours['v1_angle']:.2f}",
        )  # fmt: skip
        yield subject, scale, model, t1w, *(_shown(number) for number in numbers)


def _order(scale: str) -> tuple[bool, tuple[float, ...]]:
    """Isotropic scales first, each sort by its factors."""
    return "x" in scale, parse_scale(scale)


def _noise_row(stem: str, ceiling: Ceiling) -> Sequence[str]:
    """A row of the table of the noise."""
    numbers = f"{ceiling.psnr:.2f}", f"{ceiling.fa_error:.4f}", f"{1e4 * ceiling.md_error:.3f}"
    return stem, ceiling.source, *(_shown(number) for number in numbers)


def _shown(number: str) -> str:
    """A number as text; a dash where there is none."""
    return "–" if "nan" in number else number


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows))


if __name__ == "__main__":
    sys.exit(main())

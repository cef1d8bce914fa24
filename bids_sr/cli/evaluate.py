"""The command line of `bids-sr-evaluate`: how close models come to what was acquired, on any dataset, in one table."""

from __future__ import annotations

import argparse
import functools
import itertools
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bids_sr import __version__
from bids_sr.cli.arguments import OneLineParser
from bids_sr.errors import BidsSrError, ConfigurationError, InputError, NotWritableError
from bids_sr.resources import available_cpus, lend_home

if TYPE_CHECKING:
    from bids_sr.bids.inputs import DwiSeries
    from bids_sr.degradation import Profile
    from bids_sr.dwi.t1w import T1wImage
    from bids_sr.evaluation.benchmark import Degraded, Reference
    from bids_sr.evaluation.tables import Result
    from bids_sr.models.registry import ModelCard
    from bids_sr.models.vgg import Vgg19

PROGRAM = "bids-sr-evaluate"
Scale = tuple[float, float, float]
#: Of a restoration in the tables: numbers of its scale, model and series.
Place = tuple[int, int, int]

_EPILOG = """\
example:
  bids-sr-evaluate /data /out --models light cubic --scales 2 3 1x1x2 --participant-label 01 02

Results appear in OUTPUT_DIR as they come, and the same command goes on where it was cut off. Exit codes: 0 done,
1 a bug, 2 bad arguments or bad input, 130 interrupted, 137 out of memory."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `bids-sr-evaluate`."""
    parser = OneLineParser(
        prog=PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Degrade the series of a dataset, restore them with models, and compare what comes back with what "
        "was acquired.",
        epilog=_EPILOG,
    )
    parser.add_argument("bids_dir", metavar="BIDS_DIR", type=Path, help="BIDS dataset, raw or derivative")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="folder for tables and figures")
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="names of models, or paths of model cards (.json)"
    )
    parser.add_argument(
        "--scales", nargs="+", type=parse_scale, default=[(2.0, 2.0, 2.0)], metavar="F",
        help="how many times as wide the degraded voxels are: a number, or one per axis such as 1x1x2 (default: 2)",
    )  # fmt: skip
    parser.add_argument("--participant-label", nargs="+", default=[], metavar="LABEL", help="only these subjects")
    parser.add_argument(
        "--profile", nargs="+", default=["gaussian"], metavar="NAME",
        help="how a degraded voxel sees the acquired ones: gaussian, box, kspace, slice, bicubic or zoom; one for all "
        "axes or one for each (default: gaussian)",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=_not_negative, default=0.0, metavar="SIGMA",
        help="standard deviation of the noise added to the degraded signals, in units of the b0's median in the brain "
        "(default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--volumes", type=_enough_volumes, metavar="N",
        help="only the b0 volumes and N weighted ones, at least 6, spread evenly over the series (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--b0-threshold", type=_not_negative, default=50.0, metavar="B",
        help="largest b-value in s/mm2 that counts as b0 (default: 50)",
    )  # fmt: skip
    parser.add_argument(
        "--vgg-weights", type=Path, metavar="FILE",
        help="weights of torchvision's vgg19 (.safetensors, or .pth of its state dictionary), for two more figures: "
        "how far the features of slices are from those of the acquired ones (default: without)",
    )  # fmt: skip
    parser.add_argument("--no-t1w", action="store_true", help="restore without T1w images, also where there are some")
    parser.add_argument("--device", default="auto", metavar="{auto,cpu,cuda,cuda:N}", help="where the models run")
    parser.add_argument(
        "--threads", type=_positive, default=available_cpus(), metavar="N",
        help="processor threads of a model (%(default)s, what this process may use)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="restore again what is finished already")
    parser.add_argument("--version", action="version", version=f"bids_sr {__version__}")
    return parser


def parse_scale(text: str) -> Scale:
    """`2` or `1x1x2`, each factor at least 1.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else.
    """
    parts = text.split("x")
    if len(parts) not in (1, 3) or not all(re.fullmatch(r"\d+(\.\d*)?|\.\d+", part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor three such as 1x1x2")
    x, y, z = [float(part) for part in parts] * (3 // len(parts))
    if min(x, y, z) < 1:
        raise argparse.ArgumentTypeError(f"{text}: degraded voxels cannot be smaller than the acquired ones")
    return x, y, z


def scale_text(scale: Scale) -> str:
    """The scale as `parse_scale` reads it."""
    return "x".join(f"{factor:g}" for factor in (scale if len(set(scale)) > 1 else scale[:1]))


def _not_negative(text: str) -> float:
    """A finite number, zero or larger."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not zero or larger")
    return value


def _positive(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _enough_volumes(text: str) -> int:
    """As many weighted volumes as a tensor needs."""
    value = int(text)
    if value < 6:
        raise argparse.ArgumentTypeError(f"{text}: a diffusion tensor needs at least 6 weighted volumes")
    return value


@contextmanager
def _going_on(exit_codes: list[int]) -> Iterator[None]:
    """Tell of an error inside and go on after it; not where results cannot be written."""
    try:
        yield
    except NotWritableError:
        raise
    except BidsSrError as error:
        exit_codes.append(_tell(error))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Whatever keeps files from being written in a folder is the user's to mend.

    Raises
    ------
    NotWritableError
    """
    try:
        yield
    except OSError as error:
        raise NotWritableError(option="OUTPUT_DIR", path=folder, reason=error.strerror or error) from error


@dataclass(frozen=True)
class _Contender:
    """A model that takes part: as it was asked for, its name in the tables, its card."""

    asked: str
    name: str
    card: ModelCard


@dataclass(frozen=True)
class _Evaluation:
    """What is to be evaluated: the command line with its names resolved; `problems` tell of series left out."""

    options: argparse.Namespace
    contenders: tuple[_Contender, ...]
    scales: tuple[Scale, ...]
    profiles: tuple[Profile, Profile, Profile]
    device: str
    series: tuple[DwiSeries, ...]
    problems: tuple[InputError, ...]
    vgg: Vgg19 | None = None
    vgg_sha256: str = ""

    @property
    def profile(self) -> str:
        """The degradation as it was asked for."""
        return " ".join(self.profiles if len(set(self.profiles)) > 1 else self.profiles[:1])


@dataclass(frozen=True)
class _Job:
    """One restoration: `place` orders the tables, `key` changes with all that decides the figures kept in `file`."""

    place: Place
    series: DwiSeries
    scale: Scale
    contender: _Contender
    key: str
    file: Path

    @property
    def label(self) -> str:
        """Name for people."""
        return f"{self.series.label}, scale {scale_text(self.scale)}, {self.contender.name}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bids-sr-evaluate` and return its exit code: 0 done, 2 bad arguments or data, 130 interrupted, 137 killed."""
    try:
        options = build_parser().parse_args(argv)
        lend_home()
        return _run(options)
    except BidsSrError as error:
        return _tell(error)
    except KeyboardInterrupt:
        return 130


def _tell(error: BidsSrError) -> int:
    """Print the error's line; its exit code."""
    print(f"{PROGRAM}: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _run(options: argparse.Namespace) -> int:
    """Do what is not finished yet; a restoration that fails is told, and does not stop the others."""
    from bids_sr.bids.outputs import write_text
    from bids_sr.evaluation.tables import dump, headline

    evaluation = _resolve(options)
    jobs = _jobs(evaluation)
    results = {} if options.overwrite else _finished(jobs)
    pending = [job for job in jobs if job.place not in results]
    print(f"{len(jobs)} restorations, {len(results)} of them finished before", file=sys.stderr, flush=True)
    if results:
        _write_tables(results, evaluation)
        _write_figure(results, options.output_dir)
    exit_codes = [0, *map(_tell, evaluation.problems)]
    ended = _restore_all(pending, evaluation, exit_codes)
    for _, of_series in itertools.groupby(ended, key=lambda pair: pair[0].place[2]):
        for job, result in of_series:
            results[job.place] = result
            with _writing(options.output_dir):
                write_text(job.file, dump(result, job.key))
            _write_tables(results, evaluation)
            print(f"{len(results)} of {len(jobs)}: {job.label}: {headline(result)}", flush=True)
        _write_figure(results, options.output_dir)
    return max(exit_codes)


def _finished(jobs: Iterable[_Job]) -> dict[Place, Result]:
    """Results that are there from before, by their place in the tables."""
    from bids_sr.evaluation.tables import load

    found = {job.place: load(job.file.read_text("utf-8"), job.key) for job in jobs if job.file.is_file()}
    return {place: result for place, result in found.items() if result is not None}


# What is asked for


def _resolve(options: argparse.Namespace) -> _Evaluation:
    """Look up everything that the command line names.

    Raises
    ------
    InputError
        Where something is not there, or cannot be used.
    """
    from bids_sr.bids.inputs import scan_series
    from bids_sr.config import Config, check
    from bids_sr.inference.device import resolve_device

    contenders = _contenders(options.models)
    profiles = _profiles(options.profile)
    labels = tuple(label.removeprefix("sub-") for label in options.participant_label)
    # The folder of another program's intermediate files and its scale: `check` wants them, nothing here uses them.
    scratch = Path(tempfile.gettempdir()).resolve() / PROGRAM
    config = Config(
        options.bids_dir.resolve(), options.output_dir.resolve(), scratch, participants=labels, scale=(1.0, 1.0, 1.0),
        device=options.device, b0_threshold=options.b0_threshold,
        use_t1w=not options.no_t1w and any(contender.card.uses_t1w for contender in contenders),
    )  # fmt: skip
    check(config)
    device = str(resolve_device(options.device))
    series, problems = scan_series(config)
    if not series:
        raise problems[0]
    scales = tuple(dict.fromkeys(options.scales))
    vgg, vgg_sha256 = _vgg(options.vgg_weights)
    return _Evaluation(options, contenders, scales, profiles, device, tuple(series), tuple(problems), vgg, vgg_sha256)


def _vgg(file: Path | None) -> tuple[Vgg19 | None, str]:
    """VGG19 with the weights of a file, and its checksum; None where none is asked for."""
    from bids_sr.models.registry import file_sha256
    from bids_sr.models.vgg import load_vgg

    return (None, "") if file is None else (load_vgg(file), file_sha256(file))


def _contenders(names: Iterable[str]) -> tuple[_Contender, ...]:
    """The models, each once; they are loaded, so that weights that cannot be used show before anything is computed."""
    import torch

    from bids_sr.models.registry import load_model

    cards = {name: load_model(name, torch.device("cpu"))[1] for name in dict.fromkeys(names)}
    uses = Counter(card.name for card in cards.values())
    return tuple(_Contender(asked, card.name if uses[card.name] == 1 else asked, card) for asked, card in cards.items())


def _profiles(names: Sequence[str]) -> tuple[Profile, Profile, Profile]:
    """The profile of each axis."""
    from bids_sr.degradation import PROFILES

    known = {str(profile): profile for profile in PROFILES}
    for name in names:
        if name not in known:
            raise ConfigurationError(option="--profile", reason=f"{name!r} is none of {', '.join(known)}.")
    if len(names) not in (1, 3):
        raise ConfigurationError(option="--profile", reason=f"one name or three are needed, not {len(names)}.")
    x, y, z = [known[name] for name in names] * (3 // len(names))
    return x, y, z


def _jobs(evaluation: _Evaluation) -> list[_Job]:
    """Every restoration that is asked for, one series after the other."""
    return [
        _job((i, j, n), series, scale, contender, contents[_takes_t1w(series, contender)], evaluation)
        for n, series in enumerate(evaluation.series)
        for contents in [_contents(series)]
        for i, scale in enumerate(evaluation.scales)
        for j, contender in enumerate(evaluation.contenders)
    ]


def _takes_t1w(series: DwiSeries, contender: _Contender) -> bool:
    """Whether a model may be given the T1w of a series."""
    return contender.card.uses_t1w and series.t1w is not None


def _contents(series: DwiSeries) -> dict[bool, str]:
    """Checksum of all that is read of a series, with the T1w (True) and without it (False)."""
    from bids_sr.records import fingerprint

    files = [series.dwi, series.bval, series.bvec, series.mask]
    without = fingerprint(files, {}, "")
    return {False: without, True: fingerprint([series.t1w], {"without": without}, "")}


def _job(
    place: Place,
    series: DwiSeries,
    scale: Scale,
    contender: _Contender,
    contents: str,
    evaluation: _Evaluation,
) -> _Job:
    """A restoration with its key."""
    from bids_sr.records import fingerprint

    options, card = evaluation.options, contender.card
    decisive = {
        "contents": contents, "scale": scale, "profiles": evaluation.profiles, "noise": options.noise,
        "volumes": options.volumes, "b0_threshold": options.b0_threshold, "device": evaluation.device,
        "model": [contender.name, card.architecture, card.arguments, card.inputs, card.normalization],
    }  # fmt: skip
    if evaluation.vgg_sha256:
        decisive["vgg"] = evaluation.vgg_sha256
    key = fingerprint([], decisive, card.weights_sha256)
    name = re.sub(r"[^\w.@-]+", "-", f"{series.stem}_{scale_text(scale)}_{contender.name}_{key[:12]}.json")
    return _Job(place, series, scale, contender, key, options.output_dir / "restorations" / name)


# What is done


def _restore_all(jobs: Sequence[_Job], evaluation: _Evaluation, exit_codes: list[int]) -> Iterator[tuple[_Job, Result]]:
    """Each restoration with its result, as they end: a series is read once, and degraded once per scale."""
    from bids_sr.evaluation.benchmark import degrade_reference
    from bids_sr.evaluation.process import hand_over
    from bids_sr.evaluation.reading import read_reference

    options = evaluation.options
    for _, of_series in itertools.groupby(jobs, key=lambda job: job.place[2]):
        pending = list(of_series)
        series = pending[0].series
        with _going_on(exit_codes):
            reference = read_reference(series, options.b0_threshold, options.volumes)
            for scale, of_scale in itertools.groupby(pending, key=lambda job: job.scale):
                members = list(of_scale)
                with _going_on(exit_codes), _scratch(options.output_dir) as folder:
                    degraded = degrade_reference(reference, scale, evaluation.profiles, options.noise)
                    uses_t1w = any(job.contender.card.uses_t1w for job in members)
                    t1w = _t1w(series, reference, degraded) if uses_t1w and not options.no_t1w else None
                    with _writing(options.output_dir):
                        hand_over(degraded, t1w, folder)
                    for job in members:
                        with _going_on(exit_codes):
                            yield job, _restore(job, reference, degraded, t1w is not None, folder, evaluation)


def _t1w(series: DwiSeries, reference: Reference, degraded: Degraded) -> T1wImage | None:
    """The T1w in the world of the degraded series; where none fits, none, and a line that tells."""
    from bids_sr.evaluation.reading import read_t1w

    image, reason = read_t1w(series, degraded, reference)
    if image is None:
        print(f"{series.label}: restored without a T1w: {reason}", file=sys.stderr, flush=True)
    return image


@contextmanager
def _scratch(output_dir: Path) -> Iterator[Path]:
    """A folder for what the processes hand each other: in the output folder, where there is room for series."""
    with _writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output_dir, prefix=".scratch-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


def _restore(
    job: _Job, reference: Reference, degraded: Degraded, has_t1w: bool, folder: Path, evaluation: _Evaluation
) -> Result:
    """Restore what was handed over in `folder`, and compare it with what was acquired."""
    import numpy as np

    from bids_sr.evaluation.benchmark import compare_tensors, compare_volumes
    from bids_sr.evaluation.perception import compare_perception
    from bids_sr.evaluation.process import Order, restore_apart
    from bids_sr.evaluation.tables import Result
    from bids_sr.interfaces.progress import show_progress

    options, card = evaluation.options, job.contender.card
    order = Order(
        job.contender.asked, reference.gradients.bvals, degraded.grid, reference.grid, reference.b0_threshold,
        evaluation.device, options.threads,
    )  # fmt: skip
    restored, cost = restore_apart(order, folder, functools.partial(show_progress, label=job.label), job.label)
    x, y, z = np.divide(reference.grid.shape, degraded.grid.shape).tolist()
    return Result(
        f"sub-{job.series.entities['sub']}", job.series.stem, job.contender.name, card.weights_sha256,
        scale_text(job.scale), (x, y, z), within_range(card, (x, y, z)), evaluation.profile, options.noise,
        has_t1w and card.uses_t1w, tuple(compare_volumes(reference, restored)), compare_tensors(reference, restored),
        cost, evaluation.device, options.threads,
        None if evaluation.vgg is None else compare_perception(reference, restored, evaluation.vgg),
    )  # fmt: skip


def within_range(card: ModelCard, scale: Scale) -> bool:
    """Whether a model was made for a scale, a rounding of the grid apart.

    Of a model that learned from patches with axes that keep their voxels, such axes do not count.
    """
    from bids_sr.workflows.training_range import SIZE_TOLERANCE

    patches = card.training.get("patches", {})
    keeps_axes = patches.get("points", 0) > 0 and patches.get("isotropic_share", 1.0) < 1
    magnified = [factor for factor in scale if abs(factor - 1) > SIZE_TOLERANCE]
    counted = magnified if keeps_axes and magnified else scale
    low, high = card.scale_range
    return low / (1 + SIZE_TOLERANCE) <= min(counted) and max(counted) <= high * (1 + SIZE_TOLERANCE)


# What is written


def _write_tables(results: Mapping[Place, Result], evaluation: _Evaluation) -> None:
    """Tables of all results so far."""
    from bids_sr.bids.outputs import write_text
    from bids_sr.evaluation.tables import as_csv, scan_rows, subject_rows, summary, volume_rows

    folder: Path = evaluation.options.output_dir
    ordered = [results[place] for place in sorted(results)]
    with _writing(folder):
        for name, rows in (("volumes", volume_rows), ("scans", scan_rows), ("subjects", subject_rows)):
            write_text(folder / f"{name}.csv", as_csv(rows(ordered)))
        write_text(folder / "summary.md", summary(ordered, _introduction(evaluation)))


def _write_figure(results: Mapping[Place, Result], folder: Path) -> None:
    """The figure of all results so far; it takes longer than the tables, so it is drawn once per series."""
    from bids_sr.bids.outputs import write_atomically
    from bids_sr.evaluation.figure import save_figure
    from bids_sr.evaluation.tables import groups

    found = groups([results[place] for place in sorted(results)])
    with (
        _writing(folder),
        write_atomically(folder / "figure.svg") as svg,
        write_atomically(folder / "figure.png") as png,
    ):
        save_figure(found, [svg, png])


def _introduction(evaluation: _Evaluation) -> str:
    """What was done, to which scans, with which models."""
    options = evaluation.options
    volumes = "all volumes" if options.volumes is None else f"the b0 volumes and {options.volumes} weighted ones"
    noise = f", Rician noise of {options.noise:g} of the b0's median in the brain" if options.noise else ""
    return "\n".join(
        [
            "# Degraded scans, restored",
            "",
            f"{evaluation.series[0].dataset_name}: {len(evaluation.series)} series, {volumes}, each degraded by the "
            f"profile {evaluation.profile}{noise}, and restored to its own voxels by bids_sr {__version__} "
            f"({evaluation.device}, threads: {options.threads}).",
            "",
            *(_about(contender, evaluation.series) for contender in evaluation.contenders),
        ]
    )


def _about(contender: _Contender, series: Iterable[DwiSeries]) -> str:
    """A line on a model; it tells which of the subjects it was trained on, going by their names."""
    from bids_sr.training.subjects import shared_subjects, trained_on

    card = contender.card
    line = f"- {contender.name}: {card.description}"
    if not card.weights_sha256:
        return line
    low, high = card.scale_range
    made_for = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    line += f" {card.parameters:,} parameters, weights {card.weights_sha256[:12]}, made for scales of {made_for}."
    seen = shared_subjects([one.stem for one in series], trained_on(card.training))
    return line + (f" **Trained on subjects of the same name: {', '.join(seen)}.**" if seen else "")


if __name__ == "__main__":
    sys.exit(main())

r"""Train the networks of a table with one budget, restore test scans with all of them, and lay the figures out.

    python -m benchmarks.tables 1 --train train.safetensors simulated.safetensors --validation validation.safetensors \
        --test BIDS_DIR --participant-label elition --seeds 0 1 2 --output benchmarks/results/table1

Tables: 1 (methods) and 2 (ablations), with networks of light widths in our geometry; literal, the light CSR-dMRI with
the paper's degradation, coordinates and normalization; families, the other families of networks beside them, and what
ships; paper1 and paper2, the networks as published, for a GPU and some days.

Each network is trained by `bids-sr-train fit` in a folder of its own below `--work`; one that was cut short goes on,
one that is finished is left alone, one that two tables share is trained once, and one of other scans or settings than
are asked for is refused. `bids-sr-evaluate` does the rest, and
keeps what it has done there too. So the same command goes on wherever it was stopped.
"""

import argparse
import csv
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.table_layout import SCALES, TABLES, Results, Table
from benchmarks.table_report import Trained, Trial, write_report
from bids_sr.bids.inputs import read_description
from bids_sr.errors import BidsSrError, TrainingDataError
from bids_sr.models.registry import AT_TARGET, build_model, count_parameters, list_models, read_card
from bids_sr.training.checkpoints import difference
from bids_sr.training.packing import PackedScan, load_pack
from bids_sr.training.run import Hardware, card_of
from bids_sr.training.settings import TrainingSettings, load_settings


@dataclass(frozen=True)
class Training:
    """A network to train: its preset, its seed, and the folder of all trainings of its size."""

    preset: Path
    seed: int
    work: Path

    @property
    def model(self) -> str:
        """Name of the network, whatever the seed."""
        return self.preset.stem

    @property
    def name(self) -> str:
        """Name of the trained model; `results_of` reads it."""
        return f"{self.model}_seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where weights, card, log and checkpoints go."""
        return self.work / self.name

    @property
    def card(self) -> Path:
        """The card of the trained model."""
        return self.folder / f"{self.name}.json"


@dataclass(frozen=True)
class Job:
    """A command, what it is called, and the file that its output is added to."""

    label: str
    command: Sequence[str]
    log: Path

    def run(self, threads: int) -> bool:
        """Run the command and say how it went; whether it went well."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with self.log.open("a", encoding="utf-8") as log:
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            code = subprocess.run(self.command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
        last = (self.log.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[-1]
        outcome = f"{time.monotonic() - start:.0f} s" if code == 0 else f"failed ({code}): {last} (see {self.log})"
        print(f"{self.label}: {outcome}", flush=True)
        return code == 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.tables`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES, help="which table")
    parser.add_argument("--train", type=Path, nargs="+", required=True, metavar="PACK", help="packs to train on")
    parser.add_argument("--validation", type=Path, nargs="+", required=True, metavar="PACK", help="of other subjects")
    parser.add_argument("--test", type=Path, required=True, metavar="BIDS_DIR", help="dataset of the test scans")
    parser.add_argument("--participant-label", nargs="+", required=True, metavar="LABEL", help="subjects to test on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="(default: 0 1 2)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for table, figure, CSV, logs")
    parser.add_argument(
        "--work", type=Path, default=Path("work/tables"), metavar="DIR", help="weights, checkpoints (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="train these networks alone")
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the presets'")
    parser.add_argument("--precision", help="instead of the presets': 32-true, bf16-mixed or 16-mixed")
    parser.add_argument("--volumes", type=int, metavar="N", help="test on the b0 volumes and N others (default: all)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="(default: auto)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="processor threads of a job (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings or tests at a time (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make a table and return the exit code: 0 done, 1 some of it failed, 2 bad arguments or data, 130 interrupted."""
    options = build_parser().parse_args(argv)
    try:
        table = TABLES[options.table]
        trainings = planned(table, options)
        if options.dry_run:
            print("\n".join(plan(trainings, options)))
            return 0
        with only_one(options.work):
            return make(table, trainings, options)
    except BidsSrError as error:
        print(f"benchmarks.tables: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep others from training in the same folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingDataError(where=f"--work {folder}", problem="in use by another run; see --jobs") from None
        yield


def planned(table: Table, options: argparse.Namespace) -> list[Training]:
    """The trainings that a table needs, all networks of one seed before those of the next.

    Raises
    ------
    TrainingDataError
        If `--only` names a network that the table does not have.
    """
    unknown = sorted(set(options.only or ()) - set(table.trained))
    if unknown:
        known = ", ".join(table.trained)
        raise TrainingDataError(where=f"--only {unknown[0]}", problem=f"not in this table; it has {known}")
    work = work_folder(table, options)
    return [Training(table.presets / f"{model}.toml", seed, work) for seed in options.seeds for model in table.trained]


def work_folder(table: Table, options: argparse.Namespace) -> Path:
    """Where trainings and tests of a table's size of networks are kept."""
    work: Path = options.work
    return work / ("full" if table.full_size else "light")


def settings_of(training: Training, options: argparse.Namespace) -> TrainingSettings:
    """The settings of a training, with what the command line says instead."""
    given = {"max_steps": options.steps, "precision": options.precision, "seed": training.seed}
    instead = {key: value for key, value in given.items() if value is not None}
    return load_settings(str(training.preset), instead)


def plan(trainings: Sequence[Training], options: argparse.Namespace) -> Iterator[str]:
    """A line for each training: parameters, steps, patches, and whether it is done."""
    yield f"{'network':18} {'seed':>4} {'parameters':>10} {'steps':>7} {'patches':>8} {'precision':10} state"
    for training in trainings:
        settings = settings_of(training, options)
        options_of = settings.optimization
        parameters = count_parameters(build_model(settings.architecture, settings.model, len(settings.inputs)))
        yield (
            f"{training.model:18} {training.seed:4d} {parameters:10,} {options_of.max_steps:7,} "
            f"{options_of.max_steps * options_of.batch_size:8,} {options_of.precision:10} "
            f"{_state(training, options)}"
        )


def _state(training: Training, options: argparse.Namespace) -> str:
    """In a word, what is to be done."""
    if finished(training, options):
        return "finished"
    if options.only and training.model not in options.only:
        return "left out"
    return "goes on" if has_checkpoint(training) else "to do"


def finished(training: Training, options: argparse.Namespace) -> bool:
    """Whether a network has been trained as it is asked for, to the end.

    Raises
    ------
    TrainingDataError
        If what there is was trained otherwise: on other scans, by other settings, or for longer.
    """
    if not training.card.is_file():
        return False
    card, settings = read_card(str(training.card)), settings_of(training, options)
    expected = card_of(training.name, settings, scans_of(tuple(options.train)), (), Hardware(options.device))
    steps, asked_for = card.training["progress"]["steps"], settings.optimization.max_steps
    changed = difference(json.loads(json.dumps(asdict(card))), expected)
    if not changed and steps > asked_for:
        changed = f"it has done {steps} steps, and {asked_for} are asked for"
    if changed:
        problem = f"it is of another training: {changed}; name another folder (--work), or remove {training.folder}"
        raise TrainingDataError(where=training.card, problem=problem)
    return bool(steps == asked_for)


@lru_cache(maxsize=1)
def scans_of(packs: tuple[Path, ...]) -> tuple[PackedScan, ...]:
    """The scans to train on, in the order of `bids-sr-train fit`."""
    return tuple(scan for file in packs for scan in load_pack(file))


def has_checkpoint(training: Training) -> bool:
    """Whether a training was begun and can go on."""
    return any((training.folder / "checkpoints").glob("*.ckpt"))


def make(table: Table, trainings: Sequence[Training], options: argparse.Namespace) -> int:
    """Train, test and write; the exit code."""
    due = [training for training in trainings if _state(training, options) in _DUE]
    went_well = run_jobs([fit_job(training, options) for training in due], options)
    ready = [training for training in trainings if finished(training, options)]
    tests = [evaluation_job(table, scale, ready, options) for scale in SCALES]
    went_well &= run_jobs(tests, options)
    write(table, ready, options)
    return 0 if went_well else 1


_DUE = ("goes on", "to do")


def run_jobs(jobs: Sequence[Job], options: argparse.Namespace) -> bool:
    """Run jobs, some at a time; whether all went well."""
    with ThreadPoolExecutor(options.jobs) as pool:
        return all(list(pool.map(lambda job: job.run(options.threads), jobs)))


def fit_job(training: Training, options: argparse.Namespace) -> Job:
    """The training as `bids-sr-train fit` does it."""
    words = [sys.executable, "-m", "bids_sr.cli.train", "fit", *map(str, options.train)]
    words += ["--validation", *map(str, options.validation), "--output", str(training.folder)]
    words += ["--preset", str(training.preset), "--name", training.name]
    words += ["--seed", str(training.seed), "--threads", str(options.threads), "--device", options.device]
    words += ["--max-steps", str(options.steps)] if options.steps else []
    words += ["--precision", options.precision] if options.precision else []
    words += ["--resume", str(training.folder)] if has_checkpoint(training) else []
    return Job(f"train {training.name}", words, training.work / "logs" / f"{training.name}.txt")


def evaluation_job(table: Table, scale: float, ready: Sequence[Training], options: argparse.Namespace) -> Job:
    """The test at one scale, of interpolation and of every network that is ready, as `bids-sr-evaluate` does it."""
    words = [
        sys.executable,
        "-m",
        "bids_sr.cli.evaluate",
        str(options.test),
        str(evaluation_folder(table, scale, options)),
    ]
    words += ["--models", *asked(table, scale, ready), "--scales", f"{scale:g}", "--profile", table.profile]
    words += ["--participant-label", *options.participant_label, "--device", options.device]
    words += ["--threads", str(options.threads)]
    words += ["--volumes", str(options.volumes)] if options.volumes else []
    log = work_folder(table, options) / "logs" / f"test-{table.profile}-{scale:g}x.txt"
    return Job(f"test at {scale:g}x", words, log)


def evaluation_folder(table: Table, scale: float, options: argparse.Namespace) -> Path:
    """Where the test at one scale leaves its tables; what two tables share is tested once."""
    return work_folder(table, options) / "tests" / table.profile / f"{scale:g}x"


def asked(table: Table, scale: float, ready: Sequence[Training]) -> list[str]:
    """Models that the rows of a table are made of at a scale, as `bids-sr-evaluate` takes them."""
    names = []
    for model in dict.fromkeys(method.models[scale] for method in table.methods):
        ending = AT_TARGET if model.endswith(AT_TARGET) else ""
        same = [training for training in ready if training.model == model.removesuffix(AT_TARGET)]
        names += [model] if model in list_models() else [f"{training.card}{ending}" for training in same]
    return names


def write(table: Table, ready: Sequence[Training], options: argparse.Namespace) -> None:
    """Write the table and all that belongs to it."""
    rows = {name: list(read_tests(f"{name}.csv", table, options)) for name in ("subjects", "scans", "volumes")}
    trained = [Trained(t.model, t.seed, read_card(str(t.card)), t.folder) for t in ready]
    dataset = str(read_description(options.test, required=False).get("Name", options.test.name))
    subjects = [f"sub-{label.removeprefix('sub-')}" for label in options.participant_label]
    trial = Trial(dataset, subjects, options.volumes)
    name = f"table{options.table}" if options.table.isdecimal() else options.table
    write_report(name, table, results_of(rows["subjects"]), trained, trial, rows, options.output)
    print(f"written: {options.output}", flush=True)


def read_tests(file: str, table: Table, options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The rows of a file that the tests left, of all scales that were tested."""
    for scale in SCALES:
        path = evaluation_folder(table, scale, options) / file
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as rows:
                yield from csv.DictReader(rows)


def results_of(rows: Sequence[dict[str, str]]) -> Results:
    """Figures by model, seed and scale, averaged over the subjects."""
    found: dict[tuple[str, int, float], list[dict[str, float]]] = {}
    for row in rows:
        match = re.fullmatch(r"(?P<model>.+?)(_seed-(?P<seed>\d+))?(?P<ending>@target)?", row["model"])
        assert match is not None  # any text fits
        model = match["model"] + (match["ending"] or "")
        key = model, int(match["seed"] or 0), float(row["scale"])
        found.setdefault(key, []).append({name: _number(value) for name, value in row.items()})
    return {
        key: {name: float(np.mean([figures[name] for figures in members])) for name in members[0]}
        for key, members in found.items()
    }


def _number(text: str) -> float:
    """The number in a cell; not a number where there is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


if __name__ == "__main__":
    sys.exit(main())

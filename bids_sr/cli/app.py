"""The command ``bids_sr``: its words parsed, the run handed on, errors turned into one line and an exit code."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shlex
import signal
import sys
import tomllib
import traceback
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bids_sr import __version__
from bids_sr.cli.arguments import OneLineParser
from bids_sr.config import (
    ANALYSIS_LEVELS,
    OUTPUT_LAYOUTS,
    Config,
    absolute_path,
    check,
    options_from_toml,
    parse_memory,
    read_filters,
)
from bids_sr.errors import BidsSrError, ConfigurationError, MissingPathError, PluginFileError, UnreadableFileError
from bids_sr.resources import lend_home

PROGRAM = "bids_sr"
EXIT_BUG, EXIT_INTERRUPTED, EXIT_OUT_OF_MEMORY = 1, 130, 137

logger = logging.getLogger(__name__)

_EPILOG = """\
examples:
  bids_sr /data /out participant --participant-label 01 --output-resolution 1.25
  bids_sr /data /out group

Options may be written with - or _. Exit codes: 0 done, 1 a step failed, 2 bad arguments or bad input,
130 interrupted, 137 out of memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name; those of this process if not given.

    Returns
    -------
    int
        Exit status: 0 done, 1 a bug or a failed step, 2 bad arguments or input, 130 interrupted, 137 out of memory.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(parse_args(words))
    except BidsSrError as error:
        return _report(str(error), error.exit_code, words)
    except KeyboardInterrupt:
        return _report("interrupted", EXIT_INTERRUPTED, words)
    except MemoryError:
        return _report("out of memory. Raise --mem, or ask for larger voxels.", EXIT_OUT_OF_MEMORY, words)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return _report(f"{reason} (this is a bug; run with -v for the traceback)", EXIT_BUG, words)


def console() -> int:
    """Run the app as a process: `main`, of which a signal never leaves the status to the system.

    Without it, SIGTERM would end in a status of its own while Python starts, and after the work while it ends.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = main()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return code


def _run(config: Config) -> int:
    """Do what the configuration asks; heavy packages are imported here, when the arguments are known to be good."""
    level = (logging.INFO, logging.DEBUG)[min(config.verbosity, 1)]
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger(PROGRAM).setLevel(level)
    if config.dry_run:
        lend_home()
        from bids_sr.cli.dry_run import run as dry_run

        return dry_run(config)
    from bids_sr.workflows.engine import run

    return run(config)


def _report(message: str, exit_code: int, words: Sequence[str]) -> int:
    """Print one line, after the traceback where it was asked for."""
    if any(re.fullmatch(r"-v+|--verbose", word) for word in words):
        traceback.print_exc()
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return exit_code


def parse_args(argv: Sequence[str]) -> Config:
    """Configuration of the words of a command line, checked.

    Raises
    ------
    InputError
        Where an option is wrong.
    SystemExit
        After ``--help`` and ``--version``.
    """
    words = [_with_dashes(word) for word in argv]
    defaults = _config_file_options(words)
    parser = build_parser()
    # Two options that exclude each other give the grid: one from a file must not join one from the command line.
    grid: dict[str, Any] = {name: defaults.pop(name) for name in ("output_resolution", "scale") if name in defaults}
    # Threads of a file were chosen for the processors of another run.
    threads = defaults.pop("omp_nthreads", 8)
    parser.set_defaults(**defaults)
    values = vars(parser.parse_args(words))
    if values["output_resolution"] is None and values["scale"] is None:
        values |= grid
    values.pop("config_file")
    values["omp_nthreads"] = values["omp_nthreads"] or min(values["nprocs"], threads)
    values["run_id"] = f"{datetime.now():%Y%m%d-%H%M%S}_{uuid.uuid4().hex[:8]}"
    values["command_line"] = shlex.join([PROGRAM, *argv])
    config = Config(**values)
    check(config)
    return config


def build_parser() -> argparse.ArgumentParser:
    """Parser whose values are those of `Config`, under the same names."""
    parser = OneLineParser(
        prog=PROGRAM,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Super-resolution of diffusion MRI to any voxel size, with the tensor before and after.",
        epilog=_EPILOG,
    )
    parser.add_argument("bids_dir", metavar="BIDS_DIR", type=_path, help="BIDS dataset, raw or preprocessed (QSIPrep)")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=_path, help="folder for the results")
    parser.add_argument(
        "analysis_levels", metavar="{participant,group}", nargs="+", type=_analysis_level, action=_Unique,
        help="participant restores the series; group gathers what is finished into one table and one page; both may be "
        "given",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    _add_selection(parser.add_argument_group("what is processed"))
    _add_restoration(parser.add_argument_group("restoration"))
    _add_resources(parser.add_argument_group("resources"))
    _add_running(parser.add_argument_group("running"))
    return parser


def _add_selection(group: argparse._ArgumentGroup) -> None:
    """Options that choose the data."""
    labels: dict[str, Any] = {"nargs": "+", "default": (), "metavar": "LABEL"}
    group.add_argument(
        "--participant-label", dest="participants", type=_labels("sub-"), action=_Flat, **labels,
        help="subjects, with or without sub-, separated by spaces or commas; all if not given",
    )  # fmt: skip
    group.add_argument(
        "--session-label", "--session-id", dest="sessions", type=_labels("ses-"), action=_Flat, **labels,
        help="sessions, with or without ses-; all if not given",
    )  # fmt: skip
    group.add_argument(
        "--bids-filter-file", dest="filters", metavar="JSON", type=_filter_file, default={},
        help='pybids filters for the queries dwi and t1w, for example {"dwi": {"direction": "AP"}}; '
        'null: without that entity, "*": with any value',
    )  # fmt: skip
    group.add_argument(
        "--derivatives", "-d", metavar="NAME=PATH", nargs="+", type=_named_path, action=_Named, default={},
        help="derivative datasets searched for brain masks and preprocessed T1w images",
    )  # fmt: skip
    group.add_argument(
        "--skip-bids-validation", "--skip-bids-validator", dest="validate", action="store_false",
        help="accept file names that BIDS does not know and a missing dataset_description.json",
    )  # fmt: skip
    group.add_argument(
        "--bids-database-dir", metavar="DIR", type=_path,
        help="folder of a pybids database, made there if absent and reused by later runs",
    )  # fmt: skip


def _add_restoration(group: argparse._ArgumentGroup) -> None:
    """Options that change the result."""
    grid = group.add_mutually_exclusive_group()
    numbers: dict[str, Any] = {"nargs": "+", "type": float, "action": _Three}
    grid.add_argument("--output-resolution", metavar="MM", **numbers, help="voxel size wanted: one number, or three")
    grid.add_argument(
        "--scale",
        metavar="F",
        **numbers,
        help="new voxels per acquired voxel instead, from 1 to 4: one number, or three",
    )
    group.add_argument(
        "--model", type=_model, default="default", metavar="NAME", help="model, or path of a model card (%(default)s)"
    )
    group.add_argument(
        "--b0-threshold", type=float, default=50.0, metavar="B",
        help="largest b-value in s/mm2 that counts as b0 (%(default)g)",
    )  # fmt: skip
    group.add_argument("--no-t1w", dest="use_t1w", action="store_false", help="do not look for a T1w image")
    group.add_argument("--save-cubic", action="store_true", help="write the series interpolated by cubic B-splines too")
    group.add_argument(
        "--save-tensor", action="store_true",
        help="write the tensors, their eigenvalues and eigenvectors too, not only FA, mean diffusivity and colours",
    )  # fmt: skip
    group.add_argument(
        "--output-layout", default="bids_sr", choices=OUTPUT_LAYOUTS,
        help="qsirecon: put the restored series also into a dataset that QSIRecon takes as its input, in "
        "OUTPUT_DIR/derivatives (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--uncertainty", action="store_true",
        help="write how uncertain the restored series, FA and MD are (standard deviations), if the model tells it",
    )  # fmt: skip
    group.add_argument(
        "--no-self-check", dest="self_check", action="store_false",
        help="do not degrade and restore the scan itself to see whether super-resolution helps on it, nor a part of it "
        "without the T1w to see what that changes",
    )  # fmt: skip
    group.add_argument("--random-seed", type=int, default=0, metavar="N", help="seed of random numbers (%(default)s)")


def _add_resources(group: argparse._ArgumentGroup) -> None:
    """Options that bound what the run takes."""
    defaults = {item: Config.__dataclass_fields__[item].default_factory for item in ("nprocs", "memory_gb")}
    cpus, memory = (factory() for factory in defaults.values() if callable(factory))
    group.add_argument("--device", default="auto", metavar="{auto,cpu,cuda,cuda:N}", help="where the model runs")
    group.add_argument(
        "--nprocs", "--nthreads", "--n-cpus", type=int, default=cpus, metavar="N",
        help="processors in all (%(default)s, what this process may use)",
    )  # fmt: skip
    group.add_argument("--omp-nthreads", type=int, metavar="N", help="threads of one step (all processors, at most 8)")
    group.add_argument(
        "--mem", "--mem-gb", dest="memory_gb", type=_memory, default=memory, metavar="SIZE",
        help="memory in all, such as 16, 16G or 16000M; a bare number is in GB (%(default).1f, what we may use)",
    )  # fmt: skip
    group.add_argument(
        "--use-plugin", dest="plugin_file", metavar="YAML", type=_plugin_file, help="nipype plugin and its arguments"
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    """Options of the run itself."""
    group.add_argument(
        "-w", "--work-dir", type=_path, default=_path("work"), metavar="DIR", help="intermediate files (./work)"
    )
    group.add_argument(
        "--config-file", metavar="TOML", type=_path, help="options from a file, such as logs/*.toml of a run"
    )
    switches = {
        "--clean-workdir": "remove the run's intermediate files after it succeeded",
        "--dry-run": "print what would run, with grids, time and memory, and stop",
        "--reports-only": "only assemble the reports from the records of earlier runs",
        "--boilerplate-only": "only write the methods text from the records of earlier runs",
        "--write-graph": "draw the workflow's graph into the log folder",
        "--stop-on-first-crash": "stop at the first failed step",
        "--resource-monitor": "record memory and processor use of every step",
        "--sloppy": "fast and inaccurate registration, for tests",
    }
    for name, text in switches.items():
        group.add_argument(name, action="store_true", help=text)
    group.add_argument(
        "--notrack", action=_Nothing, nargs=0, help="for habit's sake: nothing is ever sent, so nothing is turned off"
    )
    group.add_argument("-v", "--verbose", dest="verbosity", action="count", default=0, help="more messages, tracebacks")


# From words to values


class _Flat(argparse.Action):
    """Collects the labels of all words, each once, in order."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store them as a tuple."""
        setattr(namespace, self.dest, tuple(dict.fromkeys(label for labels in values for label in labels)))


class _Unique(argparse.Action):
    """Collects values, each once, in order."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store them as a tuple."""
        setattr(namespace, self.dest, tuple(dict.fromkeys(values)))


class _Named(argparse.Action):
    """Collects NAME=PATH pairs, over repeated use of the option too."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store them as a dictionary."""
        setattr(namespace, self.dest, getattr(namespace, self.dest) | dict(values))


class _Three(argparse.Action):
    """One number for all three axes, or one for each."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store them as a triple."""
        if len(values) not in (1, 3):
            raise argparse.ArgumentError(self, f"one number or three, not {len(values)}")
        setattr(namespace, self.dest, tuple(values * 3 if len(values) == 1 else values))


class _Nothing(argparse.Action):
    """Leaves no trace in the namespace."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, default=argparse.SUPPRESS, **keywords)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Do nothing."""


def _with_dashes(word: str) -> str:
    """An option in one spelling, its value untouched."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _config_file_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of the file that ``--config-file`` names; those that belong to one run only are left out."""
    parser = OneLineParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    parser.add_argument("--config-file", type=_path)
    path = parser.parse_known_args(list(words))[0].config_file
    if path is None:
        return {}
    try:
        options = options_from_toml(_read("--config-file", path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UnreadableFileError(option="--config-file", path=path, format="TOML", reason=error) from error
    return {name: value for name, value in options.items() if name not in ("run_id", "command_line")}


def _path(text: str) -> Path:
    """An absolute path."""
    try:
        return absolute_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _labels(prefix: str) -> Callable[[str], list[str]]:
    """Parser of labels separated by commas, with or without their prefix."""

    def labels(text: str) -> list[str]:
        found = [label.strip().removeprefix(prefix) for label in text.split(",") if label.strip()]
        wrong = [label for label in found if re.fullmatch(r"[A-Za-z0-9+]+", label) is None]
        if wrong or not found:
            raise argparse.ArgumentTypeError(f"{text!r} is not a BIDS label (letters and digits)")
        return found

    return labels


def _analysis_level(text: str) -> str:
    """One of the levels there are."""
    if text not in ANALYSIS_LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is not an analysis level; there are {', '.join(ANALYSIS_LEVELS)}")
    return text


def _model(text: str) -> str:
    """A name, or the absolute path of a card, because stages run in folders of their own."""
    # As in `bids_sr.models.registry`, which takes a second to import.
    card = text.removesuffix("@target")
    return str(_path(card)) + text[len(card) :] if Path(card).suffix == ".json" and Path(card).is_file() else text


def _named_path(text: str) -> tuple[str, Path]:
    """A derivative dataset and its name."""
    name, equals, path = text.partition("=")
    if not (equals and path and re.fullmatch(r"[A-Za-z0-9_-]+", name)) or name == "raw":
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH (a name of letters and digits, not raw)")
    return name, _path(path)


def _memory(text: str) -> float:
    """Memory in GB."""
    try:
        return parse_memory(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _filter_file(text: str) -> dict[str, dict[str, Any]]:
    """Filters of a JSON file."""
    path = _path(text)
    try:
        return read_filters(_read("--bids-filter-file", path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnreadableFileError(option="--bids-filter-file", path=path, format="JSON", reason=error) from error
    except ValueError as error:
        raise ConfigurationError(option="--bids-filter-file", reason=f"{path}: {error}") from error


def _plugin_file(text: str) -> Path:
    """A nipype plugin file, ``{plugin: NAME, plugin_args: {...}}``."""
    import yaml

    path = _path(text)
    try:
        content = yaml.safe_load(_read("--use-plugin", path))
    except (yaml.YAMLError, RecursionError) as error:
        reason = f"not valid YAML ({' '.join(str(error).split())})"
        raise PluginFileError(path=path, reason=reason) from error
    if not isinstance(content, dict) or not isinstance(content.get("plugin"), str):
        raise PluginFileError(path=path, reason="it must have the key plugin, the name of a nipype plugin")
    if not isinstance(content.get("plugin_args") or {}, dict):
        raise PluginFileError(path=path, reason="plugin_args must be a mapping of names to values")
    return path


def _read(option: str, path: Path) -> str:
    """Text of a file that an option names."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingPathError(option=option, path=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(option=option, path=path, format="text", reason=error) from error

"""What a run was asked to do: one frozen record, parsed once and kept as TOML beside the results."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_sr.errors import (
    ConfigurationError,
    ForeignOutputError,
    InputInsideOutputError,
    MissingPathError,
    NotWritableError,
    OutputInsideInputError,
    OutputIsInputError,
    WorkInsideInputError,
)
from bids_sr.resources import available_cpus, available_memory_gb

#: Name of this program among the generators of a dataset.
NAME = "bids_sr"
ANALYSIS_LEVELS = ("participant", "group")
OUTPUT_LAYOUTS = ("bids_sr", "qsirecon")

# Magnifications per axis that a restoration can be asked for.
SCALE_RANGE = (1.0, 4.0)

# Smallest voxel (mm) that can be asked for; what is smaller was meant in another unit.
LEAST_RESOLUTION = 0.01

_MEMORY = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>[KMGT]?)(I?B)?", re.IGNORECASE)
_GB_PER_UNIT = {"": 1.0, "K": 1 / 1024**2, "M": 1 / 1024, "G": 1.0, "T": 1024.0}


@dataclass(frozen=True)
class Config:
    """Everything that a run needs to know, with units resolved.

    Attributes
    ----------
    bids_dir, output_dir, work_dir : Path
        Dataset read, derivatives written, intermediate files; absolute.
    analysis_levels : tuple of str
        ``participant``, ``group`` or both.
    participants, sessions : tuple of str
        Labels without ``sub-`` and ``ses-``; empty for all.
    filters : mapping
        Query (``dwi``, ``t1w``) to entity to value; None means that the entity is absent, ``"*"`` that it is present.
    derivatives : mapping
        Name to folder of derivative datasets searched for masks and T1w images.
    output_resolution : tuple of float, (3,), or None
        Voxel size asked for in mm.
    scale : tuple of float, (3,), or None
        Number of new voxels per acquired voxel along each axis. One of `output_resolution` and `scale` is set when
        images are to be made.
    model : str
        Name in the registry, or path of a model card.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    use_t1w : bool
        Whether a T1w image is looked for.
    save_cubic : bool
        Whether the cubic interpolation, the baseline, is written too.
    save_tensor : bool
        Whether the tensors and their eigenvectors are written, not their maps alone.
    output_layout : str
        ``bids_sr``, or ``qsirecon`` for a dataset beside the results that QSIRecon takes as its input.
    uncertainty : bool
        Whether standard deviations of the restored series, of FA and of MD are written too.
    self_check : bool
        Whether the restoration is tried on the scan itself, degraded, and on a part of it without the T1w.
    nprocs, omp_nthreads : int
        Processors in all, and for one step.
    memory_gb : float
        Memory in all, in GB of 1024^3 bytes.
    plugin_file : Path or None
        YAML file for the workflow engine.
    random_seed : int
        Seed of everything that draws random numbers.
    dry_run, reports_only, boilerplate_only : bool
        Print what would run; only assemble reports; only write the methods text.
    write_graph, stop_on_first_crash, resource_monitor, sloppy, clean_workdir : bool
        Options of the workflow engine.
    verbosity : int
        How many ``-v`` were given.
    bids_database_dir : Path or None
        Folder of a pybids database, made if absent, read if present.
    validate : bool
        Whether file names and the dataset's description are checked before the run.
    run_id : str
        Name of this run in the log folder.
    command_line : str
        As typed.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    analysis_levels: tuple[str, ...] = ("participant",)
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    output_resolution: tuple[float, float, float] | None = None
    scale: tuple[float, float, float] | None = None
    model: str = "default"
    device: str = "auto"
    b0_threshold: float = 50.0
    use_t1w: bool = True
    save_cubic: bool = False
    output_layout: str = "bids_sr"
    save_tensor: bool = False
    uncertainty: bool = False
    self_check: bool = True
    nprocs: int = field(default_factory=available_cpus)
    omp_nthreads: int = 1
    memory_gb: float = field(default_factory=available_memory_gb)
    plugin_file: Path | None = None
    random_seed: int = 0
    dry_run: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    write_graph: bool = False
    stop_on_first_crash: bool = False
    resource_monitor: bool = False
    sloppy: bool = False
    clean_workdir: bool = False
    verbosity: int = 0
    bids_database_dir: Path | None = None
    validate: bool = True
    run_id: str = ""
    command_line: str = ""

    def to_toml(self) -> str:
        """The record as a TOML document that `from_toml` reads back; options that are None are left out."""
        options = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        tables = {name: value for name, value in options.items() if isinstance(value, Mapping)}
        lines = [_toml_line(name, value) for name, value in options.items() if name not in tables and value is not None]
        for name, table in tables.items():
            lines += ["", *_toml_table(name, table)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Config:
        """The record that `to_toml` wrote.

        Raises
        ------
        ConfigurationError
            Where an option is unknown or has a value of the wrong kind.
        tomllib.TOMLDecodeError
            Where `text` is not TOML.

        """
        return cls(**options_from_toml(text))


def options_from_toml(text: str) -> dict[str, Any]:
    """Options of `Config` in a TOML document, which may name only some of them, each with its proper type.

    Raises
    ------
    ConfigurationError
        Where an option is unknown or has a value of the wrong kind.
    tomllib.TOMLDecodeError
        Where `text` is not TOML.
    """
    known = {item.name: str(item.type) for item in dataclasses.fields(Config)}
    options = tomllib.loads(text)
    for name in options:
        if name not in known:
            raise ConfigurationError(option=name, reason=f"no such option. Known: {', '.join(known)}.")
    return {name: _typed(name, known[name], value) for name, value in options.items()}


def check(config: Config) -> None:
    """Refuse what cannot be run, before anything is read or written.

    Raises
    ------
    InputError
        With the option that is wrong and what to do.
    """
    _check_folders(config)
    _check_grid(config)
    _check_numbers(config)


def _check_folders(config: Config) -> None:
    """The folders exist where they must, can be written to, and do not lie in each other."""
    for option, path in _inputs(config).items():
        _check_exists(option, path)
    if config.bids_database_dir is not None and config.bids_database_dir.exists():
        _check_exists("--bids-database-dir", config.bids_database_dir)
    for option, path in _inputs(config).items():
        _check_apart(option, path, config)
    _check_owner(config.output_dir)
    if not config.dry_run:
        _check_writable("OUTPUT_DIR", config.output_dir.resolve())
    if "participant" in config.analysis_levels:
        _check_work_folder(config)


def _inputs(config: Config) -> dict[str, Path]:
    """Datasets that are read, by what names them on the command line."""
    return {"BIDS_DIR": config.bids_dir} | {f"--derivatives {name}": path for name, path in config.derivatives.items()}


def _check_apart(option: str, path: Path, config: Config) -> None:
    """Nothing may be written into a dataset that is read, but into its derivatives folder."""
    folder, output_dir = path.resolve(), config.output_dir.resolve()
    suggestion = config.bids_dir / "derivatives" / NAME
    if output_dir == folder:
        raise OutputIsInputError(option=option, path=path, suggestion=suggestion)
    if folder in output_dir.parents and output_dir.relative_to(folder).parts[0] != "derivatives":
        raise OutputInsideInputError(output_dir=config.output_dir, option=option, path=path, suggestion=suggestion)
    if output_dir in folder.parents:
        raise InputInsideOutputError(option=option, path=path, output_dir=config.output_dir)


def _check_owner(output_dir: Path) -> None:
    """What another program made, or nobody's program, must not be written over; results without a word pass."""
    file = output_dir / "dataset_description.json"
    if not os.path.lexists(file):
        return
    try:
        description = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = f"{file} cannot be read ({error}), so it is not known whose results it describes."
        raise ConfigurationError(option="OUTPUT_DIR", reason=f"{reason} Repair it, or name another folder.") from error
    names = _generators(description)
    if not names or description.get("DatasetType") == "raw":
        raise ForeignOutputError(output_dir=output_dir, content=f"a dataset that {NAME} did not make")
    if NAME not in names:
        raise ForeignOutputError(output_dir=output_dir, content=f"the results of {', '.join(names)}")


def _generators(description: Any) -> list[str]:
    """Names of the programs that made a dataset; one alone stood in its description before there was a list."""
    if not isinstance(description, dict):
        return []
    given = description.get("GeneratedBy") or description.get("PipelineDescription")
    programs = given if isinstance(given, list) else [given]
    return [str(one["Name"]) for one in programs if isinstance(one, dict) and one.get("Name")]


def _check_work_folder(config: Config) -> None:
    """The work folder lies apart from datasets and results; the group level needs none."""
    bids_dir, output_dir, work_dir = (path.resolve() for path in (config.bids_dir, config.output_dir, config.work_dir))
    for option, path in _inputs(config).items():
        if path.resolve() in (work_dir, *work_dir.parents):
            raise WorkInsideInputError(work_dir=config.work_dir, option=option, path=path)
    if work_dir in (output_dir, *output_dir.parents, *bids_dir.parents):
        raise ConfigurationError(
            option="--work-dir", reason=f"{config.work_dir} holds the dataset or the results. Name a folder of its own."
        )
    if not config.dry_run:
        _check_writable("--work-dir", work_dir)


def _check_exists(option: str, path: Path) -> None:
    """A folder that is read must be there."""
    if not path.exists():
        raise MissingPathError(option=option, path=path)
    if not path.is_dir():
        raise ConfigurationError(option=option, reason=f"{path} is a file; a folder is needed.")


def _check_writable(option: str, path: Path) -> None:
    """A folder, or the nearest one above it that exists, must accept new files."""
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise NotWritableError(option=option, path=path, reason=f"{nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise NotWritableError(option=option, path=path, reason=f"no permission in {nearest}")


def _check_grid(config: Config) -> None:
    """One target is named, and it is possible."""
    if config.output_resolution and config.scale:
        raise ConfigurationError(option="--output-resolution", reason="it excludes --scale; give one of the two.")
    makes_images = "participant" in config.analysis_levels and not (config.reports_only or config.boilerplate_only)
    if makes_images and not (config.output_resolution or config.scale):
        raise ConfigurationError(
            option="--output-resolution", reason="give the voxel size wanted in mm here, or a factor with --scale."
        )
    if config.output_resolution and not all(0 < size < math.inf for size in config.output_resolution):
        raise ConfigurationError(option="--output-resolution", reason="voxel sizes in mm are larger than zero.")
    if config.output_resolution and min(config.output_resolution) < LEAST_RESOLUTION:
        reason = f"no voxel smaller than {LEAST_RESOLUTION:g} mm can be restored; is the number in mm?"
        raise ConfigurationError(option="--output-resolution", reason=reason)
    if config.scale and not all(SCALE_RANGE[0] <= factor <= SCALE_RANGE[1] for factor in config.scale):
        raise ConfigurationError(
            option="--scale", reason=f"factors from {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g} can be restored."
        )


def _check_numbers(config: Config) -> None:
    """Counts and limits make sense together."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device) is None:
        raise ConfigurationError(option="--device", reason=f"{config.device!r} is not one of auto, cpu, cuda, cuda:N.")
    if not 0 <= config.b0_threshold < math.inf:
        raise ConfigurationError(option="--b0-threshold", reason="a b-value in s/mm2, zero or larger, is needed.")
    if config.output_layout not in OUTPUT_LAYOUTS:
        reason = f"{config.output_layout!r} is not one of {', '.join(OUTPUT_LAYOUTS)}."
        raise ConfigurationError(option="--output-layout", reason=reason)
    if config.nprocs < 1 or config.omp_nthreads < 1:
        raise ConfigurationError(option="--nprocs, --omp-nthreads", reason="at least one is needed.")
    if config.omp_nthreads > config.nprocs:
        reason = f"{config.omp_nthreads} threads for a step are more than the {config.nprocs} of the run (--nprocs)."
        raise ConfigurationError(option="--omp-nthreads", reason=reason)
    if not 0 < config.memory_gb < math.inf:
        raise ConfigurationError(option="--mem", reason="more than zero GB are needed.")
    if config.random_seed < 0:
        raise ConfigurationError(option="--random-seed", reason="a whole number, zero or larger, is needed.")
    unknown = set(config.analysis_levels) - set(ANALYSIS_LEVELS)
    if unknown or not config.analysis_levels:
        known = " and ".join(ANALYSIS_LEVELS)
        raise ConfigurationError(
            option="ANALYSIS_LEVEL", reason=f"{', '.join(sorted(unknown)) or 'none'}: there are {known}."
        )
    if "participant" not in config.analysis_levels and (config.dry_run or config.boilerplate_only):
        option = "--dry-run" if config.dry_run else "--boilerplate-only"
        raise ConfigurationError(option=option, reason="it goes with participant; group only reads what is finished.")


def parse_memory(text: str) -> float:
    """Memory in GB of 1024^3 bytes from ``16``, ``16G``, ``1.5GB`` or ``16000M``; a bare number is in GB.

    Raises
    ------
    ValueError
        Where the text is not an amount above zero.
    """
    match = _MEMORY.fullmatch(text.strip())
    amount = float(match["number"]) * _GB_PER_UNIT[match["unit"].upper()] if match else 0.0
    if amount <= 0:
        raise ValueError(
            f"{text!r} is not an amount of memory; write for example 16, 16G or 16000M (a bare number is in GB)"
        )
    return amount


def absolute_path(text: str) -> Path:
    """An absolute path; links are kept, because in a DataLad dataset the name of the link is the BIDS name.

    Raises
    ------
    ValueError
        Where the text can be no path, or begins with the home folder of nobody.
    """
    if "\0" in text:
        raise ValueError("a path cannot hold a null character")
    try:
        return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100
    except RuntimeError as error:
        raise ValueError(f"{text}: there is no such home folder") from error


def read_filters(text: str) -> dict[str, dict[str, Any]]:
    """Filters of a JSON document ``{query: {entity: value}}``; queries of other programs do no harm.

    Raises
    ------
    ValueError
        Where the document is not JSON or has another form.
    """
    filters = json.loads(text)
    if not isinstance(filters, dict) or not all(isinstance(entities, dict) for entities in filters.values()):
        raise ValueError('it must have the form {"dwi": {"entity": "value"}, "t1w": {...}}')
    for entities in filters.values():
        for entity, value in entities.items():
            if any(isinstance(item, (dict, list)) for item in (value if isinstance(value, list) else [value])):
                raise ValueError(f"the value of {entity} must be text, a number, true, false, null, or a list of those")
    return filters


def _typed(name: str, annotation: str, value: Any) -> Any:
    """A value of TOML as the type that `Config` declares."""
    try:
        return _CONVERTERS[annotation](value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(option=name, reason=f"{value!r} is not usable here ({error}).") from error


def _boolean(value: Any) -> bool:
    """A truth value, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise TypeError("true or false is needed")
    return value


def _text(value: Any) -> str:
    """A string, and nothing that could be made one."""
    if not isinstance(value, str):
        raise TypeError("a string is needed")
    return value


def _folder(value: Any) -> Path:
    """A path, and nothing that could be made one."""
    return absolute_path(_text(value))


def _whole(value: Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a whole number is needed")
    return value


def _three(value: Any) -> tuple[float, float, float]:
    """One number for all axes, or one per axis."""
    numbers = [float(number) for number in (value if isinstance(value, list) else [value])]
    if len(numbers) not in (1, 3):
        raise ValueError("one or three numbers are needed")
    x, y, z = numbers * 3 if len(numbers) == 1 else numbers
    return x, y, z


def _filters(value: Any) -> dict[str, dict[str, Any]]:
    """Filters; TOML has no null, an empty string stands for it, in a list too."""
    return {query: {name: _with_null(item) for name, item in table.items()} for query, table in value.items()}


def _with_null(value: Any) -> Any:
    """A value of a filter, with None for empty strings."""
    if isinstance(value, list):
        return [_with_null(item) for item in value]
    return None if value == "" else value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "Path": _folder,
    "Path | None": _folder,
    "str": _text,
    "bool": _boolean,
    "int": _whole,
    "float": float,
    "tuple[str, ...]": lambda value: tuple(_text(item) for item in value),
    "tuple[float, float, float] | None": _three,
    "Mapping[str, Mapping[str, Any]]": _filters,
    "Mapping[str, Path]": lambda value: {name: _folder(path) for name, path in value.items()},
}


def _toml_table(name: str, table: Mapping[str, Any]) -> list[str]:
    """Lines of a table, with the tables inside it after its own values."""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = [f"[{name}]", *(_toml_line(key, value) for key, value in table.items() if key not in inner)]
    for key, value in inner.items():
        lines += _toml_table(f"{name}.{_quoted(key)}", value)
    return lines


def _toml_line(key: str, value: Any) -> str:
    """One assignment."""
    return f"{key if re.fullmatch(r'[A-Za-z0-9_-]+', key) else _quoted(key)} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    return repr(value) if isinstance(value, float) else _quoted("" if value is None else str(value))


def _quoted(text: str) -> str:
    """A string in TOML: as in JSON, apart from the one control character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

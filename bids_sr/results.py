"""What runs left of each series in the output dataset: its numbers, or why there are none."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bids_sr.bids.inputs import join_entities, parse_entities, subject_labels
from bids_sr.bids.outputs import COLUMNS, table_cell
from bids_sr.dwi.trust import distrust
from bids_sr.errors import DamagedRecordError, DamagedTableError, FailedSeriesError, InputError, MissingRecordError
from bids_sr.records import SCHEMA

RECORDS = "*_desc-record.json"
TABLE = "_desc-tensor_stats.tsv"
#: Columns of a tensor table that tell which row it is; the others hold its numbers.
KEYS = ("map", "tissue", "method")
NUMBERS = tuple(name for name in COLUMNS if name not in KEYS)

Key = tuple[str, str, str]
Cells = Mapping[Key, Mapping[str, str]]


@dataclass(frozen=True)
class Place:
    """Which series a record is of, by the record's name alone.

    Attributes
    ----------
    subject, session : str
        Labels without ``sub-`` and ``ses-``; the session is empty where there is none.
    series : str
        Name that the outputs start with, such as ``sub-01_ses-1_dir-AP``.
    resolution : str
        The `res` entity of the restored images.
    """

    subject: str
    session: str = ""
    series: str = ""
    resolution: str = ""

    @classmethod
    def of(cls, record_file: Path) -> Place:
        """The place of a record."""
        entities = parse_entities(record_file)
        series = join_entities({key: value for key, value in entities.items() if key not in ("res", "desc")})
        return cls(entities.get("sub", ""), entities.get("ses", ""), series, entities.get("res", ""))

    @classmethod
    def of_series(cls, series: str) -> Place:
        """The place of a series that has no record."""
        entities = parse_entities(Path(series))
        return cls(entities.get("sub", ""), entities.get("ses", ""), series)

    @property
    def label(self) -> str:
        """Name for people, such as ``sub-01 ses-1 dir-AP res-1p25``."""
        return " ".join([*self.series.split("_"), *([f"res-{self.resolution}"] if self.resolution else [])])


@dataclass(frozen=True)
class SeriesResult:
    """The numbers of a series that is done.

    Attributes
    ----------
    place : Place
    cells : mapping
        The tensor table: map, tissue and method to column to its text as the series' own file has it.
    model, version, started : str
        The model's name, the version that ran, and when.
    voxel_sizes : tuple of float, (3,)
        As acquired, in mm.
    warnings : tuple of str
        Sentences of the record.
    self_check : str
        ``yes``, ``partly``, ``no``; ``failed``; empty where there was none.
    t1w_agreement : float
        Normalized mutual information of the registered T1w and the b0; NaN where nothing was registered.
    t1w_fits : bool
        Whether that agreement is enough, or there was none to judge.
    departure : float
        Share of the brain where the result departs from the scan beyond its noise; NaN where it was not told.
    brain_ml : float
        Volume of the brain mask.
    n_lost : int
        Files of the series that are not there any more.
    """

    place: Place
    cells: Cells
    model: str = ""
    version: str = ""
    started: str = ""
    voxel_sizes: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    self_check: str = ""
    t1w_agreement: float = math.nan
    t1w_fits: bool = True
    departure: float = math.nan
    brain_ml: float = math.nan
    n_lost: int = 0

    def text(self, key: Key, column: str) -> str:
        """A cell of the series' table; ``n/a`` where there is none."""
        return self.cells.get(key, {}).get(column, "n/a")

    def number(self, key: Key, column: str) -> float:
        """A cell as a number; NaN where there is none."""
        return _number(self.text(key, column))


@dataclass(frozen=True)
class Problem:
    """A series without numbers, and why."""

    place: Place
    reason: str


@dataclass(frozen=True)
class Results:
    """All series of an output dataset: those with numbers, and those without."""

    series: tuple[SeriesResult, ...]
    problems: tuple[Problem, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """Of all series, with numbers and without."""
        return (*(one.place for one in self.series), *(one.place for one in self.problems))

    def with_missing(self, names: Sequence[str]) -> Results:
        """The same with a problem for each of the series of the dataset that has no record."""
        there = {place.series for place in self.places if place.resolution}
        missing = [Problem(Place.of_series(name), str(MissingRecordError())) for name in names if name not in there]
        # A subject that the output knows by its folder or report alone is told by its series.
        told = {problem.place.subject for problem in missing}
        kept = [p for p in self.problems if p.place.resolution or p.place.subject not in told]
        return Results(self.series, (*kept, *missing))


def read_results(output_dir: Path, participants: Sequence[str] = (), sessions: Sequence[str] = ()) -> Results:
    """Read what runs left of every series, while other runs may be writing.

    Only whole records count, and of those only the ones whose table is whole and says the same.

    Parameters
    ----------
    output_dir : Path
        Root of the output dataset.
    participants, sessions : sequence of str
        Labels to read; all if there is none.
    """
    series, problems = [], []
    for subject in _subjects(output_dir):
        if participants and subject not in participants:
            continue
        files = sorted((output_dir / f"sub-{subject}" / "figures").glob(RECORDS))
        if not files and not sessions:
            problems.append(Problem(Place(subject, series=f"sub-{subject}"), str(MissingRecordError())))
        for file in files:
            place = Place.of(file)
            if sessions and place.session not in sessions:
                continue
            try:
                series.append(read_result(file, output_dir))
            except InputError as error:
                problems.append(Problem(place, str(error)))
    return Results(tuple(series), tuple(problems))


def _subjects(output_dir: Path) -> list[str]:
    """Subjects of which the output has a folder or a report."""
    folders = subject_labels(output_dir)
    reports = sorted(file.stem.removeprefix("sub-") for file in output_dir.glob("sub-*.html"))
    return list(dict.fromkeys([*folders, *reports]))


def read_result(record_file: Path, output_dir: Path) -> SeriesResult:
    """Read the numbers of one series.

    Raises
    ------
    DamagedRecordError, FailedSeriesError, DamagedTableError
        If it has none that can be relied on.
    """
    record = _read_record(record_file)
    try:
        return _result(record_file, record, output_dir)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it lacks what is expected: {' '.join(str(error).split())}"
        raise DamagedRecordError(reason=reason) from error


def _read_record(file: Path) -> dict[str, Any]:
    """A record that is whole and of this version's form."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DamagedRecordError(reason=error.strerror or type(error).__name__) from error
    except (ValueError, RecursionError) as error:
        raise DamagedRecordError(reason="it is not valid JSON, perhaps half written") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise DamagedRecordError(reason="another version of this program wrote it")
    return record


def _result(record_file: Path, record: Mapping[str, Any], output_dir: Path) -> SeriesResult:
    """The result that a record and the table beside it tell."""
    if record["status"] != "done":
        raise _failure(record.get("error") or {})
    cells = cells_of(record.get("tensor_table") or [])
    if not cells:
        raise DamagedRecordError(reason="it holds no comparison of the tensors")
    outputs = [output_dir / name for name in record["outputs"] if _is_inside(name)]
    _check_table(cells, next((file for file in outputs if file.name.endswith(TABLE)), None))
    check, registration = record.get("self_check") or {}, record.get("registration") or {}
    departure = (record.get("departure") or {}).get("sr") or {}
    return SeriesResult(
        Place.of(record_file),
        cells,
        model=str(record["model"]["name"]),
        version=str(record["version"]),
        started=str(record["started"]),
        voxel_sizes=tuple(float(size) for size in record["grids"]["acquired"]["voxel_sizes"]),
        warnings=tuple(str(warning) for warning in record["warnings"]),
        self_check="failed" if check.get("failed") else str(check.get("level", "")),
        t1w_agreement=_number(registration.get("agreement")),
        t1w_fits=not distrust(registration),
        departure=_number(departure.get("share") if departure.get("voxels") else None),
        brain_ml=_number((record.get("mask") or {}).get("volume_ml")),
        n_lost=sum(not file.is_file() for file in outputs if file.parent.name != "figures"),
    )


def _failure(error: Mapping[str, Any]) -> FailedSeriesError:
    """Why a series failed, as its record tells."""
    node, message = error.get("node"), " ".join(str(error.get("message") or "it left no message").split())
    crash = f" (details: {error['crash_file']})" if error.get("crash_file") else ""
    return FailedSeriesError(where=f" in {node}" if node else "", message=f"{message}{crash}")


def cells_of(rows: Sequence[Mapping[str, Any]]) -> dict[Key, dict[str, str]]:
    """The rows of a tensor table as the text of its file."""
    return {
        (str(row["map"]), str(row["tissue"]), str(row["method"])): {
            name: _checked(table_cell(row.get(name))) for name in NUMBERS
        }
        for row in rows
    }


def _check_table(cells: Cells, table: Path | None) -> None:
    """The table on disk says what the record says."""
    if table is None:
        raise DamagedRecordError(reason="it names no table of the tensors")
    found = _read_table(table)
    if found != cells:
        problem = "is truncated" if len(found) < len(cells) else "does not say what its record says"
        raise DamagedTableError(table=table.name, problem=f"{problem}, or is being written")


def _read_table(file: Path) -> dict[Key, dict[str, str]]:
    """The cells of a tensor table; a line that is not whole leaves its row incomplete."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", restkey="", restval=""))
    except FileNotFoundError as error:
        raise DamagedTableError(table=file.name, problem="is not there") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DamagedTableError(table=file.name, problem="cannot be read") from error
    return {
        (row.get("map", ""), row.get("tissue", ""), row.get("method", "")): {
            name: row.get(name, "n/a") for name in NUMBERS
        }
        for row in rows
    }


def _is_inside(name: str) -> bool:
    """Whether a file named in a record lies in the output dataset."""
    return not name.startswith("/") and ".." not in PurePosixPath(name).parts


def _number(value: Any) -> float:
    """A number of a record or a table; NaN where there is none."""
    if value is None or value == "n/a":
        return math.nan
    return float(value)


def _checked(text: str) -> str:
    """A cell that holds a number, or says that there is none; a ValueError otherwise."""
    _number(text)
    return text

"""What stands out among the series of a dataset, and their numbers as one table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_sr.bids.outputs import COLUMNS
from bids_sr.evaluation.outliers import LEAST_NUMBERS, LIMIT, centre_and_spread, robust_z
from bids_sr.results import NUMBERS, Key, SeriesResult

MAPS = ("FA", "MD", "AD", "RD")
TISSUES = ("WM", "GM", "CSF", "brain")
METHODS = ("orig", "cubic", "sr")
METHOD_NAMES = {"orig": "as acquired", "cubic": "interpolated by cubic B-splines", "sr": "super-resolved"}
#: What outliers are looked for in. AD and RD follow FA and MD, and the few voxels of CSF scatter.
JUDGED_MAPS, JUDGED_TISSUES = ("FA", "MD"), ("WM", "GM", "brain")
JUDGED_COLUMNS = (("orig", "mean"), ("sr", "mean"), ("sr", "bias"))
#: What a series is flagged for.
KINDS = ("outlier", "self-check", "T1w", "warning", "files")
#: A warning that this share of the series has in the same words tells of the dataset, not of a series.
SHARED = 0.5


@dataclass(frozen=True)
class Measure:
    """A number that every series has: its column in the table, what it is, and where it is found."""

    column: str
    text: str
    value: Callable[[SeriesResult], float]
    map: str = ""


@dataclass(frozen=True)
class Distance:
    """How far a number of a series lies from the others: its value, their median, and the robust z."""

    measure: Measure
    value: float
    median: float
    z: float


@dataclass(frozen=True)
class Judged:
    """A series and what speaks for a look at it.

    Attributes
    ----------
    result : SeriesResult
    outliers : tuple of Distance
        Beyond the limit, the farthest first.
    largest_z : float
        Largest absolute robust z of all measures; NaN where there are too few series like it.
    warnings : tuple of str
        Those that most series do not share.
    """

    result: SeriesResult
    outliers: tuple[Distance, ...]
    largest_z: float
    warnings: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of `KINDS` that hold."""
        found = (
            bool(self.outliers),
            self.result.self_check in ("no", "failed"),
            not self.result.t1w_fits,
            bool(self.warnings),
            self.result.n_lost > 0,
        )
        return tuple(kind for kind, holds in zip(KINDS, found, strict=True) if holds)


@dataclass(frozen=True)
class Stratum:
    """Series that can be compared with each other: restored by one model at one resolution."""

    resolution: str
    model: str
    series: tuple[Judged, ...]


@dataclass(frozen=True)
class Group:
    """All series with numbers.

    Attributes
    ----------
    series : tuple of Judged
        In the order given.
    strata : tuple of Stratum
        The same series, those together that can be compared; the largest stratum first.
    shared_warnings : mapping
        Warnings that most series have in the same words, and how many have each.
    """

    series: tuple[Judged, ...]
    strata: tuple[Stratum, ...]
    shared_warnings: Mapping[str, int]


def measures() -> list[Measure]:
    """Everything that outliers are looked for in."""
    found = []
    for name, tissue, (method, column) in product(JUDGED_MAPS, JUDGED_TISSUES, JUDGED_COLUMNS):
        key = (name, tissue, method)
        is_mean = column == "mean"
        text = f"{'mean ' if is_mean else ''}{name} in {_where(tissue)}, {METHOD_NAMES[method]}"
        found.append(
            Measure(column_name(key, column), text if is_mean else f"{text} minus acquired", _reader(key, column), name)
        )
    departs = Measure("departure", "share of the brain that departs from the scan", lambda one: one.departure)
    return [*found, departs, Measure("brain_ml", "volume of the brain mask in ml", lambda one: one.brain_ml)]


def judge(results: Sequence[SeriesResult]) -> Group:
    """Compare every series with those like it.

    A number is an outlier where it lies more than `bids_sr.evaluation.outliers.LIMIT` robust standard deviations from
    the median of the series restored by the same model at the same resolution, of which there must be at least
    `bids_sr.evaluation.outliers.LEAST_NUMBERS`.
    """
    counts = Counter(warning for one in results for warning in set(one.warnings))
    enough = len(results) >= LEAST_NUMBERS
    shared = {text: count for text, count in counts.items() if enough and count > SHARED * len(results)}
    places: dict[tuple[str, str], list[int]] = {}
    for index, one in enumerate(results):
        places.setdefault((one.place.resolution, one.model), []).append(index)
    judged: dict[int, Judged] = {}
    for own in places.values():
        judged |= zip(own, _judged([results[index] for index in own], shared), strict=True)
    strata = [Stratum(*kind, tuple(judged[index] for index in own)) for kind, own in places.items()]
    largest_first = sorted(strata, key=lambda stratum: -len(stratum.series))
    return Group(tuple(judged[index] for index in range(len(results))), tuple(largest_first), shared)


def _judged(group: Sequence[SeriesResult], shared: Mapping[str, int]) -> tuple[Judged, ...]:
    """Series that can be compared, each with what stands out in it."""
    distances: list[list[Distance]] = [[] for _ in group]
    for measure in measures():
        values = np.array([measure.value(one) for one in group], dtype=np.float64)
        median, _ = centre_and_spread(values)
        for own, value, z in zip(distances, values.tolist(), robust_z(values).tolist(), strict=True):
            own.append(Distance(measure, value, median, z))
    return tuple(_one_judged(one, own, shared) for one, own in zip(group, distances, strict=True))


def _one_judged(result: SeriesResult, distances: Sequence[Distance], shared: Mapping[str, int]) -> Judged:
    """A series with what stands out in it."""
    known = sorted((one for one in distances if math.isfinite(one.z)), key=lambda one: -abs(one.z))
    return Judged(
        result,
        tuple(one for one in known if abs(one.z) > LIMIT),
        abs(known[0].z) if known else math.nan,
        tuple(warning for warning in result.warnings if warning not in shared),
    )


def values_of(series: Sequence[Judged], key: Key, column: str = "mean") -> NDArray[np.float64]:
    """A number of each series' table, (n,); NaN where there is none."""
    return np.array([one.result.number(key, column) for one in series], dtype=np.float64)


# The table


def group_columns() -> dict[str, str]:
    """Every column of the group's table and what it holds; always the same, so that tables of two runs join."""
    return _FACTS | {
        **{f"{tissue}_n_voxels": f"Voxels of the acquired grid in {_where(tissue)}." for tissue in TISSUES},
        **{column_name(key, name): _meaning(key, name) for key, name in _numbers()},
    }


def group_rows(group: Group) -> list[dict[str, Any]]:
    """One row per series: its numbers are the text of its own table."""
    return [_facts(one) | _voxels(one.result) | _row(one.result) for one in group.series]


def column_name(key: Key, column: str) -> str:
    """Column of the group's table for a number of the series' tables, such as ``FA_WM_sr_mean``."""
    return "_".join((*key, column))


_FACTS = {
    "participant_id": "Subject, as in participants.tsv.",
    "session_id": "Session, as in sub-*_sessions.tsv; n/a where there is none.",
    "series": "Name that the series' outputs start with.",
    "resolution": "The res entity of its restored images: voxel size in mm, p for the decimal point.",
    "acquired_mm": "Voxel size as acquired, in mm.",
    "model": "Model that restored it.",
    "version": "Version of bids_sr that ran.",
    "brain_ml": "Volume of the brain mask in ml.",
    "t1w_agreement": "Normalized mutual information of the registered T1w and the mean b0; n/a without registration.",
    "self_check": "Whether super-resolution helped on the scan itself: yes, partly, no; failed; n/a if not tried.",
    "departure": "Share of the brain where the restored series departs from the acquired one beyond its noise.",
    "n_warnings": "Warnings in the series' report.",
    "largest_z": "Largest absolute robust z of its numbers among series of the same model and resolution; n/a where "
    f"there are fewer than {LEAST_NUMBERS}.",
    "flags": f"What speaks for a look at it: {', '.join(KINDS)}, joined by +; n/a for nothing.",
}


def _facts(one: Judged) -> dict[str, Any]:
    """What is known of a series besides its table."""
    result, place = one.result, one.result.place
    return {
        "participant_id": f"sub-{place.subject}",
        "session_id": f"ses-{place.session}" if place.session else None,
        "series": place.series,
        "resolution": place.resolution or None,
        "acquired_mm": "x".join(f"{size:g}" for size in result.voxel_sizes) or None,
        "model": result.model,
        "version": result.version,
        "brain_ml": result.brain_ml,
        "t1w_agreement": result.t1w_agreement,
        "self_check": result.self_check or None,
        "departure": result.departure,
        "n_warnings": len(result.warnings),
        "largest_z": one.largest_z,
        "flags": "+".join(one.flags) or None,
    }


def _voxels(result: SeriesResult) -> dict[str, str]:
    """The size of each tissue, which is the same in all maps."""
    return {f"{tissue}_n_voxels": result.text(("FA", tissue, "orig"), "n_voxels") for tissue in TISSUES}


def _row(result: SeriesResult) -> dict[str, str]:
    """The numbers of a series' table."""
    return {column_name(key, name): result.text(key, name) for key, name in _numbers()}


def _numbers() -> Iterator[tuple[Key, str]]:
    """Every number of a tensor table, other than counts and what never is there."""
    for key in product(MAPS, TISSUES, METHODS):
        name, tissue, method = key
        for column in NUMBERS:
            compares = column in ("bias", "mae", "correlation", "v1_angle")
            is_angle = column == "v1_angle"
            if column == "n_voxels" or (compares and method == "orig"):
                continue
            if is_angle and (name, tissue) != ("FA", "WM"):
                continue
            yield key, column


def _meaning(key: Key, column: str) -> str:
    """Description of a column of the series' tables in the group's table."""
    name, tissue, method = key
    unit = " in mm2/s" if name != "FA" and column not in ("correlation", "v1_angle") else ""
    return f"{name} in {_where(tissue)}, {METHOD_NAMES[method]}: {COLUMNS[column].rstrip('.')}{unit}."


def _where(tissue: str) -> str:
    """A tissue in a sentence."""
    return "the brain" if tissue == "brain" else tissue


def _reader(key: Key, column: str) -> Callable[[SeriesResult], float]:
    """What finds a number of a series' table."""
    return lambda one: one.number(key, column)

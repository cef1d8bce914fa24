"""The group's page: one self-contained HTML file that finds the series that deserve a look."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bids_sr.bids.outputs import write_text
from bids_sr.evaluation.group import (
    JUDGED_MAPS,
    JUDGED_TISSUES,
    KINDS,
    MAPS,
    METHODS,
    TISSUES,
    Distance,
    Group,
    Judged,
    Measure,
    Stratum,
    measures,
    values_of,
)
from bids_sr.evaluation.outliers import LEAST_NUMBERS, LIMIT
from bids_sr.reports.charts import NAMES, number, signed
from bids_sr.reports.html import page_environment
from bids_sr.reports.strips import strip_chart
from bids_sr.results import Problem, SeriesResult

#: How many series are named before the table, and how many reasons of each.
MOST_NAMED, MOST_REASONS = 25, 3
#: Means that the page's table shows; the TSV has all.
SHOWN = (("FA", "WM"), ("MD", "WM"))
#: What the series with a flag have in common.
FLAG_NAMES = {
    "outlier": "with outliers",
    "self-check": "not helped, by their self-check",
    "T1w": "with a T1w in doubt",
    "warning": "with warnings",
    "files": "with lost files",
}
CHECKS = {"yes": "helped", "partly": "in part", "no": "did not help", "failed": "broke off"}
#: Colour classes of the methods in the style sheet.
_CLASSES = {"orig": "acquired", "cubic": "cubic", "sr": "sr"}
_SHORT = {"orig": "acq.", "cubic": "cubic", "sr": "SR"}


def write_group_report(
    output_html: Path,
    group: Group,
    problems: Sequence[Problem],
    reports: Mapping[str, str],
    notes: Sequence[str] = (),
) -> None:
    """Write the group's page, whole or not at all.

    Parameters
    ----------
    output_html : Path
    group : Group
        Series with numbers, judged.
    problems : sequence of Problem
        Series without.
    reports : mapping
        Subject to the file name of its report, beside the page; without those that have none.
    notes : sequence of str
        What a reader should know of the gathering itself.
    """
    write_text(output_html, render_group_report(group, problems, reports, notes))


def render_group_report(
    group: Group, problems: Sequence[Problem], reports: Mapping[str, str], notes: Sequence[str] = ()
) -> str:
    """Text of the page that `write_group_report` writes."""
    links = {subject: quote(name) for subject, name in reports.items()}
    resolutions = {one.result.place.resolution for one in group.series}
    labels = [_label(one.result, with_resolution=len(resolutions) > 1) for one in group.series]
    rows = [_row(index, one, labels[index], links) for index, one in enumerate(group.series)]
    flagged = sorted((row for row in rows if row["flags"]), key=_urgency, reverse=True)
    started = sorted(one.result.started for one in group.series if one.result.started)
    return (
        page_environment()
        .get_template("group.html.jinja")
        .render(
            verdict=verdict(group, problems),
            notes=notes,
            versions=sorted({one.result.version for one in group.series if one.result.version}),
            period=[started[0], started[-1]] if started else [],
            problems=[{"problem": one, "link": links.get(one.place.subject, "")} for one in problems],
            flagged=flagged[:MOST_NAMED],
            n_flagged=len(flagged),
            flag_names=FLAG_NAMES,
            counts={kind: sum(kind in row["flags"] for row in rows) for kind in KINDS},
            shared=dict(group.shared_warnings),
            n_series=len(rows),
            strata=[_stratum(stratum, group.series, labels) for stratum in group.strata],
            rows=rows,
            columns=table_columns(),
            limit=LIMIT,
            least=LEAST_NUMBERS,
            judged_maps=JUDGED_MAPS,
            judged_tissues=JUDGED_TISSUES,
            n_measures=len(measures()),
            classes=_CLASSES,
            method_short=_SHORT,
        )
    )


def verdict(group: Group, problems: Sequence[Problem]) -> dict[str, str]:
    """What the reader should know first: "level" (good, warning, bad), "headline" and "detail"."""
    there, lost = len(group.series), len(problems)
    flagged = sum(bool(one.flags) for one in group.series)
    everything = f"All {there} series are in the table" if there > 1 else "The only series is in the table"
    headline = f"{there} of {there + lost} series are in the table" if lost else everything
    if not there:
        return {
            "level": "bad",
            "headline": "No series has numbers",
            "detail": f"{lost} without; the reasons are below.",
        }
    missing = f"{lost} {'is' if lost == 1 else 'are'} not, and the reasons are below." if lost else ""
    those = f"{flagged} of the {there} in it" if lost else f"{flagged} of them" if there > 1 else "It"
    look = f"{those} {'deserves' if flagged == 1 else 'deserve'} a look." if flagged else "Nothing stands out."
    level = "warning" if lost or flagged else "good"
    return {"level": level, "headline": headline, "detail": f"{missing} {look}".strip()}


def table_columns() -> list[tuple[str, str]]:
    """Headings of the page's table after the first, and what each column is."""
    maps = [
        (f"{name} {tissue} {_SHORT[method]}", f"mean {name} in {tissue}, {NAMES[method]}")
        for name, tissue in SHOWN
        for method in METHODS
    ]
    return [
        ("Look", "why it deserves a look"),
        ("Largest z", "largest distance from the median of series like it, in robust standard deviations"),
        *maps,
        ("FA WM MAE", "mean absolute difference of super-resolved from acquired FA in WM"),
        ("V1 °", "median angle between super-resolved and acquired main directions in WM, in degrees"),
        ("Self-check", "whether super-resolution helped on the scan itself"),
        ("T1w fit", "agreement of the registered T1w and the mean b0"),
        ("Departs", "share of the brain where the result departs from the scan beyond its noise"),
        ("Brain ml", "volume of the brain mask"),
        ("Acquired", "voxel size as acquired, in mm"),
        ("Model", "model that restored it"),
    ]


def _label(result: SeriesResult, *, with_resolution: bool) -> str:
    """Name of a series on the page; all at one resolution need not say which."""
    return result.place.label if with_resolution else " ".join(result.place.series.split("_"))


def _row(index: int, one: Judged, label: str, links: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows of a series: a row of the table, and why it stands out."""
    result = one.result
    return {
        "id": f"r{index}",
        "label": label,
        "link": links.get(result.place.subject, ""),
        "flags": one.flags,
        "warnings": result.warnings,
        "reasons": list(_reasons(one)),
        "largest_z": one.largest_z,
        "n_outliers": len(one.outliers),
        "cells": list(_cells(one)),
    }


def _cells(one: Judged) -> Iterator[str]:
    """Cells of the table after flags and z, in the order of `table_columns`."""
    result = one.result
    for name, tissue in SHOWN:
        for method in METHODS:
            yield number(result.number((name, tissue, method), "mean"), name)
    yield number(result.number(("FA", "WM", "sr"), "mae"), "FA")
    yield number(result.number(("FA", "WM", "sr"), "v1_angle"), "V1")
    yield CHECKS.get(result.self_check, result.self_check or "–")
    yield number(result.t1w_agreement)
    yield _share(result.departure)
    yield f"{result.brain_ml:.0f}" if math.isfinite(result.brain_ml) else "–"
    yield _sizes(result)
    yield result.model


def _urgency(row: Mapping[str, Any]) -> tuple[int, float]:
    """How early a series is named: by how many flags speak for themselves, then by how far it lies off."""
    # What the self-check and the T1w are flagged for is a warning too.
    own = sum(flag not in ("warning", "files") for flag in row["flags"])
    return own, row["largest_z"] if math.isfinite(row["largest_z"]) else 0.0


def _reasons(one: Judged) -> Iterator[str]:
    """Why a series stands out, in sentences; the self-check and the T1w are among the record's warnings."""
    for distance in one.outliers[:MOST_REASONS]:
        yield distance_text(distance)
    if len(one.outliers) > MOST_REASONS:
        yield f"{len(one.outliers) - MOST_REASONS} more of its numbers lie beyond the limit."
    yield from one.warnings
    if one.result.n_lost:
        lost = one.result.n_lost
        yield f"{lost} of its files {'is' if lost == 1 else 'are'} not there any more; its numbers do not need them."


def distance_text(distance: Distance) -> str:
    """A number that lies far from the others, as a sentence."""
    value, median = (_amount(number_, distance.measure) for number_ in (distance.value, distance.median))
    side = "above" if distance.z > 0 else "below"
    text = distance.measure.text
    return f"{text[:1].upper()}{text[1:]}: {value}, {abs(distance.z):.1f} robust SD {side} the median of {median}."


def _amount(value: float, measure: Measure) -> str:
    """A number in the form of its measure."""
    if measure.column == "departure":
        return _share(value)
    if measure.column == "brain_ml":
        return f"{value:.0f}"
    unit = "" if measure.map == "FA" else "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10⁻³\N{NO-BREAK SPACE}mm²/s"
    is_difference = measure.column.endswith("_bias")
    return f"{(signed if is_difference else number)(value, measure.map)}{unit}"


def _share(value: float) -> str:
    """A part of the whole in per cent."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if math.isfinite(value) else "–"


def _sizes(result: SeriesResult) -> str:
    """Acquired voxel size as text."""
    labels = [f"{size:.3g}" for size in result.voxel_sizes]
    return (labels[0] if len(set(labels)) == 1 else " × ".join(labels)) if labels else "–"


def _stratum(stratum: Stratum, series: Sequence[Judged], labels: Sequence[str]) -> dict[str, Any]:
    """The charts of series that can be compared."""
    index_of = {id(one): index for index, one in enumerate(series)}
    places = [index_of[id(one)] for one in stratum.series]
    return {
        "title": _stratum_title(stratum),
        "n": len(stratum.series),
        "maps": [{"map": name, "charts": _charts(stratum, name)} for name in MAPS],
        "ids": [f"r{index}" for index in places],
        "labels": [labels[index] for index in places],
    }


def _charts(stratum: Stratum, name: str) -> list[dict[str, Any]]:
    """One chart per tissue of a map."""
    found = []
    for tissue in TISSUES:
        drawn = strip_chart({method: values_of(stratum.series, (name, tissue, method)) for method in METHODS})
        if drawn is not None:
            found.append({"tissue": tissue, "drawn": drawn})
    return found


def _stratum_title(stratum: Stratum) -> str:
    """What the series of a stratum have in common."""
    sizes = stratum.resolution.replace("p", ".").replace("x", " × ")
    return f"Model {stratum.model}" + (f", voxels of {sizes} mm" if sizes else "")

"""A strip chart as numbers: one dot per series, spread upwards and downwards where many are alike."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_sr.evaluation.outliers import LIMIT, centre_and_spread, robust_z
from bids_sr.reports.charts import position

#: Width of a dot, in hundredths of the chart's width; dots that share a column of it are moved apart.
DOT = 1.2
#: Dots keep this far from the chart's ends, so that they are drawn whole.
EDGE = 2.0
#: Distance of dots in a column, as part of the strip's height, and the part that a full column takes.
STEP, FILL = 0.08, 0.8
#: The axis ends at this many robust standard deviations; what lies beyond is drawn at its edge.
REACH = 8.0


@dataclass(frozen=True)
class Mark:
    """A dot beyond the limits: which series it is, its place in a chart of 100 x 100, and its value."""

    index: int
    x: float
    y: float
    value: float


@dataclass(frozen=True)
class Strip:
    """The series' numbers by one method.

    Attributes
    ----------
    method : str
    n : int
        How many numbers there are.
    dots : str
        SVG path of the dots within the limits.
    marks : tuple of Mark
        Those beyond.
    median, low, high : float
        Their median and the limits of the rule; NaN where there are too few.
    centre : float
        Height of the strip's middle in the chart.
    guides : tuple of float, (3,)
        Where median and limits lie in the chart; empty without them.
    """

    method: str
    n: int
    dots: str
    marks: tuple[Mark, ...]
    median: float
    low: float
    high: float
    centre: float
    guides: tuple[float, ...]


@dataclass(frozen=True)
class StripChart:
    """Strips on one axis, which goes from `low` to `high`."""

    low: float
    high: float
    strips: tuple[Strip, ...]


def strip_chart(values: Mapping[str, NDArray[np.float64]]) -> StripChart | None:
    """Draw the numbers of all series, (n,) per method and NaN where there is none; None where there is no number."""
    low, high = _axis(values)
    if not math.isfinite(low):
        return None
    height = 100 / len(values)
    strips = [
        _strip(method, numbers, (low, high), (row + 0.5) * height, height)
        for row, (method, numbers) in enumerate(values.items())
    ]
    return StripChart(low, high, tuple(strips))


def _axis(values: Mapping[str, NDArray[np.float64]]) -> tuple[float, float]:
    """Ends of the axis: all numbers, but no farther than `REACH` from the median of any method, and a margin."""
    lows, highs = [], []
    for numbers in values.values():
        known = numbers[np.isfinite(numbers)]
        if known.size:
            centre, spread = centre_and_spread(known)
            reach = REACH * spread if spread > 0 else math.inf
            bound = centre if math.isfinite(centre) else float(np.median(known))
            lows.append(max(float(known.min()), bound - reach))
            highs.append(min(float(known.max()), bound + reach))
    if not lows:
        return math.nan, math.nan
    low, high = min(lows), max(highs)
    margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return low - margin, high + margin


def _strip(method: str, numbers: NDArray[np.float64], axis: tuple[float, float], centre: float, height: float) -> Strip:
    """One method's dots, in a strip of the chart."""
    known = np.flatnonzero(np.isfinite(numbers))
    places = [min(max(position(float(numbers[index]), *axis), EDGE), 100 - EDGE) for index in known]
    beyond = np.abs(robust_z(numbers)[known]) > LIMIT
    dots, marks = [], []
    for index, x, y, is_mark in zip(known, places, _heights(places, centre, height), beyond, strict=True):
        if is_mark:
            marks.append(Mark(int(index), x, y, float(numbers[index])))
        else:
            dots.append(f"M{x:.1f} {y:.1f}h0")
    median, spread = centre_and_spread(numbers)
    low, high = median - LIMIT * spread, median + LIMIT * spread
    guides = tuple(position(value, *axis) for value in (low, median, high)) if math.isfinite(median) else ()
    return Strip(method, len(known), "".join(dots), tuple(marks), median, low, high, centre, guides)


def _heights(places: list[float], centre: float, height: float) -> list[float]:
    """Where each dot lies: the first of a column in the middle, the next ones above and below it in turn."""
    columns = [round(x / DOT) for x in places]
    fullest = max(Counter(columns).values(), default=1)
    step = height * min(STEP, FILL / fullest)
    seen: Counter[int] = Counter()
    heights = []
    for column in columns:
        turn, seen[column] = seen[column], seen[column] + 1
        heights.append(centre + step * ((turn + 1) // 2) * (-1 if turn % 2 else 1))
    return heights

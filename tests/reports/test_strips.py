"""Every series is one dot, inside the chart, at its value."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.evaluation.outliers import LIMIT, robust_z
from bids_sr.reports.strips import EDGE, REACH, strip_chart

numbers = st.lists(st.one_of(st.floats(-10, 10), st.just(float("nan"))), min_size=1, max_size=80).map(np.array)


def places(strip):
    dots = [(float(x), float(y)) for x, y in re.findall(r"M(\S+) (\S+)h0", strip.dots)]
    return dots + [(mark.x, mark.y) for mark in strip.marks]


@given(numbers, numbers)
def test_each_number_is_one_dot_in_its_strip(first, second):
    chart = strip_chart({"orig": first, "sr": second})
    if chart is None:
        assert np.isnan(first).all() and np.isnan(second).all()
        return
    for strip, values, (top, bottom) in zip(chart.strips, (first, second), ((0, 50), (50, 100)), strict=True):
        found = places(strip)
        assert len(found) == strip.n == np.isfinite(values).sum()
        assert all(EDGE <= x <= 100 - EDGE and top <= y <= bottom for x, y in found)


def test_dots_lie_at_their_values():
    chart = strip_chart({"sr": np.array([0.0, 1.0, 0.25])})
    width = chart.high - chart.low
    expected = sorted(100 * (value - chart.low) / width for value in (0.0, 0.25, 1.0))
    assert sorted(x for x, _ in places(chart.strips[0])) == pytest.approx(expected, abs=0.06)


@given(st.lists(st.floats(-10, 10).map(lambda x: round(x, 2)), min_size=20, max_size=60).map(np.array))
def test_marks_are_the_numbers_beyond_the_limits(values):
    strip = strip_chart({"sr": values}).strips[0]
    beyond = np.flatnonzero(np.abs(robust_z(values)) > LIMIT)
    assert [mark.index for mark in strip.marks] == beyond.tolist()
    assert [mark.value for mark in strip.marks] == values[beyond].tolist()
    assert all(not strip.low <= mark.value <= strip.high for mark in strip.marks)


def test_one_wild_number_does_not_squeeze_the_others():
    values = np.append(np.random.default_rng(0).normal(0.4, 0.02, 100), 50.0)
    chart = strip_chart({"sr": values})
    assert chart.high < 0.4 + 2 * REACH * 0.03
    (mark,) = (mark for mark in chart.strips[0].marks if mark.index == 100)
    assert mark.x == 100 - EDGE and mark.value == 50.0


def test_few_numbers_have_no_limits():
    strip = strip_chart({"sr": np.arange(5.0)}).strips[0]
    assert strip.guides == () and strip.marks == () and strip.n == 5


def test_equal_numbers_make_a_column_and_an_axis():
    chart = strip_chart({"sr": np.full(40, 0.3)})
    assert chart.low < 0.3 < chart.high
    heights = [y for _, y in places(chart.strips[0])]
    assert len(set(heights)) == 40

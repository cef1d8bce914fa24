"""Drawings keep to the numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.reports import charts
from bids_sr.reports.distributions import agreement_statistics, bland_altman_density, scatter_density


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: math.hypot(*v) > 0.1))
def test_a_direction_and_its_opposite_are_one_point(vector):
    """Except on the rim, where both ends of a diameter are the same direction."""
    if abs(vector[2]) < 1e-3:
        return
    there, back = charts.directions([1000, 1000], [vector, [-x for x in vector]], 50)
    assert (there.x, there.y) == pytest.approx((back.x, back.y))
    assert math.hypot(there.x, there.y) <= 1 + 1e-3


def test_equal_areas():
    """Directions spread evenly over the half sphere fall evenly on the disc: half of them within radius 1/sqrt(2)."""
    z = np.linspace(0, 1, 401)
    vectors = [[math.sqrt(1 - h * h), 0, h] for h in z]
    radii = [math.hypot(d.x, d.y) for d in charts.directions([1000] * 401, vectors, 50)]
    assert np.mean(np.array(radii) < math.sqrt(0.5)) == pytest.approx(0.5, abs=0.01)


def test_b0_volumes_are_not_drawn():
    assert charts.directions([0, 1000], [[0, 0, 0], [1, 0, 0]], 50) == [charts.Direction(1.0, 0.0, 1)]


def test_shells_split_where_b_values_jump():
    assert charts.shell_values([0, 995, 1000, 1005, 2000, 2010], 50) == [1000, 2005]


@pytest.mark.parametrize(
    ("value", "key", "text"),
    [
        (0.4567, "FA", "0.457"),
        (7e-4, "MD", "0.700"),
        (-0.02, "FA", "−0.020"),
        (None, "FA", "–"),
        (float("nan"), "MD", "–"),
    ],
)
def test_numbers(value, key, text):
    assert charts.number(value, key) == text


@pytest.mark.parametrize(("value", "text"), [(0.02, "+0.020"), (-0.02, "−0.020"), (0.0, "0.000"), (None, "–")])
def test_signed_numbers(value, text):
    assert charts.signed(value, "FA") == text


def test_histogram_lines_reach_the_top_once():
    lines = charts.histogram_lines({"acquired": [0.2, 0.8], "sr": [0.5, 0.5]})
    assert [line.method for line in lines] == ["acquired", "sr"]
    assert " 4.00" in lines[0].path and " 4.00" not in lines[1].path


def test_bland_altman_of_a_shift():
    before = np.linspace(0, 1, 101, dtype=np.float32)
    noise = np.where(np.arange(101) % 2, 0.1, -0.1).astype(np.float32)
    found = agreement_statistics(before, before + 0.05 + noise)
    assert found["bias"] == pytest.approx(0.05, abs=2e-3)
    assert found["upper"] - found["lower"] == pytest.approx(2 * 1.96 * 0.1, rel=1e-2)


def test_constant_maps_have_no_correlation():
    assert agreement_statistics(np.ones(5, dtype=np.float32), np.ones(5, dtype=np.float32))["correlation"] is None


def test_equal_maps_lie_on_the_diagonal():
    values = np.linspace(0, 1, 500, dtype=np.float32)
    density = scatter_density("fa", values, values)
    assert density.sum() == 500 and np.fliplr(density).trace() == 500
    rows = np.flatnonzero(bland_altman_density("fa", values, values).sum(axis=1))
    assert rows.size == 1

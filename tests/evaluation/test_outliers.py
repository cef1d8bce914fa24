"""The rule for outliers does not move with the units, nor with the outliers themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bids_sr.evaluation.outliers import LEAST_NUMBERS, LIMIT, centre_and_spread, robust_z

many = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=LEAST_NUMBERS, max_size=60)


@given(many)
def test_spread_is_that_of_scipy(values):
    numbers = np.array(values)
    centre, spread = centre_and_spread(numbers)
    assert centre == np.median(numbers)
    expected = stats.median_abs_deviation(numbers, scale="normal")
    if expected > 0:
        assert spread == pytest.approx(expected)


@given(many, st.sampled_from([1e-3, 0.5, 4.0, 1e3]), st.sampled_from([-100.0, 0.0, 3.0]))
def test_units_do_not_matter(values, factor, shift):
    numbers = np.array(values)
    if centre_and_spread(numbers)[1] > 1e-2:
        np.testing.assert_allclose(robust_z(numbers * factor + shift), robust_z(numbers), atol=1e-6)


def test_outliers_do_not_hide_themselves():
    """Four of twenty wild numbers swell the plain standard deviation until none of them stands out."""
    numbers = np.concatenate([np.linspace(0.40, 0.44, 16), [4.0, 4.1, 4.2, 4.3]])
    assert np.all(np.abs(stats.zscore(numbers)) < LIMIT)
    assert list(np.flatnonzero(np.abs(robust_z(numbers)) > LIMIT)) == [16, 17, 18, 19]


def test_a_single_other_number_among_equal_ones_is_found():
    numbers = np.array([1.0] * 30 + [1.5])
    assert list(np.flatnonzero(np.abs(robust_z(numbers)) > LIMIT)) == [30]
    assert not robust_z(np.ones(20)).any()


def test_what_is_unknown_stays_unknown_and_few_numbers_say_nothing():
    numbers = np.array([np.nan, *range(LEAST_NUMBERS)])
    z = robust_z(numbers)
    assert np.isnan(z[0]) and np.isfinite(z[1:]).all()
    assert np.isnan(robust_z(numbers[:-1])).all()


def test_the_share_of_false_alarms_is_the_one_stated():
    draws = np.random.default_rng(0).standard_normal((4000, LEAST_NUMBERS))
    share = np.mean([np.abs(robust_z(row)) > LIMIT for row in draws])
    assert share == pytest.approx(0.0064, abs=0.001)

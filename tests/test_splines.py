"""The matrix of an axis gives what scipy's splines give, anywhere on it and beyond."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bids_sr.splines import spline_weights


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.lists(st.floats(-3, 42), min_size=1, max_size=9))
def test_the_weights_of_an_axis_are_scipys_spline(n_source, positions):
    weights = spline_weights(np.array(positions), n_source)
    samples = np.random.default_rng(n_source).random(n_source)
    expected = ndimage.map_coordinates(samples, np.clip(positions, 0, n_source - 1)[None], order=3, mode="mirror")
    np.testing.assert_allclose(weights @ samples, expected, atol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)

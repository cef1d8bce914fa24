"""A random field belongs to the world, not to the grid that it is looked at on."""

import numpy as np

from bids_sr.demo.texture import SmoothNoise
from bids_sr.geometry import Grid

GRID = Grid((40, 44, 36), np.array([[-2.0, 0, 0, 40], [0, 2, 0, -50], [0, 0, 2, -30], [0, 0, 0, 1]]))


def test_two_grids_see_the_same_field_where_they_meet():
    noise = SmoothNoise.draw(GRID, 10.0, np.random.default_rng(0))
    part = GRID.cropped(np.array([3, 5, 7]), (10, 9, 8))
    np.testing.assert_allclose(noise.on(part), noise.on(GRID)[3:13, 5:14, 7:15], atol=1e-5)


def test_the_field_has_unit_variance_and_the_smoothness_asked_for():
    smoothness = 4.0
    fields = [SmoothNoise.draw(GRID, smoothness, np.random.default_rng(seed)).on(GRID) for seed in range(6)]
    # Some 1,000 independent values: the mean's standard deviation is 0.03.
    np.testing.assert_allclose([np.mean(fields), np.std(fields)], [0, 1], atol=0.1)
    # White noise through a Gaussian kernel of deviation s correlates as a Gaussian of deviation s sqrt(2).
    products = [np.mean(field[2:] * field[:-2]) for field in fields]
    np.testing.assert_allclose(np.mean(products), np.exp(-(4.0**2) / (4 * smoothness**2)), atol=0.05)

"""Ramps, waves and points have known answers under a Gaussian point-spread function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_sr.degradation import FWHM_TO_SIGMA, degrade, gaussian_sampling
from bids_sr.geometry import Grid
from bids_sr.models.interpolation import cubic_on_grid

GRID = Grid((72, 80, 76), np.array([[-2.0, 0.1, 0, 30], [0.1, 2, 0.2, -40], [0, -0.2, 2.5, -20], [0, 0, 0, 1]]))
scale_triples = st.tuples(*[st.floats(1, 4)] * 3)


def world_ramp(grid: Grid, slope: np.ndarray) -> np.ndarray:
    voxels = np.indices(grid.shape).reshape(3, -1).T
    return (slope @ (grid.affine[:3, :3] @ voxels.T + grid.affine[:3, 3:]) + 500).reshape(grid.shape).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(scale_triples)
def test_a_world_ramp_survives_degradation_and_restoration(scale):
    slope = np.array([1.0, -2.0, 0.5])
    low, grid = degrade(world_ramp(GRID, slope), GRID, np.array(scale))
    interior = tuple(slice(2, -2) for _ in grid.shape)
    # The ramp rises by 4 per acquired voxel, so this is a thousandth of a voxel.
    assert np.abs(low - world_ramp(grid, slope))[interior].max() < 4e-3
    back = cubic_on_grid(low, grid, GRID)
    inner = tuple(slice(n // 2 - 2, n // 2 + 2) for n in GRID.shape)
    assert np.abs(back - world_ramp(GRID, slope))[inner].max() < 4e-3


def test_a_wave_is_damped_as_the_transform_of_the_gaussian_says():
    n, frequency, scale = 120, 0.08, 2
    wave = np.cos(2 * np.pi * frequency * np.arange(n))
    centres = (np.arange(n // scale) + 0.5) * scale - 0.5
    sigma = scale * FWHM_TO_SIGMA
    expected = np.exp(-2 * (np.pi * sigma * frequency) ** 2) * np.cos(2 * np.pi * frequency * centres)
    sampled = gaussian_sampling(n, centres, scale) @ wave
    np.testing.assert_allclose(sampled[5:-5], expected[5:-5], atol=5e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_point_keeps_its_mass_and_place(scale):
    point = np.zeros((48, 48, 48), np.float32)
    point[23, 25, 22] = 1
    grid = Grid((48, 48, 48), np.diag([1.0, 1, 1, 1]))
    # Twice as wide a function, since samples of the usual one are too far apart to add up to the mass of a point.
    low, coarse = degrade(point, grid, np.full(3, scale), relative_fwhm=2.0)
    assert low.sum() * scale**3 == pytest.approx(1, abs=1e-3)
    voxels = np.indices(low.shape).reshape(3, -1)
    centroid = coarse.affine[:3, :3] @ (voxels @ low.ravel() / low.sum()) + coarse.affine[:3, 3]
    np.testing.assert_allclose(centroid, [23, 25, 22], atol=0.01)


@given(st.integers(2, 60), st.floats(0.3, 8))
def test_constants_stay_constant_up_to_the_border(n, fwhm):
    weights = gaussian_sampling(n, np.linspace(-0.4, n - 0.6, 9), fwhm)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert np.all(weights >= 0)


def test_scale_one_changes_nothing():
    data = np.random.default_rng(0).random((6, 7, 8, 2)).astype(np.float32)
    same, grid = degrade(data, Grid((6, 7, 8), np.eye(4)), np.ones(3))
    np.testing.assert_array_equal(same, data)
    np.testing.assert_array_equal(grid.affine, np.eye(4))

"""Gradients, noise and motion have the sizes and signs that they claim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_sr.demo.acquisition import (
    acquire,
    fsl_bvecs,
    gradient_scheme,
    random_rigid,
    spread_directions,
)
from bids_sr.demo.dataset import FULL, SMALL
from bids_sr.demo.phantom import B0_SIGNAL
from bids_sr.geometry import Grid, target_grid


@pytest.mark.parametrize("count", [6, 14, 30])
def test_directions_keep_their_distance_from_each_other_and_from_each_others_opposites(count):
    directions = spread_directions(count)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    angles = np.degrees(np.arccos(np.clip(np.abs(directions @ directions.T) - np.eye(count), 0, 1)))
    # Even spreading gives each direction a cap of 2 pi / n of the half sphere; neighbours are about two radii apart.
    radius = np.degrees(np.arccos(1 - 1 / count))
    assert angles.min() > 1.5 * radius


def test_the_scheme_begins_with_a_b0_and_spreads_the_others():
    bvals, directions = gradient_scheme(3, 30, 1000.0)
    np.testing.assert_array_equal(np.flatnonzero(bvals == 0), [0, 11, 22])
    assert (bvals[bvals > 0] == 1000).all()
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), bvals > 0)


@pytest.mark.parametrize("x_step", [2.0, -2.0])
def test_bvecs_count_x_towards_the_left_whatever_the_storage(x_step):
    """FSL's convention by hand: without rotation, its x axis points to the left of the patient."""
    affine = np.diag([x_step, 2.0, 3.0, 1.0])
    bvecs = fsl_bvecs(np.array([[1.0, 0, 0], [0, 0.6, 0.8], [0, 0, 0]]), affine)
    np.testing.assert_array_equal(bvecs, [[-1, 0, 0], [0, 0.6, 0.8], [0, 0, 0]])
    assert not np.signbit(bvecs[2]).any()


def test_bvecs_turn_with_the_voxel_axes():
    """A series stored with its first axis towards the back and its second to the left: determinant positive."""
    affine = np.array([[0, -2.0, 0, 0], [-2, 0, 0, 0], [0, 0, -2, 0], [0, 0, 0, 1]])
    assert np.linalg.det(affine) > 0
    towards_the_back = fsl_bvecs(np.array([[0.0, -1, 0]]), affine)
    np.testing.assert_array_equal(towards_the_back, [[-1, 0, 0]])


def test_the_noise_has_the_signal_to_noise_ratio_asked_for():
    grid = Grid((24, 24, 24), np.eye(4))
    flat = np.full((24, 24, 24, 2), B0_SIGNAL["wm"], np.float32)
    acquired, low = acquire(flat, grid, 2.0, 25.0, np.random.default_rng(0))
    assert acquired.shape == (12, 12, 12, 2)
    np.testing.assert_allclose(acquired.mean() / acquired.std(), 25, rtol=0.03)
    np.testing.assert_allclose(low.voxel_sizes, 2)


@settings(deadline=None)
@given(st.floats(0.1, 30), st.floats(0, 20), st.integers(0, 1000))
def test_motion_has_the_size_asked_for(degrees, millimetres, seed):
    centre = np.array([3.0, -20, 10])
    motion = random_rigid(degrees, millimetres, centre, np.random.default_rng(seed))
    rotation = motion[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    np.testing.assert_allclose(np.trace(rotation), 1 + 2 * np.cos(np.deg2rad(degrees)))
    np.testing.assert_allclose(np.linalg.norm(rotation @ centre + motion[:3, 3] - centre), millimetres, atol=1e-9)


@pytest.mark.parametrize("protocol", [FULL, SMALL])
def test_the_truth_lies_on_the_grid_that_the_app_restores(protocol):
    size = protocol.dwi_voxel_size / 2
    for resolution, scale in (((size,) * 3, None), (None, (2.0,) * 3)):
        asked = target_grid(protocol.dwi_grid, resolution, scale, "the series")
        assert asked.shape == protocol.truth_grid.shape
        np.testing.assert_allclose(asked.affine, protocol.truth_grid.affine, atol=1e-9)
    back = protocol.truth_grid.scaled(np.full(3, 0.5))
    np.testing.assert_allclose(back.affine, protocol.dwi_grid.affine, atol=1e-9)
    assert np.linalg.det(protocol.dwi_grid.affine) < 0

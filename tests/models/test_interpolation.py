"""Splines go through their samples, keep cubics, and agree however they are evaluated."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bids_sr.geometry import Grid, points_in
from bids_sr.models.base import Lattice
from bids_sr.models.interpolation import CubicSpline, Trilinear, cubic_on_grid

VOLUME = np.random.default_rng(0).random((9, 10, 11)).astype(np.float32)
#: Interpolation gives the same values whatever the lattice.
ANY = Lattice((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
GRID = Grid((9, 10, 11), np.diag([2.0, 2, 2.5, 1]))


def test_samples_are_kept():
    np.testing.assert_allclose(cubic_on_grid(VOLUME, GRID, GRID), VOLUME, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(1, 30)] * 3))
def test_separable_evaluation_equals_point_by_point(shape):
    target = GRID.resized(shape)
    model = CubicSpline()
    encoded = model.encode(torch.from_numpy(VOLUME)[None, None], ANY)
    values = model.query(encoded, torch.from_numpy(points_in(GRID, target)), torch.ones(3))
    np.testing.assert_allclose(cubic_on_grid(VOLUME, GRID, target).ravel(), values[0], atol=1e-4)


def test_an_oblique_grid_is_evaluated_in_world_space():
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    source, target = Grid((24, 24, 6), np.diag([1.0, 1, 1, 1])), Grid((5, 5, 2), turn)
    target = Grid(target.shape, np.array([[1, 0, 0, 12], [0, 1, 0, 8], [0, 0, 1, 2], [0, 0, 0, 1]]) @ target.affine)
    ramp = np.indices(source.shape)[0].astype(np.float32)
    world_x = (target.affine[:3, :3] @ np.indices(target.shape).reshape(3, -1) + target.affine[:3, 3:])[0]
    np.testing.assert_allclose(cubic_on_grid(ramp, source, target).ravel(), world_x, atol=2e-3)


def test_one_voxel_axes_and_values_that_are_not_numbers():
    volume = np.full((1, 4, 4), 3, np.float32)
    volume[0, 1, 1] = np.nan
    fine = cubic_on_grid(volume, Grid((1, 4, 4), np.eye(4)), Grid((1, 4, 4), np.eye(4)).resized((3, 8, 8)))
    assert np.isfinite(fine).all()


def test_the_trilinear_model_is_scipys_order_one():
    volumes = np.random.default_rng(0).random((2, 3, 4, 5, 6)).astype(np.float32)
    points = np.random.default_rng(1).uniform(-1, 7, (200, 3)).astype(np.float32)
    model = Trilinear()
    found = model.query(model.encode(torch.from_numpy(volumes), ANY), torch.from_numpy(points), torch.ones(3))
    for values, volume in zip(found, volumes[:, 0], strict=True):
        expected = ndimage.map_coordinates(volume, points.T, order=1, mode="nearest")
        np.testing.assert_allclose(values, expected, atol=1e-5)

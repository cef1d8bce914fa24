"""Colours carry the values they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.reports import colours

POSES = {
    "RAS": np.diag([2.0, 2, 2]),
    "LAS": np.diag([-2.0, 2, 2]),
    "sagittal": np.array([[0, 0, 3.0], [2, 0, 0], [0, 2, 0]]),
    "sagittal, flipped": np.array([[0, 0, -3.0], [-2, 0, 0], [0, 2, 0]]),
}


def fsl_bvec(world, linear):
    """FSL's b-vector of a world direction: along the voxel axes, x flipped where the determinant is positive."""
    voxel = np.linalg.inv(linear / np.linalg.norm(linear, axis=0)) @ world
    return voxel * ([-1, 1, 1] if np.linalg.det(linear) > 0 else [1, 1, 1])


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("axis", range(3))
def test_red_is_left_right_in_every_acquisition(pose, axis):
    affine = np.eye(4)
    affine[:3, :3] = POSES[pose]
    vector = fsl_bvec(np.eye(3)[axis], POSES[pose])
    colour = colours.direction_colours(np.array(0.8), vector, affine)
    np.testing.assert_array_equal(colour, 255 * np.eye(3, dtype=int)[axis])


def test_an_oblique_direction_is_turned_into_the_world():
    """Without undoing FSL's flip an oblique affine would mix the wrong colours."""
    angle = np.radians(30)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    vector = fsl_bvec(np.array([1.0, 0, 0]), affine[:3, :3])
    np.testing.assert_array_equal(colours.direction_colours(np.array(1.0), vector, affine), [255, 0, 0])


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_grey_keeps_the_order_of_values(first, second):
    low, high = sorted((first, second))
    greys = colours.to_grey(np.array([low, high]), (-1.0, 1.0))
    assert greys[0] <= greys[1]


def test_the_window_clips_and_spans():
    np.testing.assert_array_equal(
        colours.to_grey(np.array([-9.0, 0.0, 1.0, 9.0, np.nan]), (0.0, 1.0)), [0, 0, 255, 255, 0]
    )


def test_the_grey_range_ignores_what_is_outside_the_mask():
    values = np.concatenate([np.linspace(0, 100, 101), np.full(50, 1e6)]).astype(np.float32)
    assert colours.grey_range(values, values < 1e5) == pytest.approx((1.0, 99.0))


def test_a_flat_or_empty_signal_still_has_a_window():
    assert colours.grey_range(np.ones(5, dtype=np.float32), np.ones(5, dtype=bool)) == (1.0, 2.0)
    assert colours.grey_range(np.ones(5, dtype=np.float32), np.zeros(5, dtype=bool)) == (0.0, 1.0)


def test_differences_are_blue_dark_orange():
    low, zero, high = colours.to_diverging(np.array([-1.0, 0.0, 1.0]), (-1.0, 1.0)).astype(int)
    assert low[2] > low[0] and high[0] > high[2] and zero.max() < 30

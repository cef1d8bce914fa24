"""The field of view is a box; asking for another grid must not move it."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.spatial.transform import Rotation

from bids_sr.errors import CoarserGridError
from bids_sr.geometry import (
    Grid,
    apply_along_axes,
    axis_aligned,
    cell_in,
    from_canonical,
    overlap_average,
    points_in,
    target_grid,
    to_canonical,
)

shapes = st.tuples(*[st.integers(1, 40)] * 3)
scales = st.tuples(*[st.floats(1, 4)] * 3)
linear_parts = (
    st.lists(st.floats(-3, 3), min_size=9, max_size=9)
    .map(lambda x: np.reshape(x, (3, 3)))
    .filter(lambda m: abs(np.linalg.det(m)) > 0.1)
)


def grid_of(shape, linear) -> Grid:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, [5, -7, 11]
    return Grid(shape, affine)


def corners(grid: Grid) -> np.ndarray:
    low, high = np.full(3, -0.5), np.array(grid.shape) - 0.5
    return grid.affine[:3, :3] @ np.stack([low, high], axis=1) + grid.affine[:3, 3:]


@given(shapes, shapes, linear_parts)
def test_resizing_keeps_the_corners(shape, other, linear):
    grid = grid_of(shape, linear)
    np.testing.assert_allclose(corners(grid.resized(other)), corners(grid), atol=1e-8)


@given(shapes, scales, linear_parts)
def test_a_scale_keeps_the_corners_and_rounds_the_number_of_voxels(shape, scale, linear):
    grid = grid_of(shape, linear)
    fine = target_grid(grid, None, scale, "scan")
    assert np.all(np.abs(np.array(fine.shape) - np.multiply(shape, scale)) <= 0.5 + 1e-6)
    np.testing.assert_allclose(corners(fine), corners(grid), atol=1e-8)


@given(shapes, linear_parts, st.floats(0.4, 5))
def test_a_resolution_is_met_exactly_around_the_same_centre(shape, linear, millimetres):
    grid = grid_of(shape, linear)
    fine = grid.at_resolution(np.full(3, millimetres))
    np.testing.assert_allclose(fine.voxel_sizes, millimetres)
    np.testing.assert_allclose(corners(fine).mean(axis=1), corners(grid).mean(axis=1), atol=1e-8)


def test_a_coarser_resolution_is_refused_but_a_hairbreadth_is_not():
    grid = grid_of((4, 4, 4), np.diag([1.9999, 2.0, 2.0]))
    assert target_grid(grid, (2.0, 2.0, 2.0), None, "scan").shape == (4, 4, 4)
    with pytest.raises(CoarserGridError, match="scan"):
        target_grid(grid, (2.1, 2.0, 2.0), None, "scan")


@pytest.mark.parametrize("seed", range(10))
def test_half_voxels_are_counted_the_same_whatever_the_rounding_of_the_header(seed):
    """63 voxels of 2.5 mm are 157.5 of 1 mm; two sessions with heads turned otherwise must not differ by a voxel."""
    turn = Rotation.random(random_state=seed).as_matrix()
    linear = (turn * 2.5).astype(np.float32).astype(np.float64)
    assert grid_of((63, 63, 63), linear).at_resolution(np.ones(3)).shape == (158, 158, 158)


def test_points_of_a_doubled_grid_sit_at_quarters():
    grid = Grid((2, 1, 1), np.eye(4))
    np.testing.assert_allclose(points_in(grid, grid.resized((4, 1, 1)))[:, 0], [-0.25, 0.25, 0.75, 1.25])


@given(shapes, shapes, linear_parts)
def test_points_lie_where_the_target_says(shape, other, linear):
    source, target = grid_of(shape, linear), grid_of(shape, linear).resized(other)
    voxels = np.array([[0, 0, 0], np.subtract(other, 1)])
    world = voxels @ target.affine[:3, :3].T + target.affine[:3, 3]
    back = points_in(source, target, voxels) @ source.affine[:3, :3].T + source.affine[:3, 3]
    np.testing.assert_allclose(back, world, atol=1e-8)
    np.testing.assert_allclose(points_in(source, target)[[0, -1]], points_in(source, target, voxels), atol=1e-9)


def test_the_cell_is_the_ratio_of_voxel_sizes():
    grid = grid_of((8, 9, 10), np.diag([2.0, 3.0, 4.0]))
    np.testing.assert_allclose(cell_in(grid, grid.at_resolution(np.array([1.0, 2.0, 4.0]))), [0.5, 2 / 3, 1])


def test_a_cropped_grid_lies_where_it_was_cut():
    grid = grid_of((8, 9, 10), np.diag([2.0, 3.0, 4.0]))
    np.testing.assert_allclose(points_in(grid, grid.cropped(np.array([1, 2, 3]), (1, 1, 1))), [[1, 2, 3]])


def test_grid_of_an_image_takes_the_first_three_axes():
    image = nib.Nifti1Image(np.zeros((2, 3, 4, 5), np.float32), np.diag([2, 2, 2, 1]))
    assert Grid.of(image).shape == (2, 3, 4)


@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_canonical_axes_do_not_depend_on_how_an_image_is_stored(order, flips):
    """Values, places and back again, for an oblique image."""
    image = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    change = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)])
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [17, -9, 24], degrees=True).as_matrix()
    affine = turn @ np.diag([2.0, 2.5, 3, 1])
    stored = Grid(apply_orientation(image, change).shape[:3], affine @ inv_ornt_aff(change, image.shape[:3]))
    found = to_canonical(apply_orientation(image, change), stored.affine)
    np.testing.assert_array_equal(found, image)
    assert stored.canonical.shape == image.shape[:3]
    np.testing.assert_allclose(stored.canonical.affine, affine, atol=1e-9)
    np.testing.assert_array_equal(from_canonical(found, stored.affine), apply_orientation(image, change))


def test_axes_that_turn_or_flip_are_not_aligned():
    grid = grid_of((20, 20, 20), np.diag([2.0, 2.0, 2.0]))
    angle = np.radians(1)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert axis_aligned(grid, grid.resized((31, 20, 17)))
    assert not axis_aligned(grid, grid_of((20, 20, 20), 2 * turned))
    assert not axis_aligned(grid, grid_of((20, 20, 20), np.diag([-2.0, 2.0, 2.0])))
    with pytest.raises(ValueError, match="same axes"):
        overlap_average(np.zeros((20, 20, 20), np.float32), grid, grid_of((9, 9, 9), 2 * turned))


@given(st.tuples(*[st.integers(2, 9)] * 3), st.tuples(*[st.integers(2, 9)] * 3))
def test_averages_over_cells_keep_the_total_of_the_box(shape, other):
    grid = grid_of(shape, np.diag([2.0, 3.0, 4.0]))
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    averages = overlap_average(data, grid, grid.resized(other))
    assert averages.mean() == pytest.approx(data.mean(), rel=1e-4)


def test_averages_of_whole_blocks_inside_a_mask():
    grid = grid_of((4, 2, 2), np.eye(3))
    data = np.arange(16, dtype=np.float32).reshape(4, 2, 2)
    mask = np.ones((4, 2, 2), bool)
    mask[0] = False
    mask[2:, 0] = False
    coarse = overlap_average(np.stack([data, -data], -1), grid, grid.resized((2, 1, 1)), mask)
    np.testing.assert_allclose(coarse[:, 0, 0, 0], [data[1].mean(), data[2:, 1].mean()], rtol=1e-6)
    np.testing.assert_allclose(coarse[..., 1], -coarse[..., 0])


def test_cells_without_weight_are_zero():
    grid = grid_of((4, 4, 4), np.eye(3))
    assert not overlap_average(np.ones((4, 4, 4), np.float32), grid, grid.resized((2, 2, 2)), np.zeros((4, 4, 4))).any()


def test_matrices_act_on_their_own_axis():
    data = np.random.default_rng(0).random((3, 4, 5, 2)).astype(np.float32)
    doubled = apply_along_axes(data, [np.eye(3) * 2, np.eye(4), np.ones((1, 5))])
    np.testing.assert_allclose(doubled, 2 * data.sum(axis=2, keepdims=True), rtol=1e-5)

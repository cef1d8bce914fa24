"""Values that lie on a limit count as the documentation says."""

import numpy as np

from bids_sr.dwi.gradients import SHELL_GAP, SHELL_WIDTH, is_b0, shells
from bids_sr.geometry import Grid, same_grid


def test_the_threshold_itself_is_a_b0():
    np.testing.assert_array_equal(is_b0(np.array([49.9, 50.0, 50.1]), 50.0), [True, True, False])


def test_a_shell_ends_where_the_b_values_jump_by_100():
    assert SHELL_GAP == 100
    assert shells(np.array([0.0, 1000.0, 1099.5]), 50.0).tolist() == [0, 1, 1]
    assert shells(np.array([0.0, 1000.0, 1100.0]), 50.0).tolist() == [0, 1, 2]


def test_a_shell_is_200_wide_at_most():
    assert SHELL_WIDTH == 200
    assert shells(np.array([0.0, 1000, 1080, 1160, 1200, 1201]), 50.0).tolist() == [0, 1, 1, 1, 1, 2]
    assert shells(np.arange(0.0, 801.0, 100), 50.0).tolist() == list(range(9))


def test_a_corner_may_be_a_fiftieth_of_a_voxel_away():
    grid = Grid((101, 101, 71), np.diag([2.0, 2, 2, 1]))
    for degrees, same in ((0.005, True), (0.5, False)):
        turn = np.eye(4)
        angle = np.radians(degrees)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turned = Grid(grid.shape, turn @ grid.affine)
        assert same_grid(grid, turned) is same
    assert same_grid(grid, Grid(grid.shape, grid.affine.astype(np.float32).astype(np.float64)))
    wider = Grid(grid.shape, np.diag([1.99, 2, 2, 1]))
    assert not same_grid(grid, wider)


def test_grids_of_other_shapes_are_other_grids():
    assert same_grid(Grid((3, 4, 5), np.eye(4)), Grid((3, 4, 5), np.eye(4)))
    assert not same_grid(Grid((3, 4, 5), np.eye(4)), Grid((3, 4, 6), np.eye(4)))
    assert not same_grid(Grid((3, 4, 5), np.eye(4)), Grid((3, 4, 5), np.diag([2.0, 1, 1, 1])))

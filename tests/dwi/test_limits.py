"""Values that lie on a limit count as the documentation says."""

import numpy as np

from bids_sr.dwi.gradients import SHELL_GAP, is_b0, shells
from bids_sr.geometry import Grid, same_grid


def test_the_threshold_itself_is_a_b0():
    np.testing.assert_array_equal(is_b0(np.array([49.9, 50.0, 50.1]), 50.0), [True, True, False])


def test_a_shell_ends_where_the_b_values_jump_by_more_than_100():
    assert SHELL_GAP == 100
    assert shells(np.array([0.0, 1000.0, 1100.0]), 50.0).tolist() == [0, 1, 1]
    assert shells(np.array([0.0, 1000.0, 1100.5]), 50.0).tolist() == [0, 1, 2]


def test_grids_of_other_shapes_are_other_grids():
    assert same_grid(Grid((3, 4, 5), np.eye(4)), Grid((3, 4, 5), np.eye(4)))
    assert not same_grid(Grid((3, 4, 5), np.eye(4)), Grid((3, 4, 6), np.eye(4)))
    assert not same_grid(Grid((3, 4, 5), np.eye(4)), Grid((3, 4, 5), np.diag([2.0, 1, 1, 1])))

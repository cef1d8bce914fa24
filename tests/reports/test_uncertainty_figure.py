"""The greys of the pictures of uncertainty follow the scan, in a few fixed steps."""

import numpy as np
import pytest

from bids_sr.reports.uncertainty_figure import ENDS, grey_range, save_uncertainty_figures
from tests.reports.brains import fine_panel, panel

MASK = np.ones((10, 10, 10), dtype=bool)


@pytest.mark.parametrize(("level", "end"), [(0.0, 0.05), (0.049, 0.05), (0.06, 0.1), (0.3, 0.4), (5.0, 0.4)])
def test_white_is_the_first_end_that_the_brain_lies_below(level, end):
    assert grey_range("fa", np.full(MASK.shape, level, dtype=np.float32), MASK) == (0.0, end)


def test_a_few_voxels_and_what_lies_outside_the_brain_do_not_decide():
    deviations = np.full(MASK.shape, 0.04, dtype=np.float32)
    deviations[0, 0] = 0.39
    assert grey_range("fa", deviations, MASK) == (0.0, 0.05)
    inside = MASK.copy()
    inside[5:] = False
    deviations[5:] = 0.39
    assert grey_range("fa", deviations, inside) == (0.0, 0.05)
    assert grey_range("fa", deviations, np.zeros_like(MASK)) == (0.0, 0.05)


def test_the_ranges_of_the_pictures_are_told(tmp_path):
    target = fine_panel()
    deviations = {name: np.full(target.fa.shape, 0.99 * ends[1], dtype=np.float32) for name, ends in ENDS.items()}
    told = save_uncertainty_figures(tmp_path, "sub-01", acquired=panel(), target=target, deviations=deviations)
    assert told["ranges"] == {name: [0.0, ends[1]] for name, ends in ENDS.items()}
    assert (tmp_path / told["fa"]["axial"]["file"]).is_file()

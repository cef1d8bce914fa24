"""The picture of the self-check shows one slice of each version in one window, and who is closer where."""

import numpy as np
import pytest
from PIL import Image

from bids_sr.evaluation.self_check import self_check
from bids_sr.reports.checks import save_check_figures
from bids_sr.reports.figures import picture_files
from tests.evaluation.made import SHAPE, reference


@pytest.fixture
def drawn(tmp_path):
    """Pictures of a check whose restoration is perfect in the right half of the brain and dark in the left one."""
    truth = reference()
    right = np.arange(SHAPE[0])[:, None, None] >= SHAPE[0] // 2

    def restore(degraded):
        for index in range(len(truth.gradients)):
            yield np.where(right, truth.data[..., index], 0).astype(np.float32)

    check = self_check(truth, (2.0, 2.0, 1.0), restore, np.full(SHAPE, 3, np.uint8))
    return tmp_path, save_check_figures(tmp_path, "sub-01_res-1", check, np.arange(20, 20 + len(truth.gradients)))


def pixels(drawn, contrast, version):
    folder, figures = drawn
    return np.asarray(Image.open(folder / figures[contrast][version]["file"]).convert("RGB")).astype(int)


def test_one_slice_is_drawn_of_each_version_and_named(drawn):
    folder, figures = drawn
    assert sorted(file.name for file in folder.iterdir()) == sorted(picture_files(figures))
    assert figures["plane"]["name"] == "axial"
    assert (figures["dwi"]["volume"], figures["dwi"]["b"]) == (21, 1000.0)
    assert {pixels(drawn, c, v).shape for c in ("dwi", "fa") for v in ("acquired", "cubic", "sr", "gain")} == {
        pixels(drawn, "dwi", "acquired").shape
    }


def test_all_versions_share_the_window_of_the_acquired_one(drawn):
    acquired, restored = pixels(drawn, "dwi", "acquired"), pixels(drawn, "dwi", "sr")
    same = np.all(acquired == restored, axis=-1)
    half = same.shape[1] // 2
    assert same[:, :half].all() or same[:, half:].all()
    assert not same.all()


def test_orange_is_where_the_restored_version_is_closer_and_blue_where_cubic_is(drawn):
    acquired, restored = pixels(drawn, "dwi", "acquired"), pixels(drawn, "dwi", "sr")
    gain = pixels(drawn, "dwi", "gain")
    spoiled = np.any(acquired != restored, axis=-1)
    red, blue = gain[..., 0], gain[..., 2]
    assert np.all(blue[spoiled] > red[spoiled])
    assert np.all(red[~spoiled] + 8 >= blue[~spoiled])

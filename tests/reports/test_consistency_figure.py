"""The pictures of the guards: dark where nothing departs, coloured where something does, in the report's cuts."""

import json

import numpy as np
import pytest
from PIL import Image

from bids_sr.dwi.ablation import T1wEffect
from bids_sr.dwi.consistency import Departure, Support, regions
from bids_sr.geometry import Grid
from bids_sr.reports.colours import to_diverging
from bids_sr.reports.consistency_figure import (
    DEPARTURE_RANGE,
    Pair,
    save_departure_figures,
    save_effect_figures,
    strongest_shell,
)
from bids_sr.reports.figures import picture_files
from bids_sr.reports.planes import PLANES
from tests.reports.brains import fine_panel, panel

LESION = (12, 8, 7)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    acquired = panel()
    n_voxels = int(acquired.mask.sum())
    sd = np.full((2, n_voxels), 2, np.float32)
    grid = Grid(acquired.mask.shape, acquired.affine)
    mean = np.stack([acquired.b0[acquired.mask]] * 2)
    support = Support(grid, acquired.mask, np.array([0, 1, 1]), (0.0, 1000.0), mean, sd, sd / 2)
    z = np.zeros((*acquired.mask.shape, 2), np.float32)
    z[(*LESION, 1)] = -20.0
    departed = Departure(acquired.mask, z, z)
    effect = T1wEffect(acquired.mask, np.where(acquired.mask, 1, 0).astype(np.float32), 3)
    worst = regions(departed, support)[0]
    nothing = Departure(acquired.mask, 0 * z, 0 * z)
    figures = save_departure_figures(
        folder,
        "sub-01_res-1",
        acquired=acquired,
        support=support,
        departures={"sr": departed, "cubic": nothing},
        worst=worst,
    )
    place = worst["centre_mm"]
    effects = save_effect_figures(
        folder, "sub-01_res-1", acquired=acquired, effect=effect, pair=fa_pair(), centre_mm=place
    )
    return folder, figures, effects


def fa_pair():
    """FA of the fine brain, half as large without the T1w."""
    fine = fine_panel()
    return Pair(fine.fa, fine.fa / 2, fine.affine, fine.mask, is_fa=True)


def pixels(folder, picture):
    return np.asarray(Image.open(folder / picture["file"]).convert("RGB"))


def test_the_description_is_json_and_names_every_file(drawn):
    folder, *described = drawn
    for figures in described:
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    names = [name for figures in described for name in picture_files(figures)]
    assert sorted(names) == sorted(file.name for file in folder.iterdir())


def test_what_does_not_depart_is_dark(drawn):
    folder, figures, _ = drawn
    zero = to_diverging(np.zeros(1), DEPARTURE_RANGE)[0]
    for plane in PLANES:
        shown = pixels(folder, figures["maps"]["cubic"][plane.name])
        assert (shown == zero).all()


def test_the_worst_region_is_in_each_of_its_cuts(drawn):
    folder, figures, _ = drawn
    worst = figures["worst"]
    expected = panel().affine[:3] @ [*LESION, 1]
    np.testing.assert_allclose(worst["centre_mm"], expected, atol=0.1)
    strongest = to_diverging(np.array([-20.0]), DEPARTURE_RANGE)[0]
    for plane in PLANES:
        shown = pixels(folder, worst["departure"][plane.name])
        assert (shown == strongest).all(axis=-1).sum() == 1
        # The same voxel is darker in what the acquired voxels see of the restored series.
        before = pixels(folder, worst["acquired"][plane.name]).astype(int)
        after = pixels(folder, worst["sr"][plane.name]).astype(int)
        assert ((before - after) > 0).any(axis=-1).sum() == 1


def test_the_strongest_shell_keeps_its_sign():
    z = np.array([[[[1.0, -5.0], [4.0, 3.0]]]], np.float32)
    np.testing.assert_array_equal(strongest_shell(z)[0, 0], [-5, 4])


def test_the_effect_of_the_t1w_is_grey_inside_the_brain(drawn):
    folder, _, figures = drawn
    for plane in PLANES:
        shown = pixels(folder, figures["maps"]["sr"][plane.name])
        assert set(np.unique(shown)) == {0, 128}


def test_the_place_that_changed_most_is_shown_with_the_t1w_and_without(drawn):
    folder, _, figures = drawn
    most = figures["most"]
    assert most["contrast"] == "fa"
    for plane in PLANES:
        given, without = (pixels(folder, most[name][plane.name]).astype(int) for name in ("sr", "without"))
        assert np.abs(given - 2 * without).max() <= 2
        assert given.max() > 50
        assert most["planes"][plane.name]["letters"][0] == plane.left


def test_a_volume_is_shown_in_its_own_window(tmp_path):
    fine = fine_panel()
    pair = Pair(fine.b0, fine.b0, fine.affine, fine.mask, is_fa=False)
    effect = T1wEffect(panel().mask, np.zeros(panel().mask.shape, np.float32), 3)
    most = save_effect_figures(
        tmp_path, "sub-01", acquired=panel(), effect=effect, pair=pair, centre_mm=[0.0, 0.0, 0.0]
    )["most"]
    assert most["contrast"] == "dwi"
    assert most["window"][1] > 100


def test_without_a_region_there_is_nothing_of_it(tmp_path):
    acquired = panel()
    sd = np.ones((1, int(acquired.mask.sum())), np.float32)
    grid = Grid(acquired.mask.shape, acquired.affine)
    support = Support(grid, acquired.mask, np.zeros(1, int), (0.0,), sd, sd, sd)
    nothing = Departure(acquired.mask, *[np.zeros((*acquired.mask.shape, 1), np.float32)] * 2)
    figures = save_departure_figures(
        tmp_path, "sub-01", acquired=acquired, support=support, departures={"sr": nothing, "cubic": nothing}
    )
    assert set(figures) == {"maps"}

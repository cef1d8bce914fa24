"""Noise alone is no departure; what is invented or removed is found where it is."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import ndimage

from bids_sr.dwi.consistency import (
    EXPECTED_SHARE,
    Departure,
    Support,
    acquired_support,
    covered,
    departure,
    observation,
    seen_means,
    sentence,
    summarize,
)
from bids_sr.dwi.gradients import Gradients
from bids_sr.geometry import Grid, apply_along_axes
from tests.dwi.made_series import directions

GRID = Grid((24, 22, 20), np.array([[-2.0, 0, 0, 24], [0, 2.0, 0, -22], [0, 0, 2.0, -20], [0, 0, 0, 1]]))
SIGMA = 20.0


def gradients(n_b0=2, n_weighted=14):
    return Gradients(
        np.r_[np.zeros(n_b0), np.full(n_weighted, 1000.0)], np.r_[np.zeros((n_b0, 3)), directions(n_weighted)]
    )


def world(grid):
    return np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def brain(grid):
    return np.linalg.norm((world(grid)) / [20, 18, 17], axis=-1) < 1


def fine_series(grid, table):
    """A smooth scan whose signal depends on the direction, (x, y, z, n)."""
    anatomy = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(12, 12, 12)), 1)
    place = (world(grid) + 26) / 52 * 11
    structure = ndimage.map_coordinates(anatomy / anatomy.std(), np.moveaxis(place, -1, 0), order=1, mode="nearest")
    decay = np.exp(-table.bvals[:, None] * 7e-4) * (1 + 0.3 * table.bvecs[:, :1] ** 2)
    return ((1000 + 150 * structure)[..., None] * decay[:, 0]).astype(np.float32)


@dataclass
class Case:
    table: Gradients
    target: Grid
    truth: np.ndarray
    support: Support

    def departure(self, series: np.ndarray) -> Departure:
        return departure(self.support, series, self.target)


def make_case(target, table=None, mask=None, sigma=SIGMA, smooth=0.0):
    """A scan whose truth on the target grid is known, acquired with noise."""
    table = table or gradients()
    truth = fine_series(target, table)
    seen = apply_along_axes(truth, observation(target, GRID))
    noise = np.random.default_rng(1).normal(0, sigma, seen.shape)
    if smooth:
        noise = ndimage.gaussian_filter(noise, [smooth] * 3 + [0])
        noise *= sigma / noise.std()
    acquired = (seen + noise).astype(np.float32)
    return Case(
        table, target, truth, acquired_support(acquired, table, 50.0, brain(GRID) if mask is None else mask, GRID)
    )


@pytest.fixture(scope="module")
def case():
    return make_case(GRID.scaled(np.array([2, 2, 2])))


def ball(grid, centre, radius):
    return np.linalg.norm(world(grid) - centre, axis=-1) < radius


TARGETS = {
    "twice": GRID.scaled(np.full(3, 2.0)),
    "the same": GRID,
    "one axis": GRID.scaled(np.array([1, 1, 2.5])),
    "barely finer": GRID.at_resolution(np.full(3, 1.9)),
    "another box": GRID.at_resolution(np.full(3, 1.35)),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_a_scan_without_its_noise_departs_by_chance_only(target):
    made = make_case(target)
    summary = summarize(made.departure(made.truth), made.support)
    assert summary["voxels"] > 2000
    for row in summary["shells"]:
        assert row["share"] < 3 * EXPECTED_SHARE
        assert row["region_share"] < 6 * EXPECTED_SHARE  # neighbours depart together
        assert row["excess"] < 0.1
    z = made.departure(made.truth).voxel_z[made.support.mask & covered(target, GRID)]
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.07)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.1)


def test_the_noise_of_regions_counts_what_neighbours_share():
    made = make_case(GRID.scaled(np.full(3, 2.0)), smooth=0.8)
    found = made.departure(made.truth)
    np.testing.assert_allclose(found.region_z[found.compared].std(axis=0), 1, atol=0.15)


def test_an_output_that_gives_the_scan_back_departs_nowhere(case):
    same = make_case(GRID)
    noisy = same.support.mean[same.support.shells].T
    series = np.zeros((*GRID.shape, len(same.table)), np.float32)
    series[same.support.mask] = noisy
    summary = summarize(same.departure(series), same.support)
    assert summary["share"] == summary["region_share"] == 0
    assert summary["regions"] == []


@pytest.mark.parametrize("sign", [1, -1], ids=["invented", "removed"])
def test_a_lesion_is_found_where_it_is(case, sign):
    centre = np.array([6.0, -5.0, 3.0])
    series = case.truth + sign * 0.25 * case.truth * ball(case.target, centre, 2.0)[..., None]
    summary = summarize(case.departure(series.astype(np.float32)), case.support)
    worst = summary["regions"][0]
    assert np.linalg.norm(np.array(worst["centre_mm"]) - centre) < 2.5
    assert np.sign(worst["z"]) == sign and abs(worst["z"]) > 6
    assert 2 <= worst["voxels"] < 40
    assert summary["region_share"] < 0.05
    text = sentence(summary, summary)
    assert ("brighter" if sign > 0 else "darker") in text and f"({worst['voxels']} voxels)" in text


def test_what_departs_in_one_shell_is_named_with_it(case):
    series = case.truth.copy()
    series[..., case.table.bvals > 0] *= 1 + 0.3 * ball(case.target, [0, 0, 0], 3.0)[..., None].astype(np.float32)
    rows = summarize(case.departure(series), case.support)
    assert rows["regions"][0]["b"] == 1000.0
    assert rows["shells"][1]["share"] > 0.005 > rows["shells"][0]["share"]
    assert rows["shells"][1]["excess"] > rows["shells"][0]["excess"]


def test_voxels_that_the_target_does_not_hold_are_not_compared():
    half = TARGETS["twice"].cropped(np.array([0, 0, 20]), (48, 44, 20))
    made = make_case(half)
    found = made.departure(made.truth)
    assert not found.compared[:, :, :10].any() and found.compared[:, :, 10:].any()
    assert not found.region_z[~found.compared].any() and not found.voxel_z[~found.compared].any()
    assert abs(found.voxel_z[found.compared]).max() < 6


def test_the_outermost_voxels_are_covered_where_the_grids_are_equal():
    assert covered(GRID, GRID).all()
    one_axis = covered(TARGETS["one axis"], GRID)
    assert one_axis[:, :, 1:-1].all() and not one_axis[:, :, [0, -1]].any()


def test_cells_are_covered_where_all_of_them_is():
    shifted = GRID.scaled(np.array([1.0, 1.0, 1.0])).cropped(np.array([2, 0, 0]), (10, 22, 20))
    np.testing.assert_array_equal(np.flatnonzero(covered(shifted, GRID)[:, 5, 5]), np.arange(2, 12))


def test_grids_turned_against_each_other_are_refused(case):
    turned = replace(case.target, affine=case.target.affine[:, [1, 0, 2, 3]])
    with pytest.raises(ValueError, match="same axes"):
        departure(case.support, case.truth, turned)


def test_the_same_grid_is_seen_as_it_is():
    for matrix in observation(GRID, GRID):
        np.testing.assert_allclose(matrix, np.eye(len(matrix)), atol=1e-6)


def test_the_profiles_of_both_voxels_add_up():
    """What target voxels see of a spot, seen by acquired voxels, is what acquired voxels see of the spot."""
    target = Grid((60, 1, 1), np.eye(4))
    acquired = target.resized((24, 1, 1))

    def spot(centres, voxel):
        """A Gaussian of 2 mm at 29.2 mm, seen by voxels of this width."""
        width = np.hypot(2, voxel)
        return np.exp(-4 * np.log(2) * ((centres - 29.2) / width) ** 2) / width

    seen = observation(target, acquired)[0] @ spot(np.arange(60), 1.0)
    np.testing.assert_allclose(seen, spot(2.5 * np.arange(24) + 0.75, 2.5), atol=0.003)


def test_what_is_seen_of_the_restored_series_is_its_degradation(case):
    found = case.departure(case.truth)
    seen = apply_along_axes(case.truth[..., case.support.shells == 1].mean(axis=-1), observation(case.target, GRID))
    np.testing.assert_allclose(seen_means(found, case.support)[..., 1][found.compared], seen[found.compared], rtol=1e-4)


@pytest.mark.parametrize("table", [gradients(1, 6), gradients(5, 6), gradients(1, 60)], ids=["few", "b0 only", "many"])
def test_the_noise_is_known_from_any_number_of_volumes(table):
    made = make_case(TARGETS["one axis"], table)
    assert np.median(made.support.voxel_sd, axis=1) == pytest.approx(SIGMA, rel=0.25)
    summary = summarize(made.departure(made.truth), made.support)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["share"] < 4 * summary["expected_in_any"]


def test_a_signal_cut_to_zero_is_no_departure():
    made = make_case(GRID, sigma=0.0)
    empty = acquired_support(np.zeros((*GRID.shape, 16), np.float32), made.table, 50.0, brain(GRID), GRID)
    summary = summarize(departure(empty, made.truth, GRID), empty)
    assert summary["share"] == 0


def test_a_mask_wider_than_a_scan_cut_to_the_brain_finds_what_a_close_one_finds():
    target, table = GRID.scaled(np.full(3, 2.0)), gradients()
    wide = ndimage.binary_dilation(brain(GRID), iterations=2)
    truth = fine_series(target, table) * brain(target)[..., None]
    seen = apply_along_axes(truth, observation(target, GRID))
    noisy = seen + np.random.default_rng(1).normal(0, SIGMA, seen.shape).astype(np.float32)
    cut = np.where(brain(GRID)[..., None], noisy, 0).astype(np.float32)
    lesion = (truth * (1 + 0.3 * ball(target, [6.0, -5.0, 3.0], 3.0)[..., None])).astype(np.float32)
    found = []
    for mask in (brain(GRID), wide):
        support = acquired_support(cut, table, 50.0, mask, GRID)
        found.append(summarize(departure(support, lesion, target), support))
    assert found[0] == found[1]
    assert json.loads(json.dumps(found[1], allow_nan=False)) == found[1]


def test_signals_cut_to_zero_in_some_volumes_leave_no_place_without_noise():
    made = make_case(GRID)
    series = np.zeros((*GRID.shape, 16), np.float32)
    series[brain(GRID)] = made.support.mean[made.support.shells].T
    series += np.random.default_rng(5).normal(0, SIGMA, series.shape).astype(np.float32)
    series[8:16, 8:16, 8:16, made.support.shells == 1] = 0
    support = acquired_support(series, made.table, 50.0, brain(GRID), GRID)
    assert support.voxel_sd.min() > 0.05 * SIGMA
    invented = series + 300 * ball(GRID, [0, 0, 0], 4.0)[..., None].astype(np.float32)
    summary = summarize(departure(support, invented, GRID), support)
    assert all(np.isfinite(region["sigma"]) and region["sigma"] > 1 for region in summary["regions"])
    assert np.linalg.norm(summary["regions"][0]["centre_mm"]) < 8


def test_copies_of_one_b0_do_not_tell_its_noise():
    made = make_case(GRID, gradients(3, 14))
    series = np.zeros((*GRID.shape, 17), np.float32)
    series[brain(GRID)] = made.support.mean[made.support.shells].T
    series[..., 3:] += np.random.default_rng(5).normal(0, SIGMA, (*GRID.shape, 14)).astype(np.float32)
    support = acquired_support(series, made.table, 50.0, brain(GRID), GRID)
    np.testing.assert_array_equal(support.voxel_sd[0], support.voxel_sd[1])


def test_where_the_field_of_view_cuts_the_brain_averages_keep_more_noise():
    """The outermost slices that are compared have neighbours on one side only."""
    target = GRID.cropped((0, 0, 8), (24, 22, 12)).scaled(np.full(3, 2.0))
    deviations = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        noise = random.normal(0, SIGMA, (*GRID.shape, 16)).astype(np.float32)
        support = acquired_support(noise + 1000, gradients(), 50.0, brain(GRID), GRID)
        found = departure(support, np.full((*target.shape, 16), 1000, np.float32), target)
        first = int(np.flatnonzero(found.compared.any(axis=(0, 1)))[0])
        deviations.append(found.region_z[found.compared[..., first], first].std(axis=0))
    assert np.mean(deviations) == pytest.approx(1, abs=0.04)


def test_nothing_compared_is_not_nothing_found(case):
    found = summarize(case.departure(case.truth), case.support)
    assert sentence(found | {"voxels": 0}, found).startswith("Nothing of the restored series could be compared")


def test_the_sentence_is_plain(case):
    found = summarize(case.departure(case.truth), case.support)
    text = sentence(found | {"regions": []}, found)
    assert "chance alone gives 0.5%" in text and "stands out" in text

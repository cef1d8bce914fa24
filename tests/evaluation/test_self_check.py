"""The check degrades what it may, tries volumes that stand for all, and tells who came closer and where."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.degradation import low_resolution_grid
from bids_sr.dwi.gradients import Gradients, shells, tensor_rank
from bids_sr.evaluation.self_check import (
    LEAST_VOXELS,
    checked_scale,
    self_check,
    verdict,
    volumes_to_check,
)
from bids_sr.geometry import Grid
from bids_sr.models.interpolation import cubic_on_grid
from tests.dwi.made_series import directions
from tests.evaluation.made import reference

SCALE = (2.0, 1.0, 1.5)
shapes = st.tuples(*[st.integers(1, 60)] * 3)
factors = st.tuples(*[st.floats(1, 4)] * 3)


def grid(shape):
    return Grid(shape, np.diag([-2.0, 2.0, 3.0, 1.0]))


@given(shapes, factors)
def test_an_axis_is_degraded_as_far_as_it_is_magnified_or_not_at_all(shape, scale):
    source = grid(shape)
    target = source.scaled(np.array(scale))
    checked = checked_scale(source, target)
    low = low_resolution_grid(source, np.array(checked))
    for n, n_low, n_target, factor in zip(shape, low.shape, target.shape, checked, strict=True):
        assert factor == 1 or factor == pytest.approx(n_target / n)
        assert (n_low == n) == (factor == 1)
        assert n_low == n or n_low >= LEAST_VOXELS


def test_thin_slabs_and_axes_that_stay_as_they_are_are_not_degraded():
    source = grid((40, 40, 10))
    assert checked_scale(source, source.scaled(np.array([2.0, 1.0, 2.0]))) == (2.0, 1.0, 1.0)
    assert checked_scale(source, source.at_resolution(np.array([1.0, 1.0, 3.0]))) == (2.0, 2.0, 1.0)


def scheme(n_b0, *shell_sizes):
    """b0 volumes first, then shells whose directions come sorted by their height."""
    bvals = np.concatenate([np.zeros(n_b0), *[np.full(n, 1000.0 * (i + 1)) for i, n in enumerate(shell_sizes)]])
    return Gradients(bvals, np.vstack([np.zeros((n_b0, 3)), *[directions(n) for n in shell_sizes]]))


@pytest.mark.parametrize(
    ("sizes", "n_b0", "n_weighted"),
    [((1, 64), 1, 12), ((9, 64), 2, 12), ((1, 7), 1, 7), ((3, 30, 30, 30), 2, 18), ((18, 90, 90, 90, 90, 90), 2, 24)],
)
def test_two_b0_volumes_and_a_dozen_weighted_ones_or_six_per_shell_are_tried(sizes, n_b0, n_weighted):
    gradients = scheme(*sizes)
    volumes = volumes_to_check(gradients, 50.0)
    assert np.all(np.diff(volumes) > 0)
    found = shells(gradients.bvals, 50.0)[volumes]
    assert (np.sum(found == 0), np.sum(found > 0)) == (n_b0, n_weighted)
    assert np.ptp(np.bincount(found)[1:]) <= 1


def nearest_angle(axes):
    """Smallest angle in degrees between two of the axes."""
    cosines = np.abs(axes @ axes.T) - 2 * np.eye(len(axes))
    return np.degrees(np.arccos(np.clip(cosines.max(), 0, 1)))


def test_the_directions_tried_are_spread_over_those_acquired():
    gradients = scheme(1, 64)
    chosen = gradients.bvecs[volumes_to_check(gradients, 50.0)[1:]]
    every_fifth = gradients.bvecs[1::5][:12]
    assert tensor_rank(chosen) == 6
    assert nearest_angle(chosen) > max(25, nearest_angle(every_fifth))


@pytest.fixture(scope="module")
def acquired():
    """A made series with noise, so that no method is perfect, and tissues that are its thirds along x."""
    made = reference()
    noise = np.random.default_rng(0).normal(0, 20, made.data.shape).astype(np.float32)
    tissues = np.zeros(made.grid.shape, np.uint8)
    for label, part in zip((1, 2, 3), np.array_split(np.arange(made.grid.shape[0]), 3), strict=True):
        tissues[part] = label
    return dataclasses.replace(made, data=made.data + noise), tissues


def like(truth, share, noise=1.0):
    """A restoration: the truth where `share` is 1, cubic interpolation where it is 0, and a little noise."""

    def restore(degraded):
        for index, volume in enumerate(np.moveaxis(degraded.data, -1, 0)):
            cubic = cubic_on_grid(volume, degraded.grid, truth.grid)
            mixed = share * truth.data[..., index] + (1 - share) * cubic
            yield (mixed + noise * np.cos(np.arange(mixed.size)).reshape(mixed.shape)).astype(np.float32)

    return restore


def closer(rows):
    return {(row["measure"], row["tissue"]): row["closer"] for row in rows}


def test_a_restoration_that_is_the_truth_helps_everywhere(acquired):
    truth, tissues = acquired
    check = self_check(truth, SCALE, like(truth, 1.0), tissues)
    assert set(closer(check.rows)) == {(m, t) for m in ("PSNR", "SSIM", "FA", "MD", "V1")
                                       for t in ("brain", "WM", "GM", "CSF")}  # fmt: skip
    assert set(closer(check.rows).values()) == {"sr"}
    assert check.degraded.grid.shape == (8, 14, 8)
    told = verdict(check.rows)
    assert told.level == "yes"
    assert "helped on this scan:" in told.sentence and "closer in no tissue" in told.sentence


def test_the_errors_are_those_of_the_measures(acquired):
    truth, tissues = acquired
    check = self_check(truth, SCALE, like(truth, 1.0), tissues)
    rows = {(row["measure"], row["tissue"]): row for row in check.rows}
    region = truth.mask & (tissues == 3)
    error = np.abs(check.maps["cubic"].fa - truth.maps.fa)[region].mean()
    assert rows["FA", "WM"]["cubic"] == pytest.approx(error, rel=1e-5)
    assert rows["FA", "WM"]["n_voxels"] == region.sum()
    psnr = []
    for index in np.flatnonzero(truth.weighted):
        inside = truth.data[..., index][truth.mask].astype(float)
        error = np.mean((inside - check.restored["cubic"][..., index][truth.mask]) ** 2)
        psnr.append(10 * np.log10(np.ptp(inside) ** 2 / error))
    assert rows["PSNR", "brain"]["cubic"] == pytest.approx(np.mean(psnr), rel=1e-5)


def test_cubic_interpolation_itself_does_not_help(acquired):
    truth, tissues = acquired
    check = self_check(truth, SCALE, like(truth, 0.0, noise=0.0), tissues)
    assert set(closer(check.rows).values()) == {"equal"}
    assert verdict(check.rows).level == "no"


def test_a_restoration_that_spoils_the_scan_is_told_with_its_places(acquired):
    truth, tissues = acquired
    check = self_check(truth, SCALE, like(truth, 0.0, noise=200.0), tissues)
    told = verdict(check.rows)
    assert told.level == "no"
    assert "did not help" in told.sentence and "PSNR of the whole brain, WM, GM and CSF" in told.sentence


def test_a_restoration_that_helps_in_one_tissue_alone_is_told_so(acquired):
    truth, tissues = acquired
    share = np.where(tissues == 3, 1.0, -0.1)
    told = verdict(self_check(truth, SCALE, like(truth, share), tissues).rows)
    assert "WM" not in told.sentence.split("Cubic")[1]
    assert "GM" in told.sentence.split("Cubic")[1]


def test_measures_that_disagree_make_it_help_in_part():
    row = {"tissue": "brain", "n_voxels": 9, "cubic": 1.0, "sr": 2.0}
    told = verdict([row | {"measure": "PSNR", "closer": "sr"}, row | {"measure": "FA", "closer": "cubic"}])
    assert told.level == "partly"
    assert "in PSNR." in told.sentence and "FA of the whole brain" in told.sentence


def test_fewer_than_six_directions_leave_the_signals_to_compare(acquired):
    truth, tissues = acquired
    some = np.arange(5)
    few = dataclasses.replace(truth, data=truth.data[..., some], gradients=truth.gradients.subset(some))
    check = self_check(few, SCALE, like(few, 1.0), tissues)
    assert {row["measure"] for row in check.rows} == {"PSNR", "SSIM"}
    assert check.maps == {}


def test_a_tissue_that_is_not_there_has_no_row(acquired):
    truth, _ = acquired
    check = self_check(truth, SCALE, like(truth, 1.0), np.full(truth.grid.shape, 2, np.uint8))
    assert {row["tissue"] for row in check.rows} == {"brain", "GM"}

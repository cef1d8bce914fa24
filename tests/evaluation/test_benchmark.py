"""Degraded and compared: what is known of the errors of known changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.dwi.gradients import Gradients, tensor_rank
from bids_sr.errors import EmptyMaskError
from bids_sr.evaluation.benchmark import (
    Reference,
    choose_volumes,
    compare_tensors,
    compare_volumes,
    degrade_reference,
    signal_ratio,
)
from tests.dwi.made_series import directions
from tests.evaluation.made import FA, MD, reference

REFERENCE = reference()
LEVEL = float(np.median(REFERENCE.b0[REFERENCE.mask]))


def series(bvals):
    """Gradients with a random direction for each volume: a dozen of them determine a tensor."""
    axes = np.random.default_rng(0).normal(size=(len(bvals), 3))
    return Gradients(np.asarray(bvals, np.float64), axes / np.linalg.norm(axes, axis=1, keepdims=True))


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(6, 70))
def test_all_b0_volumes_are_kept_and_as_many_others_as_asked_for(b0, wanted):
    bvals = np.where(b0, 5.0, 1000.0)
    chosen = choose_volumes(series(bvals), 50.0, wanted)
    assert np.array_equal(chosen, np.unique(chosen))
    assert np.sum(bvals[chosen] < 50) == sum(b0)
    assert np.sum(bvals[chosen] > 50) == min(wanted, len(b0) - sum(b0))


@given(st.integers(12, 200), st.integers(12, 40))
def test_volumes_are_spread_evenly(n_weighted, wanted):
    chosen = choose_volumes(series(np.full(n_weighted, 1000.0)), 50.0, wanted)
    if n_weighted > wanted:
        gaps = np.diff(np.append(chosen, n_weighted))
        assert chosen[0] == 0
        assert gaps.max() - gaps.min() <= 1


def test_volumes_of_a_series_of_averages_still_determine_a_tensor():
    """Twelve directions acquired six times over: every twelfth volume is of the same direction."""
    averages = Gradients(np.full(72, 1000.0), np.tile(directions(12), (6, 1)))
    assert tensor_rank(averages.bvecs[choose_volumes(averages, 50.0, 6)]) == 6


def test_a_degraded_scan_fills_the_same_box_and_keeps_the_brain_where_it_was():
    degraded = degrade_reference(REFERENCE, (2.0, 2.0, 2.0))
    assert degraded.grid.shape == degraded.data.shape[:3] == (8, 7, 6)
    np.testing.assert_allclose(degraded.grid.voxel_sizes, 4)
    expected = np.zeros((8, 7, 6), bool)
    expected[1:7, 1:6, 1:5] = True
    assert np.array_equal(degraded.mask, expected)


def test_a_ramp_is_degraded_to_a_ramp():
    degraded = degrade_reference(REFERENCE, (1.0, 1.0, 2.0))
    fine = REFERENCE.data[0, 0, :, 0]
    np.testing.assert_allclose(degraded.data[0, 0, 1:-1, 0], ((fine[::2] + fine[1::2]) / 2)[1:-1], rtol=1e-4)


def test_profiles_that_ring_still_give_magnitudes():
    data = np.zeros_like(REFERENCE.data)
    data[5:9, 5:9, 5:9] = 1000.0
    bright = Reference(data, REFERENCE.gradients, REFERENCE.grid, REFERENCE.mask, 50.0)
    assert degrade_reference(bright, (2.0, 2.0, 2.0), "kspace").data.min() >= 0


def test_noise_has_the_power_asked_for_and_is_the_same_every_time():
    clean = degrade_reference(REFERENCE, (2.0, 2.0, 2.0)).data
    noisy, again = (degrade_reference(REFERENCE, (2.0, 2.0, 2.0), noise=0.2).data for _ in range(2))
    power = np.mean(noisy.astype(np.float64) ** 2 - clean.astype(np.float64) ** 2)
    assert power == pytest.approx(2 * (0.2 * LEVEL) ** 2, rel=0.1)
    assert np.array_equal(noisy, again)


def test_voxels_larger_than_the_brain_are_refused():
    with pytest.raises(EmptyMaskError, match="no voxel lies in the brain"):
        degrade_reference(REFERENCE, (16.0, 14.0, 12.0))


def test_what_was_acquired_has_no_error():
    for figures in compare_volumes(REFERENCE, REFERENCE.data):
        assert (figures.mse, figures.mae, figures.nrmse, figures.psnr_mask) == (0, 0, 0, np.inf)
        assert figures.ssim_mask == pytest.approx(1)
        assert figures.weighted == (figures.bval > 50)
        whole = (figures.psnr_volume, figures.ssim_volume)
        assert whole == (np.inf, pytest.approx(1)) if figures.weighted else np.isnan(whole).all()
    tensor = compare_tensors(REFERENCE, REFERENCE.data)
    assert (tensor.fa_error, tensor.md_error) == (0, 0)
    assert tensor.v1_angle == pytest.approx(0, abs=0.1)


def test_a_known_offset_is_told_in_units_of_the_b0():
    offset = np.float32(0.1 * LEVEL)
    for figures in compare_volumes(REFERENCE, REFERENCE.data + offset):
        inside = REFERENCE.data[..., figures.volume][REFERENCE.mask]
        assert figures.mae == pytest.approx(0.1, rel=1e-4)
        assert figures.mse == pytest.approx(0.01, rel=1e-4)
        assert figures.psnr_mask == pytest.approx(20 * np.log10(np.ptp(inside) / offset), rel=1e-4)


def test_a_gain_is_an_error_of_signals_but_not_of_their_ratio_nor_of_the_tensor():
    brighter = REFERENCE.data * np.float32(2)
    figures = compare_volumes(REFERENCE, brighter)[1]
    assert figures.nrmse == pytest.approx(1)
    assert figures.psnr_volume > 100
    assert compare_tensors(REFERENCE, brighter).fa_error == pytest.approx(0, abs=1e-5)


def test_signals_over_the_b0_are_bounded_and_zero_outside_the_brain():
    b0 = np.where(REFERENCE.mask, REFERENCE.b0, 0).astype(np.float32)
    b0[2, 2, 2] = 0  # a voxel of the brain without signal
    ratio = signal_ratio(3 * REFERENCE.b0, b0, REFERENCE.mask)
    assert ratio[REFERENCE.mask].min() == ratio.max() == 1.5
    assert not ratio[~REFERENCE.mask].any()
    np.testing.assert_allclose(signal_ratio(REFERENCE.b0 / 4, b0, REFERENCE.mask)[8, 8, 8], 0.25, rtol=1e-5)


def test_the_tensor_of_a_series_that_lost_its_contrast_is_wrong_by_all_of_it():
    flat = np.repeat(REFERENCE.data[..., :1], REFERENCE.data.shape[-1], axis=-1)
    tensor = compare_tensors(REFERENCE, flat)
    assert tensor.md_error == pytest.approx(MD, rel=1e-2)


def test_the_tensor_of_a_series_that_became_isotropic_is_wrong_by_its_anisotropy():
    decay = np.exp(-REFERENCE.gradients.bvals * MD)
    round_ = (REFERENCE.data[..., :1] * decay).astype(np.float32)
    tensor = compare_tensors(REFERENCE, round_)
    assert tensor.fa_error == pytest.approx(FA, abs=2e-3)
    assert tensor.md_error == pytest.approx(0, abs=1e-6)

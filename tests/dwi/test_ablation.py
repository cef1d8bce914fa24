"""What the T1w changed is stated in units of the noise, where and in which tissue it changed."""

import json

import numpy as np
import pytest

from bids_sr.dwi.ablation import ChosenVolumes, T1wEffect, effect_sentence, summarize_effect, t1w_effect, with_tensor
from bids_sr.dwi.consistency import Support
from bids_sr.dwi.tensor import TensorMaps, masked_signals
from bids_sr.geometry import Grid

GRID = Grid((8, 8, 8), np.diag([2.0, 2.0, 3.0, 1.0]))
TARGET = GRID.scaled(np.array([2, 2, 3]))
MASK = np.zeros(GRID.shape, bool)
MASK[1:-1, 1:-1, 1:-1] = True
TISSUES = np.where(MASK, 3, 0).astype(np.uint8)
TISSUES[:4][MASK[:4]] = 2


def support():
    sd = np.stack([np.full(MASK.sum(), value, np.float32) for value in (10.0, 5.0)])
    return Support(GRID, MASK, np.array([0, 1, 1]), (0.0, 1000.0), 100 * sd, sd, sd)


def target_mask(target=TARGET):
    return np.ones(target.shape, bool)


def test_no_change_is_none():
    one = np.random.default_rng(0).random(TARGET.shape).astype(np.float32)
    effect = t1w_effect([(one, one)], [1], support(), TARGET, target_mask())
    assert not effect.change.any()
    summary = summarize_effect(effect, TISSUES, GRID)
    assert summary["tissues"]["brain"]["share"] == 0
    assert effect_sentence(summary).startswith("The T1w changed nothing")


def test_the_change_is_relative_to_the_noise_of_each_volume():
    zero, one = np.zeros(TARGET.shape, np.float32), np.full(TARGET.shape, 10, np.float32)
    effect = t1w_effect([(one, zero), (zero, one)], [0, 2], support(), TARGET, target_mask())
    np.testing.assert_allclose(effect.change[MASK], (1 + 2) / 2)
    assert not effect.change[~MASK].any()
    assert effect.n_volumes == 2


def test_detail_within_an_acquired_voxel_counts():
    stripes = np.where(np.indices(TARGET.shape)[0] % 2, 5, -5).astype(np.float32)
    effect = t1w_effect([(stripes, np.zeros_like(stripes))], [1], support(), TARGET, target_mask())
    np.testing.assert_allclose(effect.change[MASK], 1)


def test_the_place_and_the_tissue_are_named():
    given = np.zeros(TARGET.shape, np.float32)
    given[10:12, 6:8, 9:12] = 40  # acquired voxel (5, 3, 3), white matter
    effect = t1w_effect([(given, np.zeros_like(given))], [1], support(), TARGET, target_mask())
    summary = summarize_effect(effect, TISSUES, GRID)
    assert summary["most"] == {"voxel": [5, 3, 3], "centre_mm": [10.0, 6.0, 9.0], "change": 8.0}
    assert summary["tissues"]["WM"]["mean"] > summary["tissues"]["GM"]["mean"] == 0
    assert set(summary["tissues"]) == {"brain", "GM", "WM"}
    assert json.loads(json.dumps(summary)) == summary
    assert "(10, 6, 9) mm" in effect_sentence(summary)


def test_voxels_beyond_the_target_take_no_part():
    half = TARGET.cropped(np.array([0, 0, 12]), (16, 16, 12))
    one = np.full(half.shape, 5, np.float32)
    effect = t1w_effect([(one, 0 * one)], [2], support(), half, target_mask(half))
    assert not effect.mask[:, :, :4].any()
    np.testing.assert_allclose(effect.change[effect.mask], 1)


def test_a_volume_without_its_pair_is_refused():
    one = np.zeros(TARGET.shape, np.float32)
    with pytest.raises(ValueError):
        t1w_effect([(one, one)], [0, 1], support(), TARGET, target_mask())


def maps(fa, md):
    fa, md = (np.full(TARGET.shape, value, np.float32) for value in (fa, md))
    return TensorMaps(fa, md, md, md, np.zeros((*TARGET.shape, 3), np.float32))


def test_the_change_of_the_tensor_is_that_of_its_maps_inside_the_brain():
    effect = with_tensor(
        T1wEffect(MASK, MASK.astype(np.float32), 8), maps(0.5, 1e-3), maps(0.6, 7e-4), GRID, TARGET, target_mask()
    )
    np.testing.assert_allclose(effect.fa, 0.1 * MASK, atol=1e-6)
    np.testing.assert_allclose(effect.md, 3e-4 * MASK, atol=1e-9)
    summary = summarize_effect(effect, TISSUES, GRID)
    assert summary["tissues"]["WM"]["fa"] == pytest.approx(0.1)
    assert json.loads(json.dumps(summary)) == summary
    assert effect_sentence(summary).startswith("The T1w changed FA by 0.100 and mean diffusivity by 0.300 × 10⁻³ mm²/s")
    assert "in white matter" in effect_sentence(summary)


def test_changes_of_fa_within_an_acquired_voxel_do_not_cancel():
    stripes = np.where(np.indices(TARGET.shape)[0] % 2, 0.1, -0.1).astype(np.float32)
    zero, given = maps(0.5, 1e-3), maps(0.5, 1e-3)
    given.fa[:] += stripes
    effect = with_tensor(T1wEffect(MASK, 0 * MASK, 8), given, zero, GRID, TARGET, target_mask())
    np.testing.assert_allclose(effect.fa[MASK], 0.1, atol=1e-6)


def test_chosen_volumes_are_a_series_of_their_own():
    series = np.random.default_rng(0).random((3, 4, 5, 9)).astype(np.float32)
    chosen = ChosenVolumes(series, [1, 4, 8])
    assert chosen.shape == (3, 4, 5, 3)
    np.testing.assert_array_equal(chosen[..., 1], series[..., 4])
    np.testing.assert_array_equal(chosen[..., 1:3], series[..., [4, 8]])
    mask = np.ones((3, 4, 5), bool)
    np.testing.assert_array_equal(masked_signals(chosen, np.arange(3), mask), series[..., [1, 4, 8]].reshape(-1, 3))

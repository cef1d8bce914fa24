"""A T1w lies over its patch where the settings put it, however the patch is turned."""

import dataclasses

import numpy as np
import pytest
import torch

from bids_sr.errors import SignalError, TrainingDataError
from bids_sr.models.base import GUIDE_CHANNELS, SUBPOSITIONS, Signal
from bids_sr.training import patches
from bids_sr.training.guides import FAITHFUL, KNOTS, GuideSettings, ShownT1w, _draw_curve, _draw_shift, draw_t1w
from bids_sr.training.packing import PackedScan
from bids_sr.training.patches import PatchSettings, PatchStream, draw_example
from bids_sr.training.sampling import Sampling, Turn
from bids_sr.training.settings import TrainingSettings

torch.set_num_threads(1)
GUIDED = Signal(guided=True)
CHOSEN = PatchSettings(patch=8, points=200, noise_share=0.0, b0_share=1.0, psf_range=(1.0, 1.0), guide=FAITHFUL)
N = 48
SLOPES = np.array([0.004, 0.006, -0.003])
RAMP = 0.6 + np.tensordot(SLOPES, np.indices((N, N, N)), axes=1)


def middle(half=5):
    mask = np.zeros((N, N, N), bool)
    mask[(slice(N // 2 - half, N // 2 + half),) * 3] = True
    return mask


def scan_of(volume=RAMP, t1w=None, mask=None, **fields) -> PackedScan:
    data = np.stack([volume, volume / 2]).astype(np.float32)
    mask = middle() if mask is None else mask
    given = None if t1w is None else t1w.astype(np.float16)
    return PackedScan(
        "made", data, data, np.array([0, 1]), mask, np.array([100.0, 40.0]), np.ones(3), given, **fields
    )  # fmt: skip


def draw(scan, settings=CHOSEN, seed=0, others=()):
    return draw_example(scan, settings, GUIDED, np.random.default_rng(seed), others=others)


def parts_of(example):
    return example.channels[-SUBPOSITIONS:].reshape(2, 2, 2, 8, 8, 8)


def fine(parts):
    """Parts of voxels, (8, p, p, p), as the volume of half the voxel size."""
    p = parts.shape[1]
    return parts.reshape(2, 2, 2, p, p, p).transpose(3, 0, 4, 1, 5, 2).reshape(2 * p, 2 * p, 2 * p)


def test_a_guided_example_has_eight_channels_more_and_a_guide():
    example = draw(scan_of(t1w=RAMP))
    assert example.channels.shape == (3 + SUBPOSITIONS, 8, 8, 8)
    assert example.guide.shape == (200, GUIDE_CHANNELS)
    np.testing.assert_array_equal(example.guide[:, -1], 1)


@pytest.mark.parametrize("seed", range(8))
def test_on_a_ramp_the_t1w_lies_where_the_volume_lies(seed):
    """However the patch is scaled, shifted, turned and flipped; both show the same ramp."""
    example = draw(scan_of(t1w=RAMP.repeat(2, 0)), seed=seed)
    volume, parts = example.channels[0], parts_of(example)
    inner = (slice(2, 6),) * 3
    np.testing.assert_allclose(parts.mean((0, 1, 2))[inner], volume[inner], atol=3e-3)
    stencil = example.guide[:, :-1].reshape(-1, 3, 3, 3)
    np.testing.assert_allclose(stencil[:, 1, 1, 1], example.truth, atol=3e-3)
    for axis in range(3):
        step = float(np.diff(volume, axis=axis)[inner].mean())
        halves = np.diff(parts, axis=axis).mean((0, 1, 2))[inner]
        np.testing.assert_allclose(halves, step / 2, atol=4e-3)
        neighbours = np.diff(stencil, axis=axis + 1).mean()
        assert neighbours == pytest.approx(step * example.cell[axis], abs=1e-3)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flipped", [(False, False, False), (True, False, True)])
def test_an_example_that_is_turned_back_is_the_example(order, flipped, monkeypatch):
    random = np.random.default_rng(1)
    scan = scan_of(random.random((N, N, N)), random.random((N, N, N)))

    def turned(turn):
        monkeypatch.setattr(patches.Turn, "draw", lambda _: turn)
        return draw(scan, seed=3)

    plain = turned(Turn(np.arange(3), np.zeros(3, bool)))
    there = turned(Turn(np.array(order), np.array(flipped)))
    back = np.argsort(order)

    def turn_back(volumes):
        unflipped = np.flip(volumes, tuple(np.flatnonzero(flipped) + 1))
        return unflipped.transpose(0, *(back + 1))

    np.testing.assert_array_equal(turn_back(there.channels[:3]), plain.channels[:3])
    np.testing.assert_array_equal(turn_back(fine(there.channels[3:])[None])[0], fine(plain.channels[3:]))
    stencils = turn_back(there.guide[:, :-1].reshape(-1, 3, 3, 3))
    np.testing.assert_array_equal(stencils, plain.guide[:, :-1].reshape(-1, 3, 3, 3))
    points = np.where(flipped, 7 - there.points, there.points)[:, back]
    np.testing.assert_allclose(points, plain.points, atol=1e-5)
    np.testing.assert_array_equal(there.cell[back], plain.cell)
    np.testing.assert_array_equal(there.truth, plain.truth)


def test_a_shift_moves_parts_and_stencils_alike():
    sampling = Sampling(8, np.full(3, 12.0), np.full(3, 2.0), ("gaussian",) * 3, 1.0)
    voxels, shift = np.array([[20, 21, 22], [18, 25, 20]]), np.array([1.0, -0.5, 2.25])
    here, there = (ShownT1w(RAMP, RAMP, offset, KNOTS) for offset in (np.zeros(3), shift))
    np.testing.assert_allclose(there.around(voxels) - here.around(voxels), SLOPES @ shift, atol=1e-5)
    moved = there.in_half_voxels(sampling) - here.in_half_voxels(sampling)
    np.testing.assert_allclose(moved[2:-2, 2:-2, 2:-2], SLOPES @ shift, atol=1e-5)
    np.testing.assert_allclose(here.around(voxels)[:, 1, 1, 1], RAMP[tuple(voxels.T)], atol=1e-6)


def test_beyond_the_scan_the_t1w_is_zero():
    shown = ShownT1w(np.ones((5, 5, 5)), np.ones((5, 5, 5)), np.zeros(3), KNOTS)
    corner = shown.around(np.array([[0, 0, 4]]))[0]
    np.testing.assert_array_equal(corner[1:, 1:, :2], 1)
    assert not corner[0].any()
    assert not corner[:, :, 2].any()
    assert not shown.around(np.array([[30, 30, 30]])).any()


def test_contrasts_are_kept_warped_or_inverted():
    shown = (_draw_curve(FAITHFUL, np.random.default_rng(0)), KNOTS)
    np.testing.assert_array_equal(*shown)
    inverted = _draw_curve(dataclasses.replace(FAITHFUL, inverted=1.0), np.random.default_rng(0))
    warped = _draw_curve(dataclasses.replace(FAITHFUL, warped=1.0), np.random.default_rng(0))
    assert inverted[0] == warped[0] == 0
    assert inverted[1] > inverted[3]
    assert warped[1] < warped[4]
    assert not np.array_equal(warped, KNOTS)


def test_shifts_are_small_or_large():
    random = np.random.default_rng(0)
    for settings, expected in ((dataclasses.replace(FAITHFUL, tight=0.2), 0.2), (GuideSettings(loose_share=1), 0.6)):
        drawn = np.array([_draw_shift(False, settings, random) for _ in range(2000)])
        assert drawn.std() == pytest.approx(expected, rel=0.1)
    far = np.array([_draw_shift(True, GuideSettings(), random) for _ in range(2000)])
    assert 2.3 < np.abs(far).max() <= 2.5


def shares(scan, settings, others=(), count=60):
    """Share of the draws that show none, and of those that show the scan's own T1w."""
    random = np.random.default_rng(0)
    drawn = [draw_t1w(scan, others, settings, random) for _ in range(count)]
    return sum(t1w is None for t1w in drawn) / count, sum(
        t1w is not None and t1w.fine is scan.t1w for t1w in drawn
    ) / count


def test_a_scan_without_a_t1w_shows_made_ones_if_any():
    assert shares(scan_of(), GuideSettings()) == (0, 0)
    assert shares(scan_of(), FAITHFUL) == (1, 0)


def test_a_scan_with_a_t1w_shows_it_in_the_rest_of_the_patches():
    assert shares(scan_of(t1w=RAMP), FAITHFUL) == (0, 1)
    assert shares(scan_of(t1w=RAMP), dataclasses.replace(FAITHFUL, made=1.0)) == (0, 0)
    assert 0.15 < shares(scan_of(t1w=RAMP), dataclasses.replace(FAITHFUL, made=0.67))[1] < 0.55


def test_a_simulated_scan_shows_its_own():
    assert shares(scan_of(t1w=RAMP, simulated=True), dataclasses.replace(FAITHFUL, made=1.0)) == (0, 1)


def test_the_t1w_of_another_scan_takes_its_place():
    swapped, other = dataclasses.replace(FAITHFUL, swapped=1.0), scan_of(t1w=RAMP / 2)
    assert shares(scan_of(t1w=RAMP), swapped, [other]) == (0, 0)
    assert shares(scan_of(t1w=RAMP), swapped, []) == (0, 1)
    example = draw(scan_of(t1w=RAMP), dataclasses.replace(CHOSEN, guide=swapped), others=[scan_of(t1w=RAMP / 2)])
    np.testing.assert_allclose(example.guide[:, 13], example.truth / 2, atol=3e-3)


def test_a_t1w_that_is_dropped_is_zero_everywhere():
    example = draw(scan_of(t1w=RAMP), dataclasses.replace(CHOSEN, t1w_dropped=1.0))
    assert not example.channels[-SUBPOSITIONS:].any()
    assert not example.guide.any()


def test_without_guidance_the_stream_has_no_guide():
    scans = [scan_of(t1w=RAMP)]
    batch = PatchStream(scans, CHOSEN, GUIDED, 0, 2).batch(0)
    assert batch.guide.shape == (2, 200, GUIDE_CHANNELS)
    assert batch.channels.shape[1] == 3 + SUBPOSITIONS
    assert {part.dtype for part in batch if part is not None} == {torch.float32}
    plain = PatchStream(scans, CHOSEN, Signal(), 0, 2).batch(0)
    assert plain.guide is None
    assert plain.channels.shape[1] == 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"made": 1.5}, "made"), ({"swapped": -0.1}, "swapped"), ({"tight": -1.0}, "tight"),
        ({"displaced": 0.6, "swapped": 0.6}, "displaced and swapped"), ({"warped": 0.9, "inverted": 0.2}, "warped and"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(change, problem):
    with pytest.raises(TrainingDataError, match=problem):
        GuideSettings(**change)


def test_a_guided_network_is_trained_on_points_and_sees_the_t1w_once():
    with pytest.raises(TrainingDataError, match="needs points > 0"):
        TrainingSettings(model={"guided": True, "residual": True}, patches=PatchSettings(points=0))
    with pytest.raises(SignalError, match="guides"):
        Signal(("volume", "t1w"), guided=True)

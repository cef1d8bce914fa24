"""Examples say where each truth lies in the degraded patch."""

import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.utils.data import DataLoader

from bids_sr.degradation import PROFILES, degrade
from bids_sr.dwi.normalization import input_channels, make_normalization, shell_context
from bids_sr.errors import TrainingDataError
from bids_sr.geometry import Grid
from bids_sr.models.base import Signal
from bids_sr.training import patches
from bids_sr.training.packing import PackedScan
from bids_sr.training.patches import PatchSettings, PatchStream, draw_example, draw_scale

torch.set_num_threads(1)

POINTS = PatchSettings(patch=10, points=300, noise_share=0.0)
WHOLE = PatchSettings(patch=10, points=0, scale_range=(2.0, 3.0), noise_share=0.0)
SHELL = Signal()
WITH_T1W = Signal(("volume", "t1w"))
OVER_B0 = Signal(("volume", "b0", "shell"), "b0")
ALIGNED = [profile for profile in PROFILES if profile != "zoom"]
SEEDS = st.integers(0, 10**6)


def scan_of(volume, mask=None, **fields) -> PackedScan:
    """A b0 and a weighted volume half as bright; the shells' levels are 100 and 40."""
    data = np.stack([volume, volume / 2]).astype(np.float32)
    inside = np.ones(volume.shape, bool) if mask is None else mask
    levels, sizes = np.array([100.0, 40.0]), np.ones(3)
    return PackedScan("made", data.astype(np.float16), data, np.array([0, 1]), inside, levels, sizes, **fields)


def draw(scan, settings, signal=SHELL, seed=0):
    return draw_example(scan, settings, signal, np.random.default_rng(seed))


def middle(shape, half=5):
    """A mask in the middle of a scan, far from its borders."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(n // 2 - half, n // 2 + half) for n in shape)] = True
    return mask


def interpolated(example, order):
    """Values of the volume at the points in the interior of the patch, and the truth there."""
    inner = np.all((example.points >= 1.5) & (example.points <= example.channels.shape[1] - 2.5), axis=1)
    values = ndimage.map_coordinates(example.channels[0], example.points[inner].T, order=order, mode="mirror")
    return values, example.truth[inner]


def waves(n=90):
    """One slow period along each axis, which nothing blurs much; its slopes are near those of a ramp."""
    angle = 2 * np.pi * np.indices((n, n, n)) / n
    return 2 + 0.5 * np.sin(angle[0]) + 0.4 * np.sin(angle[1] + 1) - 0.3 * np.sin(angle[2] - 1)


def ramp(n=90):
    return 2 + np.tensordot([0.02, 0.03, -0.01], np.indices((n, n, n)), axes=1)


RAMP = scan_of(ramp(), middle((90, 90, 90), 6))
WAVES = scan_of(waves(), middle((90, 90, 90), 16))


@pytest.mark.parametrize("mode", [POINTS, WHOLE], ids=["points", "whole"])
@pytest.mark.parametrize("profile", [profile for profile in ALIGNED if profile != "kspace"])
def test_on_a_ramp_interpolation_finds_the_truth(profile, mode):
    """However the patch is scaled, shifted, turned and flipped; a slip of half a voxel would show as 0.01."""
    chosen = dataclasses.replace(mode, profiles=(profile,))
    for seed in range(6):
        values, truth = interpolated(draw(RAMP, chosen, seed=seed), order=1)
        # float16 holds values near 4 to 0.002.
        assert np.abs(values - truth).max() < 5e-3


@pytest.mark.parametrize("mode", [POINTS, WHOLE], ids=["points", "whole"])
@pytest.mark.parametrize("profile", ALIGNED)
def test_on_slow_waves_interpolation_finds_the_truth(profile, mode):
    """Those fit the axis, which k-space takes as periodic."""
    chosen = dataclasses.replace(mode, profiles=(profile,), b0_share=1.0, scale_range=(1.5, 3.0))
    for seed in range(6):
        values, truth = interpolated(draw(WAVES, chosen, seed=seed), order=3)
        # A Gaussian three voxels wide takes 1 % off these waves; a slip of half a voxel would show as 0.03.
        assert np.abs(values - truth).max() < 0.015
        assert abs(np.mean(values - truth)) < 4e-3


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_on_a_ramp_interpolation_finds_the_truth_for_any_scale(seed):
    values, truth = interpolated(draw(RAMP, POINTS, seed=seed), order=1)
    assert np.abs(values - truth).max() < 5e-3


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_an_axis_that_keeps_its_voxels_is_not_touched(seed):
    """Its voxels lie on the scan's, where no interpolation blurs them."""
    chosen = PatchSettings(patch=8, points=20, noise_share=0.0, isotropic_share=0.0, b0_share=1.0)
    example = draw(scan_of(np.ones((64, 64, 64))), chosen, seed=seed)
    for axis in np.flatnonzero(example.cell == 1):
        positions = example.points[:, axis]
        np.testing.assert_allclose(positions, np.rint(positions), atol=1e-4)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_points_keep_away_from_the_rim_of_the_patch(seed):
    example = draw(scan_of(np.ones((40, 44, 48))), POINTS, seed=seed)
    assert example.points.shape == (300, 3)
    assert example.points.min() >= POINTS.border - 0.5 - 1e-5
    assert example.points.max() <= 10 - 1 - POINTS.border + 0.5 + 1e-5


@given(SEEDS)
def test_scales_stay_in_their_range_and_some_axis_is_always_magnified(seed):
    scale = draw_scale(POINTS, np.random.default_rng(seed))
    assert scale.max() >= 1.2 - 1e-9
    assert np.all((scale == 1) | ((scale >= 1.2 - 1e-9) & (scale <= 4 + 1e-9)))


@pytest.mark.parametrize(("spacing", "median"), [("log", 2.0), ("uniform", 2.5)])
def test_scales_are_spaced_as_asked(spacing, median):
    chosen = PatchSettings(scale_range=(1.0, 4.0), scale_spacing=spacing, isotropic_share=1.0)
    random = np.random.default_rng(0)
    assert np.median([draw_scale(chosen, random)[0] for _ in range(2000)]) == pytest.approx(median, abs=0.1)


def test_outside_the_field_of_view_there_is_no_signal():
    example = draw(scan_of(np.ones((6, 40, 40))), PatchSettings(patch=12, points=50, noise_share=0.0), seed=1)
    assert (example.channels[0] == 0).any()


@pytest.mark.parametrize("mode", [POINTS, dataclasses.replace(WHOLE, scale_range=(1.0, 1.0))], ids=["points", "whole"])
def test_an_unmagnified_patch_is_the_scan(mode):
    volume = np.random.default_rng(0).random((30, 30, 30))
    chosen = dataclasses.replace(mode, scale_range=(1.0, 1.0), profiles=("gaussian", "box", "kspace", "bicubic"))
    for seed in range(5):
        example = draw(scan_of(volume, middle(volume.shape)), chosen, seed=seed)
        where = tuple(np.rint(example.points).astype(int).T)
        np.testing.assert_allclose(example.channels[0][where], example.truth, atol=1e-6)


# The whole fine patch


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_every_voxel_of_the_fine_patch_is_asked_for_in_order(seed):
    example = draw(scan_of(np.ones((40, 44, 48))), WHOLE, seed=seed)
    n = round(10 / example.cell[0])
    assert 20 <= n <= 30
    np.testing.assert_allclose(example.cell, 10 / n, rtol=1e-6)
    lattice = (np.indices((n, n, n)).reshape(3, -1).T + 0.5) * 10 / n - 0.5
    np.testing.assert_allclose(example.points, lattice, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_the_truth_of_the_fine_patch_is_the_acquired_voxels(seed):
    """Each voxel of the scan bears its place as its value, as exactly as float16 can."""
    index = np.indices((32, 32, 32))
    for axis in range(3):
        chosen = dataclasses.replace(WHOLE, b0_share=1.0)
        example = draw(scan_of(index[axis].astype(float) + 1), chosen, seed=seed)
        n = round(10 / example.cell[0])
        steps = np.stack(np.gradient(example.truth.reshape(n, n, n)))
        along = np.abs(steps).sum(axis=0)
        np.testing.assert_array_equal(along, 1)
        assert len(np.unique(example.truth)) == n


@pytest.mark.parametrize("seed", range(20))
def test_at_least_half_of_the_fine_patch_is_brain(seed):
    sphere = ((np.indices((64, 64, 64)) - 31.5) ** 2).sum(axis=0) < 24**2
    example = draw(scan_of(sphere.astype(float), sphere), dataclasses.replace(WHOLE, b0_share=1.0), seed=seed)
    assert example.truth.mean() >= 0.5


def test_a_scan_that_is_smaller_than_the_patch_lies_in_its_middle():
    chosen = dataclasses.replace(WHOLE, scale_range=(3.0, 3.0), b0_share=1.0)
    example = draw(scan_of(np.ones((40, 16, 40))), chosen)
    truth = example.truth.reshape(30, 30, 30)
    assert truth.sum() == 30 * 16 * 30
    filled = [np.flatnonzero(truth.any(axis=tuple(set(range(3)) - {axis}))) for axis in range(3)]
    thin = min(filled, key=len)
    assert (thin[0], thin[-1]) == (7, 22)


@pytest.mark.parametrize("profile", ["gaussian", "box", "bicubic", "zoom", "kspace"])
@pytest.mark.parametrize("signal", [SHELL, OVER_B0], ids=["shell", "b0"])
def test_a_patch_is_what_the_application_makes_of_the_degraded_scan(profile, signal, monkeypatch):
    """The patch is as large as the scan, so the scan can be degraded as a whole, normalized, and compared."""
    monkeypatch.setattr(patches.Turn, "draw", lambda _: patches.Turn(np.arange(3), np.zeros(3, bool)))
    random = np.random.default_rng(3)
    grid, n = Grid((24, 24, 24), np.eye(4)), 24
    signals = ndimage.gaussian_filter(random.random((n, n, n, 4)), (1.5, 1.5, 1.5, 0))
    signals *= np.array([900.0, 700, 300, 200])
    bvals = np.array([0.0, 0, 1000, 1000])
    mask = middle((n, n, n), 8)
    context = shell_context(signals, bvals, mask, 50)
    data = np.moveaxis(signals, 3, 0) / context.levels[context.shells][:, None, None, None]
    scan = PackedScan("made", data, context.means, context.shells, mask, context.levels, np.ones(3))
    chosen = dataclasses.replace(
        WHOLE, patch=12, scale_range=(2.0, 2.0), profiles=(profile,), psf_range=(1.0, 1.0), b0_share=0.3
    )
    low = degrade(signals.astype(np.float32), grid, np.full(3, 2.0), profile=profile)[0]
    low_mask = degrade(mask.astype(np.float32), grid, np.full(3, 2.0), profile=profile)[0] >= 0.5
    seen = shell_context(low, bvals, low_mask, 50)
    normalization = make_normalization(signal.normalization, seen.levels, seen.means[0], low_mask)
    found = set()
    for seed in range(12):
        example = draw(scan, chosen, signal, seed)
        differences = []
        for volume in range(4):
            expected = input_channels(signal.inputs, normalization, seen.sources(low[..., volume], volume, low_mask))
            # Levels and percentiles of a degraded scan differ a little from those of the scan itself.
            factor = (expected * example.channels).sum((1, 2, 3)) / (example.channels**2).sum((1, 2, 3))
            scaled = np.clip(factor, 0.9, 1.1)[:, None, None, None] * example.channels
            differences.append(np.abs(expected - scaled).max())
        assert min(differences) < 2e-3
        found.add(int(np.argmin(differences)))
    assert found == {0, 1, 2, 3}


# Normalization by the b0


@pytest.mark.parametrize("mode", [POINTS, WHOLE], ids=["points", "whole"])
def test_the_truth_over_the_b0_is_the_ratio_of_the_acquired_signals(mode):
    volume = np.random.default_rng(0).uniform(1, 2, (40, 40, 40))
    mask = middle(volume.shape, 14)
    example = draw(scan_of(volume, mask), dataclasses.replace(mode, b0_share=0.0), OVER_B0)
    in_brain = example.truth[example.truth > 0]
    np.testing.assert_allclose(in_brain, 0.5 * 40 / 100, rtol=2e-3)
    assert (len(in_brain) < len(example.truth)) == (mode is WHOLE)


def test_b0_volumes_are_divided_by_their_brightest_percentile():
    volume = np.random.default_rng(0).uniform(1, 2, (40, 40, 40))
    example = draw(scan_of(volume), dataclasses.replace(WHOLE, b0_share=1.0), OVER_B0)
    assert np.percentile(example.truth, 99) == pytest.approx(1, abs=0.02)


# The T1w


@pytest.mark.parametrize("mode", [POINTS, WHOLE], ids=["points", "whole"])
@pytest.mark.parametrize("profile", ALIGNED)
@pytest.mark.parametrize("width", [0.85, 1.4])
def test_the_t1w_is_seen_through_a_gaussian_whatever_the_volume_is_seen_through(mode, profile, width):
    """As in the application, which knows nothing of how the scan was sampled."""
    volume = np.random.default_rng(0).random((50, 50, 50))
    scan = scan_of(volume)
    scan = dataclasses.replace(scan, t1w=scan.data[0])
    chosen = dataclasses.replace(mode, b0_share=1.0, profiles=(profile,), psf_range=(width, width))
    as_wide = dataclasses.replace(mode, b0_share=1.0, profiles=("gaussian",), psf_range=(1.0, 1.0))
    for seed in range(4):
        channels, expected = (draw(scan, settings, WITH_T1W, seed).channels for settings in (chosen, as_wide))
        np.testing.assert_allclose(channels[1], expected[0], atol=1e-5)
        assert np.abs(channels[0] - expected[0]).max() > 1e-3


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_zoom_takes_the_t1w_along(parts):
    """It lies where the stretched patch lies, though a Gaussian averages it; half an acquired voxel would be 0.01."""
    n = 50
    fine = 2 + 0.02 * ((np.arange(n * parts) + 0.5) / parts - 0.5)
    volume = np.broadcast_to(2 + 0.02 * np.arange(n)[:, None, None], (n, n, n))
    t1w = np.broadcast_to(fine[:, None, None], (n * parts,) * 3).astype(np.float16)
    scan = scan_of(volume, middle(volume.shape, 4), t1w=t1w)
    for seed in range(4):
        chosen = dataclasses.replace(WHOLE, b0_share=1.0, profiles=("zoom",))
        channels = draw(scan, chosen, WITH_T1W, seed).channels
        seen = channels[1] > 0
        assert np.abs(channels[1] - channels[0])[seen].max() < 5e-3


@pytest.mark.parametrize("mode", [POINTS, WHOLE], ids=["points", "whole"])
@pytest.mark.parametrize("profile", ALIGNED)
def test_a_finer_t1w_lies_where_the_volume_lies(mode, profile):
    """The same slow waves at twice and three times as many voxels."""
    fine = [(np.arange(60 * k) + 0.5) / k - 0.5 for k in (2, 3, 1)]
    angle = [2 * np.pi * axis / 60 for axis in fine]
    t1w = (
        2 + 0.5 * np.sin(angle[0])[:, None, None] + 0.4 * np.sin(angle[1] + 1)[None, :, None]
        - 0.3 * np.sin(angle[2] - 1)[None, None, :]
    )  # fmt: skip
    scan = scan_of(waves(60), middle((60, 60, 60), 22), t1w=t1w.astype(np.float16))
    chosen = dataclasses.replace(mode, b0_share=1.0, profiles=(profile,), scale_range=(1.5, 2.5))
    for seed in range(4):
        channels = draw(scan, chosen, WITH_T1W, seed).channels
        seen = channels[1] > 0
        inner = ndimage.binary_erosion(seen, iterations=2, border_value=1)
        assert inner.any()
        # Half a fine voxel would be 0.01; the k-space of the volume is compared with a Gaussian's T1w.
        assert np.abs(channels[1] - channels[0])[inner].max() < (0.03 if profile == "kspace" else 8e-3)


def test_the_t1w_is_seen_inside_the_brain_only():
    volume = np.ones((50, 50, 50))
    scan = scan_of(volume, middle(volume.shape, 8), t1w=volume.astype(np.float16))
    t1w = draw(scan, WHOLE, WITH_T1W).channels[1]
    assert 0 < (t1w > 0).mean() < 1


@pytest.mark.parametrize(("share", "has_t1w", "dropped"), [(0.0, True, 0), (1.0, True, 8), (0.0, False, 8)])
def test_patches_without_t1w_show_zeros(share, has_t1w, dropped):
    volume = np.ones((40, 40, 40))
    scan = scan_of(volume, t1w=volume.astype(np.float16) if has_t1w else None)
    chosen = dataclasses.replace(POINTS, t1w_dropped=share)
    zeros = [not draw(scan, chosen, WITH_T1W, seed).channels[1].any() for seed in range(8)]
    assert sum(zeros) == dropped


# Noise


def noise_of(shells, volume: int, seed: int = 3):
    grid = np.ones((len(shells), 4, 4, 4), np.float32)
    means = np.ones((max(shells) + 1, 4, 4, 4), np.float32)
    levels = np.array([100.0, 40, 20])[: len(means)]
    scan = PackedScan(
        "made", grid.astype(np.float16), means, np.array(shells), np.ones((4, 4, 4), bool), levels, np.ones(3)
    )
    return patches._noise((30, 30, 30), scan, volume, PatchSettings(), np.random.default_rng(seed)).reshape(3, -1)


def test_noise_of_a_volume_is_part_of_the_mean_of_its_shell():
    own, b0, mean = noise_of([0, 1, 1, 1, 1], 2)
    assert mean.std() == pytest.approx(own.std() / 2, rel=0.03)
    assert np.corrcoef(own, mean)[0, 1] == pytest.approx(1 / 2, abs=0.03)
    assert abs(np.corrcoef(own, b0)[0, 1]) < 0.03


def test_noise_is_the_same_in_the_units_of_the_scan():
    own, b0, _ = noise_of([0, 1, 2], 1)
    assert b0.std() * 100 == pytest.approx(own.std() * 40, rel=0.03)
    own, b0, _ = noise_of([0, 1, 2], 2)
    assert b0.std() * 100 == pytest.approx(own.std() * 20, rel=0.03)
    own, b0, mean = noise_of([0, 1, 2], 0)
    assert own.std() * 100 == pytest.approx(mean.std() * 40, rel=0.03)


def test_a_single_b0_is_its_own_mean():
    own, mean, _ = noise_of([0, 1, 1], 0)
    np.testing.assert_allclose(own, mean, rtol=1e-5)
    own, mean, _ = noise_of([0, 0, 0, 0, 1], 0)
    assert mean.std() == pytest.approx(own.std() / 2, rel=0.03)


def test_noise_is_added_where_the_settings_say_so():
    centre = middle((90, 90, 90), 1)
    quiet, noisy = (
        draw(scan_of(np.ones((90, 90, 90)), centre), PatchSettings(noise_share=share), seed=3) for share in (0.0, 1.0)
    )
    assert np.ptp(quiet.channels[0]) < 1e-3 < np.ptp(noisy.channels[0])
    np.testing.assert_array_equal(quiet.truth, noisy.truth)


# The stream


def stream_of(scans, settings=POINTS, seed=5, batch_size=3, **options):
    return PatchStream(scans, settings, options.pop("signal", SHELL), seed, batch_size, **options)


@pytest.fixture(scope="module")
def scans():
    return [scan_of(np.random.default_rng(i).random((30, 30, 30))) for i in range(2)]


def first(stream, count, n_workers=0):
    return list(islice(DataLoader(stream, batch_size=None, num_workers=n_workers), count))


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_batch_has_one_row_per_example(scans):
    channels, points, cell, truth, guide, gradients = stream_of(scans).batch(0)
    assert guide is gradients is None
    assert [tuple(part.shape) for part in (channels, points, cell, truth)] == [
        (3, 3, 10, 10, 10),
        (3, 300, 3),
        (3, 3),
        (3, 300),
    ]
    assert {part.dtype for part in (channels, points, cell, truth)} == {torch.float32}


def test_all_patches_of_a_batch_have_one_scale_where_the_whole_is_asked_for(scans):
    chosen = dataclasses.replace(WHOLE, scale_range=(1.0, 3.0))
    cells = [stream_of(scans, chosen).batch(number)[2] for number in range(5)]
    assert all((cell == cell[0, 0]).all() for cell in cells)
    assert len({float(cell[0, 0]) for cell in cells}) > 1


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_the_stream_is_the_same_for_any_number_of_workers(scans, n_workers):
    assert_same(first(stream_of(scans), 5), first(stream_of(scans), 5, n_workers))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_stream_can_begin_anywhere(scans, n_workers):
    assert_same(first(stream_of(scans), 6)[3:], first(stream_of(scans, first_batch=3), 3, n_workers))


def test_the_ranks_share_the_stream_of_one_among_them(scans):
    whole = first(stream_of(scans), 6)
    for rank in range(3):
        own = stream_of(scans, rank=rank, world_size=3)
        assert_same(first(own, 2), whole[rank::3])
        assert_same(first(stream_of(scans, rank=rank, world_size=3, first_batch=1), 1, 2), whole[rank + 3 :: 3])
    assert len({float(batch[3].sum()) for batch in whole}) == 6


def test_another_seed_is_another_stream(scans):
    assert not torch.equal(stream_of(scans).batch(0)[3], stream_of(scans, seed=6).batch(0)[3])


def test_truth_is_taken_inside_the_mask():
    mask = middle((40, 40, 40), 2)
    stream = stream_of([scan_of(np.where(mask, 7.0, 0.0), mask)], dataclasses.replace(POINTS, b0_share=1.0))
    assert all((stream.batch(i)[3] == 7).all() for i in range(4))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_b0_volumes(share):
    stream = stream_of([scan_of(np.ones((30, 30, 30)))], dataclasses.replace(POINTS, b0_share=share))
    np.testing.assert_allclose(stream.batch(0)[3], 1.0 if share else 0.5)


def test_scans_are_drawn_by_the_voxels_of_their_brains():
    shapes, mask = (20, 20, 20), middle((20, 20, 20), 5)
    scans = [scan_of(np.ones(shapes), mask), scan_of(np.ones(shapes)), scan_of(np.ones(shapes), simulated=True)]
    np.testing.assert_allclose(stream_of(scans).probabilities, np.array([1, 8, 8]) / 17)
    np.testing.assert_allclose(
        stream_of(scans, dataclasses.replace(POINTS, simulated_share=0.1)).probabilities, [0.1, 0.8, 0.1]
    )
    np.testing.assert_allclose(stream_of(scans, weights=[1, 1, 2]).probabilities, [0.25, 0.25, 0.5])


@pytest.mark.parametrize(("share", "simulated", "missing"), [(0.5, False, "simulated"), (0.5, True, "acquired")])
def test_a_share_of_scans_that_are_not_there_is_refused(scans, share, simulated, missing):
    given = [dataclasses.replace(scan, simulated=simulated) for scan in scans]
    with pytest.raises(TrainingDataError, match=f"no {missing} scan"):
        stream_of(given, dataclasses.replace(POINTS, simulated_share=share))


def test_no_scan_is_refused():
    with pytest.raises(TrainingDataError, match="no scan"):
        stream_of([])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"points": -1}, "points"),
        ({"patch": 0}, "patch"),
        ({"patch": 4, "border": 2}, "border"),
        ({"scale_range": (0.5, 2.0)}, "scale_range"),
        ({"scale_range": (3.0, 2.0)}, "scale_range"),
        ({"scale_spacing": "linear"}, "scale_spacing"),
        ({"profiles": ()}, "profiles"),
        ({"profiles": ("hann",)}, "unknown profile hann"),
        ({"profiles": ("zoom",)}, "zoom"),
        ({"psf_range": (0.0, 1.0)}, "psf_range"),
        ({"noise_range": -0.1}, "noise_range"),
        ({"b0_share": 1.5}, "b0_share"),
        ({"simulated_share": -0.5}, "simulated_share"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change, problem):
    with pytest.raises(TrainingDataError, match=problem):
        PatchSettings(**change)


# Places in several volumes


def directed(n_directions=9, seed=0, **fields):
    """Two b0 volumes, and directions at b = 1000 and 3000, each volume of its own brightness."""
    table = np.random.default_rng(seed).standard_normal((n_directions, 3))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    weighted = [np.column_stack([np.full(n_directions, b), table]) for b in (1000.0, 3000.0)]
    gradients = np.vstack([np.zeros((2, 4)), *weighted])
    shells = np.repeat([0, 1, 2], [2, n_directions, n_directions])
    brightness = 1 + np.arange(len(shells))
    data = (brightness[:, None, None, None] * np.ones((1, 16, 16, 16))).astype(np.float16)
    means = np.ones((3, 16, 16, 16), np.float32)
    made = PackedScan("made", data, means, shells, middle((16, 16, 16)), np.ones(3), np.ones(3), gradients=gradients)
    return dataclasses.replace(made, **fields)


PLACES = dataclasses.replace(POINTS, patch=6, border=1, points=20, scale_range=(1.5, 2.0), volumes=7)


@pytest.mark.parametrize("points", [0, 20])
def test_a_place_is_shown_in_a_b0_and_in_weighted_volumes_of_one_low_shell(points):
    scan, chosen = directed(), dataclasses.replace(PLACES, points=points)
    for number in range(4):
        batch = stream_of([scan], chosen, batch_size=14).batch(number)
        assert batch.gradients.shape == (14, 4)
        for place in range(2):
            rows = slice(7 * place, 7 * place + 7)
            assert (batch.points[rows] == batch.points[7 * place]).all()
            assert (batch.cell[rows] == batch.cell[7 * place]).all()
            seen = (batch.truth[rows].amax(dim=1) - 1).round().int().tolist()
            assert seen[0] in (0, 1)
            assert len(set(seen)) == 7
            assert set(seen[1:]) <= set(range(2, 11))
            expected = scan.gradients[seen] / (1000, 1, 1, 1)
            np.testing.assert_allclose(batch.gradients[rows], expected, rtol=1e-6)
        assert not torch.equal(batch.points[0], batch.points[7]) or points == 0


def test_the_directions_of_a_place_determine_a_tensor():
    scan = directed(n_directions=30)
    settings_ = dataclasses.replace(PLACES, volumes=7)
    drawn = [patches._draw_volumes(scan, settings_.volumes, np.random.default_rng(seed))[1:] for seed in range(20)]
    random = [np.random.default_rng(seed).choice(np.arange(2, 32), 6, replace=False) for seed in range(20)]
    condition = [np.median([patches._condition(scan.gradients[one, 1:]) for one in sets]) for sets in (drawn, random)]
    assert condition[0] < 0.6 * condition[1]


def test_the_noise_of_each_volume_of_a_place_is_its_own_and_that_of_the_means_is_shared():
    noisy = dataclasses.replace(PLACES, noise_share=1.0, noise_range=0.5)
    scan = directed(data=np.ones((20, 16, 16, 16), np.float16), mask=np.ones((16, 16, 16), bool))
    with_it, without = (
        stream_of([scan], dataclasses.replace(noisy, noise_share=share), batch_size=7).batch(0).channels
        for share in (1.0, 0.0)
    )
    noise = (with_it - without)[1:]
    correlation = np.corrcoef(noise[:, 0].flatten(1).numpy())
    assert np.abs(correlation[~np.eye(6, dtype=bool)]).max() < 0.35
    assert noise[0, 1].abs().max() > 0
    assert (noise[:, 1] == noise[0, 1]).all()


def test_scans_without_what_places_need_are_refused():
    with pytest.raises(TrainingDataError, match="holds no b-vectors; pack the scans again"):
        stream_of([scan_of(np.ones((8, 8, 8)))], PLACES, batch_size=7)
    with pytest.raises(TrainingDataError, match="no shell has the 6 weighted volumes that volumes = 7 asks for"):
        stream_of([directed(5)], PLACES, batch_size=7)


def test_where_only_a_strong_shell_has_enough_volumes_it_is_shown():
    scan = directed()
    few = dataclasses.replace(scan, shells=np.where(scan.shells == 1, 2, scan.shells))
    strong = dataclasses.replace(few, gradients=few.gradients * (3, 1, 1, 1))
    assert stream_of([strong], PLACES, batch_size=7).batch(0).gradients[1:, 0].min() >= 3

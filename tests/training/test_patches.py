"""Examples say where each truth lies in the degraded patch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_sr.training.packing import PackedScan
from bids_sr.training.patches import PatchSettings, PatchStream, _noise, draw_example, draw_scale

SETTINGS = PatchSettings(patch=10, points=300, noise_share=0.0)


def scan_of(volume: np.ndarray, mask: np.ndarray | None = None) -> PackedScan:
    data = np.stack([volume, volume / 2]).astype(np.float32)
    inside = np.ones(volume.shape, bool) if mask is None else mask
    return PackedScan("made", data.astype(np.float16), data, np.array([0, 1]), inside)


def interpolated(example):
    from scipy import ndimage

    return ndimage.map_coordinates(example.channels[0], example.points.T, order=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_on_a_ramp_interpolation_finds_the_truth(seed):
    """However the patch is scaled, shifted, turned and flipped; a slip of half a voxel would show as 0.01."""
    ramp = (np.indices((90, 90, 90)) * np.array([0.02, 0.03, -0.01])[:, None, None, None]).sum(axis=0) + 2
    mask = np.zeros(ramp.shape, bool)
    mask[40:50, 40:50, 40:50] = True
    example = draw_example(scan_of(ramp, mask), SETTINGS, np.random.default_rng(seed))
    # float16 holds values near 4 to 0.002.
    assert np.abs(interpolated(example) - example.truth).max() < 5e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_an_axis_that_keeps_its_voxels_is_not_touched(seed):
    """Its voxels lie on the scan's, where no interpolation blurs them."""
    settings = PatchSettings(patch=8, points=20, noise_share=0.0, isotropic_share=0.0, b0_share=1.0)
    random = np.random.default_rng(seed)
    example = draw_example(scan_of(np.ones((64, 64, 64))), settings, random)
    for axis in np.flatnonzero(example.cell == 1):
        positions = example.points[:, axis]
        np.testing.assert_allclose(positions, np.rint(positions), atol=1e-4)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_points_keep_away_from_the_rim_of_the_patch(seed):
    example = draw_example(scan_of(np.ones((40, 44, 48))), SETTINGS, np.random.default_rng(seed))
    assert example.points.shape == (300, 3)
    assert example.points.min() >= SETTINGS.border - 0.5 - 1e-5
    assert example.points.max() <= 10 - 1 - SETTINGS.border + 0.5 + 1e-5


@given(st.integers(0, 10**6))
def test_scales_stay_in_their_range_and_some_axis_is_always_magnified(seed):
    scale = draw_scale(SETTINGS, np.random.default_rng(seed))
    assert scale.max() >= 1.2 - 1e-9
    assert np.all((scale == 1) | ((scale >= 1.2 - 1e-9) & (scale <= 4 + 1e-9)))


def test_outside_the_field_of_view_there_is_no_signal():
    settings = PatchSettings(patch=12, points=50, noise_share=0.0)
    example = draw_example(scan_of(np.ones((6, 40, 40))), settings, np.random.default_rng(1))
    assert (example.channels[0] == 0).any()


def test_truth_is_taken_inside_the_mask():
    volume, mask = np.zeros((40, 40, 40)), np.zeros((40, 40, 40), bool)
    mask[18:22, 18:22, 18:22] = True
    volume[mask] = 7
    stream = PatchStream([scan_of(volume, mask)], [1.0], PatchSettings(patch=10, points=50, b0_share=1.0), seed=0)
    assert all((stream.example(i).truth == 7).all() for i in range(10))


def noise_of(shells, volume: int, seed: int = 3):
    grid = np.ones((len(shells), 4, 4, 4), np.float32)
    means = np.ones((max(shells) + 1, 4, 4, 4), np.float32)
    scan = PackedScan("made", grid.astype(np.float16), means, np.array(shells), np.ones((4, 4, 4), bool))
    return _noise((3, 30, 30, 30), scan, volume, PatchSettings(), np.random.default_rng(seed)).reshape(3, -1)


def test_noise_of_a_volume_is_part_of_the_mean_of_its_shell():
    own, b0, mean = noise_of([0, 1, 1, 1, 1], 2)
    assert mean.std() == pytest.approx(own.std() / 2, rel=0.03)
    assert np.corrcoef(own, mean)[0, 1] == pytest.approx(1 / 2, abs=0.03)
    assert abs(np.corrcoef(own, b0)[0, 1]) < 0.03
    assert b0.std() < own.std()


def test_a_single_b0_is_its_own_mean():
    own, mean, _ = noise_of([0, 1, 1], 0)
    np.testing.assert_allclose(own, mean, rtol=1e-5)
    own, mean, _ = noise_of([0, 0, 0, 0, 1], 0)
    assert mean.std() == pytest.approx(own.std() / 2, rel=0.03)


def test_noise_is_added_where_the_settings_say_so():
    centre = np.zeros((90, 90, 90), bool)
    centre[45, 45, 45] = True
    quiet, noisy = (
        draw_example(scan_of(np.ones((90, 90, 90)), centre), PatchSettings(noise_share=share), np.random.default_rng(3))
        for share in (0.0, 1.0)
    )
    assert np.ptp(quiet.channels[0]) < 1e-3 < np.ptp(noisy.channels[0])
    np.testing.assert_array_equal(quiet.truth, noisy.truth)


def test_the_stream_is_the_same_for_the_same_seed_and_can_begin_anywhere():
    scans = [scan_of(np.random.default_rng(i).random((30, 30, 30))) for i in range(2)]
    stream = iter(PatchStream(scans, [1, 3], SETTINGS, seed=5))
    first = [next(stream) for _ in range(4)]
    later = next(iter(PatchStream(scans, [1, 3], SETTINGS, seed=5, first=3)))
    for a, b in zip(first[3], later, strict=True):
        np.testing.assert_array_equal(a, b)
    other = next(iter(PatchStream(scans, [1, 3], SETTINGS, seed=6)))
    assert not np.array_equal(first[0][3], other[3])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_b0_volumes(share):
    stream = PatchStream(
        [scan_of(np.ones((30, 30, 30)))],
        [1.0],
        PatchSettings(patch=10, points=5, noise_share=0, b0_share=share),
        seed=0,
    )
    truth = np.concatenate([stream.example(i).truth for i in range(5)])
    np.testing.assert_allclose(truth, 1.0 if share else 0.5)

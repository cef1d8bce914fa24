"""Signals as models are given them; what a model answers is undone to the signal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bids_sr.dwi.normalization import (
    LARGEST_RATIO,
    LEAST_B0,
    Sources,
    companion_shell,
    describe_odd_volumes,
    input_channels,
    make_normalization,
    odd_volumes,
    shell_context,
)
from bids_sr.errors import NoSignalError
from bids_sr.models.base import INPUTS, NORMALIZATIONS

BVALS = np.array([0, 1000, 5, 2000, 995])
SHOWN = ("volume", "b0", "shell")


@pytest.fixture
def series():
    """Weighted volumes are weaker than the b0."""
    data = np.random.default_rng(0).uniform(50, 150, (4, 5, 6, 5)).astype(np.float32)
    return data * np.array([3, 1, 3, 0.7, 1], np.float32)


@pytest.fixture
def mask(series):
    mask = np.zeros(series.shape[:3], bool)
    mask[1:3, 1:4, 2:5] = True
    return mask


def normalization_of(kind, context, mask):
    return make_normalization(kind, context.levels, context.means[0], mask)


def test_levels_are_medians_of_the_shell_means_in_the_mask(series, mask):
    context = shell_context(series, BVALS, mask, 50)
    np.testing.assert_array_equal(context.shells, [0, 1, 0, 2, 1])
    assert context.levels[1] == pytest.approx(np.median(series[..., [1, 4]].mean(axis=-1)[mask]), rel=1e-6)
    assert np.median(context.means[0][mask]) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.05, 10.0, 1000.0])
def test_a_volume_on_a_scale_of_its_own_does_not_touch_the_others(mask, factor):
    data = np.random.default_rng(0).uniform(90, 110, (*mask.shape, 9)).astype(np.float32)
    bvals = np.r_[0, np.full(8, 1000)]
    without = shell_context(np.delete(data, 3, axis=-1), np.delete(bvals, 3), mask, 50)
    data[..., 3] *= factor
    found = shell_context(data, bvals, mask, 50)
    np.testing.assert_allclose(found.means, without.means, rtol=1e-5)
    np.testing.assert_allclose(found.levels, without.levels, rtol=1e-5)
    (told,) = describe_odd_volumes(data, bvals, mask, 50)
    assert (told["volume"], told["b"]) == (3, 1000)
    assert told["times"] == pytest.approx(factor, rel=0.05)


def test_volumes_that_differ_as_directions_do_are_not_odd(series, mask):
    assert describe_odd_volumes(series, BVALS, mask, 50) == []
    medians = np.array([100.0, 100, 100, 30, 400])
    assert not odd_volumes(medians, np.zeros(5, int)).any()
    np.testing.assert_array_equal(odd_volumes(np.array([100.0, 501, 100]), np.zeros(3, int)), [False, True, False])
    assert not odd_volumes(np.array([100.0, 900]), np.zeros(2, int)).any()


def test_a_voxel_that_is_not_finite_in_one_volume_is_the_mean_of_the_others(series, mask):
    bvals = np.array([0, 0, 0, 1000, 1000])
    broken = series.copy()
    broken[0, 0, 0, 1], broken[1, 1, 2, 4] = np.nan, np.inf
    means = shell_context(broken, bvals, mask, 50)
    raw = means.means * means.levels[:, None, None, None]
    assert raw[0, 0, 0, 0] == pytest.approx(series[0, 0, 0, [0, 2]].mean(), rel=1e-5)
    assert raw[1, 1, 1, 2] == pytest.approx(series[1, 1, 2, 3], rel=1e-5)


def test_a_part_of_the_grid_has_the_same_levels(series, mask):
    context, box = shell_context(series, BVALS, mask, 50), np.s_[1:3, :, 2:]
    part = context.cropped(box)
    np.testing.assert_array_equal(part.means, context.means[(slice(None), *box)])
    np.testing.assert_array_equal(part.levels, context.levels)


def test_channel_zero_times_the_level_is_the_volume(series, mask):
    context = shell_context(series, BVALS, mask, 50)
    normalization = normalization_of("shell", context, mask)
    for index in range(5):
        channels = input_channels(SHOWN, normalization, context.sources(series[..., index], index, mask))
        np.testing.assert_allclose(channels[0] * context.level(index), series[..., index], rtol=1e-6)
        np.testing.assert_array_equal(channels[1], context.means[0])
        np.testing.assert_array_equal(channels[2], context.means[companion_shell(context.shells[index], 3)])


def test_a_weighted_volume_is_divided_by_the_mean_b0_in_the_brain(series, mask):
    context = shell_context(series, BVALS, mask, 50)
    b0 = series[..., [0, 2]].mean(axis=-1)
    normalization = normalization_of("b0", context, mask)
    volume, shown_b0, mean = input_channels(SHOWN, normalization, context.sources(series[..., 3], 3, mask))
    np.testing.assert_allclose(volume[mask], np.clip(series[..., 3] / b0, 0, 1.5)[mask], rtol=1e-5)
    assert not volume[~mask].any()
    np.testing.assert_allclose(shown_b0, b0 / np.percentile(b0[mask], 99), rtol=1e-5)
    np.testing.assert_allclose(mean, volume, rtol=1e-5)


def test_a_b0_volume_is_divided_by_the_99th_percentile_and_shown_the_lowest_shell(series, mask):
    context = shell_context(series, BVALS, mask, 50)
    b0 = series[..., [0, 2]].mean(axis=-1)
    sources = context.sources(series[..., 2], 2, mask)
    volume, _, mean = input_channels(SHOWN, normalization_of("b0", context, mask), sources)
    np.testing.assert_allclose(volume, series[..., 2] / np.percentile(b0[mask], 99), rtol=1e-5)
    lowest = series[..., [1, 4]].mean(axis=-1)
    np.testing.assert_allclose(mean[mask], np.clip(lowest / b0, 0, 1.5)[mask], rtol=1e-5)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("index", range(5))
def test_a_model_that_changes_nothing_gives_the_signal_back(series, mask, kind, index):
    context = shell_context(series, BVALS, mask, 50)
    normalization = normalization_of(kind, context, mask)
    sources = context.sources(series[..., index], index, mask)
    shown = input_channels(("volume",), normalization, sources)[0]
    b0 = normalization.denormalize(
        input_channels(("volume",), normalization, context.b0_sources(mask))[0], 0, np.zeros(0, np.float32)
    )
    signal = normalization.denormalize(shown, sources.volume_shell, b0) * context.level(index)
    kept = mask if kind == "b0" else np.ones_like(mask)
    np.testing.assert_allclose(signal[kept], series[..., index][kept], rtol=1e-5)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_the_gain_of_the_scanner_does_not_matter(series, mask, kind):
    shown = []
    for gain in (1, 37):
        context = shell_context(series * gain, BVALS, mask, 50)
        sources = context.sources(series[..., 3] * gain, 3, mask)
        shown.append(input_channels(SHOWN, normalization_of(kind, context, mask), sources))
    np.testing.assert_allclose(*shown, rtol=1e-5)


wild = st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e-30]))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (3, 3, 3, 2), elements=wild), st.sampled_from(NORMALIZATIONS))
def test_nothing_is_ever_divided_by_zero(values, kind):
    """Whatever a damaged scan holds, a model is given and gives numbers."""
    data, mask = np.concatenate([values, np.full_like(values, 100)], axis=-1), np.ones((3, 3, 3), bool)
    mask[0] = False
    bvals = np.array([0, 1000, 0, 1000])
    try:
        context = shell_context(data, bvals, mask, 50)
    except NoSignalError:
        return
    normalization = normalization_of(kind, context, mask)
    for index in range(4):
        sources = context.sources(data[..., index], index, mask)
        channels = input_channels(INPUTS, normalization, sources)
        signal = normalization.denormalize(channels[0], sources.volume_shell, np.zeros_like(channels[0]))
        assert np.isfinite(channels).all()
        assert np.isfinite(signal).all()
    if kind == "b0":
        assert channels[0].max() <= LARGEST_RATIO
        assert channels[0].min() >= 0


def test_where_the_b0_is_dark_the_ratio_stays_bounded_and_is_undone(series, mask):
    series[1, 1, 2, [0, 2]] = 0
    series[1, 1, 2, 1] = 1
    context = shell_context(series, BVALS, mask, 50)
    normalization = normalization_of("b0", context, mask)
    sources = context.sources(series[..., 1], 1, mask)
    shown = input_channels(("volume",), normalization, sources)[0]
    assert shown[1, 1, 2] == pytest.approx(1 / (LEAST_B0 * context.levels[0]), rel=1e-5)
    back = normalization.denormalize(shown, 1, context.means[0]) * context.level(1)
    assert back[1, 1, 2] == pytest.approx(1, rel=1e-5)


def test_inputs_come_in_the_order_of_their_names(series, mask):
    context = shell_context(series, BVALS, mask, 50)
    t1w = np.random.default_rng(1).random(mask.shape).astype(np.float32)
    sources = context.sources(series[..., 1], 1, mask, t1w)
    normalization = normalization_of("shell", context, mask)
    volume, b0, mean, anatomy = input_channels(INPUTS, normalization, sources)
    np.testing.assert_array_equal(anatomy, t1w)
    np.testing.assert_array_equal(
        input_channels(("volume", "t1w", "b0"), normalization, sources), np.stack([volume, t1w, b0])
    )
    assert not np.array_equal(b0, mean)


def test_without_a_t1w_its_channel_is_zero(series, mask):
    context = shell_context(series, BVALS, mask, 50)
    for kind in NORMALIZATIONS:
        sources = context.sources(series[..., 1], 1, mask)
        channels = input_channels(("volume", "t1w"), normalization_of(kind, context, mask), sources)
        assert channels.shape == (2, *mask.shape)
        assert not channels[1].any()


def test_single_values_are_normalized_like_volumes(series, mask):
    """Training asks for the truth at points."""
    context = shell_context(series, BVALS, mask, 50)
    normalization = normalization_of("b0", context, mask)
    sources = context.sources(series[..., 3], 3, mask)
    where = tuple(np.argwhere(mask)[:4].T)
    points = normalization.normalize(sources.volume[where], 2, sources.b0[where], mask[where])
    np.testing.assert_array_equal(points, input_channels(("volume",), normalization, sources)[0][where])


def test_an_unknown_input_is_a_bug(mask):
    empty = np.zeros(mask.shape, np.float32)
    sources = Sources(empty, 0, empty, empty, 0, mask)
    with pytest.raises(ValueError, match="flair"):
        input_channels(("flair",), make_normalization("shell", np.ones(1), empty, mask), sources)


def test_a_b0_is_accompanied_by_the_lowest_shell_and_others_by_their_own():
    assert [companion_shell(shell, 3) for shell in range(3)] == [1, 1, 2]
    assert companion_shell(0, 1) == 0


def test_not_a_number_counts_as_no_signal(series):
    series[0, 0, 0, 1] = np.nan
    mask = np.ones(series.shape[:3], bool)
    context = shell_context(series, BVALS, mask, 50)
    assert np.isfinite(context.means).all()
    assert context.sources(series[..., 1], 1, mask).volume[0, 0, 0] == 0


def test_a_shell_without_signal_is_named(series):
    series[..., 3] = 0
    with pytest.raises(NoSignalError, match="b = 2000"):
        shell_context(series, BVALS, np.ones(series.shape[:3], bool), 50)

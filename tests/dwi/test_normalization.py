"""Each shell in units of its own level; multiplying by the level undoes it."""

import numpy as np
import pytest

from bids_sr.dwi.normalization import companion_shell, shell_context
from bids_sr.errors import NoSignalError

BVALS = np.array([0, 1000, 5, 2000, 995])


@pytest.fixture
def series():
    return np.random.default_rng(0).uniform(50, 150, (4, 5, 6, 5)).astype(np.float32)


def test_levels_are_medians_of_the_shell_means_in_the_mask(series):
    mask = np.zeros(series.shape[:3], bool)
    mask[1:3, 1:4, 2:5] = True
    context = shell_context(series, BVALS, mask, 50)
    np.testing.assert_array_equal(context.shells, [0, 1, 0, 2, 1])
    assert context.levels[1] == pytest.approx(np.median(series[..., [1, 4]].mean(axis=-1)[mask]), rel=1e-6)
    assert np.median(context.means[0][mask]) == pytest.approx(1, rel=1e-6)


def test_channel_zero_times_the_level_is_the_volume(series):
    context = shell_context(series, BVALS, np.ones(series.shape[:3], bool), 50)
    for index in range(5):
        channels = context.channels(series[..., index], index)
        np.testing.assert_allclose(channels[0] * context.level(index), series[..., index], rtol=1e-6)
        np.testing.assert_array_equal(channels[1], context.means[0])


def test_the_gain_of_the_scanner_does_not_matter(series):
    mask = np.ones(series.shape[:3], bool)
    once, louder = shell_context(series, BVALS, mask, 50), shell_context(series * 37, BVALS, mask, 50)
    np.testing.assert_allclose(once.channels(series[..., 3], 3), louder.channels(series[..., 3] * 37, 3), rtol=1e-5)


def test_a_b0_is_accompanied_by_the_lowest_shell_and_others_by_their_own():
    assert [companion_shell(shell, 3) for shell in range(3)] == [1, 1, 2]
    assert companion_shell(0, 1) == 0


def test_not_a_number_counts_as_no_signal(series):
    series[0, 0, 0, 1] = np.nan
    context = shell_context(series, BVALS, np.ones(series.shape[:3], bool), 50)
    assert np.isfinite(context.means).all()
    assert context.channels(series[..., 1], 1)[0, 0, 0, 0] == 0


def test_a_shell_without_signal_is_named(series):
    series[..., 3] = 0
    with pytest.raises(NoSignalError, match="b = 2000"):
        shell_context(series, BVALS, np.ones(series.shape[:3], bool), 50)

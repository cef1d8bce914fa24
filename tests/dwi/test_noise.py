"""The standard deviation that was put in comes out, whatever the anatomy and the shell."""

import numpy as np
import pytest

from bids_sr.dwi.noise import noise_sd, noise_sd_between_neighbours, on_grid
from tests.dwi.made_series import directions

MASK = np.zeros((18, 16, 14), bool)
MASK[2:-2, 1:-3, 3:-1] = True
SIGMA = 7.0


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(0, SIGMA, (int(MASK.sum()), n)).astype(np.float32)


def smooth_anatomy():
    return sum(np.indices(MASK.shape))[MASK, None].astype(np.float32)


@pytest.mark.parametrize("number", [8, 12, 30, 90])
def test_the_noise_of_a_shell_is_found_beside_its_tensor(number):
    bvecs = directions(number)
    signal = 3000 + 40 * smooth_anatomy() * (bvecs**2 @ [3.0, 1.0, 0.5])
    assert np.median(noise_sd(signal.astype(np.float32) + noise(number), bvecs, MASK)) == pytest.approx(SIGMA, rel=0.05)


def test_crossing_fibres_are_no_noise_where_directions_are_many():
    bvecs = directions(60)
    quartic = 100 * (bvecs[:, 0] ** 2) * (bvecs[:, 1] ** 2)
    signal = np.full((int(MASK.sum()), 1), 1000, np.float32) + quartic.astype(np.float32) * 8
    assert np.median(noise_sd(signal + noise(60), bvecs, MASK)) == pytest.approx(SIGMA, rel=0.05)


def test_repeated_b0_volumes_differ_by_noise():
    assert np.median(noise_sd(1e4 + 100 * smooth_anatomy() + noise(4), None, MASK)) == pytest.approx(SIGMA, rel=0.05)


@pytest.mark.parametrize(("number", "bvecs"), [(1, None), (2, None), (6, directions(6))])
def test_too_few_volumes_tell_nothing(number, bvecs):
    assert noise_sd(noise(number), bvecs, MASK) is None


def test_a_few_wild_voxels_do_not_count():
    signal = noise(20)
    place = np.random.default_rng(2).choice(len(signal), len(signal) // 20, replace=False)
    signal[place] *= 50
    assert noise_sd(signal, directions(20), MASK).max() < 1.5 * SIGMA


def test_noise_that_varies_in_space_is_followed():
    level = 1 + (np.indices(MASK.shape)[0] > 8)[MASK, None]
    found = on_grid(noise_sd(noise(25) * level, directions(25), MASK), MASK)
    assert np.median(found[4, MASK[4]]) == pytest.approx(SIGMA, rel=0.1)
    assert np.median(found[14, MASK[14]]) == pytest.approx(2 * SIGMA, rel=0.1)


def test_neighbours_give_white_noise_too():
    found = noise_sd_between_neighbours(50 + 3 * smooth_anatomy() + noise(2), MASK)
    assert np.median(found) == pytest.approx(SIGMA, rel=0.06)

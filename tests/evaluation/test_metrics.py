"""Errors of known size."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from bids_sr.evaluation.metrics import (
    direction_error,
    frechet_distance,
    mean_absolute_error,
    mean_squared_error,
    nrmse,
    psnr,
    ssim,
    whole_volume_psnr,
    whole_volume_ssim,
)

TRUTH = np.linspace(0, 200, 20 * 21 * 22).reshape(20, 21, 22)
MASK = np.zeros(TRUTH.shape, bool)
MASK[4:16, 4:17, 4:18] = True


def test_psnr_of_a_constant_error():
    scale = np.ptp(TRUTH[MASK])
    assert psnr(TRUTH, TRUTH + scale / 10, MASK) == pytest.approx(20)
    assert psnr(TRUTH, TRUTH, MASK) == np.inf


def test_outside_the_mask_nothing_counts():
    other = np.where(MASK, TRUTH, -5.0)
    assert mean_absolute_error(TRUTH, other, MASK) == 0
    assert psnr(TRUTH, other, MASK) == np.inf


def test_ssim_of_equal_and_of_unrelated_images():
    noise = np.random.default_rng(0).random(TRUTH.shape) * 200
    assert ssim(TRUTH, TRUTH, MASK) == pytest.approx(1)
    assert ssim(TRUTH, noise, MASK) < 0.3


def test_the_frechet_distance_is_that_of_its_formula():
    """By the root of the product of the covariances, for sets that are large enough to have one."""
    random = np.random.default_rng(0)
    truth, restored = random.standard_normal((200, 6)), random.standard_normal((150, 6)) @ random.random((6, 6)) + 1
    covariances = np.cov(truth.T), np.cov(restored.T)
    expected = np.sum((truth.mean(axis=0) - restored.mean(axis=0)) ** 2) + np.trace(
        covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    assert frechet_distance(truth, restored) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(restored, truth) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_small_sets_is_finite_and_zero_for_equal_ones():
    random = np.random.default_rng(1)
    truth = random.standard_normal((5, 40))
    assert frechet_distance(truth, truth) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(truth, truth[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(truth, truth + 0.5) == pytest.approx(40 * 0.25)


def test_direction_error_ignores_the_sign():
    axes = np.zeros((*TRUTH.shape, 3))
    axes[..., 0] = 1
    angle = np.radians(12)
    turned = -axes * np.cos(angle)
    turned[..., 1] = np.sin(angle)
    assert direction_error(axes, turned, MASK) == pytest.approx(12, abs=1e-4)


def test_direction_error_of_no_voxel_is_not_a_number():
    axes = np.ones((*TRUTH.shape, 3))
    assert np.isnan(direction_error(axes, axes, np.zeros(TRUTH.shape, bool)))


def test_a_known_offset():
    assert mean_squared_error(TRUTH, TRUTH - 3, MASK) == pytest.approx(9)
    assert mean_absolute_error(TRUTH, TRUTH - 3, MASK) == pytest.approx(3)


def test_nrmse_of_nothing_of_zeros_and_of_a_known_gain():
    assert nrmse(TRUTH, TRUTH, MASK) == 0
    assert nrmse(TRUTH, np.zeros_like(TRUTH), MASK) == pytest.approx(1)
    assert nrmse(TRUTH, 1.25 * TRUTH, MASK) == pytest.approx(0.25)


def two_tones():
    """An image of 0 and 10 inside the mask, and of 1000 outside it; half of the mask each."""
    image = np.where(np.indices(TRUTH.shape)[1] % 2 == 0, 0.0, 10.0)
    return np.where(MASK, image, 1000.0)


def test_the_whole_volume_counts_its_empty_surroundings_as_restored():
    image = two_tones()
    noisy = image + np.where(np.indices(image.shape)[0] % 2 == 0, 1.0, -1.0)
    assert psnr(image, noisy, MASK) == pytest.approx(20)
    assert whole_volume_psnr(image, noisy, MASK) == pytest.approx(20 + 10 * np.log10(MASK.size / MASK.sum()))


def test_whole_volumes_are_compared_inside_the_mask_alone():
    image = two_tones()
    other = np.where(MASK, image, -5.0)
    assert whole_volume_psnr(image, other, MASK) == np.inf
    assert whole_volume_ssim(image, other, MASK) == pytest.approx(1)


def test_the_similarity_of_whole_volumes_is_that_of_its_formula():
    """Where both images are constant inside the window, only the means differ (Wang et al. 2004, eq. 6)."""
    image, everywhere = np.full((9, 9, 9), 10.0), np.ones((9, 9, 9), bool)
    c1 = (0.01 * 10) ** 2
    expected = (2 * 10 * 8 + c1) / (10**2 + 8**2 + c1)
    assert whole_volume_ssim(image, image - 2, everywhere) == pytest.approx(expected)


def test_unlike_volumes_are_not_similar():
    noise = np.random.default_rng(0).random(TRUTH.shape) * 200
    assert whole_volume_ssim(TRUTH, noise, MASK) < 0.9 * whole_volume_ssim(TRUTH, TRUTH, MASK)


def test_a_volume_thinner_than_the_window_has_no_similarity():
    thin, mask = TRUTH[:, :, :5], MASK[:, :, :5]
    assert np.isnan(whole_volume_ssim(thin, thin, mask))
    assert np.isnan(ssim(thin, thin, mask))

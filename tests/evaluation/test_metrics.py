"""Errors of known size."""

import numpy as np
import pytest

from bids_sr.evaluation.metrics import direction_error, mean_absolute_error, psnr, ssim

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


def test_direction_error_ignores_the_sign():
    axes = np.zeros((*TRUTH.shape, 3))
    axes[..., 0] = 1
    angle = np.radians(12)
    turned = -axes * np.cos(angle)
    turned[..., 1] = np.sin(angle)
    assert direction_error(axes, turned, MASK) == pytest.approx(12, abs=1e-4)

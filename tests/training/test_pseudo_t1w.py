"""Pictures made from a diffusion scan have the contrast that they are meant to have, and the range of a scaled T1w."""

import numpy as np
import pytest
from scipy import ndimage

from bids_sr.training.pseudo_t1w import (
    COEFFICIENTS,
    TYPICAL_SPREAD,
    PseudoT1ws,
    contrasts,
    fit_coefficients,
    polynomial,
    pseudo_t1w,
)

SHAPE = (20, 22, 24)
MASK = ((np.indices(SHAPE) - np.array([10, 11, 12])[:, None, None, None]) ** 2).sum(0) < 81


@pytest.fixture(scope="module")
def shown():
    random = np.random.default_rng(0)
    b0 = np.exp(ndimage.gaussian_filter(random.normal(0, 4, SHAPE), 2)).astype(np.float32)
    weighted = np.exp(ndimage.gaussian_filter(random.normal(0, 3, (6, *SHAPE)), (0, 1.5, 1.5, 1.5))).astype(np.float16)
    return contrasts(weighted, b0, MASK)


def test_contrasts_are_logarithms_and_the_spread_over_directions():
    weighted = np.ones((2, *SHAPE))
    weighted[0, 10:], weighted[1, 10:] = 1.5, 0.5
    b0, mean, spread = contrasts(weighted, np.full(SHAPE, np.e, np.float32), np.ones(SHAPE, bool))
    np.testing.assert_allclose(b0, 1, rtol=1e-6)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    assert spread[15, 5, 5] == pytest.approx(0.5 / np.median([0.0, 0.5]) * TYPICAL_SPREAD, rel=0.2)
    np.testing.assert_allclose(spread[:6], 0, atol=1e-6)


def test_the_spread_is_that_of_a_typical_scan(shown):
    assert np.median(shown[2][MASK]) == pytest.approx(TYPICAL_SPREAD, rel=1e-3)


def test_coefficients_are_found_again(shown):
    made = sum(c * term for c, term in zip(COEFFICIENTS, polynomial(shown), strict=True))
    found, explained = fit_coefficients(shown, np.where(made > 0.05, made, 0), MASK)
    np.testing.assert_allclose(found, COEFFICIENTS, atol=2e-3)
    assert explained == pytest.approx(1, abs=1e-4)
    assert fit_coefficients(shown, np.random.default_rng(0).random(SHAPE), MASK)[1] < 0.1


def test_the_fitted_contrast_is_that_of_a_t1w():
    """Fluid, grey and white matter: b0 and weighted signal in units of their median, spread over directions."""
    tissues = np.array([[3.0, 0.6, 0.15], [1.1, 1.1, 0.2], [0.9, 1.0, 0.6]])
    shown = np.stack([np.log(tissues[:, 0]), np.log(tissues[:, 1]), tissues[:, 2]])
    fluid, grey, white = sum(c * term for c, term in zip(COEFFICIENTS, polynomial(shown), strict=True))
    assert fluid < grey < white


@pytest.mark.parametrize("seed", range(6))
def test_pictures_are_scaled_like_a_t1w(shown, seed):
    picture = pseudo_t1w(shown, MASK, np.random.default_rng(seed))
    assert picture.shape == SHAPE
    assert not picture[~MASK].any()
    assert picture.min() >= 0
    assert picture.max() <= 1.5
    low, high = np.percentile(picture[MASK], [0.5, 99.5])
    assert low < 0.1
    assert high == pytest.approx(1, abs=0.15)


def test_pictures_follow_the_contrasts_of_the_scan(shown):
    """Most of what a picture shows is a function of the contrasts, whichever it is."""
    for seed in range(6):
        picture = pseudo_t1w(shown, MASK, np.random.default_rng(seed))
        assert fit_coefficients(shown, picture, MASK)[1] > 0.5


def test_versions_differ_and_stay_the_same(shown):
    pictures, again = PseudoT1ws(shown, MASK), PseudoT1ws(shown, MASK)
    np.testing.assert_array_equal(pictures.version(3), again.version(3))
    np.testing.assert_array_equal(pictures.version(3), pictures.version(3))
    assert not np.array_equal(pictures.version(3), pictures.version(4))


def test_a_scan_without_contrast_gives_numbers():
    flat = contrasts(np.ones((2, *SHAPE)), np.ones(SHAPE, np.float32), MASK)
    assert np.isfinite(pseudo_t1w(flat, MASK, np.random.default_rng(0))).all()

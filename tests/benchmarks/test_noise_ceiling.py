"""Ceilings of made scans whose noise is known."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.noise_ceiling import ceilings, definition, from_residuals, is_repeated, repeats
from bids_sr.dwi.gradients import Gradients
from bids_sr.evaluation.benchmark import compare_volumes
from tests.dwi.made_series import directions, signals
from tests.evaluation.made import reference

#: As anisotropic as brains are on the whole: polynomials of degree two follow its signals.
TENSOR = np.diag([1.0e-3, 0.7e-3, 0.7e-3])
SD = 30.0


def clean_series(n_directions):
    """The made series with another tensor."""
    made = reference(n_directions)
    return replace(made, data=(made.data[..., :1] * signals(TENSOR[None], made.gradients, 1.0)[0]).astype(np.float32))


CLEAN = clean_series(20)


def noisy(clean=CLEAN):
    """The made series with noise of a standard deviation of `SD` in every volume."""
    noise = np.random.default_rng(0).normal(0, SD, clean.data.shape)
    return replace(clean, data=(clean.data + noise).astype(np.float32))


def reached(clean, scan):
    """PSNR of the series without its noise, against the series with it."""
    return np.mean([figures.psnr_mask for figures in compare_volumes(scan, clean.data) if figures.weighted])


def twice(clean):
    """Each weighted volume once more, along the opposite direction, which is the same."""
    weighted = clean.gradients.bvals > 50
    bvals, bvecs = clean.gradients.bvals, clean.gradients.bvecs
    gradients = Gradients(np.r_[bvals, bvals[weighted]], np.vstack([bvecs, -bvecs[weighted]]))
    return replace(clean, data=np.concatenate([clean.data, clean.data[..., weighted]], -1), gradients=gradients)


def test_the_scan_without_its_noise_reaches_the_ceiling():
    scan = noisy()
    (ceiling,) = ceilings(scan)
    assert ceiling.source == "residuals"
    assert ceiling.psnr == pytest.approx(reached(CLEAN, scan), abs=0.3)
    assert 0.005 < ceiling.fa_error < 0.2
    # Of a tensor that is nearly round the mean diffusivity is that of the mean signal, to first order.
    assert ceiling.md_error == pytest.approx(expected_md_error(), rel=0.4)


def expected_md_error():
    """Mean absolute error of the mean of 20 logarithms of signals of which each has noise of `SD`, and of one b0."""
    inside = CLEAN.data[CLEAN.mask].astype(np.float64)
    variance = (SD / inside[:, 0]) ** 2 + np.mean((SD / inside[:, 1:]) ** 2, axis=1) / 20
    return float(np.mean(np.sqrt(variance * 2 / np.pi))) / 1000


def test_signals_that_no_polynomial_follows_make_the_ceiling_low():
    made = reference(20)
    scan = noisy(made)
    assert from_residuals(scan).psnr < reached(made, scan) - 1


def test_repeats_tell_the_noise_without_any_model_of_the_signal():
    clean = twice(CLEAN)
    scan = noisy(clean)
    _, ceiling = ceilings(scan)
    assert ceiling.source == "repeats"
    assert ceiling.psnr == pytest.approx(reached(clean, scan), abs=0.15)
    assert "repeats" in definition([ceiling])
    assert "- repeats" not in definition(ceilings(noisy()))


def test_each_volume_is_in_one_pair_at_most():
    axes = directions(4)
    gradients = Gradients(
        np.r_[0.0, np.full(4, 1000.0), 1000, 1000, 2000], np.vstack([np.zeros(3), axes, axes[0], axes[0], axes[1]])
    )
    assert repeats(gradients, 50.0) == [(1, 5)]
    assert not is_repeated(gradients, 50.0)
    assert not is_repeated(CLEAN.gradients, 50.0)
    assert is_repeated(twice(CLEAN).gradients, 50.0)


def test_too_few_volumes_tell_nothing():
    assert from_residuals(reference(6)) is None

"""Deviations of FA and MD are those that repeated measurements with such errors show."""

import numpy as np
import pytest

from bids_sr.dwi.tensor import fit_tensor
from bids_sr.dwi.tensor_deviations import relative_deviation, tensor_deviations
from tests.dwi.made_series import one_shell, signals, tensors

EIGENVALUES = np.array(
    [[1.7e-3, 0.3e-3, 0.3e-3], [1.2e-3, 0.8e-3, 0.4e-3], [0.9e-3, 0.8e-3, 0.7e-3], [0.8e-3, 0.8e-3, 0.8e-3]]
)
GRADIENTS = one_shell(30)
REPEATS = 400


def measured(clean: np.ndarray, deviations: np.ndarray, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares, (voxels,), of how far FA and MD of repeated measurements lie from those without errors."""
    random = np.random.default_rng(1)
    shape = (REPEATS, *clean.shape)
    common = np.repeat(random.standard_normal((*shape[:2], 2)), [1, len(GRADIENTS) - 1], axis=2)
    errors = np.sqrt(shared) * common + np.sqrt(1 - shared) * random.standard_normal(shape)
    noisy = (clean + deviations * errors).reshape(-1, 1, 1, len(GRADIENTS))
    maps = fit_tensor(noisy, GRADIENTS, 50, np.ones(noisy.shape[:3], bool))
    whole = fit_tensor(clean[:, None, None], GRADIENTS, 50, np.ones((len(clean), 1, 1), bool))
    return tuple(
        np.sqrt(np.mean((repeated.reshape(REPEATS, -1) - true.ravel()) ** 2, axis=0))
        for repeated, true in ((maps.fa, whole.fa), (maps.md, whole.md))
    )


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_deviations_are_those_of_repeated_measurements(shared):
    clean = np.repeat(signals(tensors(EIGENVALUES)[0], GRADIENTS), 20, axis=0)
    deviations = np.full(clean.shape, 30.0)
    deviations[:, 0] = 15
    fa, md = measured(clean, deviations, shared)
    told = tensor_deviations(
        clean[:, None, None], deviations[:, None, None], GRADIENTS, 50, np.ones((len(clean), 1, 1), bool), shared,
        np.random.default_rng(0),
    )  # fmt: skip
    for voxel in range(len(EIGENVALUES)):
        part = slice(20 * voxel, 20 * voxel + 20)
        assert told.fa[part].mean() == pytest.approx(fa[part].mean(), rel=0.1, abs=1e-4)
        assert told.md[part].mean() == pytest.approx(md[part].mean(), rel=0.1)


def test_intervals_hold_fa_where_errors_can_only_raise_it():
    """Measurements of an isotropic voxel show more FA than there is; their spread alone would not reach it."""
    n_voxels = 2000
    clean = np.repeat(signals(tensors(EIGENVALUES)[0], GRADIENTS)[3:], n_voxels, axis=0)[:, None, None]
    random, mask = np.random.default_rng(2), np.ones((n_voxels, 1, 1), bool)
    noisy = clean + 30 * random.standard_normal(clean.shape)
    measured_fa, clean_fa = (fit_tensor(data, GRADIENTS, 50, mask).fa for data in (noisy, clean))
    told = tensor_deviations(clean, np.full(clean.shape, 30.0), GRADIENTS, 50, mask, 0.0, random)
    within = np.abs(measured_fa - clean_fa) <= 1.6449 * told.fa
    assert 0.85 <= within.mean() <= 1


def test_errors_that_volumes_share_move_md_more_than_fa():
    clean = signals(tensors(EIGENVALUES)[0], GRADIENTS)[:, None, None]
    mask = np.ones(clean.shape[:3], bool)
    alone, together = (
        tensor_deviations(clean, np.full(clean.shape, 30.0), GRADIENTS, 50, mask, shared, np.random.default_rng(0))
        for shared in (0.0, 0.9)
    )
    assert np.all(together.md > 1.5 * alone.md)
    assert np.all(together.fa < alone.fa)


def test_certain_signals_give_certain_maps_and_there_is_nothing_outside_the_mask():
    clean = signals(tensors(EIGENVALUES)[0], GRADIENTS)[:, None, None]
    mask = np.array([True, False, True, True])[:, None, None]
    exact = tensor_deviations(clean, np.zeros(clean.shape), GRADIENTS, 50, mask, 0.4, np.random.default_rng(0))
    assert exact.fa.max() < 1e-6 and exact.md.max() < 1e-9
    spread = tensor_deviations(clean, np.full(clean.shape, 30.0), GRADIENTS, 50, mask, 0.4, np.random.default_rng(0))
    assert spread.fa[1] == 0 and spread.md[1] == 0 and spread.fa[0] > 0


def test_whatever_the_signals_the_maps_are_finite():
    random = np.random.default_rng(0)
    data = random.standard_normal((50, 1, 1, len(GRADIENTS))) * 100
    data[0], data[1, 0, 0, 3] = 0, np.nan
    told = tensor_deviations(data, np.abs(data), GRADIENTS, 50, np.ones((50, 1, 1), bool), 0.4, random)
    assert np.isfinite(told.fa).all() and np.isfinite(told.md).all()
    silent = tensor_deviations(data * 0, data * 0, GRADIENTS, 50, np.ones((50, 1, 1), bool), 0.4, random)
    assert not silent.fa.any() and not silent.md.any()


def test_the_relative_deviation_is_that_of_the_chosen_volumes_inside_the_mask():
    data = np.stack([np.full((2, 2, 2), level) for level in (900.0, 100.0, 300.0)], axis=-1)
    mask = np.ones((2, 2, 2), bool)
    mask[0, 0, 0] = False
    told = relative_deviation(data, data / 10, np.array([1, 2]), mask)
    np.testing.assert_allclose(told[mask], 20 / 200, rtol=1e-6)
    assert told[0, 0, 0] == 0

"""A restored series lies where the scan lay, and differs from interpolation only around the brain."""

import numpy as np
import pytest
import torch

from bids_sr.errors import ScaleTooLargeError
from bids_sr.geometry import Grid
from bids_sr.inference.upsampler import GROWTH, check_scale, plan_restoration, restore_mask, restore_volumes
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.interpolation import CubicSpline, cubic_on_grid
from bids_sr.models.registry import ModelCard
from tests.models.test_csr_dmri import SMALL, awake

GRID = Grid((14, 15, 12), np.array([[-2.0, 0, 0, 14], [0, 2, 0.3, -15], [0, -0.3, 2, -12], [0, 0, 0, 1]]))
BVALS = np.array([0.0, 1000, 1000])
CPU = torch.device("cpu")


@pytest.fixture
def series():
    return np.random.default_rng(0).uniform(50, 150, (*GRID.shape, 3)).astype(np.float32)


@pytest.fixture
def mask():
    mask = np.zeros(GRID.shape, bool)
    mask[5:9, 5:10, 4:8] = True
    return mask


def restored(series, target, mask, model):
    return np.stack(list(restore_volumes(series, BVALS, GRID, target, mask, model, b0_threshold=50, device=CPU)), -1)


def test_cubic_as_a_model_is_cubic_interpolation(series, mask):
    target = GRID.resized((25, 20, 30))
    expected = np.stack([cubic_on_grid(series[..., i], GRID, target) for i in range(3)], -1)
    np.testing.assert_allclose(restored(series, target, mask, CubicSpline()), expected.clip(0), rtol=2e-3)


def test_a_network_changes_nothing_away_from_the_brain(series, mask):
    target = GRID.resized((28, 30, 24))
    plan = plan_restoration(mask, GRID, target)
    cubic = restored(series, target, mask, CubicSpline())
    network = restored(series, target, mask, awake(CsrDmri(**SMALL)))
    np.testing.assert_array_equal(network[~plan.voxels], cubic[~plan.voxels])
    assert not np.allclose(network[plan.voxels], cubic[plan.voxels])
    assert network.min() >= 0


def test_scale_one_gives_the_scan_back(series, mask):
    for model in (CubicSpline(), awake(CsrDmri(**SMALL))):
        np.testing.assert_allclose(restored(series, GRID, mask, model), series, rtol=1e-4)


def test_the_gain_of_the_scanner_passes_through(series, mask):
    model, target = awake(CsrDmri(**SMALL)), GRID.resized((28, 30, 24))
    np.testing.assert_allclose(
        restored(series * 10, target, mask, model), 10 * restored(series, target, mask, model), rtol=1e-3, atol=0.1
    )


def test_a_world_ramp_stays_in_place(mask):
    """An untrained residual network interpolates, so a ramp must come out as a ramp on any target grid."""
    ramp = np.repeat((GRID.affine[:3, :3] @ np.indices(GRID.shape).reshape(3, -1) + GRID.affine[:3, 3:])[1], 3)
    series = (ramp.reshape(*GRID.shape, 3) + 100).astype(np.float32)
    target = GRID.at_resolution(np.array([1.3, 0.9, 1.7]))
    world = (target.affine[:3, :3] @ np.indices(target.shape).reshape(3, -1) + target.affine[:3, 3:])[1] + 100
    inside = restore_mask(mask, GRID, target)
    result = restored(series, target, mask, CsrDmri(**SMALL))[..., 1]
    np.testing.assert_allclose(result[inside], world.reshape(target.shape)[inside], atol=2e-3)


def test_a_mask_on_the_target_grid_fills_the_same_cells(mask):
    fine = restore_mask(mask, GRID, GRID.resized((28, 30, 24)))
    np.testing.assert_array_equal(fine, mask.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_what_is_restored_reaches_beyond_the_mask(mask):
    plan = plan_restoration(mask, GRID, GRID)
    assert plan.voxels[5 - GROWTH, 7, 6] and not plan.voxels[4 - GROWTH, 7, 6]


def test_a_magnification_beyond_the_model_is_refused():
    card = ModelCard("narrow", "For tests.", "csr_dmri", scale_range=(1.0, 2.0))
    check_scale(GRID, GRID.scaled(np.array([2.0, 1.5, 2.0])), card, "scan")
    with pytest.raises(ScaleTooLargeError, match=r"scan: .* x 0.6741 mm is 3.00 times finer .* at most 2 times"):
        check_scale(GRID, GRID.scaled(np.array([1.0, 1.0, 3.0])), card, "scan")


def test_a_mask_at_the_border_of_the_field_of_view(series):
    mask = np.ones(GRID.shape, bool)
    assert np.isfinite(restored(series, GRID.resized((20, 20, 20)), mask, awake(CsrDmri(**SMALL)))).all()

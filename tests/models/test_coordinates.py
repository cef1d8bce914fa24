"""What a field adds to interpolation explains what was measured, and the T1w decides what that leaves open."""

import numpy as np
import pytest
import torch

from bids_sr.degradation import degrade
from bids_sr.geometry import apply_along_axes
from bids_sr.inference.fitting import FitLog
from bids_sr.models.base import GUIDE_CHANNELS, Signal
from bids_sr.models.coordinates import (
    CoordinateNetwork,
    ScanField,
    interpolate_nodes,
    principal_components,
    stencils,
)
from bids_sr.models.interpolation import CubicSpline
from tests.models.thick_slices import error, made_scan, restored

torch.set_num_threads(1)
PLAIN, GUIDED = Signal(("volume",)), Signal(("volume",), guided=True)
SMALL = {"components": 3, "hidden": 24, "patch": 8, "learning_rate": 1e-2}
NOW = {**SMALL, "seconds": 0.05}


@pytest.fixture(scope="module")
def scan():
    return made_scan((2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def cubic(scan):
    return restored(scan, CubicSpline(), PLAIN)


@pytest.fixture(scope="module")
def guided(scan):
    return restored(scan, CoordinateNetwork(**SMALL, seconds=1.0), GUIDED, guide=True)


def test_guided_by_the_t1w_it_comes_closer_to_the_truth_than_interpolation(scan, cubic, guided):
    assert error(scan, guided) < 0.8 * error(scan, cubic)


def test_what_was_measured_is_explained_better_than_by_interpolation(scan, cubic, guided):
    seen = [degrade(found, scan.target, np.full(3, 2.0))[0] - scan.data for found in (cubic, guided)]
    assert np.abs(seen[1]).mean() < 0.6 * np.abs(seen[0]).mean()


def test_the_t1w_helps(scan, guided):
    log = FitLog()
    alone = restored(scan, CoordinateNetwork(**SMALL, seconds=1.0, guided=False), PLAIN, log)
    assert error(scan, guided) < error(scan, alone)
    assert "without a T1w" in log.record["sentence"]


def test_a_guided_model_does_without_a_t1w(scan, cubic):
    log = FitLog()
    found = restored(scan, CoordinateNetwork(**NOW), GUIDED, log)
    assert error(scan, found) < 1.1 * error(scan, cubic)
    assert "without a T1w" in log.record["sentence"]


def test_the_same_seed_gives_the_same_bytes(scan):
    results = [restored(scan, CoordinateNetwork(**NOW), GUIDED, guide=True) for _ in range(2)]
    np.testing.assert_array_equal(results[0], results[1])


def test_where_nothing_is_to_get_finer_nothing_is_fitted():
    scan, log = made_scan((1.0, 1.0, 1.0)), FitLog()
    found = restored(scan, CoordinateNetwork(**NOW), PLAIN, log)
    assert not log.record["learned"]
    np.testing.assert_allclose(found, scan.data, atol=1e-3)


def test_the_budget_decides_how_many_steps_there_are(scan):
    logs = [FitLog(), FitLog()]
    for log, seconds in zip(logs, (0.05, 0.2), strict=True):
        restored(scan, CoordinateNetwork(**SMALL, seconds=seconds), PLAIN, log)
    assert 1 <= 3 * logs[0].record["steps"] <= logs[1].record["steps"]


def test_it_sees_the_brain_so_often_and_no_more(scan):
    log = FitLog()
    restored(scan, CoordinateNetwork(**SMALL, seconds=100, passes=2), PLAIN, log)
    assert log.record["steps"] == 2 * 7, "15 voxels along each axis, 8 at once"


def test_volumes_of_few_kinds_are_sums_of_few_images():
    random = np.random.default_rng(0)
    images, mixtures = random.normal(size=(2, 5, 6, 7)), random.normal(size=(9, 2))
    volumes = np.tensordot(mixtures, images, 1).astype(np.float32)
    mask = random.random((5, 6, 7)) > 0.3
    found = principal_components(volumes, mask, 8)
    assert len(found.maps) == 2
    inside = found.maps[:, mask]
    np.testing.assert_allclose(inside @ inside.T / mask.sum(), np.eye(2), atol=1e-4)
    shares = volumes[:, mask] @ inside.T / mask.sum()
    np.testing.assert_allclose(np.tensordot(shares, found.maps, 1), volumes, atol=1e-3)


def test_nodes_are_interpolated_trilinearly():
    nodes = np.random.default_rng(0).normal(size=(2, 6, 5, 4)).astype(np.float32)
    places = [np.array([1.25, 1.75, 2.25]), np.array([0.5, 3.0]), np.array([2.0, 2.9])]
    weights = [np.clip(1 - np.abs(p[:, None] - np.arange(n)), 0, None) for p, n in zip(places, (6, 5, 4), strict=True)]
    expected = np.stack([apply_along_axes(one, [w.astype(np.float32) for w in weights]) for one in nodes])
    found = interpolate_nodes(torch.from_numpy(nodes), [torch.from_numpy(p.astype(np.float32)) for p in places])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_stencil_holds_the_voxel_in_its_middle():
    detail, values = torch.rand(2, 5, 6, 7)
    padded = torch.nn.functional.pad(torch.stack([detail, values]), (1,) * 6)
    found = stencils(padded, [1, 0, 2], [4, 3, 7])
    assert found.shape == (GUIDE_CHANNELS, 3, 3, 5)
    torch.testing.assert_close(found[13], detail[1:4, 0:3, 2:7])
    torch.testing.assert_close(found[12, ..., 1:], detail[1:4, 0:3, 2:6])
    torch.testing.assert_close(found[-1], values[1:4, 0:3, 2:7])


def test_a_field_begins_at_nothing():
    field = ScanField((4, 5, 6), 3, 2, 8)
    positions = [torch.arange(n, dtype=torch.float32) / 2 for n in (3, 4, 5)]
    assert field(positions, torch.rand(3, 3, 4, 5)).abs().max() == 0


def test_arguments_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="positive"):
        CoordinateNetwork(hidden=0)

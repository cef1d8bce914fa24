"""A simulated scan is what its settings say, of whatever head."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_sr.demo.analytic import analytic_phantom
from bids_sr.demo.dataset import centred_grid
from bids_sr.demo.phantom import GM, WM
from bids_sr.errors import TrainingDataError
from bids_sr.geometry import Grid, overlap_average
from bids_sr.training import anatomy, simulation
from bids_sr.training.packing import load_pack, save_pack
from bids_sr.training.simulation import (
    HEAD_BOX,
    HEAD_RADIUS,
    SimulationSettings,
    random_field_of_view,
    random_gradients,
    random_t1w,
    scan_head,
    simulate_scan,
    simulate_scans,
)

GRID = centred_grid((36, 42, 34), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
FINE = GRID.scaled(np.full(3, 2.0))
FEW = SimulationSettings(n_directions=6)
seeds = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def head():
    return analytic_phantom(FINE, FINE)


def scan(head, options=FEW, seed=0):
    return scan_head("made", head, GRID, options, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "wrong",
    [
        {"voxel_size": (2.0, 1.0)},
        {"voxel_size": (0.1, 1.0)},
        {"bval": (0.0, 1000.0)},
        {"snr": (0.0, 10.0)},
        {"snr": (float("nan"), 10.0)},
        {"misregistration": -1.0},
        {"odd_t1w_share": 1.5},
        {"n_b0": 0},
        {"n_directions": 5},
        {"n_voxels": 10},
    ],
)
def test_settings_that_make_no_scan_are_refused(wrong):
    with pytest.raises(TrainingDataError):
        SimulationSettings(**wrong)


@given(seeds, st.floats(0.5, 4), st.integers(1000, 2_000_000))
def test_the_field_of_view_lies_in_the_head_and_is_as_large_as_allowed(seed, size, n_voxels):
    options = SimulationSettings(voxel_size=(size, size), n_voxels=n_voxels)
    grid = random_field_of_view(options, np.random.default_rng(seed))
    np.testing.assert_allclose(grid.voxel_sizes, size)
    low = grid.affine[:3, 3] - size / 2
    high = low + size * np.array(grid.shape)
    bounds = np.array(HEAD_BOX)
    assert np.all(low >= bounds[:, 0] - 1e-6)
    assert np.all(high <= bounds[:, 1] + size)
    assert np.prod(grid.shape) <= n_voxels
    whole = np.prod(np.ceil(np.ptp(bounds, axis=1) / size))
    assert np.prod(grid.shape) > 0.6 * min(n_voxels, whole)


@settings(deadline=None, max_examples=15)
@given(seeds, st.integers(6, 16))
def test_gradients_are_b0_volumes_then_one_shell_or_two(seed, count):
    options = SimulationSettings(n_b0=3, n_directions=count)
    bvals, directions = random_gradients(options, np.random.default_rng(seed))
    assert len(bvals) == len(directions) == 3 + count
    np.testing.assert_array_equal(bvals[:3], 0)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), bvals > 0)
    assert np.all((bvals[3:] >= 700) & (bvals[3:] <= 3000))
    values, per_shell = np.unique(bvals[3:], return_counts=True)
    assert len(values) <= 2
    assert per_shell.min() >= 6
    assert np.ptp(values) == 0 or np.ptp(values) > 500


def test_some_scans_have_two_shells():
    shells = [len(np.unique(random_gradients(SimulationSettings(), np.random.default_rng(n))[0])) for n in range(12)]
    assert set(shells) == {2, 3}


def test_a_scan_has_what_a_packed_scan_has(head, tmp_path):
    made = scan(head, SimulationSettings(n_directions=6, misregistration=0.0))
    assert made.simulated
    assert made.data.dtype == made.t1w.dtype == np.float16
    assert made.data.shape == (8, *made.mask.shape)
    assert made.t1w.shape == tuple(2 * n for n in made.mask.shape)
    np.testing.assert_array_equal(made.shells, [0, 0, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(made.voxel_sizes, 2)
    for shell in range(2):
        np.testing.assert_allclose(
            made.data[made.shells == shell].mean(axis=0), made.means[shell], rtol=5e-3, atol=5e-3
        )
        assert np.median(made.means[shell][made.mask]) == pytest.approx(1, abs=1e-3)
    assert not made.t1w[~made.mask.repeat(2, 0).repeat(2, 1).repeat(2, 2)].any()
    assert made.mask.sum() * 8 == pytest.approx(head.mask.sum(), rel=0.04)
    save_pack([made], tmp_path / "made.safetensors")
    (read,) = load_pack(tmp_path / "made.safetensors")
    assert read.simulated
    np.testing.assert_array_equal(read.t1w, made.t1w)


def test_the_noise_is_that_of_the_settings(head):
    noisy, clean = (scan(head, dataclasses.replace(FEW, snr=(snr, snr))) for snr in (50.0, 1e6))
    # Where there is signal; in air, magnitudes cannot be negative.
    bright = clean.mask & (clean.data.astype(np.float32).min(axis=0) > 0.2)
    difference = (noisy.data.astype(np.float32) - clean.data)[:, bright]
    for shell in range(2):
        expected = clean.levels[0] / clean.levels[shell] / 50
        assert difference[clean.shells == shell].std() == pytest.approx(expected, rel=0.05)


def test_the_t1w_lies_where_the_tissue_is(head):
    made = scan(head, dataclasses.replace(FEW, odd_t1w_share=0.0))
    white = (head.tissue == WM).astype(np.float32)
    box = tuple(slice(start, start + n) for start, n in zip(_start(made), made.mask.shape, strict=True))
    shares = overlap_average(white, FINE, GRID)[box]
    t1w = made.t1w.astype(np.float32).reshape(*(m for n in made.mask.shape for m in (n, 2))).mean(axis=(1, 3, 5))

    def likeness(axis: int, step: int) -> float:
        inner = made.mask & np.roll(made.mask, step, axis)
        return float(np.corrcoef(np.roll(t1w, step, axis)[inner], shares[inner])[0, 1])

    assert likeness(0, 0) > 0.8
    for axis in range(3):
        # The centre of a parabola through three likenesses: a quarter of a voxel of 2 mm is the most allowed.
        before, here, after = (likeness(axis, step) for step in (-1, 0, 1))
        assert abs((before - after) / (before - 2 * here + after) / 2) < 0.3


def _start(made) -> list[int]:
    """Where the packed box of a scan, centred like the head, begins on the grid."""
    return [(n - m) // 2 for n, m in zip(GRID.shape, made.mask.shape, strict=True)]


def displacements(most: float, seed: int) -> np.ndarray:
    """How far the T1w of a head is believed to lie from where it is, in mm, at points all around the head."""
    shape = (8, 9, 7)
    grid = Grid(shape, centred_grid(shape, (1.0, 1.0, 1.0), (3.0, -5.0, 9.0)).affine)
    head = analytic_phantom(grid, grid)
    _, believed = random_t1w(head, SimulationSettings(misregistration=most), np.random.default_rng(seed))
    _, true = random_t1w(head, SimulationSettings(misregistration=0.0), np.random.default_rng(seed))
    motion = believed.affine @ np.linalg.inv(true.affine)
    directions = np.random.default_rng(0).standard_normal((200, 3))
    centre = true.affine[:3, :3] @ (np.subtract(true.shape, 1) / 2) + true.affine[:3, 3]
    sphere = centre + HEAD_RADIUS * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return np.linalg.norm(sphere @ motion[:3, :3].T + motion[:3, 3] - sphere, axis=1)


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0, 2))
def test_nothing_within_the_head_is_displaced_by_more_than_the_settings_say(seed, most):
    assert displacements(most, seed).max() <= most + 1e-9


def test_misregistration_is_there():
    assert max(displacements(0.5, seed).max() for seed in range(8)) > 0.2


def test_odd_t1w_images_are_reversed_or_bent_and_others_are_not(head):
    def order(share: float, seed: int) -> float:
        options = dataclasses.replace(FEW, odd_t1w_share=share, misregistration=0.0)
        image, grid = random_t1w(head, options, np.random.default_rng(seed))
        grey, white = (
            overlap_average((head.tissue == label).astype(np.float32), FINE, grid) > 0.9 for label in (GM, WM)
        )
        return float(image[grey].mean() / image[white].mean())

    usual = {seed: order(0.0, seed) for seed in range(8)}
    odd = {seed: order(1.0, seed) for seed in range(8)}
    assert np.ptp(list(usual.values())) < 0.01
    assert min(odd.values()) < min(usual.values()) - 0.03
    assert max(odd.values()) > 1.2


def test_a_view_without_brain_is_refused(head):
    empty = dataclasses.replace(head, mask=np.zeros_like(head.mask))
    with pytest.raises(TrainingDataError, match="no brain"):
        scan(empty)


def test_simulated_heads_follow_from_seed_and_number(monkeypatch):
    pytest.importorskip("nilearn", reason="the ICBM152 maps come with nilearn")
    # Fibres found on coarse voxels and a small part of the head, for speed.
    monkeypatch.setattr(anatomy, "SURVEY_MM", 5.0)
    monkeypatch.setattr(simulation, "HEAD_BOX", ((-40.0, 40.0), (-60.0, 20.0), (-20.0, 60.0)))
    options = SimulationSettings(voxel_size=(2.0, 2.5), n_voxels=20_000, n_directions=6)
    lines: list[str] = []
    first, second = simulate_scans(2, 7, options, lines.append)
    again = simulate_scan(1, 7, options)
    assert [first.name, second.name] == ["simulated-7-0", "simulated-7-1"]
    assert len(lines) == 2
    for field in ("data", "means", "mask", "t1w", "levels"):
        np.testing.assert_array_equal(getattr(second, field), getattr(again, field))
    assert first.data.shape != second.data.shape or not np.array_equal(first.data, second.data)
    for made in (first, second):
        assert made.mask.sum() > 5000
        for array in (made.data, made.means, made.t1w, made.levels):
            assert np.isfinite(array).all()
        # Directions differ where fibres are: more than noise.
        spread = made.data[made.shells == 1].astype(np.float32).std(axis=0)[made.mask]
        assert np.percentile(spread, 90) > 0.1

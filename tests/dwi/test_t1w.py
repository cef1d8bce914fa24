"""The T1w comes to the voxels of a series as a scanner with these voxels would have seen it."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bids_sr.degradation import FWHM_TO_SIGMA
from bids_sr.dwi.t1w import (
    T1wImage,
    by_parts,
    refined_t1w,
    refinement,
    scaled_t1w,
    t1w_channel,
    t1w_guide,
    t1w_on_grid,
)
from bids_sr.geometry import Grid


def grid_of(shape, voxel_sizes, rotation=(0, 0, 0), shift=(0, 0, 0)):
    """A grid of these voxels, turned around its centre, which lies at `shift` (mm)."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix() @ np.diag(voxel_sizes)
    affine[:3, 3] = np.array(shift) - affine[:3, :3] @ (np.subtract(shape, 1) / 2)
    return Grid(shape, affine)


def worlds(grid):
    """Centres of all voxels in mm, (x, y, z, 3)."""
    return np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def wave(grid, vector):
    """A plane wave of amplitude 1 and mean 2; `vector` (3,) in radians per mm."""
    return (2 + np.cos(worlds(grid) @ vector + 0.4)).astype(np.float32)


def blur(grid):
    """Covariance in the world, mm^2, of the point-spread function of the voxels of a grid."""
    axes = grid.affine[:3, :3]
    return axes @ axes.T * FWHM_TO_SIGMA**2


def weakened(vector, covariance):
    """What a Gaussian of this covariance leaves of a wave's amplitude."""
    return np.exp(-0.5 * vector @ covariance @ vector)


def whole(grid):
    return np.ones(grid.shape, bool)


T1W_GRID = grid_of((60, 64, 56), (1.0, 0.9, 1.1), rotation=(4, -7, 10), shift=(1, 2, -1))


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.7, 3.5)] * 3),
    st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_a_ramp_in_the_world_stays_where_it_is_on_any_grid(rotation, voxel_sizes, shift):
    grid = grid_of((7, 6, 5), voxel_sizes, rotation, shift)
    ramp = (worlds(T1W_GRID) @ [1.0, 2.0, -0.5]).astype(np.float32)
    read = t1w_on_grid(ramp, T1W_GRID, grid)
    np.testing.assert_allclose(read, worlds(grid) @ [1.0, 2.0, -0.5], atol=1e-3)


ROTATIONS = [(0, 0, 0), (20, 35, -15), (80, -40, 130)]
DIRECTIONS = [np.array(direction) for direction in ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.48, -0.6, 0.64])]
FINE_T1W = grid_of((64, 64, 64), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_wave_is_weakened_by_what_the_voxels_blur_more_than_the_t1w_did(rotation, direction):
    grid, vector = grid_of((9, 8, 7), (1.6, 1.6, 1.6), rotation), direction * 2 * np.pi / 4
    expected = weakened(vector, blur(grid) - blur(FINE_T1W))
    assert expected < 0.8
    read = t1w_on_grid(wave(FINE_T1W, vector), FINE_T1W, grid)
    there = wave(grid, vector) - 2
    assert (read - 2).ravel() @ there.ravel() / np.square(there).sum() == pytest.approx(expected, abs=0.015)
    np.testing.assert_allclose(read, 2 + expected * there, atol=0.05)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_channel_sees_a_wave_through_its_own_voxels_on_aligned_and_oblique_grids(rotation, direction):
    """Voxels that are no cubes: their point-spread function is turned with them."""
    grid, vector = grid_of((9, 8, 7), (2.0, 2.4, 3.2), rotation), direction * 2 * np.pi / 8
    parts = np.multiply(grid.shape, refinement(grid))
    weak = weakened(vector, blur(grid) - blur(grid.resized(tuple(parts.tolist()))))
    assert weak < 0.9
    # Where the wave is highest and lowest it is 0 and 1 on the working voxels; larger ones weaken it from there.
    channel = t1w_channel(wave(FINE_T1W, vector), FINE_T1W, grid, whole(grid))
    inner = np.s_[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(channel[inner], (0.5 + 0.5 * weak * (wave(grid, vector) - 2))[inner], atol=0.03)


def test_nothing_folds_over():
    """Stripes finer than the voxels average out instead of coming back as coarser ones."""
    t1w_grid, grid = grid_of((64, 60, 60), (0.5, 0.5, 0.5)), grid_of((8, 8, 8), (3.1, 3.2, 3.3), (3, 2, 5))
    place = worlds(t1w_grid)
    smooth = np.exp(-(place**2).sum(axis=-1) / 200)
    stripes = 0.5 * np.sin(2 * np.pi * place[..., 0] / 1.55)
    mask = whole(grid)
    calm, busy = (t1w_channel(image.astype(np.float32), t1w_grid, grid, mask) for image in (smooth, smooth + stripes))
    inner = np.s_[1:-1, 1:-1, 1:-1]
    slope = np.polyfit(calm[inner].ravel(), busy[inner].ravel(), 1)
    assert np.abs(np.polyval(slope, calm[inner]) - busy[inner]).max() < 0.03
    values = t1w_on_grid(stripes.astype(np.float32), t1w_grid, grid)
    assert np.nanmax(np.abs(values)) < 0.03


def head(seed=0):
    """A T1w with structure, positive."""
    values = np.random.default_rng(seed).normal(size=T1W_GRID.shape).astype(np.float32)
    return 500 + 100 * values + 10 * worlds(T1W_GRID)[..., 0].astype(np.float32)


GRID = grid_of((12, 10, 9), (2.0, 2.5, 3.0), rotation=(5, 0, 3))


@pytest.fixture
def mask():
    mask = np.zeros(GRID.shape, bool)
    mask[3:9, 2:8, 2:7] = True
    return mask


def test_it_is_zero_outside_the_mask_and_within_its_range_inside(mask):
    channel = t1w_channel(head(), T1W_GRID, GRID, mask)
    assert channel.dtype == np.float32
    assert channel.shape == GRID.shape
    assert not channel[~mask].any()
    assert channel.min() >= 0
    assert channel.max() <= 1.5
    assert channel[mask].std() > 0.05


def test_gain_and_offset_of_the_t1w_do_not_matter(mask):
    once, other = (t1w_channel(image, T1W_GRID, GRID, mask) for image in (head(), 37 * head() - 4000))
    np.testing.assert_allclose(once, other, atol=1e-4)


def test_the_crop_of_the_grid_does_not_matter(mask):
    low, shape = np.array([2, 1, 1]), (9, 8, 7)
    part = tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))
    cropped = t1w_channel(head(), T1W_GRID, GRID.cropped(low, shape), mask[part])
    np.testing.assert_allclose(cropped, t1w_channel(head(), T1W_GRID, GRID, mask)[part], atol=2e-6)


def test_bright_outliers_are_clipped(mask):
    image = head()
    image[30, 32, 28] = 1e6
    assert t1w_channel(image, T1W_GRID, GRID, mask).max() <= 1.5


def test_percentiles_of_the_brain_become_zero_and_one():
    values = np.linspace(100, 300, 1001, dtype=np.float32).reshape(7, 11, 13)
    mask = np.ones(values.shape, bool)
    mask[0] = False
    scaled = scaled_t1w(values, mask)
    low, high = np.percentile(values[mask], [0.5, 99.5])
    np.testing.assert_allclose(scaled[mask], np.clip((values[mask] - low) / (high - low), 0, 1.5), atol=1e-6)
    assert not scaled[~mask].any()


def test_what_is_unknown_is_zero_and_does_not_count():
    values = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    holes = values.copy()
    holes[::2] = np.nan
    scaled = scaled_t1w(holes, whole(Grid(values.shape, np.eye(4))))
    assert np.isfinite(scaled).all()
    assert not scaled[::2].any()
    assert np.percentile(scaled[1::2], 99.5) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_a_t1w_that_shows_nothing_gives_zeros(mask, value):
    channel = t1w_channel(np.full(T1W_GRID.shape, value, np.float32), T1W_GRID, GRID, mask)
    assert channel.shape == GRID.shape
    assert not channel.any()


def test_a_t1w_of_another_place_and_an_empty_mask_give_zeros(mask):
    elsewhere = grid_of(T1W_GRID.shape, (1, 1, 1), shift=(500, 0, 0))
    assert not t1w_channel(head(), elsewhere, GRID, mask).any()
    assert not t1w_channel(head(), T1W_GRID, GRID, np.zeros(GRID.shape, bool)).any()


def test_holes_in_the_t1w_stay_holes(mask):
    image = head()
    image[:30] = np.nan
    channel = t1w_channel(image, T1W_GRID, GRID, mask)
    assert np.isfinite(channel).all()
    assert channel.any()


def test_the_part_beyond_its_field_of_view_is_zero(mask):
    """A T1w that ends in the middle of the brain: the half that it shows is unlike zero, the other is zero."""
    short = T1W_GRID.cropped(np.array([30, 0, 0]), (30, 64, 56))
    channel = t1w_channel(head()[30:], short, GRID, mask)
    to_t1w = np.linalg.inv(short.affine)
    x = worlds(GRID) @ to_t1w[0, :3] + to_t1w[0, 3]
    assert not channel[mask & (x < -2)].any()
    assert (channel[mask & (x > 2)] > 0).mean() > 0.9


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(0.3, 6)] * 3))
def test_working_voxels_are_whole_parts_of_about_a_millimetre(voxel_sizes):
    parts = refinement(grid_of((4, 4, 4), voxel_sizes))
    sizes = np.array(voxel_sizes) / parts
    assert min(parts) >= 1
    assert np.all((sizes <= 1.5) & ((sizes >= 2 / 3) | (np.array(parts) == 1)))


def test_the_refined_t1w_fills_the_same_box(mask):
    fine = refined_t1w(head(), T1W_GRID, GRID, mask)
    assert fine.shape == (24, 20, 27)
    assert refinement(GRID) == (2, 2, 3)
    cells = fine.reshape(12, 2, 10, 2, 9, 3).max(axis=(1, 3, 5))
    assert not cells[~mask].any()
    # Half a voxel of misplacement would show: cells averaged are close to what larger voxels see.
    averaged = fine.reshape(12, 2, 10, 2, 9, 3).mean(axis=(1, 3, 5))
    inner = np.zeros_like(mask)
    inner[4:8, 3:7, 3:6] = True
    channel = t1w_channel(head(), T1W_GRID, GRID, mask)
    assert np.corrcoef(averaged[inner], channel[inner])[0, 1] > 0.9


def test_voxels_finer_than_the_t1w_are_interpolated():
    grid = grid_of((30, 30, 30), (0.4, 0.4, 0.4), rotation=(10, 0, 0))
    t1w_grid = grid_of((20, 20, 20), (1.0, 1.0, 1.0))
    ramp = worlds(t1w_grid)[..., 1].astype(np.float32)
    np.testing.assert_allclose(t1w_on_grid(ramp, t1w_grid, grid), worlds(grid)[..., 1], atol=1e-4)


def test_only_the_part_around_the_brain_is_read():
    """A huge T1w costs what the brain's box costs."""

    class Proxy:
        def __init__(self):
            self.shape, self.read = (2000, 2000, 2000), 0

        def __getitem__(self, index):
            shape = tuple(part.stop - part.start for part in index)
            self.read += int(np.prod(shape))
            return np.random.default_rng(0).random(shape, dtype=np.float32)

    proxy = Proxy()
    grid = grid_of((20, 20, 20), (2, 2, 2), rotation=(3, 4, 5))
    start = time.monotonic()
    channel = t1w_channel(proxy, grid_of(proxy.shape, (0.5, 0.5, 0.5)), grid, whole(grid))
    assert channel.any()
    assert proxy.read < 130**3
    assert time.monotonic() - start < 10


def test_the_parts_of_voxels_are_the_halves_along_each_axis():
    fine = np.random.default_rng(0).random((4, 6, 8)).astype(np.float32)
    parts = by_parts(fine).reshape(2, 2, 2, 2, 3, 4)
    for i, j, k in np.ndindex(2, 2, 2):
        np.testing.assert_array_equal(parts[i, j, k], fine[i::2, j::2, k::2])


def test_a_guide_is_the_t1w_on_halves_of_the_voxels_and_on_the_target():
    mask, target = whole(GRID), GRID.scaled(np.full(3, 1.5))
    guide = t1w_guide(T1wImage(head(), T1W_GRID), GRID, mask, target, whole(target))
    halves = GRID.scaled(np.full(3, 2.0))
    expected = t1w_channel(head(), T1W_GRID, halves, whole(halves))
    np.testing.assert_array_equal(guide.parts[3], expected[::2, 1::2, 1::2])
    np.testing.assert_array_equal(guide.target, t1w_channel(head(), T1W_GRID, target, whole(target)))


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_t1w_that_shows_nothing_is_no_guide(value):
    image = T1wImage(np.full(T1W_GRID.shape, value, np.float32), T1W_GRID)
    assert t1w_guide(image, GRID, whole(GRID), GRID, whole(GRID)) is None

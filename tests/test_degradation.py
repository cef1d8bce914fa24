"""Ramps, waves, points and noise have known answers under every profile of a larger voxel."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from bids_sr.degradation import (
    FWHM_TO_SIGMA,
    PROFILES,
    Profile,
    add_rician_noise,
    cell_centres,
    degrade,
    gaussian_sampling,
    sampling_matrix,
)
from bids_sr.geometry import Grid
from bids_sr.models.interpolation import cubic_on_grid

GRID = Grid((72, 80, 76), np.array([[-2.0, 0.1, 0, 30], [0.1, 2, 0.2, -40], [0, -0.2, 2.5, -20], [0, 0, 0, 1]]))
CELL_ALIGNED: tuple[Profile, ...] = ("gaussian", "box", "kspace", "slice", "bicubic")
scale_triples = st.tuples(*[st.floats(1, 4)] * 3)


def world_ramp(grid: Grid, slope: np.ndarray) -> np.ndarray:
    voxels = np.indices(grid.shape).reshape(3, -1).T
    return (slope @ (grid.affine[:3, :3] @ voxels.T + grid.affine[:3, 3:]) + 500).reshape(grid.shape).astype(np.float32)


def matrix_of(profile: Profile, n_source: int, n_low: int, width: float = 1.0) -> np.ndarray:
    ratio = n_source / n_low
    return sampling_matrix(profile, n_source, cell_centres(n_low, ratio), ratio, width)


@settings(max_examples=20, deadline=None)
@given(scale_triples, st.sampled_from(["gaussian", "box", "slice", "bicubic"]), st.sampled_from(["gaussian", "box"]))
def test_a_world_ramp_survives_degradation_and_restoration(scale, profile, other):
    slope = np.array([1.0, -2.0, 0.5])
    low, grid = degrade(world_ramp(GRID, slope), GRID, np.array(scale), profile=(profile, other, profile))
    interior = tuple(slice(2, -2) for _ in grid.shape)
    # The ramp rises by 4 per acquired voxel, so this is a thousandth of a voxel. A spline's border reaches further.
    if profile == "bicubic":
        interior = tuple(slice(n // 2 - 2, n // 2 + 2) for n in grid.shape)
    assert np.abs(low - world_ramp(grid, slope))[interior].max() < 4e-3
    back = cubic_on_grid(low, grid, GRID)
    inner = tuple(slice(n // 2 - 2, n // 2 + 2) for n in GRID.shape)
    assert np.abs(back - world_ramp(GRID, slope))[inner].max() < 4e-3


@pytest.mark.parametrize(("n", "n_low"), [(120, 60), (120, 50), (121, 47)])
def test_a_ramp_that_comes_back_survives_the_cut_of_kspace(n, n_low):
    """A ramp alone would jump where the periodic axis closes, and ring everywhere."""
    triangle = np.abs(np.arange(n) + 0.5 - n / 2)
    centres = cell_centres(n_low, n / n_low)
    expected = np.abs(centres + 0.5 - n / 2)
    slopes = np.abs(expected - n / 4) < n / 10
    assert np.abs(matrix_of("kspace", n, n_low) @ triangle - expected)[slopes].max() < 0.03


def amplitude(profile: Profile, frequency: float, ratio: float) -> float:
    """Transfer function at a frequency in cycles per source voxel."""
    sigma = ratio * FWHM_TO_SIGMA
    match profile:
        case "gaussian":
            return float(np.exp(-2 * (np.pi * sigma * frequency) ** 2))
        case "box":
            # Source voxels are averages over themselves already.
            return float(np.sinc(ratio * frequency) / np.sinc(frequency))
        case "kspace":
            return float(frequency < 0.5 / ratio)
        case "slice":
            x = np.linspace(-ratio, ratio, 20_001)
            profile_of_slice = np.exp(-0.5 * (x / sigma) ** 2)
            return float((profile_of_slice * np.cos(2 * np.pi * frequency * x)).sum() / profile_of_slice.sum())
        case _:
            return 1.0


#: Cells that end within voxels, as those of a box do at scale 2.4, take these for constant.
WAVE_TOLERANCES: dict[Profile, float] = {"gaussian": 5e-4, "box": 0.06, "kspace": 1e-5, "slice": 0.01, "bicubic": 2e-3}


@pytest.mark.parametrize(("profile", "tolerance"), WAVE_TOLERANCES.items())
@pytest.mark.parametrize(("n", "n_low"), [(240, 120), (240, 80), (240, 100), (243, 91)])
def test_a_wave_keeps_its_phase_and_is_damped_as_the_transfer_function_says(profile, tolerance, n, n_low):
    ratio, phase = n / n_low, 0.7
    centres = cell_centres(n_low, ratio)
    for cycles in (6, 15, 30):
        expected = amplitude(profile, cycles / n, ratio) * np.cos(2 * np.pi * cycles / n * centres + phase)
        wave = np.cos(2 * np.pi * cycles / n * np.arange(n) + phase)
        error = np.abs(matrix_of(profile, n, n_low) @ wave - expected)[8:-8]
        assert error.max() < tolerance


def test_averages_over_whole_voxels_are_the_plain_mean():
    values = np.random.default_rng(0).random(24)
    for ratio in (2, 3, 4):
        averages = matrix_of("box", 24, 24 // ratio) @ values
        np.testing.assert_allclose(averages, values.reshape(-1, ratio).mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("n_low", [50, 41])
def test_kspace_keeps_what_lies_below_the_new_nyquist_frequency_and_nothing_above(n_low):
    n = 97
    matrix, centres = matrix_of("kspace", n, n_low), cell_centres(n_low, n / n_low)
    for cycles in range(n // 2 + 1):
        wave = np.sin(2 * np.pi * cycles / n * np.arange(n) + 0.4)
        share = np.select([2 * cycles < n_low, 2 * cycles == n_low], [1.0, 0.5], 0.0)
        expected = share * np.sin(2 * np.pi * cycles / n * centres + 0.4)
        np.testing.assert_allclose(matrix @ wave, expected, atol=2e-6)


@pytest.mark.parametrize(("n", "n_low"), [(60, 31), (97, 41), (64, 33)])
def test_kspace_is_the_cropped_transform_with_its_phase_ramp(n, n_low):
    values = np.random.default_rng(0).random(n)
    keep = np.arange(n_low) - n_low // 2
    # Without this ramp the first sample would lie at voxel 0, not at the centre of the first cell.
    ramp = np.exp(2j * np.pi * keep / n * (n / n_low - 1) / 2)
    cropped = np.fft.fft(values)[keep] * ramp
    by_transform = np.fft.ifft(np.fft.ifftshift(cropped)).real * n_low / n
    np.testing.assert_allclose(matrix_of("kspace", n, n_low) @ values, by_transform, atol=2e-6)


@pytest.mark.parametrize("profile", CELL_ALIGNED)
@pytest.mark.parametrize("scale", [2, 3, 2.4, (1, 2.5, 3.2)])
def test_a_point_keeps_its_place(profile, scale):
    """The trap is the cut of k-space, whose sample 0 is voxel 0 unless one cares: half a voxel off at scale 2.

    The point is a blob that the largest voxels still resolve: with less, a box knows only which cell it is in.
    """
    place = np.array([23.3, 24.9, 22.0])
    axes = [np.exp(-0.5 * ((np.arange(48) - centre) / 3.5) ** 2) for centre in place]
    point = np.einsum("i,j,k->ijk", *axes).astype(np.float32)
    grid = Grid((48, 48, 48), np.diag([1.0, 1, 1, 1]))
    low, coarse = degrade(point, grid, np.broadcast_to(scale, 3).astype(float), profile=profile)
    voxels = np.indices(low.shape).reshape(3, -1)
    centroid = coarse.affine[:3, :3] @ (voxels @ low.ravel() / low.sum()) + coarse.affine[:3, 3]
    np.testing.assert_allclose(centroid, place, atol=0.02)
    mass = low.sum() * np.prod(np.divide(grid.shape, coarse.shape)) / point.sum()
    assert mass == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("n", "n_low"), [(40, 20), (40, 17), (33, 10), (12, 1)])
def test_zoom_is_that_of_scipy(n, n_low):
    values = np.random.default_rng(0).random(n)
    zoomed = ndimage.zoom(values, n_low / n, order=3)
    assert len(zoomed) == n_low
    np.testing.assert_allclose(matrix_of("zoom", n, n_low) @ values, zoomed, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_zoom_displaces_the_border_by_half_a_voxel_of_the_source_at_twice_the_size(scale):
    """What reads its result as cells of the same box is wrong by (scale - 1) / 2 source voxels at both ends."""
    n = 12 * scale
    ramp = np.arange(n, dtype=float)
    displacement = matrix_of("zoom", n, 12) @ ramp - cell_centres(12, scale)
    # The ramp bends at the mirrored ends; a spline feels that for a few voxels, but passes through the end itself.
    np.testing.assert_allclose(displacement[[0, -1]], [-(scale - 1) / 2, (scale - 1) / 2], atol=1e-6)
    assert abs(displacement[5] + displacement[6]) < 1e-5
    assert np.all(np.diff(displacement) > 0)


def noise_left(profile: Profile, ratio: float) -> float:
    """Variance of white noise after one axis, by the integral of the squared profile."""
    sigma = ratio * FWHM_TO_SIGMA
    match profile:
        case "gaussian":
            return float(1 / (2 * np.sqrt(np.pi) * sigma))
        case "slice":
            kept = 2 * stats.norm.cdf(ratio / sigma) - 1
            narrow = 2 * stats.norm.cdf(np.sqrt(2) * ratio / sigma) - 1
            return float(narrow / (2 * np.sqrt(np.pi) * sigma * kept**2))
        case _:
            return 1 / ratio


@pytest.mark.parametrize("profile", ["gaussian", "box", "kspace", "slice"])
@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_white_noise_falls_as_the_profile_averages(profile, ratio):
    noise = np.random.default_rng(0).standard_normal((240, 4000))
    low = (matrix_of(profile, 240, 240 // ratio) @ noise)[4:-4]
    assert low.var() == pytest.approx(noise_left(profile, ratio), rel=0.06)


def test_noise_hardly_falls_where_nothing_is_averaged():
    noise = np.random.default_rng(0).standard_normal((240, 4000))
    for ratio in (3, 5):
        # Samples at the centres of voxels: interpolation leaves them as they are.
        assert (matrix_of("bicubic", 240, 240 // ratio) @ noise).var() == pytest.approx(1, rel=0.02)
    assert (matrix_of("zoom", 240, 120) @ noise).var() == pytest.approx(0.86, abs=0.02)


@settings(deadline=None)
@given(st.sampled_from(PROFILES), st.integers(1, 60), st.floats(1, 8), st.floats(0.5, 1.5))
def test_constants_stay_constant_up_to_the_border(profile, n, ratio, width):
    weights = sampling_matrix(profile, n, np.linspace(-3, n + 2, 9), ratio, width)
    assert weights.shape == (9, n)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    if profile in ("gaussian", "box", "slice"):
        assert np.all(weights >= 0)


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.3, 8))
def test_a_gaussian_of_any_width_keeps_constants(n, fwhm):
    weights = gaussian_sampling(n, np.linspace(-0.4, n - 0.6, 9), fwhm)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert np.all(weights >= 0)


@pytest.mark.parametrize("width", [0.8, 1.0, 1.5])
def test_profiles_are_as_wide_as_asked_for(width):
    ratio = 10.0
    variances = {"gaussian": (width * ratio * FWHM_TO_SIGMA) ** 2, "box": (width * ratio) ** 2 / 12}
    for profile, expected in variances.items():
        row = sampling_matrix(profile, 101, np.array([50.0]), ratio, width)[0]
        assert row @ np.square(np.arange(101) - 50.0) == pytest.approx(expected, rel=0.06)
    data = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    low, _ = degrade(data, Grid((20, 20, 20), np.eye(4)), np.full(3, 2.0), width, "slice")
    expected_low = np.einsum("ai,bj,ck,ijk->abc", *[matrix_of("slice", 20, 10, width)] * 3, data)
    np.testing.assert_allclose(low, expected_low, atol=1e-5)


def test_a_slice_is_blind_beyond_one_slice():
    row = sampling_matrix("slice", 41, np.array([20.0]), 5.0)[0]
    assert np.flatnonzero(row).tolist() == list(range(15, 26))
    assert row[20] == pytest.approx(2 * row[[17, 18]].mean(), rel=0.05)


@pytest.mark.parametrize("profile", PROFILES)
def test_scale_one_changes_nothing(profile):
    data = np.random.default_rng(0).random((6, 7, 8, 2)).astype(np.float32)
    same, grid = degrade(data, Grid((6, 7, 8), np.eye(4)), np.ones(3), profile=profile)
    np.testing.assert_allclose(same, data, atol=1e-6)
    np.testing.assert_array_equal(grid.affine, np.eye(4))


def test_each_axis_has_its_own_profile_and_scale():
    data = np.random.default_rng(0).random((30, 32, 33)).astype(np.float32)
    scale = np.array([1.5, 2.0, 2.75])
    for first, last in product(("kspace", "box"), ("slice", "zoom")):
        low, grid = degrade(data, Grid(data.shape, np.eye(4)), scale, profile=(first, "gaussian", last))
        assert low.shape == grid.shape == (20, 16, 12)
        by_axis = [matrix_of(p, n, m) for p, n, m in zip((first, "gaussian", last), data.shape, low.shape, strict=True)]
        np.testing.assert_allclose(low, np.einsum("ai,bj,ck,ijk->abc", *by_axis, data), atol=1e-5)


def test_noise_follows_rice():
    generator = np.random.default_rng(0)
    air = add_rician_noise(np.zeros(200_000, np.float32), 20.0, generator)
    np.testing.assert_allclose(
        [air.mean(), air.std()], [20 * np.sqrt(np.pi / 2), 20 * np.sqrt(2 - np.pi / 2)], rtol=0.01
    )
    bright = add_rician_noise(np.full(200_000, 1000, np.float32), 20.0, generator)
    np.testing.assert_allclose([bright.mean(), bright.std()], [1000.2, 20], rtol=0.01)


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 200), st.floats(0.1, 50), st.integers(0, 1000))
def test_the_mean_square_of_a_noisy_magnitude(signal, sigma, seed):
    noisy = add_rician_noise(np.full(100_000, signal, np.float32), sigma, np.random.default_rng(seed))
    assert np.mean(np.square(noisy, dtype=np.float64)) == pytest.approx(signal**2 + 2 * sigma**2, rel=0.02)


def test_a_gaussian_that_reaches_one_voxel_only_keeps_it():
    # Its variance is zero but for rounding; a centre of mass cannot be moved then.
    centres = np.random.default_rng(0).uniform(2, 17, 2000)
    np.testing.assert_allclose(gaussian_sampling(20, centres, 0.5).sum(axis=1), 1, atol=1e-6)

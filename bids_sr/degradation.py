"""From high to low resolution: what a scanner with larger voxels would have measured."""

from typing import Literal, assert_never, get_args

import numpy as np
from numpy.typing import NDArray

from bids_sr.geometry import Grid, apply_along_axes
from bids_sr.splines import spline_weights

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))

#: How a large voxel sees the small ones. "gaussian": a point-spread function as wide as the voxel. "box": the average
#: over the voxel. "kspace": the low spatial frequencies only, as a scan with a smaller k-space matrix acquires them,
#: ringing included. "slice": the profile of a selected slice, for the axis across the slices of a 2D acquisition.
#: "bicubic": the cubic B-spline at the voxel's centre, which averages nothing and so aliases. "zoom": what
#: `scipy.ndimage.zoom` makes of the array, whose outermost CENTRES stay in place: at the border a voxel comes from
#: (ratio - 1) / 2 source voxels beside its centre. The last two are those of published training data, kept for
#: comparison with them.
Profile = Literal["gaussian", "box", "kspace", "slice", "bicubic", "zoom"]
PROFILES: tuple[Profile, ...] = get_args(Profile)


def sampling_matrix(
    profile: Profile, n_source: int, centres: NDArray[np.float64], ratio: float, width: float = 1.0
) -> NDArray[np.float32]:
    """Weights by which the samples of one axis see its source voxels.

    Parameters
    ----------
    profile : Profile
        How a sample sees the voxels around it.
    n_source : int
        Voxels of the source along the axis. "kspace" takes the axis as periodic, so it wants the whole of it.
    centres : ndarray, (n,)
        Where to sample, in source voxel coordinates (index i is a centre); moved into the source where beyond it.
        "zoom" needs their number only: it stretches the source, which must be the box that the samples fill.
    ratio : float
        Size of a sample's voxel in source voxels. At 1 and below, samples are linear interpolations.
    width : float
        Width of the profile over the size of the voxel: full width at half maximum of "gaussian" and "slice", full
        width of "box". The others have none.

    Returns
    -------
    weights : ndarray, float32, (n, n_source)
        Rows sum to one. Those of "kspace", "bicubic" and "zoom" have negative lobes.
    """
    inside = np.clip(np.asarray(centres, dtype=np.float64), -0.5, n_source - 0.5)
    if profile == "zoom":
        return spline_weights(np.linspace(0, n_source - 1, len(inside)), n_source)
    if ratio <= 1:
        return gaussian_sampling(n_source, inside, 0.0)
    match profile:
        case "gaussian":
            return gaussian_sampling(n_source, inside, width * ratio)
        case "box":
            return _box_weights(n_source, inside, width * ratio)
        case "kspace":
            return _kspace_weights(n_source, inside, ratio)
        case "slice":
            return _slice_weights(n_source, inside, width * ratio)
        case "bicubic":
            return spline_weights(inside, n_source)
        case _:
            assert_never(profile)


def gaussian_sampling(n_source: int, centres: NDArray[np.float64], fwhm: float) -> NDArray[np.float32]:
    """Weights of a Gaussian point-spread function around each sample of one axis.

    Parameters
    ----------
    n_source : int
        Voxels of the source along the axis.
    centres : ndarray, (n,)
        Where to sample, in source voxel coordinates (index i is a centre).
    fwhm : float
        Full width at half maximum in source voxels. Below half a voxel, where a sampled Gaussian
        means nothing, the samples are linear interpolations.

    Returns
    -------
    weights : ndarray, float32, (n, n_source)
        Rows sum to one, also at the border, where the function is cut off.
    """
    distance = _distances(n_source, centres)
    if fwhm < 0.5:
        return _normalized(np.clip(1 - np.abs(distance), 0, None))
    sigma = fwhm * FWHM_TO_SIGMA
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    # Four standard deviations hold all but 6e-5 of the function; the sample itself is always kept.
    reach = max(4 * sigma, 0.5)
    weights[np.abs(distance) > reach] = 0
    return _normalized(_centred(weights, distance, reach))


def _distances(n_source: int, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance of each source voxel from each sample, (n, n_source)."""
    return np.arange(n_source)[None, :] - np.asarray(centres, dtype=np.float64)[:, None]


def _normalized(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights whose rows sum to one."""
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _centred(weights: NDArray[np.float64], distance: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Weights tilted so that each row's centre of mass lies at its sample, where the border does not cut the row.

    A narrow function known at whole voxels only is off by up to a twentieth of a voxel (Gaussian) or a twelfth (box);
    ramps would not survive.
    """
    total = weights.sum(axis=1, keepdims=True)
    mean = (weights * distance).sum(axis=1, keepdims=True) / total
    variance = (weights * (distance - mean) ** 2).sum(axis=1, keepdims=True) / total
    tilt = np.divide(-mean, variance, out=np.zeros_like(mean), where=variance > 1e-9)
    tilted = weights * np.clip(1 + tilt * (distance - mean), 0, None)
    whole = (distance[:, :1] <= 1 - reach) & (distance[:, -1:] >= reach - 1)
    return np.where(whole, tilted, weights)


def _box_weights(n_source: int, centres: NDArray[np.float64], width: float) -> NDArray[np.float32]:
    """Average over the cell, `width` source voxels wide, around each sample: the length it shares with each voxel."""
    distance = _distances(n_source, centres)
    shared = np.minimum(distance + 0.5, width / 2) - np.maximum(distance - 0.5, -width / 2)
    return _normalized(_centred(np.clip(shared, 0, None), distance, width / 2 + 0.5))


def _slice_weights(n_source: int, centres: NDArray[np.float64], thickness: float) -> NDArray[np.float32]:
    """A Gaussian as wide, at half its maximum, as a slice, that ends one slice from the centre.

    Selective pulses are short: their profiles have slopes instead of edges, and reach into the neighbouring slices
    but not beyond (Zhao et al. 2021, IEEE Trans Med Imaging 40:805, model thick slices by the same Gaussian).
    """
    distance = _distances(n_source, centres)
    weights = np.exp(-0.5 * (distance / (thickness * FWHM_TO_SIGMA)) ** 2)
    # The share of each voxel that lies before the end, so that nothing jumps where a slice moves on.
    weights *= np.clip(thickness + 0.5 - np.abs(distance), 0, 1)
    return _normalized(_centred(weights, distance, thickness + 0.5))


def _kspace_weights(n_source: int, centres: NDArray[np.float64], ratio: float) -> NDArray[np.float32]:
    """The Fourier series of the axis, cut at the Nyquist frequency of the samples, evaluated at their centres.

    Equal to cropping the discrete Fourier transform with a phase ramp of (ratio - 1) / 2 voxels; without the ramp,
    sample 0 would lie at voxel 0 instead of the centre of the first cell. A frequency at the limit counts half.
    """
    limit = round(n_source / (2 * ratio), 9)
    frequencies = np.arange(1, int(limit) + 1)
    amplitudes = np.where(frequencies == limit, 1.0, 2.0)
    phases = 2 * np.pi / n_source * _distances(n_source, centres)
    series = np.cos(phases[..., None] * frequencies) @ amplitudes
    return ((1 + series) / n_source).astype(np.float32)


def low_resolution_grid(source: Grid, scale: NDArray[np.float64]) -> Grid:
    """The grid of the same box with voxels about `scale`, (3,), times as wide (rounded to a whole number of voxels)."""
    return source.scaled(1 / np.asarray(scale))


def cell_centres(count: int, ratio: float) -> NDArray[np.float64]:
    """Centres of `count` cells, each `ratio` source voxels wide, side by side from the source's edge, (count,)."""
    return (np.arange(count, dtype=np.float64) + 0.5) * ratio - 0.5


def degrade(
    data: NDArray[np.float32],
    source: Grid,
    scale: NDArray[np.float64],
    relative_fwhm: float = 1.0,
    profile: Profile | tuple[Profile, Profile, Profile] = "gaussian",
) -> tuple[NDArray[np.float32], Grid]:
    """Sample a scan with larger voxels, cells aligned.

    Signals are degraded, never ratios of signals.

    Parameters
    ----------
    data : ndarray, (x, y, z) or (x, y, z, n)
        The signal.
    source : Grid
        Its grid.
    scale : ndarray, (3,)
        How many times larger the voxels shall be, per axis.
    relative_fwhm : float
        Width of the point-spread function in voxels of the result, for the profiles that have one.
    profile : Profile or tuple of Profile, (3,)
        How a large voxel sees the small ones, for all axes or for each: ("kspace", "kspace", "slice") is a 2D
        acquisition of thick slices.

    Returns
    -------
    low : ndarray, float32
        Some profiles ring: values may be slightly negative beside bright borders.
    grid : Grid
        It fills the same box; its true scale is `source.shape / grid.shape`.
    """
    grid = low_resolution_grid(source, scale)
    profiles = (profile,) * 3 if isinstance(profile, str) else profile
    matrices = [
        sampling_matrix(kind, n, cell_centres(n_low, n / n_low), n / n_low, relative_fwhm)
        for kind, n, n_low in zip(profiles, source.shape, grid.shape, strict=True)
    ]
    return apply_along_axes(np.asarray(data, dtype=np.float32), matrices), grid


def add_rician_noise(signal: NDArray[np.float32], sigma: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Magnitude of a signal with Gaussian noise of standard deviation `sigma` in both channels of the receiver.

    Parameters
    ----------
    signal : ndarray, any shape
        Noise-free magnitude.
    sigma : float
        In the units of the signal. The mean square of the result is signal^2 + 2 sigma^2 (Gudbjartsson and Patz 1995).
    generator : numpy.random.Generator

    Returns
    -------
    noisy : ndarray, float32, same shape
    """
    real = signal + sigma * generator.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * generator.standard_normal(signal.shape, dtype=np.float32)
    return np.hypot(real, imaginary).astype(np.float32)

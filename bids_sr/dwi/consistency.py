"""Where a restored series departs from the acquired one by more than the noise allows.

The restored series is sampled again with the acquired voxels and compared with what was acquired. A network that
removes noise differs from the acquired series by that noise, volume by volume; what it invents or removes is the same
in all volumes of a shell, as anatomy is. So it is the means over shells that are compared, in units of the standard
error that noise gives them. Of noise alone the result is normally distributed with variance one (less, where the noise
was kept).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from bids_sr.degradation import FWHM_TO_SIGMA, gaussian_sampling
from bids_sr.dwi.b0 import Series
from bids_sr.dwi.gradients import Gradients, shells
from bids_sr.dwi.noise import noise_sd, noise_sd_between_neighbours, on_grid
from bids_sr.dwi.tensor import masked_signals
from bids_sr.geometry import Grid, apply_along_axes, axis_aligned
from bids_sr.splines import spline_weights

#: Standard errors beyond which a voxel counts as departed; chance alone gives `EXPECTED_SHARE`.
LIMIT = 3.0
EXPECTED_SHARE = float(2 * stats.norm.sf(LIMIT))
#: Full width at half maximum in mm of the regions over which departures are averaged: a small lesion.
REGION_MM = 4.0
#: Regions that are listed.
N_REGIONS = 3
#: Noise below this part of its median over the brain is taken as that much: where the scanner has cut the signal to
#: zero, neighbours agree without having been measured.
LEAST_OF_MEDIAN = 0.1
#: Noise below this part of the signal is rounding: the volumes of the shell are copies.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Support:
    """What the acquired series says about each shell, inside the brain.

    Attributes
    ----------
    grid : Grid
        The acquired grid.
    mask : ndarray of bool, (x, y, z)
        The brain, as far as there is signal.
    shells : ndarray of int, (n,)
        Shell of each volume, 0 for b0.
    bvals : tuple of float, (k,)
        Mean b-value of each shell in s/mm2.
    mean : ndarray, float32, (k, n_voxels)
        Mean signal of each shell.
    voxel_sd, region_sd : ndarray, float32, (k, n_voxels)
        Noise of ONE volume of each shell: of a voxel, and of an average over `REGION_MM`.
    """

    grid: Grid
    mask: NDArray[np.bool_]
    shells: NDArray[np.int64]
    bvals: tuple[float, ...]
    mean: NDArray[np.float32]
    voxel_sd: NDArray[np.float32]
    region_sd: NDArray[np.float32]

    @property
    def n_volumes(self) -> tuple[int, ...]:
        """Volumes of each shell, (k,)."""
        return tuple(int(np.sum(self.shells == shell)) for shell in range(len(self.bvals)))


@dataclass(frozen=True)
class Departure:
    """How far the restored series lies from the acquired one, in standard errors; 0 where nothing was compared.

    Attributes
    ----------
    compared : ndarray of bool, (x, y, z)
        Voxels of the brain that the restored series covers, see `covered`.
    voxel_z, region_z : ndarray, float32, (x, y, z, k)
        For each shell, of single voxels and of averages over `REGION_MM`; positive where the restored series is the
        brighter one.
    """

    compared: NDArray[np.bool_]
    voxel_z: NDArray[np.float32]
    region_z: NDArray[np.float32]


def acquired_support(
    acquired: Series, gradients: Gradients, b0_threshold: float, mask: NDArray[np.bool_], grid: Grid
) -> Support:
    """Mean and noise of each shell of the acquired series.

    Parameters
    ----------
    acquired : array or array proxy, (x, y, z, n)
        One shell at a time is held in memory, inside the mask.
    gradients : Gradients
        Of the n volumes.
    b0_threshold : float
        Largest b-value (s/mm2) that counts as b0.
    mask : ndarray of bool, (x, y, z)
        The brain; not empty.
    grid : Grid
        The acquired grid.
    """
    labels = shells(gradients.bvals, b0_threshold)
    mask = _with_signal(masked_signals(acquired, np.flatnonzero(labels == 0), mask), mask)
    smooth = region_average(mask, grid)
    parts = []
    for shell in range(labels.max() + 1):
        signals = masked_signals(acquired, np.flatnonzero(labels == shell), mask)
        bvecs = gradients.bvecs[labels == shell] if shell else None
        mean, voxel_sd = signals.mean(axis=1), _measured_noise(signals, bvecs, mask)
        neighbours = noise_sd_between_neighbours(signals, mask) if voxel_sd is None else None
        for volume in range(signals.shape[1]):
            signals[:, volume] = smooth(signals[:, volume])
        region_sd = None if voxel_sd is None else noise_sd(signals, bvecs, mask)
        parts.append((mean, voxel_sd, region_sd, neighbours))
    voxel_sd, region_sd = (_not_cut(noise) for noise in _completed(parts, _white_noise_left(mask, grid)))
    bvals = tuple(float(gradients.bvals[labels == shell].mean()) for shell in range(len(parts)))
    return Support(grid, mask, labels, bvals, np.stack([mean for mean, *_ in parts]), voxel_sd, region_sd)


def _with_signal(b0: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of a mask where a b0 volume, (n_voxels, n), has signal; all of them where none has.

    A mask may be wider than an image that was cut to the brain, and there is nothing to depart from there.
    """
    brightest = np.abs(b0).max(axis=1)
    return on_grid(brightest, mask) > 0 if brightest.any() else mask


def _measured_noise(
    signals: NDArray[np.float32], bvecs: NDArray[np.float64] | None, mask: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """`noise_sd`; None also where the volumes are copies of one, which tell nothing of it."""
    noise = noise_sd(signals, bvecs, mask)
    return None if noise is None or np.median(noise) <= ROUNDING * abs(np.median(signals)) else noise


def _not_cut(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Noise of each shell, (k, n_voxels), nowhere less than a part of its median."""
    return np.maximum(noise, LEAST_OF_MEDIAN * np.median(noise, axis=1, keepdims=True))


def _completed(parts: Sequence[Any], left: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Noise of voxels and of regions for all shells, (k, n_voxels), also for those with too few volumes.

    The receiver's noise is the same at each b-value, so they take that of the lowest weighted shell that has it, or of
    the b0; where no shell has it, differences between neighbours must do, as white noise, of which `left` is left.
    """
    measured = [(voxel, region) for _, voxel, region, _ in [*parts[1:], parts[0]] if voxel is not None]
    levels = []
    for _, voxel, region, neighbours in parts:
        if voxel is not None:
            levels.append((voxel, region))
        else:
            levels.append(measured[0] if measured else (neighbours, left * neighbours))
    return np.stack([voxel for voxel, _ in levels]), np.stack([region for _, region in levels])


def region_average(mask: NDArray[np.bool_], grid: Grid) -> Callable[[NDArray[np.floating]], NDArray[np.float32]]:
    """The function that averages values of a mask, (n_voxels,), over `REGION_MM` inside it (a Gaussian)."""
    sigma = REGION_MM * FWHM_TO_SIGMA / grid.voxel_sizes
    share = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant")[mask]

    def average(values: NDArray[np.floating]) -> NDArray[np.float32]:
        smoothed = ndimage.gaussian_filter(on_grid(values, mask), sigma, mode="constant")[mask]
        return np.asarray(smoothed / share, dtype=np.float32)

    return average


def _white_noise_left(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float32]:
    """Standard deviation that white noise of one keeps in `region_average` over a mask, (n_voxels,)."""
    impulse = np.zeros(33)
    impulse[16] = 1
    sums, squares = (mask.astype(np.float32) for _ in range(2))
    for axis, sigma in enumerate(REGION_MM * FWHM_TO_SIGMA / grid.voxel_sizes):
        weights = ndimage.gaussian_filter1d(impulse, sigma, mode="constant")
        sums, squares = (
            ndimage.correlate1d(values, kernel, axis, mode="constant")
            for values, kernel in ((sums, weights), (squares, weights**2))
        )
    return np.asarray(np.sqrt(squares[mask]) / sums[mask], np.float32)


def _region_noise(support: Support, compared: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Noise of one volume of each shell in averages over the voxels that were compared, (k, n_compared).

    It was measured in averages over the whole mask. Where the field of view leaves fewer voxels, more noise is left.
    """
    left = (
        _white_noise_left(compared, support.grid)
        / _white_noise_left(support.mask, support.grid)[compared[support.mask]]
    )
    return support.region_sd[:, compared[support.mask]] * left


def departure(support: Support, restored: Series, target: Grid) -> Departure:
    """Sample a restored series with the acquired voxels and compare it with what was acquired.

    Parameters
    ----------
    support : Support
        Of the acquired series.
    restored : array or array proxy, (x, y, z, n)
        On the target grid, the volumes in the order of the acquired series; read one at a time.
    target : Grid
        With the axes of the acquired grid; sizes and position may differ.

    Raises
    ------
    ValueError
        If the axes of the grids differ.
    """
    compared = support.mask & covered(target, support.grid)
    here = compared[support.mask]
    smooth, region_sd = region_average(compared, support.grid), _region_noise(support, compared)
    matrices = observation(target, support.grid)
    maps = []
    for shell, n_volumes in enumerate(support.n_volumes):
        seen = apply_along_axes(_mean_volume(restored, np.flatnonzero(support.shells == shell)), matrices)
        difference = (seen[support.mask] - support.mean[shell])[here] * np.float32(np.sqrt(n_volumes))
        z = (
            _ratio(difference, support.voxel_sd[shell, here]),
            _ratio(smooth(difference), region_sd[shell]),
        )
        maps.append([on_grid(values, compared) for values in z])
    voxel_z, region_z = (np.stack(volumes, axis=-1) for volumes in zip(*maps, strict=True))
    return Departure(compared, voxel_z, region_z)


def seen_means(departure: Departure, support: Support) -> NDArray[np.float32]:
    """What acquired voxels see of the restored series: the mean of each shell, (x, y, z, k); 0 where not compared."""
    error = support.voxel_sd / np.sqrt(np.array(support.n_volumes, np.float32))[:, None]
    seen = support.mean + departure.voxel_z[support.mask].T * error
    return np.stack([on_grid(values, departure.compared) for values in seen[:, departure.compared[support.mask]]], -1)


def _mean_volume(series: Series, volumes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean of the chosen volumes, (x, y, z); what is not finite counts as 0."""
    total = np.zeros(series.shape[:3], np.float32)
    for volume in volumes:
        total += np.nan_to_num(np.asarray(series[..., int(volume)], np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return total / np.float32(len(volumes))


def _ratio(values: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values in units of the noise; 0 where there is none, as in an empty shell."""
    return np.divide(values, noise, out=np.zeros_like(values), where=noise > 0)


def observation(target: Grid, acquired: Grid) -> list[NDArray[np.float32]]:
    """How acquired voxels see an image of target voxels: one matrix, (n_acquired, n_target), per axis.

    Both voxels see the object through a Gaussian as wide, at half its maximum, as themselves. The image holds that of
    the target voxel already, and widths add up as squares; the Gaussian between them is what the root of the
    difference of the squares gives. It vanishes where the voxels are equal: a scan departs by nothing from itself.

    Parameters
    ----------
    target, acquired : Grid
        With the same axes.

    Raises
    ------
    ValueError
        If the axes of the grids differ.
    """
    matrices = []
    for n_target, (centres, ratio) in zip(target.shape, _samples(target, acquired), strict=True):
        fwhm = _fwhm_between(ratio)
        inside = np.clip(centres, -0.5, n_target - 0.5)
        # Splines where the Gaussian is too narrow to be sampled: linear interpolation would blur more than it.
        matrices.append(gaussian_sampling(n_target, inside, fwhm) if fwhm >= 0.5 else spline_weights(inside, n_target))
    return matrices


def covered(target: Grid, acquired: Grid) -> NDArray[np.bool_]:
    """Acquired voxels, (x, y, z), whose cell lies in the target's box, with all but a hundredth of `observation`.

    At the edge of the box the outermost acquired voxels see what no image of the box can tell.
    """
    inside = []
    for n_target, (centres, ratio) in zip(target.shape, _samples(target, acquired), strict=True):
        reach = max(ratio / 2, stats.norm.ppf(0.99) * _fwhm_between(ratio) * FWHM_TO_SIGMA) - 0.01
        inside.append((centres - reach >= -0.5) & (centres + reach <= n_target - 0.5))
    return inside[0][:, None, None] & inside[1][:, None] & inside[2]


def _fwhm_between(ratio: float) -> float:
    """Width of the Gaussian from a target voxel to one `ratio` times as wide, in target voxels."""
    return float(np.sqrt(max(ratio**2 - 1, 0)))


def _samples(target: Grid, acquired: Grid) -> list[tuple[NDArray[np.float64], float]]:
    """Centres of the acquired voxels and their size, in voxels of the target, for each axis.

    Raises
    ------
    ValueError
        If the axes of the grids differ.
    """
    if not axis_aligned(target, acquired):
        raise ValueError("Sampling a series again needs grids with the same axes.")
    to_target = np.linalg.inv(target.affine) @ acquired.affine
    ratios = np.diag(to_target)[:3]
    return [
        (ratio * np.arange(n) + offset, float(ratio))
        for n, ratio, offset in zip(acquired.shape, ratios, to_target[:3, 3], strict=True)
    ]


def summarize(departure: Departure, support: Support) -> dict[str, Any]:
    """The numbers of a departure, ready for JSON.

    Returns
    -------
    dict
        "limit" and "region_mm"; "expected": the share of voxels beyond the limit that chance alone gives; "voxels":
        how many were compared; "shells": for each its "b" (s/mm2), "volumes", "share" (of voxels beyond the limit),
        "region_share" (the same of averages over a region) and "excess" (how far the means depart on top of the noise,
        root mean square, in standard deviations of the noise of one volume); "share", "region_share" and
        "expected_in_any" for voxels beyond the limit in any shell; "regions": see `regions`.
    """
    compared = departure.compared
    rows = [
        {
            "b": round(support.bvals[shell], 1),
            "volumes": n_volumes,
            "share": _share(departure.voxel_z[compared][:, shell]),
            "region_share": _share(departure.region_z[compared][:, shell]),
            "excess": _excess(departure.voxel_z[compared][:, shell], n_volumes),
        }
        for shell, n_volumes in enumerate(support.n_volumes)
    ]
    return {
        "limit": LIMIT,
        "region_mm": REGION_MM,
        "expected": EXPECTED_SHARE,
        "expected_in_any": 1 - (1 - EXPECTED_SHARE) ** len(rows),
        "voxels": int(compared.sum()),
        "share": _share(np.abs(departure.voxel_z[compared]).max(axis=1)),
        "region_share": _share(np.abs(departure.region_z[compared]).max(axis=1)),
        "shells": rows,
        "regions": regions(departure, support),
    }


def _share(z: NDArray[np.float32]) -> float:
    """Share of values beyond the limit; 0 where there are none."""
    return float(np.mean(np.abs(z) > LIMIT)) if z.size else 0.0


def _excess(z: NDArray[np.float32], n_volumes: int) -> float:
    """Root mean square departure on top of the noise, in standard deviations of the noise of one volume."""
    return float(np.sqrt(max(np.mean(np.square(z, dtype=np.float64)) - 1, 0) / n_volumes)) if z.size else 0.0


def regions(departure: Departure, support: Support) -> list[dict[str, Any]]:
    """The regions that depart most, at most `N_REGIONS`, the strongest first.

    A region is what is connected to its strongest voxel with at least half of its departure and beyond the limit, in
    one shell and of one sign: where much of the brain is beyond the limit, the limit alone would join it to one piece.

    Returns
    -------
    list of dict
        "b" of the shell in s/mm2, "voxel" (3,) and "centre_mm" (3,) in world coordinates (RAS+) of the strongest
        voxel, its "z" and "sigma" (the departure of the region's average in standard deviations of the noise of one
        voxel of one volume), and "voxels": the size.
    """
    remaining = departure.region_z.copy()
    region_sd = _region_noise(support, departure.compared)
    voxel_sd = support.voxel_sd[:, departure.compared[support.mask]]
    found: list[dict[str, Any]] = []
    while len(found) < N_REGIONS:
        *voxel, shell = (int(i) for i in np.unravel_index(np.argmax(np.abs(remaining)), remaining.shape))
        peak = float(remaining[(*voxel, shell)])
        if abs(peak) <= LIMIT:
            break
        # A voxel already counted in another shell is zero here, so no region is listed twice.
        labels, _ = ndimage.label(np.sign(peak) * remaining[..., shell] >= max(LIMIT, abs(peak) / 2))
        region = labels == labels[tuple(voxel)]
        remaining[ndimage.binary_dilation(region)] = 0
        noise = on_grid(region_sd[shell] / voxel_sd[shell], departure.compared)[tuple(voxel)]
        found.append(
            {
                "b": round(support.bvals[shell], 1),
                "voxel": voxel,
                "centre_mm": [round(float(x), 1) for x in support.grid.affine[:3] @ [*voxel, 1]],
                "z": round(peak, 2),
                "sigma": round(peak * float(noise) / support.n_volumes[shell] ** 0.5, 2),
                "voxels": int(region.sum()),
            }
        )
    return found


def sentence(restored: dict[str, Any], cubic: dict[str, Any] | None) -> str:
    """What `summarize` found, for the restored and the interpolated series (if they are two), in plain words."""
    if not restored["voxels"]:
        return "Nothing of the restored series could be compared with the acquired one: the scan has too few voxels."
    compared = "" if cubic is None else f", cubic interpolation in {cubic['share']:.1%}"
    text = (
        f"Sampled again with the acquired voxels, the restored series departs from the acquired one beyond the noise "
        f"in {restored['share']:.1%} of the brain's voxels{compared}; chance alone gives "
        f"{restored['expected_in_any']:.1%}."
    )
    if not restored["regions"]:
        return f"{text} No region of {REGION_MM:g} mm stands out."
    worst = restored["regions"][0]
    where = ", ".join(f"{x:.0f}".replace("-", "−") for x in worst["centre_mm"])
    return (
        f"{text} It departs most around ({where}) mm, where it is {'brighter' if worst['z'] > 0 else 'darker'} than "
        f"acquired by {abs(worst['sigma']):.1f} times the noise of a volume at b = {worst['b']:.0f} s/mm² "
        f"({worst['voxels']} voxels)."
    )

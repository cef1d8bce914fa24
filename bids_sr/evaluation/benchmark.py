"""A restoration put to the test: a scan is degraded, and what comes back is compared with what was acquired."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bids_sr.degradation import Profile, add_rician_noise, degrade
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import Gradients, is_b0, spread_out, tensor_rank
from bids_sr.dwi.normalization import B0Normalization
from bids_sr.dwi.tensor import TensorMaps, fit_tensor
from bids_sr.errors import EmptyMaskError
from bids_sr.evaluation.metrics import (
    direction_error,
    mean_absolute_error,
    mean_squared_error,
    nrmse,
    psnr,
    ssim,
    whole_volume_psnr,
    whole_volume_ssim,
)
from bids_sr.geometry import Grid, overlap_average

Float = NDArray[np.float32]
Profiles = Profile | tuple[Profile, Profile, Profile]

#: A direction means something where the acquired FA exceeds this.
LEAST_FA = 0.3
#: Weighted volumes that a tensor needs.
FEWEST_VOLUMES = 6
#: The noise that is added is the same in every run.
NOISE_SEED = 0


@dataclass(frozen=True)
class Reference:
    """An acquired series, and what restorations of it are compared with.

    Attributes
    ----------
    data : ndarray, (x, y, z, n), float32
        As acquired, finite.
    gradients : Gradients
        Of the n volumes.
    grid : Grid
        Its voxels.
    mask : ndarray of bool, (x, y, z)
        The brain: all errors are measured inside.
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    """

    data: Float
    gradients: Gradients
    grid: Grid
    mask: NDArray[np.bool_]
    b0_threshold: float

    @cached_property
    def weighted(self) -> NDArray[np.bool_]:
        """Which volumes are diffusion weighted, (n,)."""
        return ~is_b0(self.gradients.bvals, self.b0_threshold)

    @cached_property
    def b0(self) -> Float:
        """Mean b0, (x, y, z)."""
        return mean_b0(self.data, self.gradients.bvals, self.b0_threshold)

    @cached_property
    def level(self) -> float:
        """Median of the mean b0 in the brain: the unit in which errors of signals and noise are told."""
        return float(np.median(self.b0[self.mask]))

    @cached_property
    def maps(self) -> TensorMaps:
        """The tensor as acquired."""
        return fit_tensor(self.data, self.gradients, self.b0_threshold, self.mask)


@dataclass(frozen=True)
class Degraded:
    """What a scanner with larger voxels would have measured.

    Attributes
    ----------
    data : ndarray, (x, y, z, n), float32
    grid : Grid
        It fills the same box as the acquired one.
    mask : ndarray of bool, (x, y, z)
        Voxels at least half of which lie in the acquired brain.
    """

    data: Float
    grid: Grid
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class VolumeFigures:
    """How close one restored volume is to the acquired one.

    Attributes
    ----------
    volume : int
        Its place in the series, from 0.
    bval : float
        In s/mm2.
    weighted : bool
        Whether it is diffusion weighted.
    mse, mae : float
        Mean squared and mean absolute error in the mask, of signals in units of `Reference.level`.
    nrmse, psnr_mask, ssim_mask : float
        `metrics.nrmse`, `metrics.psnr` (dB) and `metrics.ssim` in the mask.
    psnr_volume, ssim_volume : float
        `metrics.whole_volume_psnr` (dB) and `metrics.whole_volume_ssim` of S/S0; not a number for b0 volumes.
    """

    volume: int
    bval: float
    weighted: bool
    mse: float
    mae: float
    nrmse: float
    psnr_mask: float
    ssim_mask: float
    psnr_volume: float
    ssim_volume: float


@dataclass(frozen=True)
class TensorFigures:
    """How close the tensor of a restored series is to that of the acquired one.

    Attributes
    ----------
    fa_error, md_error : float
        Mean absolute error in the mask, of MD in mm2/s.
    v1_angle : float
        Median angle in degrees between the principal directions where the acquired FA exceeds `LEAST_FA`.
    """

    fa_error: float
    md_error: float
    v1_angle: float


def choose_volumes(gradients: Gradients, b0_threshold: float, n_weighted: int) -> NDArray[np.int64]:
    """The b0 volumes and `n_weighted` others, spread evenly over the series; all where there are not so many.

    Where these repeat directions, as in a series of averages, and determine no tensor, others that lie far apart.

    Parameters
    ----------
    gradients : Gradients
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    n_weighted : int
        At least `FEWEST_VOLUMES`.

    Returns
    -------
    volumes : ndarray of int, in order
    """
    b0 = is_b0(gradients.bvals, b0_threshold)
    others = np.flatnonzero(~b0)
    count = min(n_weighted, len(others))
    spread = others[np.arange(count) * len(others) // max(count, 1)]
    axes = np.nan_to_num(gradients.bvecs)
    if tensor_rank(axes[spread]) < 6:
        spread = others[spread_out(axes[others])[:count]]
    return np.sort(np.concatenate([np.flatnonzero(b0), spread]))


def degrade_reference(
    reference: Reference, scale: tuple[float, float, float], profile: Profiles = "gaussian", noise: float = 0.0
) -> Degraded:
    """Sample a series with voxels `scale` times as wide.

    Parameters
    ----------
    reference : Reference
    scale : tuple of float, (3,)
        Per axis, at least 1; the grid has a whole number of voxels, so the true scale differs by a little.
    profile : Profile or tuple of Profile, (3,)
        How a large voxel sees the small ones; see `bids_sr.degradation`.
    noise : float
        Standard deviation of the noise added to each of the receiver's channels, in units of `Reference.level`. The
        same noise every time.

    Raises
    ------
    EmptyMaskError
        If the voxels are so large that none lies in the brain.
    """
    low, grid = degrade(reference.data, reference.grid, np.array(scale), profile=profile)
    inside = overlap_average(reference.mask.astype(np.float32), reference.grid, grid) >= 0.5
    if not inside.any():
        sizes = " x ".join(f"{size:.4g}" for size in grid.voxel_sizes)
        raise EmptyMaskError(image=f"degraded to {sizes} mm", reason="no voxel lies in the brain")
    # Scanners give magnitudes: where a profile rings, a negative signal is measured as a positive one.
    magnitude = np.abs(low)
    if noise > 0:
        magnitude = add_rician_noise(magnitude, noise * reference.level, np.random.default_rng(NOISE_SEED))
    return Degraded(magnitude, grid, inside)


def compare_volumes(reference: Reference, restored: Float) -> list[VolumeFigures]:
    """The figures of every volume of a restored series, (x, y, z, n), on the acquired grid."""
    b0 = mean_b0(restored, reference.gradients.bvals, reference.b0_threshold)
    return [_compare_volume(reference, restored[..., index], b0, index) for index in range(len(reference.gradients))]


def _compare_volume(reference: Reference, restored: Float, restored_b0: Float, index: int) -> VolumeFigures:
    """The figures of one volume, (x, y, z), of a series with the mean b0 `restored_b0`."""
    truth, mask, level = reference.data[..., index], reference.mask, reference.level
    whole = (float("nan"), float("nan"))
    if reference.weighted[index]:
        ratios = signal_ratio(truth, reference.b0, mask), signal_ratio(restored, restored_b0, mask)
        whole = whole_volume_psnr(*ratios, mask), whole_volume_ssim(*ratios, mask)
    return VolumeFigures(
        index,
        float(reference.gradients.bvals[index]),
        bool(reference.weighted[index]),
        mean_squared_error(truth, restored, mask) / level**2,
        mean_absolute_error(truth, restored, mask) / level,
        nrmse(truth, restored, mask),
        psnr(truth, restored, mask),
        ssim(truth, restored, mask),
        *whole,
    )


def signal_ratio(volume: Float, b0: Float, mask: NDArray[np.bool_]) -> Float:
    """S/S0 inside the mask, 0 outside, as networks are given it; see `bids_sr.dwi.normalization.B0Normalization`."""
    level = float(np.median(b0[mask]))
    return B0Normalization(np.ones(2), 1.0).normalize(volume / level, 1, b0 / level, mask)


def compare_tensors(reference: Reference, restored: Float) -> TensorFigures:
    """The figures of the tensor of a restored series, (x, y, z, n), on the acquired grid."""
    acquired, mask = reference.maps, reference.mask
    fitted = fit_tensor(restored, reference.gradients, reference.b0_threshold, mask)
    return TensorFigures(
        mean_absolute_error(acquired.fa, fitted.fa, mask),
        mean_absolute_error(acquired.md, fitted.md, mask),
        direction_error(acquired.v1, fitted.v1, mask & (acquired.fa > LEAST_FA)),
    )

"""Signals free of the units of scanner, echo time and b-value, as models are given them, and the way back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.gradients import shells
from bids_sr.errors import EmptyVolumeError, NoSignalError

Array = NDArray[np.floating]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

#: A mean b0 below this part of its median in the brain counts as this part when signals are divided by it.
LEAST_B0 = 0.05
#: Largest signal over the mean b0 that a model is given.
LARGEST_RATIO = 1.5
#: Percentile of the mean b0 in the brain that b0 volumes are divided by, where weighted ones are divided by the b0.
BRIGHTEST_PERCENTILE = 99.0
#: A volume this many times as bright, or as dark, as its shell is on a scale of its own. Directions change the median
#: of a volume in the brain by a few percent, a dropout of signal in many slices by a half.
ODD_FACTOR = 5.0
#: Volumes of a shell that tell which of them is odd.
LEAST_TO_COMPARE = 3


@dataclass(frozen=True)
class ShellContext:
    """What all volumes of a series share: the mean image and the level of each shell, b0 being shell 0.

    Attributes
    ----------
    shells : ndarray of int, (n,)
        Shell of each volume.
    means : ndarray, (n_shells, x, y, z), float32
        Mean volume of each shell, in units of its level.
    levels : ndarray, (n_shells,)
        Median of the mean volume inside the brain, in the units of the scan.
    """

    shells: NDArray[np.int64]
    means: Float
    levels: NDArray[np.float64]

    def level(self, index: int) -> float:
        """What a volume in units of its shell's level is multiplied by to be in the units of the scan again."""
        return float(self.levels[self.shells[index]])

    def cropped(self, box: Box) -> "ShellContext":
        """The context of a part of the grid."""
        return replace(self, means=self.means[(slice(None), *box)].copy())

    def sources(self, volume: Array, index: int, mask: Mask, t1w: Float | None = None) -> "Sources":
        """What the inputs for volume `index` are made from; `volume`, (x, y, z), is in the units of the scan."""
        finite = np.nan_to_num(volume, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
        shell = int(self.shells[index])
        return self._sources((finite / self.levels[shell]).astype(np.float32), shell, mask, t1w)

    def b0_sources(self, mask: Mask, t1w: Float | None = None) -> "Sources":
        """What the inputs for the mean b0 itself are made from."""
        return self._sources(self.means[0], 0, mask, t1w)

    def _sources(self, volume: Float, shell: int, mask: Mask, t1w: Float | None) -> "Sources":
        companion = companion_shell(shell, len(self.means))
        return Sources(volume, shell, self.means[0], self.means[companion], companion, mask, t1w)


@dataclass(frozen=True)
class Sources:
    """What the inputs of a model are made from: arrays of one shape, signals in units of their shell's level.

    Attributes
    ----------
    volume : ndarray
        To restore.
    volume_shell : int
        Its shell.
    b0 : ndarray
        Mean b0.
    companion : ndarray
        Mean of the shell shown next to the volume.
    companion_shell : int
        Which that is, see `companion_shell`.
    mask : ndarray of bool
        The brain.
    t1w : ndarray or None
        As `bids_sr.dwi.t1w.t1w_channel` gives it; None counts as zeros.
    """

    volume: Array
    volume_shell: int
    b0: Array
    companion: Array
    companion_shell: int
    mask: Mask
    t1w: Array | None = None


class Normalization(Protocol):
    """How signals in units of their shell's level are put to a model, and what the model's answer means."""

    divides_by_b0: ClassVar[bool]
    """Whether weighted signals are divided by the mean b0, inside the brain only: so the b0 is restored first, and
    nothing but the brain."""

    def normalize(self, values: Array, shell: int, b0: Array, mask: Mask) -> Float:
        """Signals of a shell as the model is given them; `b0` is the mean b0 at the same places."""
        ...

    def denormalize(self, values: Float, shell: int, b0: Float) -> Float:
        """What the model gave, as signals; `b0` is the mean b0 that it restored at the same places."""
        ...


@dataclass(frozen=True)
class ShellNormalization:
    """Signals in units of their shell's level, as they are.

    A signal divided voxel by voxel by the b0, as in Wu et al. 2024, is unbounded where the b0 is near zero, and
    interpolates to something other than the ratio of the interpolated signals; one level per shell has neither fault
    and is undone exactly.
    """

    divides_by_b0: ClassVar[bool] = False

    def normalize(self, values: Array, shell: int, b0: Array, mask: Mask) -> Float:
        """The values; the other arguments play no part."""
        return values.astype(np.float32, copy=False)

    def denormalize(self, values: Float, shell: int, b0: Float) -> Float:
        """The values; `b0` may be empty."""
        return values


@dataclass(frozen=True)
class B0Normalization:
    """Weighted signals over the mean b0 inside the brain, as in Wu et al. 2024; b0 volumes over a percentile.

    Attributes
    ----------
    contrast : ndarray, (n_shells,)
        Level of each shell over that of the b0.
    brightest : float
        99th percentile of the mean b0 in the brain, in units of its level.
    """

    contrast: NDArray[np.float64]
    brightest: float
    divides_by_b0: ClassVar[bool] = True

    def normalize(self, values: Array, shell: int, b0: Array, mask: Mask) -> Float:
        """From 0 to `LARGEST_RATIO` inside the mask and 0 outside it; b0 volumes everywhere and unbounded."""
        if shell == 0:
            return (values / self.brightest).astype(np.float32)
        ratio = np.asarray(values, np.float32) * np.float32(self.contrast[shell]) / _divisor(b0)
        return np.where(mask, np.clip(ratio, 0, LARGEST_RATIO), 0).astype(np.float32)

    def denormalize(self, values: Float, shell: int, b0: Float) -> Float:
        """Restored ratio times restored mean b0; `b0` plays no part where `shell` is 0."""
        if shell == 0:
            return (values * self.brightest).astype(np.float32)
        return (values * _divisor(b0) / np.float32(self.contrast[shell])).astype(np.float32)


def _divisor(b0: Array) -> Float:
    """The mean b0, in units of its level, where it is large enough to divide by."""
    return np.maximum(b0, np.float32(LEAST_B0)).astype(np.float32)


def make_normalization(kind: str, levels: NDArray[np.float64], b0: Array, mask: Mask) -> Normalization:
    """The normalization of a scan.

    Parameters
    ----------
    kind : {"shell", "b0"}
        As a model card names it.
    levels : ndarray, (n_shells,)
        Median of each shell's mean inside the brain, in the units of the scan.
    b0 : ndarray, (x, y, z)
        Mean b0 of the whole brain at the acquired resolution, in units of its level.
    mask : ndarray of bool, (x, y, z)
        The brain.
    """
    if kind == "shell":
        return ShellNormalization()
    return B0Normalization(levels / levels[0], float(np.percentile(b0[mask], BRIGHTEST_PERCENTILE)))


def input_channels(inputs: Sequence[str], normalization: Normalization, sources: Sources) -> Float:
    """The channels of a model's input.

    Parameters
    ----------
    inputs : sequence of str
        Of "volume", "b0", "shell" and "t1w".
    normalization : Normalization
    sources : Sources
        Arrays of any one shape.

    Returns
    -------
    channels : ndarray, (len(inputs), ...), float32
    """
    return np.stack([_channel(name, normalization, sources) for name in inputs])


def _channel(name: str, normalization: Normalization, sources: Sources) -> Float:
    """One input by its name."""
    match name:
        case "volume":
            return normalization.normalize(sources.volume, sources.volume_shell, sources.b0, sources.mask)
        case "b0":
            return normalization.normalize(sources.b0, 0, sources.b0, sources.mask)
        case "shell":
            return normalization.normalize(sources.companion, sources.companion_shell, sources.b0, sources.mask)
        case "t1w":
            empty = np.zeros(sources.volume.shape, np.float32)
            return empty if sources.t1w is None else sources.t1w.astype(np.float32, copy=False)
    raise ValueError(f"There is no input {name}.")


def companion_shell(shell: int, n_shells: int) -> int:
    """The shell whose mean is shown next to a volume of `shell`: its own.

    A b0 volume gets the lowest weighted shell, which has the best signal of those that tell white matter from grey.
    """
    return shell if shell > 0 else min(1, n_shells - 1)


def shell_context(data: Series, bvals: NDArray[np.float64], mask: Mask, b0_threshold: float) -> ShellContext:
    """Read a series once, volume by volume, and gather what its volumes share.

    A voxel of a mean is that of the volumes in which it is finite. Volumes on a scale of their own (`odd_volumes`) take
    no part in it: one of them would spoil what the others of its shell are shown.

    Parameters
    ----------
    data : array or array proxy, (x, y, z, n)
    bvals : ndarray, (n,)
        b-values in s/mm2.
    mask : ndarray of bool, (x, y, z)
        The brain.
    b0_threshold : float
        Largest b-value, in s/mm2, that counts as b0.

    Raises
    ------
    NoSignalError
        If the median of a shell inside the mask is not positive.
    """
    labels = shells(bvals, b0_threshold)
    means, medians = _shell_means(data, labels, mask, np.arange(len(labels)))
    odd = odd_volumes(medians, labels)
    if odd.any():
        means, _ = _shell_means(data, labels, mask, np.flatnonzero(~odd))
    levels = np.array([float(np.median(mean[mask])) for mean in means])
    if not np.all(levels > 0):
        shell = int(np.argmin(levels > 0))
        raise NoSignalError(shell="b0" if shell == 0 else f"{bvals[labels == shell].mean():.0f}")
    means /= levels[:, None, None, None].astype(np.float32)
    return ShellContext(labels, means, levels)


def _shell_means(
    data: Series, labels: NDArray[np.int64], mask: Mask, used: NDArray[np.int64]
) -> tuple[Float, NDArray[np.float64]]:
    """Mean of the `used` volumes of each shell, (n_shells, x, y, z), and their medians in the mask, (n,)."""
    means = np.zeros((int(labels.max()) + 1, *data.shape[:3]), np.float32)
    medians, counts = np.zeros(len(labels)), np.bincount(labels[used])
    missing: dict[int, NDArray[np.int64]] = {}
    for index in used:
        shell = int(labels[index])
        volume = np.asarray(data[..., int(index)], dtype=np.float32)
        medians[index] = _median(volume[mask])
        finite = np.isfinite(volume)
        if not finite.all():
            volume = np.where(finite, volume, np.float32(0))
            missing[shell] = missing.get(shell, np.zeros(volume.shape, np.int64)) + ~finite
        means[shell] += volume / counts[shell]
    for shell, absent in missing.items():
        means[shell] *= (counts[shell] / np.maximum(counts[shell] - absent, 1)).astype(np.float32)
    return means, medians


def _median(values: Array) -> float:
    """Median of values, (n,), of which those that are not finite count as 0; 0 where there are none."""
    return float(np.median(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))) if values.size else 0.0


def check_volumes(data: Series, name: str) -> None:
    """Refuse a series with a volume without signal, which would spoil the tensor everywhere; `name` tells the series.

    Raises
    ------
    EmptyVolumeError
        If all voxels of a volume are the same, or none is a finite number.
    """
    flat: dict[int, float] = {}
    for volume in range(data.shape[3]):
        voxels = np.asarray(data[..., volume])
        values = voxels[np.isfinite(voxels)]
        if values.size == 0:
            raise EmptyVolumeError(dwi=name, volume=volume, content="no number that is finite")
        if values.max() == values.min():
            flat[volume] = float(values[0])
        if flat.get(volume) == 0:
            raise EmptyVolumeError(dwi=name, volume=volume, content="nothing but zeros")
    # A series that is flat as a whole shows no brain, which the mask tells.
    if flat and len(flat) < data.shape[3]:
        volume, value = next(iter(flat.items()))
        raise EmptyVolumeError(dwi=name, volume=volume, content=f"the number {value:g} everywhere")


def odd_volumes(medians: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Volumes far brighter or darker than the others of their shell: scaled otherwise, or all but empty.

    Parameters
    ----------
    medians : ndarray, (n,)
        Median of each volume in the brain.
    labels : ndarray of int, (n,)
        Shell of each.

    Returns
    -------
    ndarray of bool, (n,)
        Where the median is more than `ODD_FACTOR` times that of the shell, or less than one part of it. Of a shell of
        one or two volumes nothing is said.
    """
    odd = np.zeros(len(labels), dtype=bool)
    for shell in np.unique(labels):
        own = labels == shell
        typical = float(np.median(medians[own]))
        if own.sum() >= LEAST_TO_COMPARE and typical > 0:
            odd[own] = (medians[own] > ODD_FACTOR * typical) | (ODD_FACTOR * medians[own] < typical)
    return odd


def describe_odd_volumes(
    data: Series, bvals: NDArray[np.float64], mask: Mask, b0_threshold: float
) -> list[dict[str, float]]:
    """The odd volumes of a series: "volume" (counted from 0), "b" in s/mm2, and "times": as bright as its shell.

    Parameters are those of `shell_context`.
    """
    labels = shells(bvals, b0_threshold)
    medians = np.array([_median(data[..., index][mask]) for index in range(len(labels))])
    return [
        {
            "volume": int(index),
            "b": float(bvals[index]),
            "times": round(float(medians[index] / np.median(medians[labels == labels[index]])), 3),
        }
        for index in np.flatnonzero(odd_volumes(medians, labels))
    ]

"""Training examples: low-resolution patches made from acquired scans, with points whose true intensity is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from bids_sr.degradation import gaussian_sampling
from bids_sr.geometry import apply_along_axes
from bids_sr.training.packing import PackedScan

#: Level of a weighted shell over that of the b0, from b = 2500 to b = 700 s/mm2.
B0_NOISE_RANGE = (0.2, 0.6)


@dataclass(frozen=True)
class PatchSettings:
    """How examples are drawn.

    Attributes
    ----------
    patch : int
        Low-resolution voxels per axis.
    border : int
        Low-resolution voxels at the rim of a patch in which no point is asked for: the encoder sees its padding there.
    points : int
        Points per patch.
    scale_range : tuple of float, (2,)
        Scales are drawn log-uniformly.
    isotropic_share : float
        Share of the patches with one scale for the three axes; the others draw each axis, down to no change at all.
    psf_range : tuple of float, (2,)
        Full width at half maximum of the point-spread function in low-resolution voxels, drawn uniformly.
    noise_share : float
        Share of the patches to which noise is added, of up to `noise_range` times the signal level.
    noise_range : float
        Largest standard deviation of that noise, in units of the level of a weighted shell. Degraded scans are less
        noisy than acquired ones; a network that never saw noise makes it sharper, which raises FA everywhere.
    b0_share : float
        Share of the patches that show a b0 volume.
    """

    patch: int = 16
    border: int = 2
    points: int = 2048
    scale_range: tuple[float, float] = (1.2, 4.0)
    isotropic_share: float = 0.5
    psf_range: tuple[float, float] = (0.85, 1.15)
    noise_share: float = 0.6
    noise_range: float = 0.25
    b0_share: float = 0.15


@dataclass(frozen=True)
class Example:
    """One patch: `channels` (3, p, p, p), `points` (Q, 3) in its voxel coordinates, `cell` (3,), `truth` (Q,)."""

    channels: NDArray[np.float32]
    points: NDArray[np.float32]
    cell: NDArray[np.float32]
    truth: NDArray[np.float32]


def draw_scale(settings: PatchSettings, random: np.random.Generator) -> NDArray[np.float64]:
    """A scale per axis, (3,)."""
    low, high = np.log(settings.scale_range)
    if random.random() < settings.isotropic_share:
        return np.full(3, np.exp(random.uniform(low, high)))
    scale = np.exp(random.uniform(low, high, 3))
    unchanged = random.random(3) < 0.35
    unchanged[random.integers(3)] = False
    return np.where(unchanged, 1.0, scale)


def draw_example(scan: PackedScan, settings: PatchSettings, random: np.random.Generator) -> Example:
    """Degrade a random part of a random volume; the truth is the acquired intensity at points in the brain."""
    scale = draw_scale(settings, random)
    volume = _draw_volume(scan, settings, random)
    centre = scan.inside[random.integers(len(scan.inside))] + random.uniform(-0.5, 0.5, 3)
    origin = centre - scale * (settings.patch - 1) / 2
    # An axis that keeps its voxels keeps their centres too; between them it would be blurred by interpolation.
    origin = np.where(scale == 1, np.rint(origin), origin)
    psf = np.where(scale > 1, scale * random.uniform(*settings.psf_range), 0.0)
    high = scan.channels(volume)
    low = np.stack([_sample(channel, origin, scale, psf, settings.patch) for channel in high])
    if random.random() < settings.noise_share:
        low += _noise(low.shape, scan, volume, settings, random)
    voxels = _draw_voxels(scan.mask, origin, scale, settings, random)
    points = (voxels - origin) / scale
    truth = high[0][tuple(voxels.T)].astype(np.float32)
    return _turned(Example(low, points.astype(np.float32), (1 / scale).astype(np.float32), truth), random)


def _draw_volume(scan: PackedScan, settings: PatchSettings, random: np.random.Generator) -> int:
    """A b0 volume with the probability `b0_share`, else a weighted one."""
    weighted = np.flatnonzero(scan.shells > 0)
    b0 = np.flatnonzero(scan.shells == 0)
    return int(random.choice(b0 if random.random() < settings.b0_share else weighted))


def _sample(
    volume: NDArray[np.floating],
    origin: NDArray[np.float64],
    scale: NDArray[np.float64],
    psf: NDArray[np.float64],
    n: int,
) -> NDArray[np.float32]:
    """The patch of n voxels per axis that begins at `origin`; zero outside the scan, as beyond a field of view."""
    matrices, box = [], []
    for axis in range(3):
        centres = origin[axis] + scale[axis] * np.arange(n)
        reach = max(2.0 * psf[axis], 1.0)
        low = int(np.clip(np.floor(centres[0] - reach), 0, volume.shape[axis] - 1))
        high = int(np.clip(np.ceil(centres[-1] + reach) + 1, low + 1, volume.shape[axis]))
        outside = (centres < -0.5) | (centres > volume.shape[axis] - 0.5)
        safe = np.where(outside, np.clip(centres, low, high - 1), centres)
        matrices.append(gaussian_sampling(high - low, safe - low, psf[axis]) * ~outside[:, None])
        box.append(slice(low, high))
    return apply_along_axes(volume[tuple(box)].astype(np.float32), matrices)


def _noise(
    shape: tuple[int, ...], scan: PackedScan, volume: int, settings: PatchSettings, random: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise as a scan with these voxels would have it in the three channels of one volume.

    The volume's own noise is part of the mean of its shell; with a single b0, volume and mean are one image. Noise is
    the same in all volumes, so in units of the b0, which is brighter, it is weaker.
    """
    shell = int(scan.shells[volume])
    count = np.bincount(scan.shells)
    in_b0 = random.uniform(*B0_NOISE_RANGE)
    deviation = random.uniform(0, settings.noise_range)
    own, others_b0, others = deviation * random.standard_normal(shape).astype(np.float32)
    if shell == 0:
        means = in_b0 * (own + np.sqrt(count[0] - 1) * others_b0) / count[0], others / np.sqrt(count[1:].max(initial=1))
        return np.stack([in_b0 * own, *means]).astype(np.float32)
    means = in_b0 * others_b0 / np.sqrt(count[0]), (own + np.sqrt(count[shell] - 1) * others) / count[shell]
    return np.stack([own, *means]).astype(np.float32)


def _draw_voxels(
    mask: NDArray[np.bool_],
    origin: NDArray[np.float64],
    scale: NDArray[np.float64],
    settings: PatchSettings,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Voxels of the scan inside the brain and inside the patch's interior, (points, 3)."""
    low = origin + scale * (settings.border - 0.5)
    high = origin + scale * (settings.patch - settings.border - 0.5)
    start = np.clip(np.ceil(low), 0, np.subtract(mask.shape, 1)).astype(int)
    stop = np.clip(np.floor(high) + 1, start + 1, mask.shape).astype(int)
    box = mask[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    candidates = np.argwhere(box) + start
    if len(candidates) == 0:
        candidates = np.rint(origin + scale * (settings.patch - 1) / 2).astype(int)[None]
        candidates = np.clip(candidates, 0, np.subtract(mask.shape, 1))
    return candidates[random.integers(len(candidates), size=settings.points)]


def _turned(example: Example, random: np.random.Generator) -> Example:
    """The example with its axes permuted and flipped at random; magnitudes of single directions allow it."""
    order = random.permutation(3)
    channels = example.channels.transpose(0, *(order + 1))
    points, cell = example.points[:, order].copy(), example.cell[order]
    for axis in np.flatnonzero(random.random(3) < 0.5):
        channels = np.flip(channels, axis + 1)
        points[:, axis] = channels.shape[axis + 1] - 1 - points[:, axis]
    return Example(np.ascontiguousarray(channels), points, cell, example.truth)


class PatchStream(IterableDataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """An endless stream of examples, the same for the same seed.

    Parameters
    ----------
    scans : sequence of PackedScan
    weights : sequence of float
        How often each scan is drawn; need not sum to one.
    settings : PatchSettings
    seed : int
    first : int
        Number of the first example; a training that resumes goes on where it stopped.
    """

    def __init__(
        self, scans: Sequence[PackedScan], weights: Sequence[float], settings: PatchSettings, seed: int, first: int = 0
    ) -> None:
        self.scans, self.settings, self.seed, self.first = scans, settings, seed, first
        self.probabilities = np.asarray(weights, dtype=np.float64) / np.sum(weights)

    def example(self, number: int) -> Example:
        """Example `number` of the stream."""
        random = np.random.default_rng([self.seed, number])
        scan = self.scans[random.choice(len(self.scans), p=self.probabilities)]
        return draw_example(scan, self.settings, random)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Examples as tensors, in order."""
        number = self.first
        while True:
            example = self.example(number)
            yield (
                torch.from_numpy(example.channels),
                torch.from_numpy(example.points),
                torch.from_numpy(example.cell),
                torch.from_numpy(example.truth),
            )
            number += 1

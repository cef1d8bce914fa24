"""Training examples: low-resolution patches made from packed scans, with points whose true intensity is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from bids_sr.degradation import PROFILES, Profile, sampling_matrix
from bids_sr.dwi.normalization import Sources, companion_shell, input_channels
from bids_sr.errors import TrainingDataError
from bids_sr.geometry import apply_along_axes
from bids_sr.models.base import Signal
from bids_sr.training.packing import PackedScan

Batch = tuple[Tensor, Tensor, Tensor, Tensor]

#: Positions tried for a patch of which at least half shall lie in the brain; then the best of them is taken.
TRIES = 30
#: Weights of a sampling that count as nothing: float16, in which scans are packed, has steps of 5e-4.
NEGLIGIBLE = 1e-6


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
        Points per patch, drawn in the brain. 0 asks for every voxel of the fine patch: these are
        `round(patch * scale)` per axis and begin at a whole acquired voxel, at least half of them lie in the brain,
        and all patches of a batch have one scale, the same for the three axes.
    scale_range : tuple of float, (2,)
        Least and largest scale.
    scale_spacing : {"log", "uniform"}
        Scales are drawn uniformly, or their logarithms are.
    isotropic_share : float
        Share of the patches with one scale for the three axes; the others draw each axis, down to no change at all.
    profiles : tuple of Profile
        How the larger voxels see the acquired ones; one is drawn for each patch. "slice" is that across one axis, with
        "gaussian" along the others; "zoom" needs `points = 0`.
    psf_range : tuple of float, (2,)
        Width of the profile in low-resolution voxels, drawn uniformly, for the profiles that have one.
    noise_share : float
        Share of the patches to which noise is added, of up to `noise_range` times the signal level.
    noise_range : float
        Largest standard deviation of that noise, in units of the level of a weighted shell. Degraded scans are less
        noisy than acquired ones; a network that never saw noise makes it sharper, which raises FA everywhere.
    b0_share : float
        Share of the patches that show a b0 volume.
    t1w_dropped : float
        Share of the patches whose T1w is left out, all zeros, as it is for scans without one.
    simulated_share : float, optional
        Share of the examples that come from simulated scans; by the voxels of their brains if not given.

    Raises
    ------
    TrainingDataError
        If a value cannot be used.
    """

    patch: int = 16
    border: int = 2
    points: int = 2048
    scale_range: tuple[float, float] = (1.2, 4.0)
    scale_spacing: Literal["log", "uniform"] = "log"
    isotropic_share: float = 0.5
    profiles: tuple[Profile, ...] = ("gaussian",)
    psf_range: tuple[float, float] = (0.85, 1.15)
    noise_share: float = 0.6
    noise_range: float = 0.25
    b0_share: float = 0.15
    t1w_dropped: float = 0.0
    simulated_share: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for wrong, problem in (
            (self.patch < 1, f"patch = {self.patch} voxels"),
            (self.points < 0, f"points = {self.points}"),
            (self.points > 0 and self.patch <= 2 * self.border, f"a border of {self.border} leaves no interior"),
            (not 1 <= self.scale_range[0] <= self.scale_range[1], f"scale_range = {list(self.scale_range)}"),
            (self.scale_spacing not in ("log", "uniform"), f'scale_spacing = "{self.scale_spacing}"'),
            (not self.profiles, "no profiles"),
            (self.points > 0 and "zoom" in self.profiles, "the profile zoom needs points = 0"),
            (not 0 < self.psf_range[0] <= self.psf_range[1], f"psf_range = {list(self.psf_range)}"),
            (self.noise_range < 0, f"noise_range = {self.noise_range}"),
        ):
            if wrong:
                raise TrainingDataError(where="[patches]", problem=f"{problem} cannot be used")
        for name in ("isotropic_share", "noise_share", "b0_share", "t1w_dropped", "simulated_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise TrainingDataError(where="[patches]", problem=f"{name} = {share} is not between 0 and 1")
        for profile in set(self.profiles) - set(PROFILES):
            known = ", ".join(PROFILES)
            raise TrainingDataError(where="[patches]", problem=f"unknown profile {profile}; known: {known}")


@dataclass(frozen=True)
class Example:
    """One patch: `channels` (C, p, p, p), `points` (Q, 3) in its voxel coordinates, `cell` (3,), `truth` (Q,)."""

    channels: NDArray[np.float32]
    points: NDArray[np.float32]
    cell: NDArray[np.float32]
    truth: NDArray[np.float32]


@dataclass(frozen=True)
class _Sampling:
    """Where the voxels of a patch lie in the scan, and how they see it.

    Attributes
    ----------
    n : int
        Voxels per axis.
    origin, scale : ndarray, (3,)
        Centre of the first voxel, and distance of neighbours, in voxels of the scan.
    profiles : tuple of Profile, (3,)
    width : float
        Of the profiles, in voxels of the patch.
    """

    n: int
    origin: NDArray[np.float64]
    scale: NDArray[np.float64]
    profiles: tuple[Profile, ...]
    width: float

    def part_and_weights(self, axis: int, n_source: int, fine: int) -> tuple[slice, NDArray[np.float32]]:
        """The source voxels of one axis that the patch sees, and its weights of them, (n, voxels).

        `fine` is how many source voxels there are per voxel of the scan. Beyond the source there is no signal.
        """
        ratio = self.scale[axis] * fine
        centres = (self.origin[axis] + 0.5) * fine - 0.5 + ratio * np.arange(self.n)
        profile, first = self.profiles[axis], 0
        if profile == "zoom":
            first = round(centres[0] - (ratio - 1) / 2)
            weights = sampling_matrix(profile, round(self.n * ratio), centres, ratio)
        else:
            weights = sampling_matrix(profile, n_source, centres, ratio, self.width)
            weights[(centres < -0.5) | (centres > n_source - 0.5)] = 0
        seen = np.flatnonzero(np.abs(weights).max(axis=0) > NEGLIGIBLE) + first
        seen = seen[(seen >= 0) & (seen < n_source)]
        if len(seen) == 0:
            return slice(0, 1), np.zeros((self.n, 1), np.float32)
        return slice(int(seen[0]), int(seen[-1]) + 1), weights[:, seen[0] - first : seen[-1] + 1 - first]

    def of(
        self, volumes: Sequence[NDArray[np.generic]], fine: tuple[int, int, int] = (1, 1, 1)
    ) -> list[NDArray[np.float32]]:
        """The patch of each volume, (x, y, z), all of one shape, whose voxels are `fine` times as fine as the scan."""
        sides = [self.part_and_weights(axis, volumes[0].shape[axis], fine[axis]) for axis in range(3)]
        box, matrices = tuple(side[0] for side in sides), [side[1] for side in sides]
        return [apply_along_axes(volume[box].astype(np.float32), matrices) for volume in volumes]


@dataclass(frozen=True)
class _Turn:
    """A permutation and flips of the axes; magnitudes of single directions allow them."""

    order: NDArray[np.int64]
    flipped: NDArray[np.bool_]

    @classmethod
    def draw(cls, random: np.random.Generator) -> "_Turn":
        """Any of the 48, with the same probability."""
        return cls(random.permutation(3), random.random(3) < 0.5)

    def of_volumes(self, volumes: NDArray[np.generic]) -> NDArray[np.generic]:
        """Volumes, (n, x, y, z), turned."""
        permuted = volumes.transpose(0, *(self.order + 1))
        return np.ascontiguousarray(np.flip(permuted, tuple(np.flatnonzero(self.flipped) + 1)))

    def of_points(self, points: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """Points, (Q, 3), in a patch of n voxels per axis, turned with it."""
        permuted = points[:, self.order]
        return np.where(self.flipped, n - 1 - permuted, permuted)


def draw_scale(settings: PatchSettings, random: np.random.Generator) -> NDArray[np.float64]:
    """A scale per axis, (3,)."""
    if settings.points == 0 or random.random() < settings.isotropic_share:
        return np.full(3, _draw_scales(1, settings, random))
    scale = _draw_scales(3, settings, random)
    unchanged = random.random(3) < 0.35
    unchanged[random.integers(3)] = False
    return np.where(unchanged, 1.0, scale)


def _draw_scales(count: int, settings: PatchSettings, random: np.random.Generator) -> NDArray[np.float64]:
    """Scales, (count,), of the range and spacing of the settings."""
    low, high = settings.scale_range
    if settings.scale_spacing == "uniform":
        return random.uniform(low, high, count)
    return np.exp(random.uniform(np.log(low), np.log(high), count))


def draw_example(
    scan: PackedScan,
    settings: PatchSettings,
    signal: Signal,
    random: np.random.Generator,
    scale: NDArray[np.float64] | None = None,
) -> Example:
    """Degrade a random part of a random volume; the truth is the acquired intensity.

    Parameters
    ----------
    scan : PackedScan
    settings : PatchSettings
    signal : Signal
        Which channels are made, and how signals are normalized: after they are degraded.
    random : numpy.random.Generator
    scale : ndarray, (3,), optional
        How many acquired voxels a voxel of the patch is wide; drawn if not given. With `points = 0` it is rounded so
        that the fine patch has a whole number of voxels.
    """
    scale = draw_scale(settings, random) if scale is None else scale
    volume = _draw_volume(scan, settings, random)
    turn = _Turn.draw(random)
    if settings.points == 0:
        sampling, voxels = _whole_patch(scan, scale, settings, turn, random)
    else:
        sampling, voxels = _patch_with_points(scan, scale, settings, random)
    channels = _channels(scan, volume, sampling, settings, signal, random)
    points = turn.of_points((voxels - sampling.origin) / sampling.scale, settings.patch)
    return Example(
        np.asarray(turn.of_volumes(channels), np.float32),
        points.astype(np.float32),
        (1 / sampling.scale[turn.order]).astype(np.float32),
        _truth(scan, volume, signal, voxels),
    )


def _draw_volume(scan: PackedScan, settings: PatchSettings, random: np.random.Generator) -> int:
    """A b0 volume with the probability `b0_share`, else a weighted one."""
    weighted = np.flatnonzero(scan.shells > 0)
    b0 = np.flatnonzero(scan.shells == 0)
    return int(random.choice(b0 if random.random() < settings.b0_share else weighted))


def _draw_profiles(settings: PatchSettings, random: np.random.Generator) -> tuple[tuple[Profile, ...], float]:
    """A profile per axis, (3,), and their width."""
    profile = settings.profiles[random.integers(len(settings.profiles))]
    width = float(random.uniform(*settings.psf_range))
    across = int(random.integers(3))
    if profile != "slice":
        return (profile,) * 3, width
    return tuple("slice" if axis == across else "gaussian" for axis in range(3)), width


def _patch_with_points(
    scan: PackedScan, scale: NDArray[np.float64], settings: PatchSettings, random: np.random.Generator
) -> tuple[_Sampling, NDArray[np.int64]]:
    """A patch anywhere around a voxel of the brain, and voxels of the brain in its interior, (points, 3)."""
    centre = scan.draw_voxel(random) + random.uniform(-0.5, 0.5, 3)
    origin = centre - scale * (settings.patch - 1) / 2
    # An axis that keeps its voxels keeps their centres too; between them it would be blurred by interpolation.
    origin = np.where(scale == 1, np.rint(origin), origin)
    sampling = _Sampling(settings.patch, origin, scale, *_draw_profiles(settings, random))
    return sampling, _draw_voxels(scan.mask, sampling, settings, random)


def _draw_voxels(
    mask: NDArray[np.bool_], sampling: _Sampling, settings: PatchSettings, random: np.random.Generator
) -> NDArray[np.int64]:
    """Voxels of the scan inside the brain and inside the patch's interior, (points, 3)."""
    low = sampling.origin + sampling.scale * (settings.border - 0.5)
    high = sampling.origin + sampling.scale * (settings.patch - settings.border - 0.5)
    start = np.clip(np.ceil(low), 0, np.subtract(mask.shape, 1)).astype(int)
    stop = np.clip(np.floor(high) + 1, start + 1, mask.shape).astype(int)
    box = mask[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    candidates = np.flatnonzero(box)
    if len(candidates) == 0:
        middle = np.rint(sampling.origin + sampling.scale * (settings.patch - 1) / 2).astype(int)
        return np.tile(np.clip(middle, 0, np.subtract(mask.shape, 1)), (settings.points, 1))
    drawn = candidates[random.integers(len(candidates), size=settings.points)]
    return np.stack(np.unravel_index(drawn, box.shape), axis=1) + start


def _whole_patch(
    scan: PackedScan, scale: NDArray[np.float64], settings: PatchSettings, turn: _Turn, random: np.random.Generator
) -> tuple[_Sampling, NDArray[np.int64]]:
    """A patch that begins at a whole voxel, and all its voxels, (Q, 3), last axis fastest once they are turned."""
    shape = np.rint(settings.patch * scale).astype(int)
    start = _draw_start(scan, shape, random)
    true_scale = shape / settings.patch
    origin = start + (true_scale - 1) / 2
    sampling = _Sampling(settings.patch, origin, true_scale, *_draw_profiles(settings, random))
    voxels = turn.of_volumes(np.indices(tuple(shape)))
    return sampling, np.asarray(voxels.reshape(3, -1).T, np.int64) + start


def _draw_start(scan: PackedScan, shape: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """First voxel, (3,), of a box of which at least half lies in the brain, or the most of `TRIES` boxes.

    A scan that is smaller than the box lies in its middle.
    """
    spare = np.subtract(scan.mask.shape, shape)
    least = np.minimum(spare // 2, 0)
    best, most = least, -1.0
    for _ in range(TRIES):
        centre = scan.draw_voxel(random)
        start = np.clip(centre - shape // 2, least, np.maximum(spare, least))
        low, high = np.maximum(start, 0), start + shape
        share = scan.mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]].sum() / shape.prod()
        if share > most:
            best, most = start, share
        if most >= 0.5:
            break
    return best


def _channels(
    scan: PackedScan,
    volume: int,
    sampling: _Sampling,
    settings: PatchSettings,
    signal: Signal,
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """What a model is shown of one volume, (C, p, p, p): degraded, then made noisy, then normalized."""
    shell = int(scan.shells[volume])
    companion = companion_shell(shell, len(scan.means))
    *signals, share = sampling.of([scan.data[volume], scan.means[0], scan.means[companion], scan.mask])
    low, brain = np.stack(signals), share >= 0.5
    if random.random() < settings.noise_share:
        low += _noise(low.shape[1:], scan, volume, settings, random)
    dropped = random.random() < settings.t1w_dropped
    t1w = None
    if "t1w" in signal.inputs and scan.t1w is not None and not dropped:
        t1w = np.where(brain, _t1w_patch(scan.t1w, scan, sampling), np.float32(0))
    sources = Sources(low[0], shell, low[1], low[2], companion, brain, t1w)
    return input_channels(signal.inputs, scan.normalizations[signal.normalization], sources)


def _noise(
    shape: tuple[int, ...], scan: PackedScan, volume: int, settings: PatchSettings, random: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise as a scan with these voxels would have it in a volume, the mean b0 and the mean of its shell.

    The volume's own noise is part of the mean of its shell; with a single b0, volume and mean are one image. Noise is
    the same in all volumes, so in units of the b0, which is brighter, it is weaker.
    """
    shell = int(scan.shells[volume])
    companion = companion_shell(shell, len(scan.means))
    count = np.bincount(scan.shells)
    in_b0 = scan.levels[companion] / scan.levels[0]
    deviation = random.uniform(0, settings.noise_range)
    own, others_b0, others = deviation * random.standard_normal((3, *shape), dtype=np.float32)
    if shell == 0:
        mean_b0, mean = (own + np.sqrt(count[0] - 1) * others_b0) / count[0], others / np.sqrt(count[companion])
        return np.stack([in_b0 * own, in_b0 * mean_b0, mean]).astype(np.float32)
    mean_b0, mean = others_b0 / np.sqrt(count[0]), (own + np.sqrt(count[shell] - 1) * others) / count[shell]
    return np.stack([own, in_b0 * mean_b0, mean]).astype(np.float32)


def _t1w_patch(t1w: NDArray[np.float16], scan: PackedScan, sampling: _Sampling) -> NDArray[np.float32]:
    """The T1w of a scan seen through the voxels of a patch.

    The k-space of the diffusion scan is not that of the T1w, which the application samples with a Gaussian anyway.
    """
    profiles: tuple[Profile, ...] = tuple("gaussian" if p == "kspace" else p for p in sampling.profiles)
    return replace(sampling, profiles=profiles).of([t1w], scan.t1w_parts)[0]


def _truth(scan: PackedScan, volume: int, signal: Signal, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Normalized intensities of a volume at voxels of the scan, (Q, 3); zero beyond it."""
    inside = np.all((voxels >= 0) & (voxels < scan.mask.shape), axis=1)
    where = tuple(np.where(inside[:, None], voxels, 0).T)
    truth = scan.data[volume][where].astype(np.float32)
    normalization = scan.normalizations[signal.normalization]
    return normalization.normalize(truth, int(scan.shells[volume]), scan.means[0][where], scan.mask[where]) * inside


class PatchStream(IterableDataset[Batch]):
    """An endless stream of batches, the same for the same seed, whatever the number of loading processes.

    For ``DataLoader(stream, batch_size=None)``. A batch holds channels (N, C, p, p, p), points (N, Q, 3), cell (N, 3)
    and truth (N, Q), all float32.

    Parameters
    ----------
    scans : sequence of PackedScan
    settings : PatchSettings
    signal : Signal
    seed : int
    batch_size : int
    weights : sequence of float, optional
        How often each scan is drawn, need not sum to one; by default the voxels of the brains and `simulated_share`.
    first_batch : int
        Number of the first batch of this rank; a training that resumes goes on where it stopped.
    rank, world_size : int
        This process of how many that train together: each draws batches of its own.

    Raises
    ------
    TrainingDataError
        If there is no scan, or `simulated_share` asks for a kind of scan that is not there.
    """

    def __init__(
        self,
        scans: Sequence[PackedScan],
        settings: PatchSettings,
        signal: Signal,
        seed: int,
        batch_size: int,
        *,
        weights: Sequence[float] | None = None,
        first_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.scans, self.settings, self.signal, self.seed, self.batch_size = scans, settings, signal, seed, batch_size
        self.first_batch, self.rank, self.world_size = first_batch, rank, world_size
        shares = default_weights(scans, settings.simulated_share) if weights is None else weights
        self.probabilities = np.asarray(shares, dtype=np.float64) / np.sum(shares)

    def examples(self, number: int) -> list[Example]:
        """The examples of batch `number` of all ranks together."""
        random = np.random.default_rng([self.seed, number])
        scale = draw_scale(self.settings, random) if self.settings.points == 0 else None
        drawn = random.choice(len(self.scans), size=self.batch_size, p=self.probabilities)
        return [draw_example(self.scans[scan], self.settings, self.signal, random, scale) for scan in drawn]

    def batch(self, number: int) -> Batch:
        """Batch `number` of all ranks together."""
        examples = self.examples(number)
        names = ("channels", "points", "cell", "truth")
        channels, points, cell, truth = (
            torch.from_numpy(np.stack([getattr(example, name) for example in examples])) for name in names
        )
        return channels, points, cell, truth

    def __iter__(self) -> Iterator[Batch]:
        """Batches of this rank in order; each of several loading processes makes its part of them."""
        worker = get_worker_info()
        step = 1 if worker is None else worker.num_workers
        own = self.first_batch + (0 if worker is None else worker.id)
        while True:
            yield self.batch(own * self.world_size + self.rank)
            own += step


def default_weights(scans: Sequence[PackedScan], simulated_share: float | None) -> list[float]:
    """How often each scan is drawn: by the voxels of its brain, within each kind if `simulated_share` is given."""
    if not scans:
        raise TrainingDataError(where="training", problem="there is no scan")
    voxels = np.array([len(scan.inside) for scan in scans], dtype=np.float64)
    if simulated_share is None:
        return voxels.tolist()
    simulated = np.array([scan.simulated for scan in scans])
    for kind, share, name in ((simulated, simulated_share, "simulated"), (~simulated, 1 - simulated_share, "acquired")):
        if share > 0 and not kind.any():
            problem = f"simulated_share = {simulated_share}, but there is no {name} scan"
            raise TrainingDataError(where="training", problem=problem)
        voxels[kind] *= share / max(voxels[kind].sum(), 1)
    return voxels.tolist()

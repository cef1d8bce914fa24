"""Training examples: low-resolution patches made from packed scans, with points whose true intensity is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from bids_sr.degradation import PROFILES, Profile
from bids_sr.dwi.normalization import Sources, companion_shell, input_channels
from bids_sr.dwi.t1w import by_parts
from bids_sr.dwi.tensor import LARGEST_TENSOR_BVALUE
from bids_sr.errors import TrainingDataError
from bids_sr.models.base import GUIDE_CHANNELS, SUBPOSITIONS, Signal
from bids_sr.training.guides import GuideSettings, draw_t1w
from bids_sr.training.packing import PackedScan
from bids_sr.training.sampling import Sampling, Turn

#: Positions tried for a patch of which at least half shall lie in the brain; then the best of them is taken.
TRIES = 30
#: Volumes of a place that a tensor needs: a b0 and six weighted ones.
FEWEST_VOLUMES = 7
#: Sets of weighted volumes of a place that are tried; the one whose directions determine the tensor best is taken.
SETS = 8


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
    guide : GuideSettings
        What the T1w that guides a model is in the others.
    simulated_share : float, optional
        Share of the examples that come from simulated scans; by the voxels of their brains if not given.
    volumes : int
        So many patches that follow each other show one place, in a b0 and in weighted volumes of one shell, of up to
        1500 s/mm2 where there is one; the noise of each is its own. 0 shows every patch's place in one volume.

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
    guide: GuideSettings = field(default_factory=GuideSettings)
    simulated_share: float | None = None
    volumes: int = 0

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
            (self.volumes != 0 and self.volumes < FEWEST_VOLUMES, f"volumes = {self.volumes}"),
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
    """One patch: `channels` (C, p, p, p), `points` (Q, 3) in its voxel coordinates, `cell` (3,), `truth` (Q,).

    For a guided model, `channels` end with the T1w's parts of each voxel, and `guide`, (Q, GUIDE_CHANNELS), is what the
    T1w tells at the points. `gradients`, (4,), are the volume's b-value in ms/um2 and its direction, if they are known.
    """

    channels: NDArray[np.float32]
    points: NDArray[np.float32]
    cell: NDArray[np.float32]
    truth: NDArray[np.float32]
    guide: NDArray[np.float32] | None = None
    gradients: NDArray[np.float32] | None = None


class Batch(NamedTuple):
    """Examples side by side, float32; see `Example`.

    (N, C, p, p, p), (N, Q, 3), (N, 3), (N, Q), for a guided model (N, Q, GUIDE_CHANNELS), and where places are shown in
    several volumes (N, 4).
    """

    channels: Tensor
    points: Tensor
    cell: Tensor
    truth: Tensor
    guide: Tensor | None = None
    gradients: Tensor | None = None


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
    others: Sequence[PackedScan] = (),
    volume: int | None = None,
    own_noise: np.random.Generator | None = None,
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
    others : sequence of PackedScan
        Scans whose T1w may guide in the place of its own.
    volume : int, optional
        Drawn if not given. With another volume, the same state of `random` gives the same place, seen in that volume.
    own_noise : numpy.random.Generator, optional
        Of the volume's own noise, `random` if not given: another volume of the place has another noise.
    """
    scale = draw_scale(settings, random) if scale is None else scale
    volume = _draw_volume(scan, settings, random) if volume is None else volume
    turn = Turn.draw(random)
    if settings.points == 0:
        sampling, voxels = _whole_patch(scan, scale, settings, turn, random)
    else:
        sampling, voxels = _patch_with_points(scan, scale, settings, random)
    channels = turn.of_volumes(_channels(scan, volume, sampling, settings, signal, random, own_noise))
    guide = None
    if signal.guided:
        parts, guide = _guidance(scan, others, sampling, voxels, settings, turn, random)
        channels = np.concatenate([channels, parts])
    points = turn.of_points((voxels - sampling.origin) / sampling.scale, settings.patch)
    return Example(
        np.asarray(channels, np.float32),
        points.astype(np.float32),
        (1 / sampling.scale[turn.order]).astype(np.float32),
        _truth(scan, volume, signal, voxels),
        guide,
        None if scan.gradients is None else (scan.gradients[volume] / (1000, 1, 1, 1)).astype(np.float32),
    )


def draw_place(
    scan: PackedScan,
    settings: PatchSettings,
    signal: Signal,
    random: np.random.Generator,
    scale: NDArray[np.float64] | None = None,
    others: Sequence[PackedScan] = (),
) -> list[Example]:
    """A random part of a scan in `settings.volumes` of its volumes, a b0 first; see `draw_example`."""
    volumes = _draw_volumes(scan, settings.volumes, random)
    seed = int(random.integers(2**62))
    return [
        draw_example(
            scan, settings, signal, np.random.default_rng(seed), scale, others, volume,
            own_noise=np.random.default_rng([seed, volume]),
        )
        for volume in volumes
    ]  # fmt: skip


def _draw_volumes(scan: PackedScan, count: int, random: np.random.Generator) -> list[int]:
    """A b0 volume and `count` - 1 weighted ones of one shell, whose directions are spread."""
    shells = _tensor_shells(scan, count)
    drawn = random.choice(shells)
    b0, weighted = np.flatnonzero(scan.shells == 0), np.flatnonzero(scan.shells == drawn)
    sets = [random.choice(weighted, count - 1, replace=False) for _ in range(SETS)]
    best = min(sets, key=lambda volumes: _condition(gradients_of(scan)[volumes, 1:]))
    return [int(random.choice(b0)), *map(int, best)]


def gradients_of(scan: PackedScan) -> NDArray[np.float64]:
    """b-values in s/mm2 and directions of the volumes of a scan, (n, 4).

    Raises
    ------
    TrainingDataError
        If its pack holds none.
    """
    if scan.gradients is None:
        raise TrainingDataError(where=scan.name, problem="its pack holds no b-vectors; pack the scans again")
    return scan.gradients


def _tensor_shells(scan: PackedScan, count: int) -> NDArray[np.int64]:
    """Shells of a scan with `count` - 1 volumes at least, those of a low b-value if there are any."""
    bvals = gradients_of(scan)[:, 0]
    weighted, sizes = np.unique(scan.shells[scan.shells > 0], return_counts=True)
    enough = weighted[sizes >= count - 1]
    if len(enough) == 0:
        problem = f"no shell has the {count - 1} weighted volumes that volumes = {count} asks for"
        raise TrainingDataError(where=scan.name, problem=problem)
    low = np.array([bvals[scan.shells == shell].mean() <= LARGEST_TENSOR_BVALUE for shell in enough])
    return enough[low] if low.any() else enough


def _condition(directions: NDArray[np.float64]) -> float:
    """How badly directions, (n, 3), determine a tensor."""
    x, y, z = directions.T
    columns = [x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    return float(np.linalg.cond(np.column_stack(columns)))


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
) -> tuple[Sampling, NDArray[np.int64]]:
    """A patch anywhere around a voxel of the brain, and voxels of the brain in its interior, (points, 3)."""
    centre = scan.draw_voxel(random) + random.uniform(-0.5, 0.5, 3)
    origin = centre - scale * (settings.patch - 1) / 2
    # An axis that keeps its voxels keeps their centres too; between them it would be blurred by interpolation.
    origin = np.where(scale == 1, np.rint(origin), origin)
    sampling = Sampling(settings.patch, origin, scale, *_draw_profiles(settings, random))
    return sampling, _draw_voxels(scan.mask, sampling, settings, random)


def _draw_voxels(
    mask: NDArray[np.bool_], sampling: Sampling, settings: PatchSettings, random: np.random.Generator
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
    scan: PackedScan, scale: NDArray[np.float64], settings: PatchSettings, turn: Turn, random: np.random.Generator
) -> tuple[Sampling, NDArray[np.int64]]:
    """A patch that begins at a whole voxel, and all its voxels, (Q, 3), last axis fastest once they are turned."""
    shape = np.rint(settings.patch * scale).astype(int)
    start = _draw_start(scan, shape, random)
    true_scale = shape / settings.patch
    origin = start + (true_scale - 1) / 2
    sampling = Sampling(settings.patch, origin, true_scale, *_draw_profiles(settings, random))
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
    sampling: Sampling,
    settings: PatchSettings,
    signal: Signal,
    random: np.random.Generator,
    own_noise: np.random.Generator | None,
) -> NDArray[np.float32]:
    """What a model is shown of one volume, (C, p, p, p): degraded, then made noisy, then normalized."""
    shell = int(scan.shells[volume])
    companion = companion_shell(shell, len(scan.means))
    *signals, share = sampling.of([scan.data[volume], scan.means[0], scan.means[companion], scan.mask])
    low, brain = np.stack(signals), share >= 0.5
    if random.random() < settings.noise_share:
        low += _noise(low.shape[1:], scan, volume, settings, random, own_noise)
    dropped = random.random() < settings.t1w_dropped
    t1w = None
    if "t1w" in signal.inputs and scan.t1w is not None and not dropped:
        t1w = np.where(brain, _t1w_patch(scan.t1w, scan, sampling), np.float32(0))
    sources = Sources(low[0], shell, low[1], low[2], companion, brain, t1w)
    return input_channels(signal.inputs, scan.normalizations[signal.normalization], sources)


def _noise(
    shape: tuple[int, ...],
    scan: PackedScan,
    volume: int,
    settings: PatchSettings,
    random: np.random.Generator,
    own_noise: np.random.Generator | None = None,
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
    if own_noise is not None:
        own = deviation * own_noise.standard_normal(shape, dtype=np.float32)
    if shell == 0:
        mean_b0, mean = (own + np.sqrt(count[0] - 1) * others_b0) / count[0], others / np.sqrt(count[companion])
        return np.stack([in_b0 * own, in_b0 * mean_b0, mean]).astype(np.float32)
    mean_b0, mean = others_b0 / np.sqrt(count[0]), (own + np.sqrt(count[shell] - 1) * others) / count[shell]
    return np.stack([own, in_b0 * mean_b0, mean]).astype(np.float32)


def _t1w_patch(t1w: NDArray[np.float16], scan: PackedScan, sampling: Sampling) -> NDArray[np.float32]:
    """The T1w of a scan seen through the voxels of a patch: by a Gaussian as wide as they are, as the application does.

    How a voxel of the diffusion scan sees the head is no matter of the T1w. Only where the voxels lie is.
    """
    seen = _stretched(sampling) if "zoom" in sampling.profiles else sampling
    return replace(seen, profiles=("gaussian",) * 3, width=1.0).of([t1w], scan.t1w_parts)[0]


def _stretched(sampling: Sampling) -> Sampling:
    """Voxels where "zoom" has those of a patch, whose outermost centres are the outermost of the acquired ones."""
    start = sampling.origin - (sampling.scale - 1) / 2
    return replace(sampling, origin=start, scale=(sampling.scale * sampling.n - 1) / max(sampling.n - 1, 1))


def _guidance(
    scan: PackedScan,
    others: Sequence[PackedScan],
    sampling: Sampling,
    voxels: NDArray[np.int64],
    settings: PatchSettings,
    turn: Turn,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the T1w shows of a patch, (8, p, p, p), and tells at voxels, (Q, GUIDE_CHANNELS); turned with the patch."""
    n, guide = settings.patch, np.zeros((len(voxels), GUIDE_CHANNELS), np.float32)
    dropped = random.random() < settings.t1w_dropped
    t1w = None if dropped else draw_t1w(scan, others, settings.guide, random)
    if t1w is None:
        return np.zeros((SUBPOSITIONS, n, n, n), np.float32), guide
    # Turned while each is still a small volume, so that parts and neighbours change places with the axes.
    parts = turn.of_volumes(t1w.in_half_voxels(sampling)[None])[0]
    neighbours = turn.of_volumes(t1w.around(voxels))
    guide[:, :-1], guide[:, -1] = neighbours.reshape(len(voxels), -1), 1
    return by_parts(np.asarray(parts, np.float32)), guide


def _truth(scan: PackedScan, volume: int, signal: Signal, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Normalized intensities of a volume at voxels of the scan, (Q, 3); zero beyond it."""
    inside = np.all((voxels >= 0) & (voxels < scan.mask.shape), axis=1)
    where = tuple(np.where(inside[:, None], voxels, 0).T)
    truth = scan.data[volume][where].astype(np.float32)
    normalization = scan.normalizations[signal.normalization]
    return normalization.normalize(truth, int(scan.shells[volume]), scan.means[0][where], scan.mask[where]) * inside


class PatchStream(IterableDataset[Batch]):
    """An endless stream of batches, the same for the same seed, whatever the number of loading processes.

    For ``DataLoader(stream, batch_size=None)``.

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
        If there is no scan, `simulated_share` asks for a kind of scan that is not there, or `volumes` for more volumes
        than a scan has, or for b-vectors that its pack does not hold.
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
        if settings.volumes:
            for scan in scans:
                _tensor_shells(scan, settings.volumes)
        shares = default_weights(scans, settings.simulated_share) if weights is None else weights
        self.probabilities = np.asarray(shares, dtype=np.float64) / np.sum(shares)

    def examples(self, number: int) -> list[Example]:
        """The examples of batch `number` of all ranks together."""
        random = np.random.default_rng([self.seed, number])
        scale = draw_scale(self.settings, random) if self.settings.points == 0 else None
        n_places = self.batch_size // max(1, self.settings.volumes)
        drawn = [self.scans[scan] for scan in random.choice(len(self.scans), size=n_places, p=self.probabilities)]
        how = self.settings, self.signal, random, scale, self.scans
        if self.settings.volumes:
            return [example for scan in drawn for example in draw_place(scan, *how)]
        return [draw_example(scan, *how) for scan in drawn]

    def batch(self, number: int) -> Batch:
        """Batch `number` of all ranks together."""
        examples = self.examples(number)
        given = {"guide": self.signal.guided, "gradients": self.settings.volumes > 0}
        names = [name for name in Batch._fields if given.get(name, True)]
        return Batch(
            **{name: torch.from_numpy(np.stack([getattr(example, name) for example in examples])) for name in names}
        )

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

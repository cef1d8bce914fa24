"""Thin slices from thick ones, learned from the detail that the scan itself has within its slices (SMORE)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_sr.degradation import Profile, sampling_matrix
from bids_sr.models.base import Encoded, Lattice, grid_shape
from bids_sr.models.fitting import (
    FIT_RATE,
    MOST_VALUES,
    Cost,
    Fit,
    FittableModel,
    FittedModel,
    Float,
    Learning,
    Scan,
    Shape,
    spread_volumes,
    steps_within,
)
from bids_sr.models.grid import working_grid
from bids_sr.models.interpolation import SPLINE_RADIUS, CubicSpline, encode_splines
from bids_sr.splines import spline_weights

#: A slice this many times as thick as its voxels are wide is thick: below, they differ by too little to learn from.
LEAST_RATIO = 1.15
#: Places of a thick slice on the voxels that it is made from.
PHASES = 8
#: Slices that the network sees at once.
SLICES = 16


@dataclass(frozen=True)
class ThickAxis:
    """Which axis is restored, and from what that is learned.

    Attributes
    ----------
    axis : int
        The one across the thick slices.
    teachers : tuple of int
        Axes with smaller voxels.
    thickness, spacing : float
        Size in mm of an acquired voxel along the axis, and of a restored one.
    is_lattice : bool
        The restored voxels are those asked for. If not, these are smaller than those of the teachers, and are
        interpolated from restored ones as small as theirs.
    """

    axis: int
    teachers: tuple[int, ...]
    thickness: float
    spacing: float
    is_lattice: bool

    @classmethod
    def of(cls, voxel_sizes: NDArray[np.float64], wanted: NDArray[np.float64]) -> ThickAxis | None:
        """The axis to restore of voxels of some size, (3,) in mm, of which others are to be made, if there is one.

        The largest voxel edge is restored, if it is at least `LEAST_RATIO` times as large as both another edge and the
        edge that is wanted.
        """
        axis = int(np.argmax(voxel_sizes))
        thickness = float(voxel_sizes[axis])
        teachers = tuple(a for a in range(3) if thickness >= LEAST_RATIO * voxel_sizes[a])
        if not teachers:
            return None
        finest = max(float(voxel_sizes[a]) for a in teachers)
        spacing = max(float(wanted[axis]), finest)
        if thickness < LEAST_RATIO * spacing:
            return None
        return cls(axis, teachers, thickness, spacing, bool(wanted[axis] >= finest))

    def nodes(self, shape: Shape, lattice: Lattice) -> tuple[Lattice, Shape]:
        """The restored voxels that fill an encoded grid: acquired ones along the other axes."""
        scale = None if self.is_lattice else self.thickness / self.spacing
        fine, counts = working_grid(shape, lattice, scale)
        restored = [axis == self.axis for axis in range(3)]
        x, y, z = (n if chosen else m for chosen, n, m in zip(restored, counts, shape, strict=True))
        origin = [place if chosen else 0.0 for chosen, place in zip(restored, fine.origin, strict=True)]
        cell = [size if chosen else 1.0 for chosen, size in zip(restored, fine.cell, strict=True)]
        return Lattice((origin[0], origin[1], origin[2]), (cell[0], cell[1], cell[2])), (x, y, z)


@dataclass(frozen=True)
class Lesson:
    """What makes a pair of an axis of a slice: a thick one interpolated on thin voxels, and those voxels themselves.

    Attributes
    ----------
    given, truth : Tensor, (n_fine, n)
        Weights of the axis's n voxels in each.
    centres : ndarray, (n_fine,)
        Where the thin voxels lie, in voxels of the axis.
    """

    given: Tensor
    truth: Tensor
    centres: NDArray[np.float64]


def make_lesson(n: int, voxel_size: float, thick: ThickAxis, first: float, phase: float, profile: Profile) -> Lesson:
    """The lesson of an axis of `n` voxels.

    Parameters
    ----------
    n : int
    voxel_size : float
        In mm.
    thick : ThickAxis
        What is to be restored.
    first : float
        Where its first restored voxel lies, in acquired ones.
    phase : float
        Where the first thick slice begins, in voxels of the axis from its edge.
    profile : Profile
        Of a slice, as wide at half its maximum as the slice is thick (Zhao et al. 2021).
    """
    ratio, fine_ratio = thick.thickness / voxel_size, thick.spacing / voxel_size
    step = thick.spacing / thick.thickness
    n_thick = int((n - phase) / ratio + 1e-6)
    slices = phase - 0.5 + (np.arange(n_thick, dtype=np.float64) + 0.5) * ratio
    count = math.floor((n_thick - 0.5 - first) / step + 1e-6) + 1
    positions = first + step * np.arange(count, dtype=np.float64)
    centres = phase - 0.5 + (positions + 0.5) * ratio
    given: Float = spline_weights(positions, n_thick) @ sampling_matrix(profile, n, slices, ratio)
    # Where thin voxels are as large as those of the axis, nothing is to be averaged.
    same = fine_ratio < 1 + 1e-3
    truth = spline_weights(centres, n) if same else sampling_matrix(profile, n, centres, fine_ratio)
    return Lesson(torch.from_numpy(given), torch.from_numpy(truth), centres)


def lesson_phases(voxel_size: float, thick: ThickAxis, first: float) -> NDArray[np.float64]:
    """Where thick slices may begin on an axis, in its voxels: on these where the restored ones are as large."""
    ratio = thick.thickness / voxel_size
    if thick.spacing < voxel_size * (1 + 1e-3):
        count, step, begin = math.ceil(ratio - 1e-6), 1.0, (0.5 - (first + 0.5) * ratio) % 1
    else:
        count, step, begin = PHASES, ratio / PHASES, 0.0
    return begin + step * np.arange(count, dtype=np.float64)


class SliceNetwork(nn.Module):
    """A residual network on slices, after EDSR (Lim et al. 2017): no normalization, one sum around all blocks.

    Parameters
    ----------
    n_channels : int
        The first one is what the result is added to.
    features, blocks : int
    """

    def __init__(self, n_channels: int, features: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(n_channels, features, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, features, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(features, features, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.tail = nn.Conv2d(features, 1, 3, padding=1)
        # The network begins as the interpolation itself.
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, slices: Tensor) -> Tensor:
        """Slices, (N, C, a, b), interpolated along a, to restored ones, (N, a, b)."""
        found = self.head(slices)
        for block in self.blocks:
            found = found + block(found)
        return slices[:, 0] + self.tail(found)[:, 0]


def slice_operations(n_channels: int, features: int, blocks: int) -> float:
    """Multiply-adds of `SliceNetwork` per pixel."""
    return 9.0 * features * (n_channels + 1 + 2 * blocks * features)


class SliceRestorer(FittedModel):
    """A `RestorationModel` that restores one axis on the slices that hold it, and interpolates along the others.

    Parameters
    ----------
    network : SliceNetwork
    thick : ThickAxis
    radius : int
    """

    def __init__(self, network: SliceNetwork, thick: ThickAxis, radius: int) -> None:
        super().__init__(radius)
        self.network = network
        self.thick = thick

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Read volumes, (N, C, h, w, d): thin slices, each the mean of what two orientations give."""
        nodes, shape = self.thick.nodes(grid_shape(channels), lattice)
        axis = self.thick.axis
        positions = nodes.origin[axis] + nodes.cell[axis] * np.arange(shape[axis], dtype=np.float64)
        weights = torch.from_numpy(spline_weights(positions, channels.shape[2 + axis])).to(channels)
        fine = torch.tensordot(channels, weights, dims=([2 + axis], [1])).movedim(-1, 2 + axis)
        restored = torch.stack([self._restored(volume) for volume in fine])
        return Encoded(encode_splines(restored), shape, nodes)

    def _restored(self, volume: Tensor) -> Tensor:
        """A volume, (C, h, w, d), restored in each orientation and averaged, (h, w, d)."""
        others = [axis for axis in range(3) if axis != self.thick.axis]
        found = [self._in_slices(volume, beside, across) for beside in others for across in others if across != beside]
        return torch.stack(found).mean(0)

    def _in_slices(self, volume: Tensor, beside: int, across: int) -> Tensor:
        """A volume restored in the slices across an axis, the thick axis first in each and `beside` second."""
        slices = volume.permute(1 + across, 0, 1 + self.thick.axis, 1 + beside)
        found = torch.cat([self.network(part.contiguous()) for part in slices.split(SLICES)])
        back = np.argsort([across, self.thick.axis, beside]).tolist()
        return found.permute(back)


class Smore(FittableModel):
    """Self-supervised restoration of thick slices (Zhao et al. 2021, IEEE Trans Med Imaging 40:805).

    Within its slices a scan shows how the same anatomy looks with small voxels. A network learns to undo there, along
    the axes of the slice, what the profile of a thick slice does; it is then applied along the axis across the slices,
    in both orientations that hold it, and both results are averaged. It learns from the volumes of the series alone.
    Other axes that are to get finer are interpolated by cubic B-splines, and so is everything where no axis has
    smaller voxels than another.

    Parameters
    ----------
    seconds : float
        Budget of the fit, in seconds of one processor core.
    features, blocks : int
        Of `SliceNetwork`.
    patch, batch : int
        Pixels along each axis of an example, and examples of a step.
    volumes : int
        From how many volumes it learns at most; each shell has its part.
    learning_rate : float
    profile : Profile
        Of a slice, see `bids_sr.degradation`.

    Raises
    ------
    ValueError
        If an argument is not positive.
    """

    def __init__(
        self,
        seconds: float = 300.0,
        features: int = 32,
        blocks: int = 4,
        patch: int = 32,
        batch: int = 16,
        volumes: int = 24,
        learning_rate: float = 1e-3,
        profile: Profile = "gaussian",
    ) -> None:
        if min(seconds, features, blocks, patch, batch, volumes, learning_rate) <= 0:
            raise ValueError("arguments must be positive")
        self.seconds = seconds
        self.features, self.blocks = features, blocks
        self.patch, self.batch = patch, batch
        self.volumes = volumes
        self.learning_rate = learning_rate
        self.profile = profile
        # Two convolutions a block, the first and the last.
        self.radius = 2 * blocks + 2 + 2 * SPLINE_RADIUS

    def begin_fit(self, scan: Scan, device: torch.device) -> Fit:
        """See `FittableModel`; a scan whose slices are not thick is interpolated."""
        sizes, wanted = scan.grid.voxel_sizes, scan.wanted_sizes
        thick = ThickAxis.of(sizes, wanted)
        if thick is None:
            return Fit(CubicSpline(), _nothing_to_learn(sizes, wanted))
        pupil = _Pupil(self, scan, thick, device)
        operations = slice_operations(pupil.n_channels, self.features, self.blocks)
        n_steps = steps_within(self.seconds, operations * self.batch * self.patch**2)
        return Fit(
            SliceRestorer(pupil.network, thick, self.radius),
            f"A network of {sum(p.numel() for p in pupil.network.parameters()):,} parameters learned from the detail "
            f"within the slices of {len(pupil.examples)} volumes of this series how slices of {thick.thickness:.3g} mm "
            f"look with {thick.spacing:.3g} mm; other axes are interpolated.",
            Learning((pupil.examples,), n_steps, pupil.loss, self.learning_rate),
        )

    def cost(self, box: Shape, cell: tuple[float, float, float], n_channels: int) -> Cost:
        """See `FittableModel`; as if the axis that is magnified most were restored."""
        fine = math.prod(box) / min(cell)
        operations = 2 * fine * slice_operations(n_channels, self.features, self.blocks)
        kept = min(MOST_VALUES, self.volumes * math.prod(box) * n_channels)
        slices = SLICES * fine / min(box) * (n_channels + 3 * self.features)
        return Cost(self.seconds * FIT_RATE, operations, kept + fine * (n_channels + 5) + slices)


def _nothing_to_learn(sizes: NDArray[np.float64], wanted: NDArray[np.float64]) -> str:
    """Why a scan is interpolated."""
    acquired, asked = (" x ".join(f"{size:.3g}" for size in three) for three in (sizes, wanted))
    return (
        f"This scan has no thick slices to learn from (voxels of {acquired} mm, of which {asked} mm are asked for): "
        "nothing was learned, and it was interpolated by cubic B-splines."
    )


class _Pupil:
    """A network that learns, with the examples that it learns from."""

    def __init__(self, model: Smore, scan: Scan, thick: ThickAxis, device: torch.device) -> None:
        self._model, self._device = model, device
        first = scan.channels(0)
        self.n_channels = len(first)
        most = max(1, int(min(model.volumes, MOST_VALUES / first.size)))
        chosen = spread_volumes(scan.shells, most)
        self.examples: Float = np.stack([scan.channels(int(index)) for index in chosen])
        self.network = SliceNetwork(self.n_channels, model.features, model.blocks).to(device)
        self._thick = thick
        self._brain = np.argwhere(scan.mask)
        nodes, _ = thick.nodes(_shape(scan.mask), scan.lattice)
        self._lessons = {a: self._of_axis(scan, a, nodes.origin[thick.axis]) for a in thick.teachers}
        counts = [len(lesson.centres) for lessons in self._lessons.values() for lesson in lessons]
        widths = [scan.mask.shape[3 - axis - thick.axis] for axis in thick.teachers]
        self._size = min(model.patch, *counts, *widths)

    def _of_axis(self, scan: Scan, axis: int, first: float) -> list[Lesson]:
        """The lessons of a teaching axis."""
        n, size, thick = scan.mask.shape[axis], float(scan.grid.voxel_sizes[axis]), self._thick
        phases = lesson_phases(size, thick, first)
        return [make_lesson(n, size, thick, first, phase, self._model.profile) for phase in phases]

    def loss(self, random: np.random.Generator) -> Tensor:
        """Mean absolute error of a batch of patches."""
        given, truth = zip(*(self._pair(random) for _ in range(self._model.batch)), strict=True)
        restored = self.network(torch.stack(given).to(self._device))
        return (restored - torch.stack(truth).to(self._device)).abs().mean()

    def _pair(self, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A patch as the network is given it, (C, p, p), and as it should be, (p, p)."""
        axis = self._thick.teachers[int(random.integers(len(self._thick.teachers)))]
        beside = 3 - axis - self._thick.axis
        lessons = self._lessons[axis]
        lesson = lessons[int(random.integers(len(lessons)))]
        centre = self._brain[int(random.integers(len(self._brain)))]
        volume = self.examples[int(random.integers(len(self.examples)))]
        plane = np.take(volume, centre[self._thick.axis], axis=1 + self._thick.axis)
        plane = plane if axis < beside else plane.swapaxes(1, 2)
        # Either axis may run backwards: anatomy is as likely mirrored.
        flips = [number for number in (1, 2) if random.random() < 0.5]
        plane = np.flip(plane, flips)
        places = [plane.shape[k] - 1 - centre[a] if k in flips else centre[a] for k, a in ((1, axis), (2, beside))]
        rows = _window(int(np.argmin(np.abs(lesson.centres - places[0]))), len(lesson.centres), self._size, random)
        columns = _window(int(places[1]), plane.shape[2], self._size, random)
        part = torch.from_numpy(np.ascontiguousarray(plane[:, :, columns]))
        return lesson.given[rows] @ part, lesson.truth[rows] @ part[0]


def _window(centre: int, n: int, size: int, random: np.random.Generator) -> slice:
    """Places around a centre, `size` of all `n`."""
    start = max(0, min(centre - int(random.integers(size)), n - size))
    return slice(start, start + size)


def _shape(mask: NDArray[np.bool_]) -> Shape:
    """The shape of a mask."""
    height, width, depth = mask.shape
    return height, width, depth

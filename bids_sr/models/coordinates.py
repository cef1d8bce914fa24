"""A field over space that is fitted to one scan: what it adds to interpolation must explain what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_sr.degradation import sampling_matrix
from bids_sr.dwi.t1w import t1w_channel
from bids_sr.geometry import Grid, apply_along_axes
from bids_sr.models.base import GUIDE_CHANNELS, Encoded, Lattice
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

#: Acquired voxels around a patch that its voxels' point-spread functions reach.
MARGIN = 2
#: Distances, in acquired voxels, of the nodes that hold features, and features of a node.
SPACINGS = (1, 2, 4)
NODE_FEATURES = 4
#: What a step takes for each number that is learned (Adam), in multiply-adds that take as long.
NUMBER_OVERHEAD = 40
#: Fine voxels computed at once when the fit is done.
AT_ONCE = 2**15


@dataclass(frozen=True)
class Components:
    """What the volumes of a series have in common: images of which each volume is a sum.

    Attributes
    ----------
    maps : ndarray, (K, h, w, d), float32
        Orthogonal in the brain, with a mean square of one there.
    weights : ndarray, (K,)
        Share of each in the signal's square; they sum to one.
    """

    maps: Float
    weights: NDArray[np.float64]


def principal_components(volumes: Float, mask: NDArray[np.bool_], most: int) -> Components:
    """The images that tell most of some volumes, (n, h, w, d), in a mask; `most` of them at most."""
    inside = volumes[:, mask].astype(np.float64)
    values, vectors = np.linalg.eigh(inside @ inside.T / inside.shape[1])
    # What is a billionth of the whole is rounding.
    kept = np.argsort(values)[::-1][:most]
    kept = kept[values[kept] > 1e-9 * values.max()]
    mixing = vectors[:, kept] / np.sqrt(values[kept])
    maps = np.tensordot(mixing.T.astype(np.float32), volumes, 1)
    return Components(maps, values[kept] / values[kept].sum())


class ScanField(nn.Module):
    """Features that lie on grids in space, read at any point and told by a small network together with a guide.

    After instant neural graphics primitives (Mueller et al. 2022); the grids of a head are small enough that none needs
    hashing.

    Parameters
    ----------
    shape : tuple of int, (3,)
        Acquired voxels that it fills.
    n_given, n_maps : int
        Channels that are given beside the features, and values of the field.
    hidden : int
    """

    def __init__(self, shape: Shape, n_given: int, n_maps: int, hidden: int) -> None:
        super().__init__()
        counts = [[n // spacing + 2 for n in shape] for spacing in SPACINGS]
        self.grids = nn.ParameterList(nn.Parameter(1e-3 * torch.randn(NODE_FEATURES, *count)) for count in counts)
        n_features = NODE_FEATURES * len(SPACINGS) + n_given
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_maps)
        )
        # The field begins at nothing: what is restored begins as the interpolation itself.
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, positions: list[Tensor], given: Tensor) -> Tensor:
        """The field on a lattice.

        Parameters
        ----------
        positions : list of Tensor, (3,)
            Of its points along each axis, in acquired voxels.
        given : Tensor, (C, a, b, c)

        Returns
        -------
        field : Tensor, (K, a, b, c)
        """
        features = [
            interpolate_nodes(grid, [(place + 0.5) / spacing for place in positions])
            for grid, spacing in zip(self.grids, SPACINGS, strict=True)
        ]
        found: Tensor = self.layers(torch.cat([*features, given]).movedim(0, -1))
        return found.movedim(-1, 0)


def interpolate_nodes(grid: Tensor, positions: list[Tensor]) -> Tensor:
    """Trilinear interpolation of nodes, (F, x, y, z), on a lattice, of which only the nodes around it take part."""
    for axis, places in enumerate(positions, start=1):
        inside = places.clamp(0, grid.shape[axis] - 1)
        first = int(inside.min())
        last = min(int(inside.max()) + 2, grid.shape[axis])
        nodes = torch.arange(first, last, device=grid.device)
        weights = (1 - (inside[:, None] - nodes).abs()).clamp(min=0)
        part = grid.narrow(axis, first, last - first)
        grid = torch.tensordot(part, weights, dims=([axis], [1])).movedim(-1, axis)
    return grid


class DetailRestorer(FittedModel):
    """A `RestorationModel` that adds to an interpolated volume the detail of the components that it is made of.

    Parameters
    ----------
    field : ScanField
        Detail of the components.
    components : Components
    mask : ndarray of bool, (h, w, d)
        Where the components are orthogonal.
    fine : _FineGrid
    radius : int
    """

    def __init__(
        self, field: ScanField, components: Components, mask: NDArray[np.bool_], fine: _FineGrid, radius: int
    ) -> None:
        super().__init__(radius)
        self.field = field
        self._components, self._mask, self._fine = components, torch.from_numpy(mask), fine
        self._detail: Tensor | None = None

    def encode(self, channels: Tensor, lattice: Lattice) -> Encoded:
        """Read volumes, (N, C, h, w, d), on the lattice that the field was fitted for."""
        if self._detail is None:
            self._detail = self._fine.detail(self.field)
        volumes = channels[:, 0]
        maps = torch.from_numpy(self._components.maps).to(volumes)
        inside = self._mask.to(volumes.device)
        shares = volumes[:, inside] @ maps[:, inside].T / inside.sum()
        restored = self._fine.interpolated(volumes) + torch.tensordot(shares, self._detail, 1)
        return Encoded(encode_splines(restored), self._fine.shape, self._fine.nodes)


class _FineGrid:
    """The voxels that are asked for, what is known at them, and how the acquired ones see them."""

    def __init__(self, scan: Scan, components: Components, device: torch.device, *, guided: bool) -> None:
        acquired = _three(scan.mask.shape)
        self.nodes, self.shape = working_grid(acquired, scan.lattice, None)
        axes = list(zip(self.nodes.origin, self.nodes.cell, self.shape, acquired, strict=True))
        places = [origin + cell * np.arange(n, dtype=np.float64) for origin, cell, n, _ in axes]
        self.positions = [torch.from_numpy(place.astype(np.float32)).to(device) for place in places]
        self._splines = [spline_weights(place, n) for place, (_, _, _, n) in zip(places, axes, strict=True)]
        self._seen = [
            sampling_matrix("gaussian", n, (np.arange(m, dtype=np.float64) - origin) / cell, 1 / cell)
            for origin, cell, n, m in axes
        ]
        self._device = device
        self.guide = self._guide(scan) if guided else None
        self.given = self._interpolated_maps(components)

    def _interpolated_maps(self, components: Components) -> Tensor:
        """The components, interpolated."""
        return torch.from_numpy(apply_along_axes_of(components.maps, self._splines)).to(self._device)

    def _guide(self, scan: Scan) -> Tensor | None:
        """Detail of the T1w and the T1w, (2, X + 2, Y + 2, Z + 2), through the fine voxels, if there is one.

        A voxel of zeros lies around.
        """
        if scan.t1w is None:
            return None
        to_acquired = np.diag([*self.nodes.cell, 1.0])
        to_acquired[:3, 3] = self.nodes.origin
        nearest = [
            np.clip(np.floor(place.cpu().numpy() + 0.5).astype(int), 0, n - 1)
            for place, n in zip(self.positions, scan.mask.shape, strict=True)
        ]
        grid = Grid(self.shape, scan.grid.affine @ to_acquired)
        channel = t1w_channel(scan.t1w.voxels, scan.t1w.grid, grid, scan.mask[np.ix_(*nearest)])
        # What interpolation of a T1w with the acquired voxels would lack, which is the like of what is sought.
        detail = channel - apply_along_axes(apply_along_axes(channel, self._seen), self._splines)
        if not detail.any():
            return None
        both = np.stack([detail / detail.std(), channel])
        return torch.from_numpy(np.pad(both, ((0, 0), (1, 1), (1, 1), (1, 1)))).to(self._device)

    def around(self, low: list[int], high: list[int]) -> tuple[list[Tensor], Tensor]:
        """Positions along each axis, and what is known, (C, a, b, c), of some of the voxels."""
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        known = self.given[(slice(None), *box)]
        if self.guide is not None:
            known = torch.cat([known, stencils(self.guide, low, high)])
        return [place[part] for place, part in zip(self.positions, box, strict=True)], known

    @property
    def n_given(self) -> int:
        """Channels of what is known."""
        return len(self.given) + (0 if self.guide is None else GUIDE_CHANNELS)

    def seen_by(self, axis: int, first: int, last: int) -> tuple[int, int, Tensor]:
        """Which fine voxels, from one to another, the acquired ones `first` to `last` see along an axis, and how."""
        rows = self._seen[axis][first:last]
        columns = np.flatnonzero(rows.any(axis=0))
        low, high = int(columns[0]), int(columns[-1]) + 1
        return low, high, torch.from_numpy(rows[:, low:high].copy()).to(self._device)

    def interpolated(self, volumes: Tensor) -> Tensor:
        """Volumes, (N, h, w, d), at the fine voxels."""
        for axis, weights in enumerate(self._splines, start=1):
            matrix = torch.from_numpy(weights).to(volumes)
            volumes = torch.tensordot(volumes, matrix, dims=([axis], [1])).movedim(-1, axis)
        return volumes

    @torch.no_grad()
    def detail(self, field: ScanField) -> Tensor:
        """The whole field, (K, X, Y, Z), slab by slab; what is known is then no longer kept."""
        step = max(1, AT_ONCE // (self.shape[1] * self.shape[2]))
        starts = range(0, self.shape[0], step)
        ends = [min(start + step, self.shape[0]) for start in starts]
        slabs = [([start, 0, 0], [end, *self.shape[1:]]) for start, end in zip(starts, ends, strict=True)]
        found = torch.cat([field(*self.around(low, high)) for low, high in slabs], dim=1)
        self.given, self.guide = self.given[:, :0], None
        return found


def apply_along_axes_of(volumes: Float, matrices: list[Float]) -> Float:
    """One matrix, (n_out, n_in), along each of the three axes of volumes, (N, h, w, d)."""
    return np.stack([apply_along_axes(volume, matrices) for volume in volumes])


def stencils(guide: Tensor, low: list[int], high: list[int]) -> Tensor:
    """What a guide tells at some voxels, (GUIDE_CHANNELS, a, b, c).

    Parameters
    ----------
    guide : Tensor, (2, X + 2, Y + 2, Z + 2)
        Detail, of which the neighbours are told too, and values, with a voxel around.
    low, high : list of int, (3,)
        The voxels of (X, Y, Z).
    """
    part = guide[:, low[0] : high[0] + 2, low[1] : high[1] + 2, low[2] : high[2] + 2]
    around = part[0].unfold(0, 3, 1).unfold(1, 3, 1).unfold(2, 3, 1).flatten(3).movedim(-1, 0)
    return torch.cat([around, part[1:, 1:-1, 1:-1, 1:-1]])


class CoordinateNetwork(FittableModel):
    """A field over space, fitted to one scan through the point-spread function of its voxels, guided by the T1w.

    All volumes of a series are sums of a few images (their principal components). One field tells for every voxel that
    is asked for what the interpolation of each of these images lacks. It is found by what an acquired voxel must see of
    it: averaged over the voxel's point-spread function, interpolation and field together are to give the image that
    was acquired. What this leaves open is decided by the T1w's detail at the voxel and by the smoothness of the field,
    as in guided super-resolution (de Lutio et al. 2019). Each volume then gets its own mixture of the details, and what
    of it the images do not tell stays interpolated.

    Parameters
    ----------
    seconds : float
        Budget of the fit, in seconds of one processor core.
    components : int
        Images at most.
    hidden : int
        Width of the network.
    patch : int
        Acquired voxels along each axis of an example.
    volumes : int
        From how many volumes the images are made at most.
    learning_rate : float
    passes : int
        How often it sees the brain at most: what it learns later is mostly noise. (sub-uih with slices twice as thick:
        26.9 dB after 915 steps at a rate of 2e-3, 26.1 dB after 858 steps at 1e-2; 25.3 dB interpolated.)
    guided : bool
        By the T1w.

    Raises
    ------
    ValueError
        If an argument is not positive.
    """

    def __init__(
        self,
        seconds: float = 300.0,
        components: int = 8,
        hidden: int = 64,
        patch: int = 16,
        volumes: int = 64,
        learning_rate: float = 2e-3,
        passes: int = 300,
        guided: bool = True,
    ) -> None:
        if min(seconds, components, hidden, patch, volumes, learning_rate, passes) <= 0:
            raise ValueError("arguments must be positive")
        self.seconds = seconds
        self.components, self.hidden = components, hidden
        self.patch, self.volumes = patch, volumes
        self.learning_rate, self.passes = learning_rate, passes
        self.guided = guided
        self.radius = SPLINE_RADIUS

    def begin_fit(self, scan: Scan, device: torch.device) -> Fit:
        """See `FittableModel`; where no axis is to get finer, there is nothing to fit."""
        if min(scan.lattice.cell) > 0.98:
            return Fit(CubicSpline(), "No axis is to get finer: nothing was fitted, and the series was interpolated.")
        size = scan.mask.size
        chosen = spread_volumes(scan.shells, max(1, int(min(self.volumes, MOST_VALUES / size))))
        volumes = np.stack([scan.channels(int(index))[0] for index in chosen])
        images = principal_components(volumes, scan.mask, self.components)
        fine = _FineGrid(scan, images, device, guided=self.guided)
        field = ScanField(_three(scan.mask.shape), fine.n_given, len(images.maps), self.hidden).to(device)
        examples = _Examples(field, images, scan.mask, fine, self.patch)
        n_numbers = sum(parameter.numel() for parameter in field.parameters())
        operations = self._point_operations(fine.n_given, len(images.maps)) * examples.n_points(scan.lattice.cell)
        operations += NUMBER_OVERHEAD * n_numbers
        guide = () if fine.guide is None else (fine.guide.cpu().numpy(),)
        n_steps = min(steps_within(self.seconds, operations), self.passes * examples.n_in_brain)
        learning = Learning((images.maps, *guide), n_steps, examples.loss, self.learning_rate)
        told = "guided by the T1w" if guide else "without a T1w"
        sentence = (
            f"A field of {n_numbers:,} parameters was fitted to the "
            f"{len(images.maps)} images that tell most of {len(chosen)} volumes of this series, {told}."
        )
        return Fit(DetailRestorer(field, images, scan.mask, fine, self.radius), sentence, learning)

    def _point_operations(self, n_given: int, n_maps: int) -> float:
        """Multiply-adds of the field at a point."""
        n_features = NODE_FEATURES * len(SPACINGS)
        return float((n_given + n_features + self.hidden + n_maps) * self.hidden + 4 * n_features + 8 * n_maps)

    def cost(self, box: Shape, cell: tuple[float, float, float], n_channels: int) -> Cost:
        """See `FittableModel`; the field is computed once and counted with the fit."""
        encoded, fine = math.prod(box), math.prod(box) / math.prod(cell)
        per_point = self._point_operations(self.components + GUIDE_CHANNELS, self.components)
        once = fine * per_point
        nodes = sum(encoded / spacing**3 for spacing in SPACINGS) * NODE_FEATURES
        values = min(MOST_VALUES, self.volumes * encoded) + 2 * self.components * (encoded + fine) + 4 * nodes
        return Cost(self.seconds * FIT_RATE + once, fine * self.components, values + 6 * fine)


class _Examples:
    """Patches of acquired voxels, and what the field must make them see."""

    def __init__(
        self, field: ScanField, images: Components, mask: NDArray[np.bool_], fine: _FineGrid, patch: int
    ) -> None:
        self._field, self._fine = field, fine
        self._device = next(field.parameters()).device
        self._sizes = [min(patch, n) for n in mask.shape]
        self._maps = torch.from_numpy(images.maps).to(self._device)
        self._weights = torch.from_numpy(images.weights.astype(np.float32)).to(self._device)
        self._mask = torch.from_numpy(mask.astype(np.float32)).to(self._device)
        self._brain = np.argwhere(mask)

    @property
    def n_in_brain(self) -> int:
        """How many examples hold as many voxels as the brain."""
        return math.ceil(len(self._brain) / math.prod(self._sizes))

    def n_points(self, cell: tuple[float, float, float]) -> float:
        """Fine voxels of an example."""
        return math.prod((n + 2 * MARGIN) / c for n, c in zip(self._sizes, cell, strict=True))

    def loss(self, random: np.random.Generator) -> Tensor:
        """Mean squared difference between what the acquired voxels of a patch see and what they measured."""
        centre = self._brain[int(random.integers(len(self._brain)))]
        limits = [n - size for n, size in zip(self._mask.shape, self._sizes, strict=True)]
        drawn = [int(random.integers(size)) for size in self._sizes]
        first = [min(max(int(c) - d, 0), limit) for c, d, limit in zip(centre, drawn, limits, strict=True)]
        last = [start + size for start, size in zip(first, self._sizes, strict=True)]
        low, high, seen = map(list, zip(*(self._fine.seen_by(a, first[a], last[a]) for a in range(3)), strict=True))
        positions, known = self._fine.around(low, high)
        restored = known[: len(self._maps)] + self._field(positions, known)
        for axis, weights in enumerate(seen, start=1):
            restored = torch.tensordot(restored, weights, dims=([axis], [1])).movedim(-1, axis)
        box = tuple(slice(start, end) for start, end in zip(first, last, strict=True))
        errors = (restored - self._maps[(slice(None), *box)]) ** 2
        return (torch.tensordot(self._weights, errors, 1) * self._mask[box]).mean()


def _three(shape: tuple[int, ...]) -> Shape:
    """A shape of three axes."""
    height, width, depth = shape
    return height, width, depth

"""A scan on a finer grid: each volume is encoded once on the brain's box, then asked for voxels inside the brain."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.normalization import (
    Normalization,
    ShellContext,
    Sources,
    input_channels,
    make_normalization,
    shell_context,
)
from bids_sr.dwi.t1w import T1wImage, t1w_guide
from bids_sr.errors import ScaleTooLargeError
from bids_sr.geometry import Grid, cell_in, from_canonical, points_in, sizes_text, to_canonical
from bids_sr.inference.fitting import FitLog, fitted
from bids_sr.models.base import SUBPOSITIONS, Encoded, GuidedModel, Lattice, RestorationModel, Signal, UncertainModel
from bids_sr.models.fitting import FittableModel, Scan
from bids_sr.models.interpolation import CubicSpline, cubic_on_grid
from bids_sr.models.registry import ModelCard

Item = TypeVar("Item")

#: Acquired voxels by which the mask grows before it is restored: the change to interpolation lies outside the brain.
GROWTH = 2
#: Least and largest number of acquired voxels encoded around what is restored.
LEAST_HALO, LARGEST_HALO = 7, 12
#: Half a voxel, and what keeps rounding from deciding what lies halfway between two.
HALF = 0.5 + 1e-6
#: Queries at once: few enough that their activations stay in the processor's cache; on a GPU, many enough to fill it.
CHUNK, GPU_CHUNK = 4096, 2**18


@dataclass(frozen=True)
class RestorationPlan:
    """What is computed where; the same for all volumes of a series.

    Attributes
    ----------
    box : tuple of slice, (3,)
        Part of the acquired grid that is encoded.
    voxels : ndarray of bool
        On the target grid: restored by the model; the others are interpolated.
    points : Tensor, (Q, 3)
        Where they lie, in voxel coordinates of the box.
    cell : Tensor, (3,)
        Size of a target voxel in acquired voxels.
    lattice : Lattice
        The target grid in voxel coordinates of the box.
    """

    box: tuple[slice, slice, slice]
    voxels: NDArray[np.bool_]
    points: Tensor
    cell: Tensor
    lattice: Lattice


class Stencils:
    """What a T1w tells at the voxels that are restored: its values there and at their neighbours, gathered on demand.

    Parameters
    ----------
    t1w : ndarray, (X, Y, Z)
        On the target grid; beyond it, it counts as 0.
    voxels : ndarray of bool, (X, Y, Z)
        Those that are restored.
    device : torch.device
    """

    def __init__(self, t1w: NDArray[np.float32], voxels: NDArray[np.bool_], device: torch.device) -> None:
        padded = np.pad(t1w, 1)
        self._values = torch.from_numpy(padded.ravel()).to(device)
        self._centres = torch.from_numpy(np.flatnonzero(np.pad(voxels, 1)))
        steps = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
        neighbours = (np.indices((3, 3, 3)).reshape(3, -1).T - 1) @ steps
        self._neighbours = torch.from_numpy(neighbours).to(device)

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Guides, (size, GUIDE_CHANNELS), of the voxels in the order of `np.argwhere`; the last one may be shorter."""
        for centres in self._centres.split(size):
            values = self._values[centres.to(self._values.device)[:, None] + self._neighbours]
            yield torch.cat([values, torch.ones_like(values[:, :1])], dim=1)


def halo(radius: int) -> int:
    """Acquired voxels that are encoded around what is restored, for a model that sees `radius` voxels: a third, or 7.

    What lies further away changes a value in the brain, two voxels further inside, by less than 1e-4 of the range.
    Measured with 7 voxels: 2e-5 (the models that ship, radius 17; 1.1e-4 with 6); with 6 and random weights: 5e-6 (the
    network of Wu et al. 2024, radius 29), 6e-6 (DCSRN), 5e-6 (ResCNN3D) and 3e-6 (an RDN on the grid). Training widens
    what a network looks at, so deeper ones get more. The radius of networks on a grid counts two interpolations by
    splines, which end within `LARGEST_HALO` voxels.
    """
    third = -(-radius // 3)
    return min(radius, LARGEST_HALO, max(LEAST_HALO, third))


def check_scale(source: Grid, target: Grid, card: ModelCard, name: str) -> None:
    """Refuse a magnification that the model was not made for, a rounding of the grid apart.

    Raises
    ------
    ScaleTooLargeError
        `name` tells which scan.
    """
    scale = float((1 / cell_in(source, target)).max())
    if scale > card.scale_range[1] * 1.02:
        raise ScaleTooLargeError(
            dwi=name,
            asked=sizes_text(target.voxel_sizes),
            scale=f"{scale:.2f}",
            acquired=sizes_text(source.voxel_sizes),
            model=card.name,
            limit=f"{card.scale_range[1]:g}",
        )


def restore_mask(mask: NDArray[np.bool_], source: Grid, target: Grid) -> NDArray[np.bool_]:
    """A mask on the acquired grid, (x, y, z), carried to the target grid by the nearest voxel.

    Halfway between two, the one towards R, A or S counts, however the images are stored.
    """
    own, acquired, wanted = to_canonical(mask, source.affine), source.canonical, target.canonical
    result = np.zeros(wanted.shape, bool)
    for index in range(wanted.shape[0]):
        plane = np.indices((1, *wanted.shape[1:])).reshape(3, -1).T + np.array([index, 0, 0])
        nearest = np.floor(points_in(acquired, wanted, plane) + HALF).astype(int)
        inside = np.all((nearest >= 0) & (nearest < own.shape), axis=1)
        result[index].reshape(-1)[inside] = own[tuple(nearest[inside].T)]
    return from_canonical(result, target.affine)


def plan_restoration(
    mask: NDArray[np.bool_], source: Grid, target: Grid, radius: int, *, inside_only: bool = False
) -> RestorationPlan:
    """Decide what is encoded and what is asked for.

    Parameters
    ----------
    mask : ndarray of bool, (x, y, z)
        The brain on the acquired grid.
    source, target : Grid
    radius : int
        Of the model.
    inside_only : bool
        Restore the brain alone, without the voxels around it.
    """
    grown = ndimage.binary_dilation(mask, iterations=GROWTH)
    voxels = restore_mask(mask if inside_only else grown, source, target)
    inside = np.argwhere(grown)
    low = np.maximum(inside.min(axis=0) - halo(radius), 0)
    high = np.minimum(inside.max(axis=0) + 1 + halo(radius), mask.shape)
    points = points_in(source, target, np.argwhere(voxels)) - low
    cell = cell_in(source, target)
    origin = points_in(source, target, np.zeros((1, 3), np.int64))[0] - low
    return RestorationPlan(
        (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])),
        voxels,
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(cell.astype(np.float32)),
        Lattice((origin[0], origin[1], origin[2]), (cell[0], cell[1], cell[2])),
    )


def restore_volumes(
    data: Series,
    bvals: NDArray[np.float64],
    source: Grid,
    target: Grid,
    mask: NDArray[np.bool_],
    model: RestorationModel | FittableModel,
    *,
    signal: Signal,
    b0_threshold: float,
    device: torch.device,
    t1w: NDArray[np.float32] | None = None,
    guide: T1wImage | None = None,
    volumes: Sequence[int] | None = None,
    deviations: bool = False,
    fit_log: FitLog | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Restore a series volume by volume.

    Parameters
    ----------
    data : array or array proxy, (x, y, z, n)
        The scan on `source`; one volume is read at a time, twice in all.
    bvals : ndarray, (n,)
        b-values in s/mm2; up to `b0_threshold` they count as b0.
    source, target : Grid
        Any two grids.
    mask : ndarray of bool, (x, y, z)
        The brain. Outside it, and two voxels around it, the result is interpolated by cubic B-splines; a model that is
        given nothing outside the brain restores the brain alone.
    model : RestorationModel or FittableModel
        The latter is fitted to the series first.
    signal : Signal
        What the model is given, see `bids_sr.models.registry.ModelCard`.
    device : torch.device
    t1w : ndarray, (x, y, z), optional
        As `bids_sr.dwi.t1w.t1w_channel` gives it, for the input "t1w"; zeros without it.
    guide : T1wImage, optional
        The T1w, for a model that it guides; others do not see it.
    volumes : sequence of int, optional
        Restore these alone; what all volumes share still comes from the whole series.
    deviations : bool
        Tell standard deviations too, by an `UncertainModel` of the normalization "shell".
    fit_log : FitLog, optional
        How a `FittableModel` is fitted; what came of it is noted there before the first volume is given.

    Yields
    ------
    volume : ndarray, target.shape, float32
        In the units of the scan, never negative; in the order of the series, or of `volumes`. With `deviations`,
        (2, *target.shape): the volume and its standard deviations, 0 where it is interpolated.

    Raises
    ------
    NoSignalError
        If a shell has no signal in the mask.

    Notes
    -----
    A network is not equal under flips and turns. It is shown the scan along the axes closest to R, A and S, so that
    what it gives does not depend on how the scan is stored.
    """
    stored, target, acquired = target, target.canonical, source.affine
    data, mask, source = _CanonicalSeries(data, acquired), to_canonical(mask, acquired), source.canonical
    t1w = None if t1w is None else to_canonical(t1w, acquired)
    context = shell_context(data, bvals, mask, b0_threshold)
    wanted = range(data.shape[3]) if volumes is None else volumes
    if type(model) is CubicSpline:
        # It gives in the brain what every model gives outside it.
        for index in wanted:
            volume = cubic_on_grid(np.asarray(data[..., index], dtype=np.float32), source, target)
            yield from_canonical(np.maximum(volume, 0), stored.affine)
        return
    normalization = make_normalization(signal.normalization, context.levels, context.means[0], mask)
    plan = plan_restoration(mask, source, target, model.radius, inside_only=normalization.divides_by_b0)
    context, brain, anatomy = context.cropped(plan.box), mask[plan.box], None if t1w is None else t1w[plan.box]
    parts, stencils = _guidance(guide if signal.guided else None, source, target, mask, plan, device)
    inputs = _Inputs(
        data, plan, context, normalization, signal.inputs, brain, anatomy, parts if signal.guided else None
    )
    restorer = fitted(model, lambda: inputs.scan(source, guide if stencils else None), device, fit_log or FitLog())

    def restore(sources: Sources, b0: NDArray[np.float32]) -> NDArray[np.float32]:
        channels = inputs.channels(sources)
        values = restore_points(restorer, channels, plan, device, stencils, deviations=deviations)
        return normalization.denormalize(values, sources.volume_shell, b0)

    nothing = np.zeros(0, np.float32)
    b0 = restore(context.b0_sources(brain, anatomy), nothing) if normalization.divides_by_b0 else nothing

    def interpolated(index: int) -> tuple[int, Sources, NDArray[np.float32]]:
        volume = np.asarray(data[..., index], dtype=np.float32)
        result = np.zeros((1 + deviations, *target.shape), np.float32)
        result[0] = cubic_on_grid(volume, source, target)
        return index, inputs.sources(index, volume), result

    asked = map(interpolated, wanted)
    # A GPU computes while the processor reads and interpolates the next volume; a processor does one thing at a time.
    for index, sources, result in asked if device.type == "cpu" else ahead(asked):
        result[:, plan.voxels] = restore(sources, b0) * context.level(index)
        np.maximum(result, 0, out=result)
        restored = from_canonical(np.moveaxis(result, 0, -1), stored.affine)
        yield np.moveaxis(restored, -1, 0) if deviations else restored[..., 0]


class _CanonicalSeries:
    """A series whose single volumes are read with their axes closest to R, A and S."""

    def __init__(self, data: Series, affine: NDArray[np.float64]) -> None:
        self._data, self._affine = data, affine
        height, width, depth, n = data.shape
        self.shape = (*Grid((height, width, depth), affine).canonical.shape, n)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Slice volumes, `[..., index]`."""
        return to_canonical(np.asarray(self._data[index]), self._affine)


@dataclass(frozen=True)
class _Inputs:
    """What a model is given of a series: all but the series lie on the box that is encoded.

    Attributes
    ----------
    data : array or array proxy, (x, y, z, n)
    plan : RestorationPlan
    context : ShellContext
    normalization : Normalization
    names : tuple of str
        Of the inputs.
    brain : ndarray of bool, (h, w, d)
    t1w : ndarray, (h, w, d), or None
    parts : ndarray, (8, h, w, d), or None
        Of the T1w, for a model that it guides.
    """

    data: Series
    plan: RestorationPlan
    context: ShellContext
    normalization: Normalization
    names: tuple[str, ...]
    brain: NDArray[np.bool_]
    t1w: NDArray[np.float32] | None
    parts: NDArray[np.float32] | None

    def sources(self, index: int, volume: NDArray[np.float32]) -> Sources:
        """What the inputs are made from for a volume, (x, y, z)."""
        return self.context.sources(volume[self.plan.box], index, self.brain, self.t1w)

    def channels(self, sources: Sources) -> NDArray[np.float32]:
        """The inputs, (C, h, w, d)."""
        channels = input_channels(self.names, self.normalization, sources)
        return channels if self.parts is None else np.concatenate([channels, self.parts])

    def of_volume(self, index: int) -> NDArray[np.float32]:
        """The inputs of a volume, (C, h, w, d), which is read for it."""
        return self.channels(self.sources(index, np.asarray(self.data[..., index], dtype=np.float32)))

    def scan(self, source: Grid, t1w: T1wImage | None) -> Scan:
        """What a model may learn from."""
        low, shape = np.array([part.start for part in self.plan.box]), self.brain.shape
        grid = source.cropped(low, (shape[0], shape[1], shape[2]))
        return Scan(self.of_volume, self.context.shells, self.brain, grid, self.plan.lattice, t1w)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each of which is made while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _guidance(
    t1w: T1wImage | None,
    source: Grid,
    target: Grid,
    mask: NDArray[np.bool_],
    plan: RestorationPlan,
    device: torch.device,
) -> tuple[NDArray[np.float32], Stencils | None]:
    """What a guided model is shown of the T1w, the same for all volumes: parts of the box's voxels, and stencils."""
    guide = None if t1w is None else t1w_guide(t1w, source, mask, target, restore_mask(mask, source, target))
    if guide is None:
        return np.zeros((SUBPOSITIONS, *mask[plan.box].shape), np.float32), None
    return guide.parts[(slice(None), *plan.box)].copy(), Stencils(guide.target, plan.voxels, device)


@torch.inference_mode()
def restore_points(
    model: RestorationModel,
    channels: NDArray[np.float32],
    plan: RestorationPlan,
    device: torch.device,
    stencils: Stencils | None = None,
    *,
    deviations: bool = False,
) -> NDArray[np.float32]:
    """Encode one volume, (C, h, w, d), and ask for its values at the points of the plan: (Q,).

    With `deviations`, (2, Q): values and standard deviations. Where the memory of a GPU does not suffice for as many
    points at once as would be fast, fewer are asked for.
    """
    encoded = model.encode(torch.from_numpy(channels)[None].to(device), plan.lattice)
    ask = _ask_both if deviations else _ask
    size = queries_at_once(device)
    while True:
        guides = repeat(None) if stencils is None else stencils.chunks(size)
        parts = zip(plan.points.split(size), guides, strict=False)
        try:
            found = [ask(model, encoded, part.to(device), plan.cell.to(device), guide).cpu() for part, guide in parts]
            return torch.cat(found, -1).numpy()
        except torch.cuda.OutOfMemoryError:
            if size <= CHUNK:
                raise
            size //= 2


def queries_at_once(device: torch.device) -> int:
    """How many points are asked for at once."""
    return CHUNK if device.type == "cpu" else GPU_CHUNK


def _ask(model: RestorationModel, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None) -> Tensor:
    """Values of one volume at points, (Q,)."""
    if guide is None:
        return model.query(encoded, points, cell)[0]
    return cast(GuidedModel, model).query(encoded, points, cell, guide)[0]


def _ask_both(model: RestorationModel, encoded: Encoded, points: Tensor, cell: Tensor, guide: Tensor | None) -> Tensor:
    """Values of one volume at points and their standard deviations, (2, Q)."""
    return torch.cat(cast(UncertainModel, model).query_with_deviations(encoded, points, cell, guide))

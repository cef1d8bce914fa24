"""Heads of people who do not exist: the average brain bent, folded anew and given random contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.degradation import gaussian_sampling
from bids_sr.demo.brain import (
    BENDING_MM,
    Head,
    Maps,
    brain_tissues,
    distance_outside,
    fibre_systems,
    load_icbm152,
    sample_head,
)
from bids_sr.demo.phantom import Compartment, Phantom, tissue_labels, unit_vectors
from bids_sr.demo.texture import SmoothNoise
from bids_sr.geometry import Grid, apply_along_axes

Float = NDArray[np.float32]
Range = tuple[float, float]

#: Displacement of the average in mm, and its smoothness: the shape of lobes and ventricles, then that of single folds.
SHAPE_MM: Range = (1.5, 3.5)
SHAPE_SMOOTHNESS = 14.0
FOLDS_MM: Range = (0.4, 1.2)
FOLDS_SMOOTHNESS: Range = (4.0, 7.0)
#: Change of size per axis, and turn of the head in degrees.
SIZE_CHANGE = 0.07
TURN_DEGREES = 5.0

#: How crisp the borders of tissues become (a power of their shares in the average), and how far noise of this
#: smoothness (mm) moves them: averaging over people has taken away the folds that no two people share.
CRISPNESS: Range = (1.0, 2.5)
REFOLDING: Range = (0.2, 1.2)
REFOLDING_SMOOTHNESS: Range = (2.0, 3.5)
#: How much fluid fills the folds and ventricles, from full brains to shrunken ones.
FLUID_EXCESS: Range = (-0.3, 1.5)

#: Fibres that belong to no large system: their smoothness in mm, their mean share of white matter in a head, and its
#: standard deviation in the head. They keep FA from being that of a single bundle everywhere.
LOCAL_FIBRES_MM: Range = (3.0, 6.0)
LOCAL_SHARE: Range = (0.3, 0.6)
LOCAL_VARIATION = 0.25

#: Voxel size in mm of the grid on which the whole head's fibres are found.
SURVEY_MM = 1.8
#: Smaller shares of a voxel are left out.
LEAST_SHARE = 2e-3

#: Share of the heads with spots of another tissue, which are brighter and diffuse more freely.
SPOTTED = 0.3


@dataclass(frozen=True)
class Bent:
    """Displacement along one axis of the world, in units of `BENDING_MM`: smooth noises, and a linear change of pose.

    Attributes
    ----------
    noises : tuple of SmoothNoise
    amplitudes : tuple of float
        In mm.
    linear : ndarray, (3,)
        Displacement per mm from the centre along each axis of the world.
    centre : ndarray, (3,)
        In the world.
    """

    noises: tuple[SmoothNoise, ...]
    amplitudes: tuple[float, ...]
    linear: NDArray[np.float64]
    centre: NDArray[np.float64]

    def on(self, grid: Grid) -> Float:
        """The displacement, (x, y, z), on a grid with the axes of the world."""
        millimetres = np.zeros(grid.shape, np.float32)
        for noise, amplitude in zip(self.noises, self.amplitudes, strict=True):
            millimetres += np.float32(amplitude) * noise.on(grid)
        for axis in range(3):
            world = np.arange(grid.shape[axis]) * grid.affine[axis, axis] + grid.affine[axis, 3]
            along = (self.linear[axis] * (world - self.centre[axis])).astype(np.float32)
            millimetres += along.reshape([-1 if a == axis else 1 for a in range(3)])
        return millimetres / np.float32(BENDING_MM)


@dataclass(frozen=True)
class Pool:
    """Part of a tissue's water that diffuses alike: its share, and diffusivities along and across fibres in mm2/s."""

    share: float
    axial: float
    radial: float


@dataclass(frozen=True)
class Contrast:
    """What tissues look like in one head, by their names.

    Attributes
    ----------
    b0 : dict
        Signal without diffusion weighting.
    t1w : dict
        Brightness in the T1w; white matter has about 1.
    pools : dict
        Water of each tissue. More than one pool makes the signal at high b-values fall more slowly, as it does.
    """

    b0: dict[str, float]
    t1w: dict[str, float]
    pools: dict[str, tuple[Pool, ...]]


@dataclass(frozen=True)
class Tissues:
    """What fills the voxels of a grid, each (x, y, z) with shares in [0, 1]; the rest is bone and air.

    Attributes
    ----------
    csf, gm, wm, spots, scalp : ndarray, float32
        Fluid outside the brain is part of `csf`.
    brain : ndarray, float32
    """

    csf: Float
    gm: Float
    wm: Float
    spots: Float
    scalp: Float
    brain: Float


@dataclass(frozen=True)
class Individual:
    """The random functions that make a head of the average: the same head on any grid.

    Attributes
    ----------
    bending : tuple of Bent, (3,)
        Displacement along each axis of the world.
    crispness, refolding, fluid_excess, local_share : float
        See `CRISPNESS`, `REFOLDING`, `FLUID_EXCESS` and `LOCAL_SHARE`.
    balance : tuple of SmoothNoise, (2,)
        What moves the borders of fluid and of white matter.
    local_fibres : tuple of SmoothNoise, (4,)
        How many fibres belong to no large system, and the three components of their direction.
    spots : SmoothNoise or None
        Where it is high, spots are.
    """

    bending: tuple[Bent, Bent, Bent]
    crispness: float
    refolding: float
    fluid_excess: float
    local_share: float
    balance: tuple[SmoothNoise, SmoothNoise]
    local_fibres: tuple[SmoothNoise, ...]
    spots: SmoothNoise | None


@lru_cache(maxsize=1)
def average_head() -> tuple[Maps, Float]:
    """The average brain, and the distance of each of its voxels from the brain in mm.

    Raises
    ------
    MissingExtraError
        If nilearn, which carries it, is not installed.
    """
    maps = load_icbm152()
    return maps, distance_outside(maps.t1w > 0, maps.grid)


def random_head(grid: Grid, random: np.random.Generator) -> Phantom:
    """A new head, seen on a grid in MNI space.

    Parameters
    ----------
    grid : Grid
        With the axes of the world. It may hold a part of the head only, and should be finer than what will be
        measured: the values are those at the centres of the voxels.
    random : numpy.random.Generator

    Returns
    -------
    head : Phantom
        Its T1w, on the same grid, is noise free and has white matter at about 1.

    Raises
    ------
    MissingExtraError
        If nilearn is not installed.
    """
    maps, distance = average_head()
    individual = draw_individual(maps.grid, random)
    contrast = draw_contrast(random)
    survey = maps.grid.at_resolution(np.full(3, SURVEY_MM))
    whole = tissues_of(individual, maps, distance, survey)
    systems = all_fibres(individual, whole, survey)
    grain = np.stack(np.gradient(ndimage.gaussian_filter(whole.wm, 1.4)), axis=-1)
    tissues = tissues_of(individual, maps, distance, grid)
    fibres = [(onto(share, survey, grid), onto(way, survey, grid)) for share, way in systems]
    compartments = compartments_of(tissues, fibres, onto(grain, survey, grid), contrast)
    brightness = uneven_brightness(grid, random)
    mask = tissues.brain > 0.5
    return Phantom(
        grid,
        tuple(compartment.brightened(brightness) for compartment in compartments),
        mask,
        tissue_labels(tissues.csf, tissues.gm, tissues.wm, mask),
        t1w_of(tissues, contrast) * uneven_brightness(grid, random),
        grid,
    )


def draw_individual(grid: Grid, random: np.random.Generator) -> Individual:
    """The random functions of one head; they cover `grid`."""
    centre = grid.affine[:3, :3] @ (np.subtract(grid.shape, 1) / 2) + grid.affine[:3, 3]
    turn = np.deg2rad(random.uniform(-TURN_DEGREES, TURN_DEGREES, 3))
    pose = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    pose += np.diag(random.uniform(-SIZE_CHANGE, SIZE_CHANGE, 3))
    amplitudes = (random.uniform(*SHAPE_MM), random.uniform(*FOLDS_MM))
    fold = random.uniform(*FOLDS_SMOOTHNESS)
    x, y, z = (
        Bent(
            tuple(SmoothNoise.draw(grid, smoothness, random) for smoothness in (SHAPE_SMOOTHNESS, fold)),
            amplitudes,
            row,
            centre,
        )
        for row in pose
    )
    smoothness, local = random.uniform(*REFOLDING_SMOOTHNESS), random.uniform(*LOCAL_FIBRES_MM)
    return Individual(
        (x, y, z),
        random.uniform(*CRISPNESS),
        random.uniform(*REFOLDING),
        random.uniform(*FLUID_EXCESS),
        random.uniform(*LOCAL_SHARE),
        (SmoothNoise.draw(grid, smoothness, random), SmoothNoise.draw(grid, smoothness, random)),
        tuple(SmoothNoise.draw(grid, local, random) for _ in range(4)),
        SmoothNoise.draw(grid, random.uniform(2.5, 5.0), random) if random.random() < SPOTTED else None,
    )


def draw_contrast(random: np.random.Generator) -> Contrast:
    """Brightness and diffusion of the tissues of one head.

    White matter holds sticks in a medium that they hinder, as in NODDI (Zhang et al. 2012, NeuroImage 61:1000); grey
    matter has a fast and a slow pool.
    """
    b0 = {"wm": 500.0, "gm": 620.0, "csf": 1500.0, "scalp": 200.0, "spots": 900.0}
    b0 = {name: value * random.uniform(0.75, 1.25) for name, value in b0.items()}
    grey, fluid = random.uniform(0.5, 0.8), random.uniform(0.1, 0.4)
    scalp, spots = random.uniform(0.3, 1.0), random.uniform(fluid, 1.0)
    t1w = {"wm": 1.0, "gm": grey, "csf": fluid, "scalp": scalp, "spots": spots}
    axial, sticks = random.uniform(1.5e-3, 1.9e-3), random.uniform(0.38, 0.58)
    mean, slow, grain = random.uniform(0.75e-3, 0.95e-3), random.uniform(0.3, 0.5), random.uniform(1.0, 1.3)
    fast_mean, slow_mean = mean * (1 - 0.45 * slow) / (1 - slow), mean * 0.45
    water, oedema = random.uniform(2.7e-3, 3.2e-3), random.uniform(1.0e-3, 1.6e-3)
    pools = {
        "wm": (Pool(sticks, axial, 0.05e-3), Pool(1 - sticks, axial, axial * (1 - sticks))),
        "gm": (Pool(1 - slow, fast_mean * grain, fast_mean * (3 - grain) / 2), Pool(slow, slow_mean, slow_mean)),
        "csf": (Pool(1.0, water, water),),
        "scalp": (Pool(1.0, 1.0e-3, 1.0e-3),),
        "spots": (Pool(1.0, oedema, oedema),),
    }
    return Contrast(b0, t1w, pools)


def tissues_of(individual: Individual, maps: Maps, distance: Float, grid: Grid) -> Tissues:
    """The tissues of a head on a grid with the axes of the world; `distance` is that from the average brain in mm."""
    head = sample_head(maps, distance, individual.bending, grid)
    csf, gm, wm = _refolded(individual, maps, head, grid)
    spots = np.zeros(grid.shape, np.float32)
    if individual.spots is not None:
        spots = np.clip((individual.spots.on(grid) - 2.2) / 0.4, 0, 1) * (wm + gm)
    rest = 1 - np.divide(spots, wm + gm, out=np.zeros_like(spots), where=wm + gm > 0)
    return Tissues(csf + head.fluid, gm * rest, wm * rest, spots, head.scalp, head.brain)


def _refolded(individual: Individual, maps: Maps, head: Head, grid: Grid) -> tuple[Float, Float, Float]:
    """Shares of fluid, grey and white matter with crisp borders that noise has moved; they sum to the brain's share."""
    shares = brain_tissues(maps, head)
    power = np.float32(individual.crispness)
    fluid, white = (power * np.float32(individual.refolding) * noise.on(grid) for noise in individual.balance)
    fluid += power * np.float32(individual.fluid_excess)
    weights = [np.power(share, power) for share in shares]
    weights[0] *= np.exp(fluid)
    weights[2] *= np.exp(white)
    ratio = head.brain / np.maximum(weights[0] + weights[1] + weights[2], 1e-9)
    csf, gm, wm = (weight * ratio for weight in weights)
    return csf, gm, wm


def all_fibres(individual: Individual, tissues: Tissues, grid: Grid) -> list[tuple[Float, Float]]:
    """How white matter divides among fibres, (x, y, z), and where these lead, (x, y, z, 3); the shares sum to one.

    Three systems span the head; what belongs to none of them runs any way.
    """
    shares, directions = fibre_systems(tissues.gm, tissues.wm, grid)
    amount, *components = (noise.on(grid) for noise in individual.local_fibres)
    local = np.clip(np.float32(individual.local_share) + np.float32(LOCAL_VARIATION) * amount, 0, 1)
    systems = [(share * (1 - local), way) for share, way in zip(shares, directions, strict=True)]
    return [*systems, (local, np.stack(components, axis=-1))]


def onto(values: Float, source: Grid, target: Grid) -> Float:
    """Values, (x, y, z, ...), interpolated linearly between two grids with the axes of the world."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    positions = [np.arange(n) * to_source[a, a] + to_source[a, 3] for a, n in enumerate(target.shape)]
    return apply_along_axes(
        values.astype(np.float32),
        [gaussian_sampling(n, np.clip(p, 0, n - 1), 0.0) for n, p in zip(source.shape, positions, strict=True)],
    )


def compartments_of(
    tissues: Tissues, fibres: Sequence[tuple[Float, Float]], grain: Float, contrast: Contrast
) -> list[Compartment]:
    """All water of a head: each tissue's pools, white matter's for each system of fibres.

    Parameters
    ----------
    tissues : Tissues
    fibres : sequence of (share, directions)
        How white matter divides among systems, (x, y, z), and where each leads, (x, y, z, 3), in the world.
    grain : ndarray, (x, y, z, 3)
        Direction of the fibres of the cortex.
    contrast : Contrast
    """
    parts = [("wm", tissues.wm * share, directions) for share, directions in fibres]
    parts += [(name, getattr(tissues, name), grain) for name in ("csf", "gm", "spots", "scalp")]
    return [
        compartment
        for name, share, directions in parts
        for compartment in _water(share * np.float32(contrast.b0[name]), directions, contrast.pools[name])
    ]


def _water(b0: Float, directions: Float, pools: Sequence[Pool]) -> list[Compartment]:
    """One compartment per pool, in the voxels where there is any."""
    voxels = np.flatnonzero(b0 > LEAST_SHARE * b0.max(initial=1.0))
    signal = b0.ravel()[voxels]
    vectors = unit_vectors(directions.reshape(-1, 3)[voxels])
    return [Compartment(voxels, signal * np.float32(pool.share), pool.axial, pool.radial, vectors) for pool in pools]


def uneven_brightness(grid: Grid, random: np.random.Generator) -> Float:
    """A factor near 1, (x, y, z): the coil's sensitivity, and tissue that is not all alike."""
    coil, grain = random.uniform(0.03, 0.15), random.uniform(0.01, 0.06)
    smooth = SmoothNoise.draw(grid, 60.0, random).on(grid)
    fine = SmoothNoise.draw(grid, random.uniform(1.5, 4.0), random).on(grid)
    return np.clip((1 + np.float32(coil) * smooth) * (1 + np.float32(grain) * fine), 0.3, 2.0)


def t1w_of(tissues: Tissues, contrast: Contrast) -> Float:
    """The T1-weighted image, (x, y, z)."""
    parts = [np.float32(value) * getattr(tissues, name) for name, value in contrast.t1w.items()]
    return np.sum(parts, axis=0, dtype=np.float32)

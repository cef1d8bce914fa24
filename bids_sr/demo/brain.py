"""A made head around the brain of the ICBM152 average: its tissues, bent a little, with fibres led through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.degradation import gaussian_sampling
from bids_sr.demo.fibres import current_flow
from bids_sr.demo.phantom import BUNDLE_FA, CORTEX_FA, Compartment, Phantom, isotropic, oriented, tissue_labels
from bids_sr.demo.texture import Field, SmoothNoise
from bids_sr.errors import MissingExtraError
from bids_sr.geometry import Grid, apply_along_axes, overlap_average

Float = NDArray[np.float32]

#: Brightness of grey matter and fluid in the ICBM152 T1w, which is 1 at most. Between them lies fluid that the average
#: over 152 people has blurred into the grey matter of narrow sulci.
T1W_GREY, T1W_FLUID = 0.60, 0.28

#: Averaging over people blurs the tissues; this power of their shares restores narrow borders.
SHARPENING = 1.6

#: Standard deviation and smoothness (mm) of the displacement that makes an individual of the average.
BENDING_MM, BENDING_SMOOTHNESS = 2.0, 14.0

#: Smoothness (mm) of the uneven brightness of tissue.
TEXTURE_SMOOTHNESS = 3.0

#: Distance from the brain (mm) at which fluid, skull and scalp end.
FLUID_MM, SKULL_MM, SCALP_MM = 2.0, 7.0, 12.0

#: Brightness in the T1w: of what is 1 in the template, and of the head outside the brain. White matter gets about 830.
T1W_BRAIN = 950.0
T1W_OUTSIDE = {"csf": 260.0, "skull": 60.0, "scalp": 800.0}

#: How strongly a voxel belongs to the bundle with the largest current through it.
BUNDLE_DOMINANCE = 1.2

#: How common commissural, projection and association fibres are where their currents are of median strength.
SYSTEM_WEIGHTS = (1.0, 1.0, 1.5)

#: Relative conductivity of grey matter, so that currents reach the white matter but do not stay in the cortex. At ten
#: times as much they cross from the cerebellum into the occipital lobe, where the two touch.
GREY_CONDUCTIVITY = 0.0003


Bending = tuple[Field, Field, Field]


@dataclass(frozen=True)
class Maps:
    """The ICBM152 2009a nonlinear symmetric average (Fonov et al. 2011, NeuroImage 54:313), each (x, y, z).

    Attributes
    ----------
    t1w : ndarray, float32
        Brain only, 0 to 1.
    gm, wm : ndarray, float32
        Share of grey and white matter, 0 to 1.
    grid : Grid
        1 mm, in MNI space.
    """

    t1w: Float
    gm: Float
    wm: Float
    grid: Grid


def load_icbm152() -> Maps:
    """The maps that nilearn carries in its package; nothing is downloaded.

    Raises
    ------
    MissingExtraError
        If nilearn is not installed.
    """
    try:
        from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
    except ImportError as error:
        raise MissingExtraError(what="The demonstration brain", package="nilearn", extra="demo") from error
    images = [load(resolution=1) for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)]
    t1w, gm, wm = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    return Maps(t1w, gm, wm, Grid.of(images[0]))


@dataclass(frozen=True)
class Head:
    """What the bent template shows in the cells of a grid, each (x, y, z) with shares in [0, 1].

    Attributes
    ----------
    brain : ndarray, float32
        Share of the template's brain.
    t1w : ndarray, float32
        The template's brightness, 0 outside the brain.
    fluid, skull, scalp : ndarray, float32
        Shares of the shells around the brain; the rest is air.
    points : ndarray, float32, (3, x, y, z)
        The cells' centres in voxels of the template.
    """

    brain: Float
    t1w: Float
    fluid: Float
    skull: Float
    scalp: Float
    points: Float


def icbm152_phantom(maps: Maps, truth_grid: Grid, t1w_grid: Grid, generator: np.random.Generator) -> Phantom:
    """The head on the grids given, in MNI space; its shape and texture follow from `generator`."""
    bending = draw_bending(maps.grid, generator)
    distance = distance_outside(maps.t1w > 0, maps.grid)
    coil = SmoothNoise.draw(maps.grid, 60.0, generator)
    head = sample_head(maps, distance, bending, truth_grid)
    csf, gm, wm = brain_tissues(maps, head)
    mask = head.brain > 0.5
    fine = SmoothNoise.draw(maps.grid, TEXTURE_SMOOTHNESS, generator).on(truth_grid)
    brightness = (1 + 0.03 * fine) * (1 + 0.08 * coil.on(truth_grid))
    compartments = _compartments(csf + head.fluid, gm, wm, head.scalp, truth_grid)
    textured = tuple(compartment.brightened(brightness) for compartment in compartments)
    t1w = _t1w(sample_head(maps, distance, bending, t1w_grid)) * (1 + 0.06 * coil.on(t1w_grid))
    return Phantom(truth_grid, textured, mask, tissue_labels(csf, gm, wm, mask), t1w, t1w_grid)


def draw_bending(grid: Grid, generator: np.random.Generator) -> Bending:
    """A displacement that makes an individual of the average: one smooth field per axis of the world."""
    x, y, z = (SmoothNoise.draw(grid, BENDING_SMOOTHNESS, generator) for _ in range(3))
    return x, y, z


def distance_outside(brain: NDArray[np.bool_], grid: Grid) -> Float:
    """Distance of each voxel from the brain in mm, (x, y, z), to 2 mm; folds and fissures count as inside.

    Inside it is 0, apart from voxels at the surface that the sampling in steps of 2 mm misses.
    """
    step = 2
    coarse = brain[::step, ::step, ::step]
    padded = np.pad(coarse, 8)
    millimetres = step * float(grid.voxel_sizes[0])
    closed = ndimage.distance_transform_edt(padded | (_outside(padded) * millimetres <= 10)) * millimetres > 10
    distance = (_outside(closed | padded) * millimetres)[8:-8, 8:-8, 8:-8].astype(np.float32)
    return _interpolated(distance, brain.shape, 1 / step, 0.0)


def _outside(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance to the mask in voxels."""
    return np.asarray(ndimage.distance_transform_edt(~mask))


def sample_head(maps: Maps, distance: Float, bending: Bending, grid: Grid) -> Head:
    """The bent head on any grid.

    Parameters
    ----------
    maps : Maps
    distance : ndarray, (x, y, z)
        Distance from the brain in mm, on the grid of the maps.
    bending : tuple of Field
        Displacement per axis, in units of `BENDING_MM`.
    grid : Grid
        With the axes of the world, in any order of storage along them.
    """
    points = _axis_points(maps.grid, grid)
    for axis in range(3):
        points[axis] += bending[axis].on(grid) * np.float32(BENDING_MM / maps.grid.affine[axis, axis])
    brain = _sample((maps.t1w > 0).astype(np.float32), points)
    away = _sample(distance, points, mode="nearest")
    within = [np.clip(limit - away, 0, 1) for limit in (FLUID_MM, SKULL_MM, SCALP_MM)]
    fluid = np.clip(within[0] - brain, 0, 1)
    return Head(brain, _sample(maps.t1w, points), fluid, within[1] - within[0], within[2] - within[1], points)


def _sample(values: Float, points: Float, mode: str = "constant") -> Float:
    """Linear interpolation at voxel coordinates (3, x, y, z)."""
    return np.asarray(ndimage.map_coordinates(values, points, order=1, mode=mode), dtype=np.float32)


def _axis_points(source: Grid, grid: Grid) -> Float:
    """Centres of the voxels of `grid` in voxels of `source`, (3, x, y, z), for two axis-aligned grids."""
    to_source = np.linalg.inv(source.affine) @ grid.affine
    axes = [np.arange(n) * to_source[a, a] + to_source[a, 3] for a, n in enumerate(grid.shape)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def brain_tissues(maps: Maps, head: Head) -> tuple[Float, Float, Float]:
    """Shares of fluid, grey and white matter, (x, y, z), with narrow borders; they sum to the brain's share."""
    gm, wm = _sample(maps.gm, head.points), _sample(maps.wm, head.points)
    brightness = head.t1w / np.maximum(head.brain, 1e-3)
    dark = np.clip((T1W_GREY - brightness) / (T1W_GREY - T1W_FLUID), 0, 1) * head.brain
    fluid = np.maximum(np.clip(head.brain - gm - wm, 0, 1), dark)
    solid = np.clip(head.brain - fluid, 0, 1) / np.maximum(gm + wm, 1e-3)
    powers = [np.power(share, np.float32(SHARPENING)) for share in (fluid, gm * solid, wm * solid)]
    ratio = head.brain / np.maximum(powers[0] + powers[1] + powers[2], 1e-6)
    csf, gm, wm = (power * ratio for power in powers)
    return csf, gm, wm


def _compartments(csf: Float, gm: Float, wm: Float, scalp: Float, grid: Grid) -> list[Compartment]:
    """Water of the head: fluid, scalp, cortex with its radial grain, and the systems of fibres."""
    shares, directions = fibre_systems(gm, wm, grid)
    grain = _gradient(ndimage.gaussian_filter(wm, 1.6), grid)
    fibres = [
        oriented("wm", wm * share, direction, BUNDLE_FA) for share, direction in zip(shares, directions, strict=True)
    ]
    return [isotropic("csf", csf), isotropic("scalp", scalp), oriented("gm", gm, grain, CORTEX_FA), *fibres]


def _gradient(values: Float, grid: Grid) -> Float:
    """Gradient in the world, (x, y, z, 3), on an axis-aligned grid."""
    steps = np.diag(grid.affine)[:3]
    return np.stack([np.gradient(values, axis=axis) / np.float32(steps[axis]) for axis in range(3)], axis=-1)


def fibre_systems(gm: Float, wm: Float, grid: Grid) -> tuple[list[Float], list[Float]]:
    """How white matter divides among commissural, projection and association fibres, and where they lead.

    Parameters
    ----------
    gm, wm : ndarray, (x, y, z)
        Shares of the cells of `grid`, an axis-aligned grid in MNI space.

    Returns
    -------
    shares : list of ndarray, (x, y, z)
        Three, summing to one.
    directions : list of ndarray, (x, y, z, 3)
        In the world, of any length.
    """
    coarse = grid.scaled(np.full(3, 0.5))
    wm_coarse, gm_coarse = (overlap_average(share, grid, coarse).astype(np.float64) for share in (wm, gm))
    conductivity = np.where(wm_coarse + gm_coarse > 0.1, wm_coarse**2 + GREY_CONDUCTIVITY * gm_coarse, 0)
    signs = np.sign(np.diag(grid.affine)[:3])
    flows = [current_flow(conductivity, injected) * signs for injected in _injected(wm_coarse, gm_coarse, coarse)]
    strengths = [np.linalg.norm(flow, axis=-1) for flow in flows]
    inside = wm_coarse > 0.5
    weights = [
        weight * (strength / np.median(strength[inside])) ** BUNDLE_DOMINANCE + 1e-9
        for weight, strength in zip(SYSTEM_WEIGHTS, strengths, strict=True)
    ]
    total = np.sum(weights, axis=0)
    return [_finer(weight / total, grid) for weight in weights], [_finer(flow, grid) for flow in flows]


def _injected(wm: NDArray[np.float64], gm: NDArray[np.float64], grid: Grid) -> list[NDArray[np.float64]]:
    """Current fed into each voxel, (x, y, z), for each system: right to left, cortex to brain stem, front to back."""
    index = np.indices(grid.shape, sparse=True)
    x, y, z = (index[a] * grid.affine[a, a] + grid.affine[a, 3] for a in range(3))
    cerebrum = gm * ((z > -20) | (y > -35))
    right_left = gm * np.tanh(x / 8)
    stem = wm * (z < -58) * (np.abs(x) < 16) * (np.abs(y + 35) < 20)
    motor = np.exp(-(((y + 20) / 30) ** 2)) + 0.3
    cortex = cerebrum * (z > 0) * (np.hypot(x, y + 18) > 15) * motor
    front, back = cerebrum * np.clip((y - 5) / 30, 0, 1), cerebrum * np.clip((-45 - y) / 30, 0, 1)
    return [right_left, _balanced(cortex, stem), _balanced(front, back)]


def _balanced(source: NDArray[np.float64], sink: NDArray[np.float64]) -> NDArray[np.float64]:
    """One unit of current fed into the source and drawn from the sink."""
    return source / max(source.sum(), 1e-9) - sink / max(sink.sum(), 1e-9)


def _finer(values: NDArray[np.float64], grid: Grid) -> Float:
    """Values, (x, y, z, ...), of the grid with voxels twice as wide, interpolated to `grid`, cells aligned."""
    return _interpolated(values.astype(np.float32), grid.shape, 0.5, -0.25)


def _interpolated(values: Float, shape: tuple[int, ...], step: float, start: float) -> Float:
    """Linear interpolation of (x, y, z, ...) at `start + i * step` along each spatial axis; the border continues."""
    centres = [
        np.clip(np.arange(n) * step + start, 0, size - 1) for n, size in zip(shape, values.shape[:3], strict=True)
    ]
    return apply_along_axes(
        values, [gaussian_sampling(n, c, 0.0) for n, c in zip(values.shape[:3], centres, strict=True)]
    )


def _t1w(head: Head) -> Float:
    """The T1-weighted image, (x, y, z): the average's brain with a head around it."""
    outside = T1W_OUTSIDE["csf"] * head.fluid + T1W_OUTSIDE["skull"] * head.skull + T1W_OUTSIDE["scalp"] * head.scalp
    return np.asarray(T1W_BRAIN * head.t1w + outside, dtype=np.float32)

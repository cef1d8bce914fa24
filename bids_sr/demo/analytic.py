"""A small made head of nested ellipsoids with two crossing bundles of known directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_sr.demo.phantom import (
    BUNDLE_FA,
    CORTEX_FA,
    Phantom,
    isotropic,
    oriented,
    tissue_labels,
    unit_vectors,
)
from bids_sr.geometry import Grid

Float = NDArray[np.float32]

#: Directions of the crossing bundles in the world, oblique in all three axes: a b-vector with a wrong sign shows.
COMMISSURE = unit_vectors(np.array([0.92, 0.34, 0.15], np.float32))
COLUMN = unit_vectors(np.array([-0.15, 0.30, 0.94], np.float32))

#: Half axes in mm of the surfaces, from outside to inside.
HALF_AXES = {
    "scalp": (33.0, 39.0, 30.5),
    "skull": (30.5, 36.5, 28.0),
    "csf": (28.0, 34.0, 25.5),
    "cortex": (26.0, 32.0, 23.5),
    "wm": (21.5, 27.5, 19.0),
}
VENTRICLE_CENTRES = ((-6.5, -2.0, 0.0), (6.5, -2.0, 0.0))
VENTRICLE_HALF_AXES = (3.5, 10.0, 5.0)

#: Brightness in the T1w.
T1W_SIGNAL = {"wm": 900.0, "gm": 620.0, "csf": 250.0, "skull": 60.0, "scalp": 750.0}


@dataclass(frozen=True)
class Shares:
    """Share of each tissue in cells around given points, each (...) in [0, 1]; the rest is air."""

    scalp: Float
    skull: Float
    csf: Float
    gm: Float
    wm: Float

    @property
    def brain(self) -> Float:
        """Share of the brain with its fluid."""
        return self.csf + self.gm + self.wm


def inside_ellipsoid(points: Float, half_axes: tuple[float, float, float], cell: float, folds: float = 0.0) -> Float:
    """Share of cells, `cell` mm wide around `points` (..., 3), that lie in an ellipsoid around the origin, (...).

    `folds` is the relative height of waves on its surface. The distance to the surface is taken to first order, which
    is exact to a few percent of a cell near the surface, where alone it matters.
    """
    scaled = points / np.array(half_axes, np.float32)
    radius = np.maximum(np.linalg.norm(scaled, axis=-1), 1e-6)
    azimuth = np.arctan2(scaled[..., 1], scaled[..., 0])
    waves = 1 + folds * np.sin(9 * azimuth) * np.cos(7 * scaled[..., 2] / radius)
    slope = np.linalg.norm(scaled / np.array(half_axes, np.float32), axis=-1) / radius
    distance = (radius - waves) / np.maximum(slope, 1e-6)
    return np.clip(0.5 - distance / cell, 0, 1).astype(np.float32)


def tissue_shares(points: Float, cell: float) -> Shares:
    """Tissues of the head in cells, `cell` mm wide, around `points`, (..., 3), in world mm."""
    inside = {
        name: inside_ellipsoid(points, axes, cell, folds=0.06 * (name == "wm")) for name, axes in HALF_AXES.items()
    }
    ventricles = sum(
        inside_ellipsoid(points - np.array(centre, np.float32), VENTRICLE_HALF_AXES, cell)
        for centre in VENTRICLE_CENTRES
    )
    dry = 1 - np.clip(ventricles, 0, 1).astype(np.float32)
    wm = np.minimum(inside["wm"], inside["cortex"]) * dry
    return Shares(
        scalp=inside["scalp"] - inside["skull"],
        skull=inside["skull"] - inside["csf"],
        csf=inside["csf"] - np.minimum(inside["cortex"], inside["csf"]) + inside["wm"] * (1 - dry),
        gm=inside["cortex"] - np.minimum(inside["wm"], inside["cortex"]),
        wm=wm,
    )


def bundle_shares(points: Float, cell: float) -> tuple[Float, Float, Float]:
    """How white matter divides among commissure, columns and the tangential rest, each (...), summing to one.

    The commissure is a slab above the ventricles, the columns stand on both sides; where they cross, each has half.
    """
    slab = np.clip(0.5 - (np.abs(points[..., 2] - 9) - 4) / cell, 0, 1)
    columns = np.clip(0.5 - (np.hypot(np.abs(points[..., 0]) - 13, points[..., 1]) - 5) / cell, 0, 1)
    rest = 1 - np.maximum(slab, columns)
    total = slab + columns + rest
    return tuple((share / total).astype(np.float32) for share in (slab, columns, rest))  # type: ignore[return-value]


def analytic_phantom(truth_grid: Grid, t1w_grid: Grid) -> Phantom:
    """The small head on the grids given.

    Parameters
    ----------
    truth_grid : Grid
        Grid of the truth. The head is centred on the world's origin and 66 x 78 x 61 mm large.
    t1w_grid : Grid
        Grid of the T1w, in the same world.
    """
    points = _centres(truth_grid)
    cell = float(truth_grid.voxel_sizes.mean())
    shares = tissue_shares(points, cell)
    mask = shares.brain > 0.5
    outward = (points / np.square(np.array(HALF_AXES["cortex"], np.float32))).astype(np.float32)
    tangent = np.stack([-outward[..., 1], outward[..., 0], np.zeros_like(outward[..., 0])], axis=-1)
    fibres = zip(bundle_shares(points, cell), (COMMISSURE, COLUMN, tangent), strict=True)
    compartments = [
        isotropic("csf", shares.csf),
        isotropic("scalp", shares.scalp),
        oriented("gm", shares.gm, outward, CORTEX_FA),
        *(oriented("wm", shares.wm * share, np.broadcast_to(way, points.shape), BUNDLE_FA) for share, way in fibres),
    ]
    tissue = tissue_labels(shares.csf, shares.gm, shares.wm, mask)
    return Phantom(truth_grid, tuple(compartments), mask, tissue, _t1w(t1w_grid), t1w_grid)


def _t1w(grid: Grid) -> Float:
    """The T1-weighted image of the small head, (x, y, z)."""
    shares = tissue_shares(_centres(grid), float(grid.voxel_sizes.mean()))
    return np.sum(
        [np.float32(value) * getattr(shares, name) for name, value in T1W_SIGNAL.items()], axis=0, dtype=np.float32
    )


def _centres(grid: Grid) -> Float:
    """World coordinates of the voxel centres, (x, y, z, 3), in mm."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    return (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]).astype(np.float32)

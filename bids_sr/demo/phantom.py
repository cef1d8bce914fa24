"""A made head: compartments of water that diffuse in known ways, and the signal they give."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bids_sr.geometry import Grid

Float = NDArray[np.float32]

#: Signal of each tissue in a diffusion series without weighting. Echo times of dMRI (70-100 ms) make CSF about three
#: times as bright as tissue; fat suppression leaves little of the scalp.
B0_SIGNAL = {"wm": 500.0, "gm": 620.0, "csf": 1500.0, "scalp": 200.0}

#: Mean diffusivity in mm2/s at body temperature.
MEAN_DIFFUSIVITY = {"wm": 0.75e-3, "gm": 0.82e-3, "csf": 3.0e-3, "scalp": 1.0e-3}

#: Fractional anisotropy of one coherent bundle (the corpus callosum in vivo), and of cortex across its layers.
BUNDLE_FA = 0.77
CORTEX_FA = 0.12

#: Labels of the tissue map, as in `comparison.tissue_classes`.
CSF, GM, WM = 1, 2, 3


@dataclass(frozen=True)
class Compartment:
    """Water that diffuses alike, in the voxels where there is any.

    Attributes
    ----------
    voxels : ndarray of int, (n,)
        Flat indices into the grid.
    b0 : ndarray, float32, (n,)
        Signal without diffusion weighting: share of the voxel times the brightness of the tissue.
    axial, radial : float
        Diffusivities along and across `directions`, mm2/s. Equal for isotropic diffusion.
    directions : ndarray, float32, (n, 3)
        Unit vectors in the world (RAS+), never in the voxel frame; any vectors for isotropic diffusion.
    """

    voxels: NDArray[np.int64]
    b0: Float
    axial: float
    radial: float
    directions: Float

    def signal(self, bval: float, direction: NDArray[np.floating]) -> Float:
        """Signal at `bval` (s/mm2) with the gradient along `direction`, (3,), unit, in the world; (n,)."""
        if self.axial == self.radial:
            return self.b0 * np.float32(np.exp(-bval * self.radial))
        cosines = self.directions @ np.asarray(direction, dtype=np.float32)
        return self.b0 * np.exp(
            np.float32(-bval) * (np.float32(self.radial) + np.float32(self.axial - self.radial) * cosines**2)
        )

    def brightened(self, factor: Float) -> Compartment:
        """The same water, its signal multiplied by `factor`, (x, y, z), on the whole grid."""
        return replace(self, b0=self.b0 * factor.ravel()[self.voxels].astype(np.float32))


@dataclass(frozen=True)
class Phantom:
    """A made head, at the resolution of its truth.

    Attributes
    ----------
    grid : Grid
        Grid of everything below except the T1w.
    compartments : tuple of Compartment
        They overlap: a voxel holds as many as it has partial volumes and crossing bundles.
    mask : ndarray of bool, (x, y, z)
        Brain, with its ventricles.
    tissue : ndarray of uint8, (x, y, z)
        1 CSF, 2 grey matter, 3 white matter where it fills most of the voxel; 0 outside the brain.
    t1w : ndarray, float32
        T1-weighted image, noise free, on its own grid.
    t1w_grid : Grid
        In the same world as `grid`.
    """

    grid: Grid
    compartments: tuple[Compartment, ...]
    mask: NDArray[np.bool_]
    tissue: NDArray[np.uint8]
    t1w: Float
    t1w_grid: Grid

    def signal(self, bval: float, direction: NDArray[np.floating]) -> Float:
        """Noise-free signal, (x, y, z), at `bval` (s/mm2), gradient along `direction`, (3,), unit, in the world."""
        total = np.zeros(int(np.prod(self.grid.shape)), np.float32)
        for compartment in self.compartments:
            # Voxels are unique within a compartment, so this adds each contribution once.
            total[compartment.voxels] += compartment.signal(bval, direction)
        return total.reshape(self.grid.shape)


def diffusivities(mean: float, fa: float) -> tuple[float, float]:
    """Axial and radial diffusivity of the axially symmetric tensor of this mean diffusivity and fractional anisotropy.

    Parameters
    ----------
    mean : float
        Mean diffusivity; the results have its unit.
    fa : float
        In [0, 1).

    Returns
    -------
    axial, radial : float
        With a = axial, r = radial: mean = (a + 2 r) / 3 and FA = (a - r) / sqrt(a^2 + 2 r^2).
    """
    contrast = fa / np.sqrt(3 - 2 * fa**2)
    return float(mean * (1 + 2 * contrast)), float(mean * (1 - contrast))


def isotropic(name: str, share: Float) -> Compartment:
    """Tissue `name` of `B0_SIGNAL` that fills `share`, (x, y, z), of each voxel and diffuses alike everywhere."""
    voxels = np.flatnonzero(share)
    mean = MEAN_DIFFUSIVITY[name]
    return Compartment(
        voxels, share.ravel()[voxels] * np.float32(B0_SIGNAL[name]), mean, mean, np.zeros((len(voxels), 3), np.float32)
    )


def oriented(name: str, share: Float, directions: Float, fa: float) -> Compartment:
    """Tissue `name` that fills `share`, (x, y, z), of each voxel and diffuses along `directions`.

    Directions, (x, y, z, 3), are those of the world. They need not have unit length; water whose
    direction vanishes counts as lying along x.
    """
    voxels = np.flatnonzero(share)
    axial, radial = diffusivities(MEAN_DIFFUSIVITY[name], fa)
    b0 = share.ravel()[voxels] * np.float32(B0_SIGNAL[name])
    return Compartment(voxels, b0, axial, radial, unit_vectors(directions.reshape(-1, 3)[voxels]))


def unit_vectors(vectors: Float) -> Float:
    """Vectors, (..., 3), scaled to unit length; vanishing ones become (1, 0, 0)."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-12)
    unit[..., 0] += norms[..., 0] <= 1e-12
    return unit


def tissue_labels(csf: Float, gm: Float, wm: Float, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The tissue with the largest share, (x, y, z): 1 CSF, 2 grey matter, 3 white matter, 0 outside `mask`."""
    largest = np.argmax(np.stack([csf, gm, wm]), axis=0) + 1
    return np.where(mask, largest, 0).astype(np.uint8)

"""What a scanner does to a made head: gradients, point-spread function, noise, a subject who moved before the T1w."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_sr.degradation import add_rician_noise, degrade
from bids_sr.demo.phantom import B0_SIGNAL, Phantom
from bids_sr.dwi.tensor import world_rotation
from bids_sr.geometry import Grid

Float = NDArray[np.float32]


def spread_directions(count: int) -> NDArray[np.float64]:
    """Unit vectors, (count, 3), that repel each other and their opposites like charges.

    Jones et al. 1999, Magn Reson Med 42:515. The start is a golden spiral over the half sphere, so that the result is
    always the same.
    """
    from dipy.core.sphere import HemiSphere, disperse_charges

    height = (np.arange(count) + 0.5) / count
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    start = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=1)
    sphere, _ = disperse_charges(HemiSphere(xyz=start), iters=500)
    return np.asarray(sphere.vertices, dtype=np.float64)


def gradient_scheme(n_b0: int, n_directions: int, bval: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One shell with its b0 volumes spread evenly through the series, the first volume being one.

    Returns
    -------
    bvals : ndarray, (n,)
        In s/mm2.
    directions : ndarray, (n, 3)
        Unit vectors in the world (RAS+); zero for b0 volumes.
    """
    count = n_b0 + n_directions
    weighted = np.ones(count, bool)
    weighted[np.arange(n_b0) * count // n_b0] = False
    directions = np.zeros((count, 3))
    directions[weighted] = spread_directions(n_directions)
    return np.where(weighted, bval, 0.0), directions


def fsl_bvecs(directions: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """World directions as b-vectors in the FSL convention, rounded as their files hold them.

    Parameters
    ----------
    directions : ndarray, (n, 3)
        Unit vectors in the world (RAS+).
    affine : ndarray, (4, 4)
        Voxel index to world of the image that they belong to, without shear.

    Returns
    -------
    bvecs : ndarray, (n, 3)
        Components along the voxel axes; x has its sign changed where the affine's determinant is positive (FSL counts
        x in radiological order, whatever the storage). Six decimals.
    """
    # Adding zero turns negative zeros, which would be written as -0, into zeros.
    return np.round(directions @ world_rotation(affine), 6) + 0.0


def noise_free_series(phantom: Phantom, bvals: NDArray[np.float64], directions: NDArray[np.float64]) -> Float:
    """The signal of every volume at the resolution of the truth, (x, y, z, n)."""
    series = np.empty((*phantom.grid.shape, len(bvals)), np.float32)
    for volume, (bval, direction) in enumerate(zip(bvals, directions, strict=True)):
        series[..., volume] = phantom.signal(float(bval), direction)
    return series


def acquire(series: Float, grid: Grid, scale: float, snr: float, generator: np.random.Generator) -> tuple[Float, Grid]:
    """Measure a noise-free series with voxels `scale` times as wide.

    Parameters
    ----------
    series : ndarray, (x, y, z, n)
        Noise-free signals on `grid`.
    grid : Grid
        Grid of the truth.
    scale : float
        Width of an acquired voxel in voxels of the truth. The point-spread function is a Gaussian as wide, at half its
        maximum, as an acquired voxel.
    snr : float
        Signal of white matter without diffusion weighting over the standard deviation of the noise in each of the two
        channels of the receiver; the magnitude then follows Rice's distribution (Gudbjartsson and Patz 1995).
    generator : numpy.random.Generator

    Returns
    -------
    acquired : ndarray, float32, (x', y', z', n)
    grid : Grid
    """
    measured = [degrade(series[..., volume], grid, np.full(3, scale)) for volume in range(series.shape[-1])]
    sigma = B0_SIGNAL["wm"] / snr
    noisy = [add_rician_noise(volume, sigma, generator) for volume, _ in measured]
    return np.stack(noisy, axis=-1), measured[0][1]


def random_rigid(
    degrees: float, millimetres: float, centre: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """A rigid motion of the world, (4, 4), of known size in a random direction.

    It turns by `degrees` around an axis through `centre`, (3,), and moves the centre by `millimetres`.
    """
    axis, shift = (vector / np.linalg.norm(vector) for vector in generator.standard_normal((2, 3)))
    cross = -np.cross(np.eye(3), axis).T  # cross @ v is axis x v
    angle = np.deg2rad(degrees)
    # Rodrigues' formula
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = centre - rotation @ centre + millimetres * shift
    return matrix

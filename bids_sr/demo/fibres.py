"""Bundles of fibres as currents that flow through the white matter from one region of the cortex to another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def current_flow(conductivity: Float, injected: Float, n_iterations: int = 400, tolerance: float = 1e-3) -> Float:
    """Current density between sources and sinks in a conducting volume.

    Streamlines of a current spread from their sources without crossing, follow the conductor around what does not
    conduct, and crowd where it is narrow: so do the fibres of one bundle in white matter, between cortex and cortex
    around the ventricles, through callosum and internal capsule.

    Parameters
    ----------
    conductivity : ndarray, (x, y, z)
        Conductivity of each voxel, 0 where nothing flows.
    injected : ndarray, (x, y, z)
        Current fed into each voxel, negative where it leaves. What does not sum to zero is taken off evenly.
    n_iterations, tolerance
        Conjugate gradients end at the first of both; the tolerance is that of the residual relative to the current.

    Returns
    -------
    flow : ndarray, (x, y, z, 3)
        Current through the voxels along the axes of the grid.
    """
    edges = [_edge_conductance(conductivity, axis) for axis in range(3)]
    conducting = conductivity > 0
    balanced = np.where(conducting, injected, 0.0)
    balanced -= conducting * (balanced.sum() / max(conducting.sum(), 1))
    potential = _solve_potential(edges, balanced, n_iterations, tolerance)
    return np.stack([_through_voxels(-edges[axis] * np.diff(potential, axis=axis), axis) for axis in range(3)], axis=-1)


def _edge_conductance(conductivity: Float, axis: int) -> Float:
    """Conductance between neighbours along an axis: two half voxels in series, one shorter along that axis."""
    near, far = np.delete(conductivity, -1, axis), np.delete(conductivity, 0, axis)
    total = near + far
    return np.divide(2 * near * far, total, out=np.zeros_like(total), where=total > 0)


def _divergence(edges: list[Float], potential: Float) -> Float:
    """Current that leaves each voxel at these potentials."""
    outflow = np.zeros_like(potential)
    for axis, edge in enumerate(edges):
        current = edge * np.diff(potential, axis=axis)
        pad = [(0, 0)] * 3
        pad[axis] = (1, 1)
        outflow -= np.diff(np.pad(current, pad), axis=axis)
    return outflow


def _through_voxels(current: Float, axis: int) -> Float:
    """Currents across faces as their mean over the two faces of each voxel."""
    pad = [(0, 0)] * 3
    pad[axis] = (1, 1)
    padded = np.pad(current, pad)
    return (np.delete(padded, -1, axis) + np.delete(padded, 0, axis)) / 2


def _solve_potential(edges: list[Float], injected: Float, n_iterations: int, tolerance: float) -> Float:
    """Potentials at which what flows away is what is injected: conjugate gradients, scaled by the diagonal.

    Written out because the sums of `numpy.sum` are the same for any number of threads, those of the linear algebra
    library are not, and the dataset has to be the same to the byte.
    """
    diagonal = np.sum([2 * _through_voxels(edge, axis) for axis, edge in enumerate(edges)], axis=0)
    scale = np.divide(1.0, diagonal, out=np.zeros_like(injected), where=diagonal > 0)
    potential = np.zeros_like(injected)
    residual = injected.copy()
    direction = scale * residual
    energy = float(np.sum(residual * direction))
    goal = tolerance**2 * energy
    for _ in range(n_iterations):
        if energy <= goal:
            break
        away = _divergence(edges, direction)
        step = energy / float(np.sum(direction * away))
        potential += step * direction
        residual -= step * away
        scaled = scale * residual
        energy, before = float(np.sum(residual * scaled)), energy
        direction = scaled + energy / before * direction
    return potential

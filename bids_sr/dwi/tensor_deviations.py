"""How uncertain FA and MD are where the signals are: standard deviations carried through the tensor fit by sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.gradients import Gradients, dipy_table, is_b0
from bids_sr.dwi.tensor import CHUNK, masked_signals, signal_floor, slabs, volumes_for_tensor, weighted_system

#: Tensors drawn in each voxel: the deviations they give are within 11 % of their limit (one standard deviation).
N_SAMPLES = 40
#: Largest deviation of a signal, as a part of it, that is carried through the logarithm.
LARGEST_RATIO = 1.0
#: Elements of the tensor as DIPY orders them, xx xy yy xz yz zz: those of the trace, and how often each occurs.
_DIAGONAL = np.array([0, 2, 5])
_OCCURS = np.array([1, 2, 1, 2, 2, 1])


@dataclass(frozen=True)
class TensorDeviations:
    """Deviations of FA and of MD (mm2/s) to expect, (x, y, z), float32; 0 outside the mask."""

    fa: NDArray[np.float32]
    md: NDArray[np.float32]


def tensor_deviations(
    data: Series,
    deviations: Series,
    gradients: Gradients,
    b0_threshold: float,
    mask: NDArray[np.bool_],
    shared: float,
    random: np.random.Generator,
) -> TensorDeviations:
    """Carry the standard deviations of signals through the weighted fit of the tensor.

    To first order in the errors of the signals, the fit is linear in them; so the tensor's elements are normally
    distributed with a covariance that follows from those of the signals. Tensors are drawn from that distribution, and
    FA and MD of each computed, as neither FA nor its bounds are linear. Errors of signals make FA larger, above all
    where it is small; so the deviations are root mean squares about FA and MD of `data`, whose intervals they give.

    Parameters
    ----------
    data, deviations : array or array proxy, (x, y, z, n)
        Signals and their standard deviations in the same unit.
    gradients : Gradients
        Of the n volumes.
    b0_threshold : float
        Largest b-value (s/mm2) that counts as b0.
    mask : ndarray of bool, (x, y, z)
    shared : float
        Share, 0 to 1, of an error's variance that the b0 volumes have in common, and so have the weighted ones.
    random : numpy.random.Generator
    """
    volumes = volumes_for_tensor(gradients, b0_threshold)
    used = gradients.subset(volumes)
    is_unweighted = is_b0(used.bvals, b0_threshold)
    floor = signal_floor(masked_signals(data, volumes[is_unweighted], mask))
    values = np.zeros((int(mask.sum()), 2), np.float32)
    if floor > 0:
        from dipy.reconst.dti import TensorModel

        design = TensorModel(dipy_table(used, b0_threshold)).design_matrix
        for slab in slabs(mask, 2 * len(volumes)):
            signals, spreads = (masked_signals(series, volumes, mask, slab.planes) for series in (data, deviations))
            found = np.empty((len(signals), 2), np.float32)
            for start in range(0, len(signals), CHUNK):
                part = slice(start, start + CHUNK)
                kept = np.maximum(signals[part], floor)
                ratios = np.minimum(spreads[part] / kept, LARGEST_RATIO)
                elements, roots = _tensors(design, kept, ratios, is_unweighted, shared)
                found[part] = _deviations(elements, roots, random)
            values[slab.voxels] = found
    fa, md = (np.zeros(mask.shape, np.float32) for _ in range(2))
    fa[mask], md[mask] = values.T
    return TensorDeviations(fa, md)


def relative_deviation(
    data: Series, deviations: Series, volumes: NDArray[np.int64], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Mean standard deviation of volumes over the median of their mean in the mask, (x, y, z); read one by one."""
    mean, spread = np.zeros(mask.shape, np.float32), np.zeros(mask.shape, np.float32)
    for volume in volumes:
        mean += np.asarray(data[..., volume], dtype=np.float32) / len(volumes)
        spread += np.asarray(deviations[..., volume], dtype=np.float32) / len(volumes)
    return np.where(mask, spread / max(float(np.median(mean[mask])), 1e-12), 0).astype(np.float32)


def _tensors(
    design: NDArray[np.float64],
    signals: NDArray[np.float32],
    ratios: NDArray[np.float32],
    is_unweighted: NDArray[np.bool_],
    shared: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tensors of voxels, (voxels, 6), and factors of their covariance, (voxels, 6, 8), in the units of 1 / b.

    Columns of the factor are independent, of variance 1: six for the errors of single volumes, and one each for what
    the b0 volumes and the weighted ones share. `ratios` are deviations as parts of the signals, (voxels, n).
    """
    system = weighted_system(design, signals)
    # Free water without noise has a weight of nothing in some volumes; a millionth more keeps the system solvable.
    stabilized = system.normal + 1e-6 * np.eye(7) * np.trace(system.normal, axis1=1, axis2=2)[:, None, None]
    influence = np.linalg.solve(stabilized, np.einsum("nk,vn->vkn", system.scaled, system.weights))[:, :6]
    influence /= system.units[:6, None]
    elements = np.einsum("vkn,vn->vk", influence, system.logs)
    moved = influence * ratios[:, None]
    covariance = (1 - shared) * moved @ moved.transpose(0, 2, 1)
    sizes, axes = np.linalg.eigh(covariance)
    single = axes * np.sqrt(np.maximum(sizes, 0))[:, None]
    common = [moved[..., group].sum(axis=2) for group in (is_unweighted, ~is_unweighted)]
    return elements, np.concatenate([single, np.sqrt(shared) * np.stack(common, axis=2)], axis=2)


def _deviations(
    elements: NDArray[np.float64], factor: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float32]:
    """Root mean squares of how far FA and MD of drawn tensors lie from those of the tensors themselves, (voxels, 2)."""
    undisturbed = _fa_and_md(elements)
    squares = np.zeros((len(elements), 2))
    for _ in range(N_SAMPLES):
        moved = np.einsum("vkm,vm->vk", factor, random.standard_normal((len(elements), factor.shape[2])))
        squares += (_fa_and_md(elements + moved) - undisturbed) ** 2
    return np.sqrt(squares / N_SAMPLES).astype(np.float32)


def _fa_and_md(elements: NDArray[np.float64]) -> NDArray[np.float64]:
    """FA and MD of tensors, (voxels, 6), from their invariants: (voxels, 2)."""
    md = elements[:, _DIAGONAL].mean(axis=1)
    norm = (elements**2 * _OCCURS).sum(axis=1)
    anisotropic = np.maximum(norm - 3 * md**2, 0)
    fa = np.sqrt(1.5 * anisotropic / np.maximum(norm, 1e-30))
    return np.stack([np.minimum(fa, 1), md], axis=1)

"""The diffusion tensor of a series: fitted by weighted least squares, as maps of its invariants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.gradients import Gradients, dipy_table, is_b0, shells, tensor_rank

#: Above this b-value (s/mm2) the decay is no longer mono-exponential in white matter, and kurtosis biases the tensor.
#: Shells of nominally 1500 count as below: their b-values may lie around that by as much as scanners spread them.
LARGEST_TENSOR_BVALUE = 1550.0

#: Signals are raised to this part of the median b0 signal in the mask before the logarithm. Clamped zeros and noise
#: below it would otherwise dominate the fit. Free water (3e-3 mm2/s) falls to 0.05 at b = 1000 s/mm2.
SIGNAL_FLOOR = 1e-3

#: Voxels fitted at a time: 20,000 voxels x 65 volumes need less than 60 MB; smaller and larger chunks are slower.
CHUNK = 20_000

#: Bytes read from the series at a time, and bytes of signals that are held while they are fitted.
_READ_BYTES, HELD_BYTES = 256 * 2**20, 2**30


@dataclass(frozen=True)
class TensorMaps:
    """Invariants of the diffusion tensor, 0 outside the mask and finite everywhere.

    Attributes
    ----------
    fa : ndarray, (x, y, z), float32
        Fractional anisotropy, 0 to 1.
    md, ad, rd : ndarray, (x, y, z), float32
        Mean, axial and radial diffusivity in mm2/s.
    v1 : ndarray, (x, y, z, 3), float32
        Unit principal direction in the frame of the b-vectors (FSL convention); its sign has no meaning.
    """

    fa: NDArray[np.float32]
    md: NDArray[np.float32]
    ad: NDArray[np.float32]
    rd: NDArray[np.float32]
    v1: NDArray[np.float32]


@dataclass(frozen=True)
class TensorElements:
    """The diffusion tensor itself in the world's axes (RAS+), 0 outside the mask and finite everywhere.

    Attributes
    ----------
    tensor : ndarray, (x, y, z, 6), float32
        Dxx, Dyy, Dzz, Dxy, Dxz, Dyz in mm2/s, which is MRtrix's order.
    eigenvalues : ndarray, (x, y, z, 3), float32
        In mm2/s, the largest first.
    eigenvectors : ndarray, (x, y, z, 9), float32
        Their unit vectors, x, y and z of one after the other; their signs have no meaning.
    """

    tensor: NDArray[np.float32]
    eigenvalues: NDArray[np.float32]
    eigenvectors: NDArray[np.float32]


def volumes_for_tensor(gradients: Gradients, b0_threshold: float) -> NDArray[np.int64]:
    """Volumes that the tensor is fitted to.

    The shells with b <= `LARGEST_TENSOR_BVALUE` on average (scanners spread the b-values of one), where their
    directions determine a tensor; otherwise (a single shell at a high b-value) all volumes.
    """
    labels = shells(gradients.bvals, b0_threshold)
    low = (np.bincount(labels, gradients.bvals) / np.bincount(labels))[labels] <= LARGEST_TENSOR_BVALUE
    weighted = low & ~is_b0(gradients.bvals, b0_threshold)
    enough = tensor_rank(gradients.bvecs[weighted]) == 6
    return np.flatnonzero(low) if enough else np.arange(len(gradients))


def fit_tensor(
    data: Series,
    gradients: Gradients,
    b0_threshold: float,
    mask: NDArray[np.bool_],
    method: Literal["WLS", "OLS"] = "WLS",
) -> TensorMaps:
    """Fit the diffusion tensor in each voxel of the mask.

    The model, the clipping of negative eigenvalues and the invariants are DIPY's. The weighted least squares are
    those of DIPY too (weights from an ordinary fit; Chung et al. 2006), solved through the normal equations, which
    is ten times faster than DIPY's pseudo-inverse per voxel and equal to 1e-5 in FA.

    Parameters
    ----------
    data : array or array proxy, (x, y, z, n)
        Signals in any unit; what is not finite or below the floor (`SIGNAL_FLOOR`) is raised to the floor.
    gradients : Gradients
        Of the n volumes, as checked by `check_gradients`.
    b0_threshold : float
        Largest b-value (s/mm2) that counts as b0.
    mask : ndarray of bool, (x, y, z)
    method : {"WLS", "OLS"}
        Weighted or ordinary least squares on the logarithm of the signal.

    Returns
    -------
    TensorMaps
        Zero outside the mask, and in voxels of the mask without any signal.
    """
    return _as_maps(_fitted(data, gradients, b0_threshold, mask, method, n_columns=7), mask)


def fit_tensor_elements(
    data: Series,
    affine: NDArray[np.float64],
    gradients: Gradients,
    b0_threshold: float,
    mask: NDArray[np.bool_],
    method: Literal["WLS", "OLS"] = "WLS",
) -> tuple[TensorMaps, TensorElements]:
    """Fit the diffusion tensor as `fit_tensor` does, and keep the tensor too.

    Parameters
    ----------
    affine : ndarray, (4, 4)
        Voxel index to world; turns directions from the b-vectors' frame into the world's.
    data, gradients, b0_threshold, mask, method
        As for `fit_tensor`.

    Returns
    -------
    TensorMaps
        The same as those of `fit_tensor`.
    TensorElements
    """
    values = _fitted(data, gradients, b0_threshold, mask, method, n_columns=19)
    eigenvalues, vectors = values[:, 7:10], values[:, 10:].reshape(-1, 3, 3)
    turned = vectors @ world_rotation(affine).T.astype(np.float32)
    tensor = np.einsum("ne,nei,nej->nij", eigenvalues, turned, turned)
    elements = tensor[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    volumes = (_on_grid(part, mask) for part in (elements, eigenvalues, turned.reshape(-1, 9)))
    return _as_maps(values[:, :7], mask), TensorElements(*volumes)


def _fitted(
    data: Series,
    gradients: Gradients,
    b0_threshold: float,
    mask: NDArray[np.bool_],
    method: Literal["WLS", "OLS"],
    n_columns: int,
) -> NDArray[np.float32]:
    """The fit of each voxel of the mask, (voxels, `n_columns`), the first of those that `_fitter` tells of."""
    volumes = volumes_for_tensor(gradients, b0_threshold)
    used = gradients.subset(volumes)
    values = np.zeros((int(mask.sum()), n_columns), dtype=np.float32)
    floor = signal_floor(masked_signals(data, volumes[is_b0(used.bvals, b0_threshold)], mask))
    if floor == 0:
        return values
    fit = _fitter(used, b0_threshold, method, floor)
    for slab in slabs(mask, len(volumes)):
        signals = masked_signals(data, volumes, mask, slab.planes)
        chunks = (signals[start : start + CHUNK] for start in range(0, len(signals), CHUNK))
        values[slab.voxels] = np.concatenate([_or_zero(fit, chunk, floor)[:, :n_columns] for chunk in chunks])
    return values


@dataclass(frozen=True)
class Slab:
    """Some planes of a grid.

    Attributes
    ----------
    planes : slice
        Along the last axis, along which a file that is not compressed is read without gaps.
    voxels : ndarray of bool, (n_voxels,)
        Those of the mask's voxels that lie in them.
    """

    planes: slice
    voxels: NDArray[np.bool_]


def slabs(mask: NDArray[np.bool_], n_volumes: int) -> Iterator[Slab]:
    """The planes of a mask in parts, whose signals take `HELD_BYTES` where a plane takes less."""
    per_plane = np.cumsum(4 * n_volumes * mask.sum(axis=(0, 1)))
    numbers = np.broadcast_to(np.arange(mask.shape[2]), mask.shape)[mask]
    start = 0
    while start < mask.shape[2]:
        before = per_plane[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(per_plane, before + HELD_BYTES, side="right")))
        voxels = (numbers >= start) & (numbers < stop)
        if voxels.any():
            yield Slab(slice(start, stop), voxels)
        start = stop


def masked_signals(
    data: Series, volumes: NDArray[np.integer], mask: NDArray[np.bool_], planes: slice = slice(None)
) -> NDArray[np.float32]:
    """Signals of the chosen `volumes` in the mask, (n_voxels, n_volumes); what is not finite becomes 0.

    Reads a bounded stretch of volumes at a time, in order: a compressed file is unpacked from its start at each read.
    With `planes` of the last axis, those alone.
    """
    part = mask[..., planes]
    signals = np.empty((int(part.sum()), len(volumes)), dtype=np.float32)
    at_once = max(1, _READ_BYTES // (8 * part.size))
    columns = np.arange(len(volumes))
    while len(columns):
        first = int(volumes[columns[0]])
        batch = columns[volumes[columns] < first + at_once]
        block = data[:, :, planes, first : int(volumes[batch[-1]]) + 1]
        for column in batch:
            signals[:, column] = block[..., int(volumes[column]) - first][part]
        columns = columns[len(batch) :]
    return np.nan_to_num(signals, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def signal_floor(b0_signals: NDArray[np.float32]) -> float:
    """What signals are raised to: `SIGNAL_FLOOR` of the median of the positive b0 signals; 0 where there are none.

    It has a logarithm in single precision, whatever the unit of the signals.
    """
    positive = b0_signals[b0_signals > 0]
    least = float(np.finfo(np.float32).tiny)
    return max(SIGNAL_FLOOR * float(np.median(positive)), least) if positive.size else 0.0


def _fitter(
    gradients: Gradients, b0_threshold: float, method: Literal["WLS", "OLS"], floor: float
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Function from signals (voxels, n) to FA, MD, AD, RD, V1, the eigenvalues and their vectors, in 19 columns."""
    from dipy.reconst.dti import TensorModel

    solver = _weighted_least_squares if method == "WLS" else "OLS"
    model = TensorModel(dipy_table(gradients, b0_threshold), fit_method=solver, min_signal=floor)

    def fit(signals: NDArray[np.float32]) -> NDArray[np.float32]:
        tensor = model.fit(signals)
        vectors = np.swapaxes(tensor.evecs, -1, -2)
        columns = [tensor.fa, tensor.md, tensor.ad, tensor.rd, vectors[:, 0], tensor.evals, vectors.reshape(-1, 9)]
        return np.column_stack(columns).astype(np.float32)

    return fit


def _or_zero(
    fit: Callable[[NDArray[np.float32]], NDArray[np.float32]], signals: NDArray[np.float32], floor: float
) -> NDArray[np.float32]:
    """The fit's values, zeros where no signal reaches the floor: there is nothing to fit."""
    values = np.nan_to_num(fit(signals), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    values[signals.max(axis=1) <= floor] = 0
    return values


def _weighted_least_squares(
    design: NDArray[np.float64], signals: NDArray[np.float64], **_: Any
) -> tuple[NDArray[np.float64], None]:
    """DIPY fit method: eigenvalues and eigenvectors, (voxels, 12), of the weighted fit.

    Weights are the squares of the signals that the ordinary fit predicts (Chung et al. 2006).
    """
    from dipy.reconst.dti import eig_from_lo_tri

    system = weighted_system(design, signals)
    right = (system.weights * system.logs) @ system.scaled
    solution = _solve(system.normal, right) / system.units
    return eig_from_lo_tri(solution, min_diffusivity=1e-6 / -design.min()), None


@dataclass(frozen=True)
class WeightedSystem:
    """The weighted least squares of voxels: normal @ (tensor * units) = (weights * logs) @ scaled.

    Attributes
    ----------
    scaled : ndarray, (n, 7)
        The design matrix with columns of at most 1.
    units : ndarray, (7,)
        What its columns were divided by.
    logs, weights : ndarray, (voxels, n)
    normal : ndarray, (voxels, 7, 7)
    """

    scaled: NDArray[np.float64]
    units: NDArray[np.float64]
    logs: NDArray[np.float64]
    weights: NDArray[np.float64]
    normal: NDArray[np.float64]


def weighted_system(design: NDArray[np.float64], signals: NDArray[np.floating[Any]]) -> WeightedSystem:
    """Weights from an ordinary fit, and the normal equations.

    Parameters
    ----------
    design : ndarray, (n, 7)
        DIPY's: six elements of the tensor (lower triangle, row by row), and the logarithm of the signal without
        diffusion weighting.
    signals : ndarray, (voxels, n)
        All positive.
    """
    # b-values in the hundreds beside the column of ones would square into a bad condition number.
    units = np.abs(design).max(axis=0)
    scaled = design / units
    logs = np.log(np.asarray(signals, dtype=np.float64))
    predicted = logs @ np.linalg.pinv(scaled).T @ scaled.T
    weights = np.exp(2 * (predicted - predicted.max(axis=1, keepdims=True)))
    products = (scaled[:, :, None] * scaled[:, None, :]).reshape(len(scaled), -1)
    normal = (weights @ products).reshape(-1, scaled.shape[1], scaled.shape[1])
    return WeightedSystem(scaled, units, logs, weights, normal)


def _solve(normal: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve the systems `normal`, (n, k, k), for `right`, (n, k); those that are singular by their pseudo-inverse."""
    try:
        solution = np.linalg.solve(normal, right[..., None])
    except np.linalg.LinAlgError:
        solution = np.linalg.pinv(normal, hermitian=True) @ right[..., None]
    return np.asarray(solution[..., 0], dtype=np.float64)


def _as_maps(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> TensorMaps:
    """Seven columns of masked values as maps on the grid."""
    volume = _on_grid(values, mask)
    fa, md, ad, rd = (np.ascontiguousarray(volume[..., index]) for index in range(4))
    return TensorMaps(fa, md, ad, rd, np.ascontiguousarray(volume[..., 4:]))


def _on_grid(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values of the voxels of the mask, (voxels, n), on the grid, (x, y, z, n); zero elsewhere."""
    volume = np.zeros((*mask.shape, values.shape[1]), dtype=np.float32)
    volume[mask] = values
    return volume


def colour_fa(maps: TensorMaps, affine: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
    """Direction-encoded colours: red, green, blue for left-right, front-back, feet-head; as bright as FA.

    Parameters
    ----------
    maps : TensorMaps
    affine : ndarray, (4, 4), optional
        Voxel index to world. With it the colours are those of the world's axes, as they should be for a sagittal or
        oblique series; without it, those of the voxel axes.

    Returns
    -------
    ndarray, (x, y, z, 3), uint8
    """
    v1 = maps.v1 if affine is None else maps.v1 @ world_rotation(affine).T.astype(np.float32)
    colours = np.abs(v1) * np.clip(maps.fa, 0, 1)[..., None]
    return np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def world_rotation(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthogonal matrix, (3, 3), from the b-vectors' frame (FSL convention) to the world's axes (RAS+)."""
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    u, _, vt = np.linalg.svd(linear / np.linalg.norm(linear, axis=0))
    flip = np.diag([-1.0 if np.linalg.det(linear) > 0 else 1.0, 1.0, 1.0])
    return np.asarray(u @ vt @ flip, dtype=np.float64)

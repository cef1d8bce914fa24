"""Tensor maps of a fine grid as a scanner with the voxels of a coarse grid would show them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.tensor import TensorMaps
from bids_sr.geometry import Grid, overlap_average


def average_maps(maps: TensorMaps, fine: Grid, coarse: Grid, mask: NDArray[np.bool_]) -> TensorMaps:
    """Average tensor maps over the cells of a coarser grid with the same axes.

    FA and the diffusivities are plain averages over the masked voxels of a cell. Directions have no sign, so it is
    their dyads v v^T that are averaged, each with the same weight; the result is the dyad's principal axis.

    Parameters
    ----------
    maps : TensorMaps
        On the grid `fine`.
    fine, coarse : Grid
        With the same axes.
    mask : ndarray of bool, (x, y, z)
        Brain on the grid `fine`; other voxels have no part in the averages.

    Returns
    -------
    TensorMaps
        On the grid `coarse`, 0 where a cell holds no masked voxel.
    """
    scalars = (maps.fa, maps.md, maps.ad, maps.rd)
    fa, md, ad, rd = (overlap_average(scalar, fine, coarse, weights=mask) for scalar in scalars)
    return TensorMaps(fa, md, ad, rd, _average_directions(maps.v1, fine, coarse, mask))


def _average_directions(
    v1: NDArray[np.float32], fine: Grid, coarse: Grid, mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Principal axes of the averaged dyads, (x, y, z, 3); 0 where there is no direction to average."""
    dyads = np.empty((*coarse.shape, 3, 3), dtype=np.float32)
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        product = overlap_average(v1[..., row] * v1[..., column], fine, coarse, weights=mask)
        dyads[..., row, column] = dyads[..., column, row] = product
    _, vectors = np.linalg.eigh(dyads)
    known = np.trace(dyads, axis1=-2, axis2=-1) > 0
    return np.where(known[..., None], vectors[..., -1], 0).astype(np.float32)

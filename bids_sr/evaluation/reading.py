"""Diffusion series of BIDS datasets, read as what restorations are compared with."""

from __future__ import annotations

import numpy as np

from bids_sr.bids.inputs import DwiSeries
from bids_sr.companions import given_mask, placed_t1w
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import check_gradients, read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.t1w import T1wImage, t1w_channel
from bids_sr.dwi.trust import BLANK_T1W
from bids_sr.errors import NotFourDimensionalError
from bids_sr.evaluation.benchmark import Degraded, Reference, choose_volumes
from bids_sr.images import load_array, load_grid


def read_reference(series: DwiSeries, b0_threshold: float, n_weighted: int | None = None) -> Reference:
    """An acquired series with its brain mask, the given one or else what is found in its mean b0.

    Parameters
    ----------
    series : DwiSeries
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    n_weighted : int, optional
        How many weighted volumes are kept, see `choose_volumes`; all if not given.

    Raises
    ------
    InputError
        If the series, its gradients or its mask cannot be used.
    """
    data = load_array(series.dwi)
    if data.ndim != 4:
        raise NotFourDimensionalError(dwi=series.dwi, shape=data.shape)
    gradients = read_gradients(series.bval, series.bvec)
    check_gradients(gradients, data.shape[3], b0_threshold, series.dwi.name)
    if n_weighted is not None:
        chosen = choose_volumes(gradients, b0_threshold, n_weighted)
        data, gradients = data[..., chosen], gradients.subset(chosen)
        check_gradients(gradients, len(chosen), b0_threshold, f"{len(chosen)} volumes of {series.dwi.name}")
    finite = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    grid = load_grid(series.dwi)
    if series.mask is None:
        mask = brain_mask(mean_b0(finite, gradients.bvals, b0_threshold), grid.affine)
    else:
        mask = given_mask(series.mask, grid)
    return Reference(finite, gradients, grid, mask, b0_threshold)


def read_t1w(series: DwiSeries, degraded: Degraded, reference: Reference) -> tuple[T1wImage | None, str]:
    """The T1w as a user's run on the degraded series would show it to a model: registered to the degraded mean b0.

    Returns
    -------
    image : T1wImage or None
        In the world of the series, at its own resolution; None where there is no T1w that fits.
    reason : str
        Why there is none.
    """
    b0 = mean_b0(degraded.data, reference.gradients.bvals, reference.b0_threshold)
    placed = placed_t1w(series, b0, degraded.grid, degraded.mask)
    if placed.image is None:
        return None, placed.reason
    seen = t1w_channel(placed.image.voxels, placed.image.grid, degraded.grid, degraded.mask)
    return (placed.image, "") if seen.any() else (None, BLANK_T1W)

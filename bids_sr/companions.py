"""What comes beside the signals of a diffusion series: its brain mask, and the T1w in its world."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_sr.bids.inputs import DwiSeries
from bids_sr.dwi.mask import check_mask_grid
from bids_sr.dwi.registration import register_rigid
from bids_sr.dwi.t1w import T1wImage
from bids_sr.dwi.trust import NO_T1W, distrust
from bids_sr.errors import EmptyMaskError, T1wRegistrationError
from bids_sr.geometry import Grid
from bids_sr.images import load_grid, load_mask, load_volume


@dataclass(frozen=True)
class PlacedT1w:
    """The T1w of a series where it belongs, or why there is none.

    Attributes
    ----------
    image : T1wImage or None
        In the world of the series, its voxels untouched.
    agreement : float or None
        What it shares with the b0, see `bids_sr.dwi.registration.Registration`; None where it was not registered.
    reason : str
        Why there is no image.
    """

    image: T1wImage | None
    agreement: float | None = None
    reason: str = ""


def given_mask(file: Path, grid: Grid) -> NDArray[np.bool_]:
    """The brain mask that comes with a series on `grid`, (x, y, z).

    Raises
    ------
    MaskGridError
        If it lies on another grid.
    EmptyMaskError
        If it holds no voxel.
    """
    check_mask_grid(load_grid(file), grid, str(file))
    mask = load_mask(file)
    if not mask.any():
        raise EmptyMaskError(image=file, reason="it holds no voxel")
    return mask


def placed_t1w(series: DwiSeries, b0: NDArray[np.float32], grid: Grid, mask: NDArray[np.bool_]) -> PlacedT1w:
    """The T1w of a series, registered to its mean b0 unless it lies in the same space already.

    One that cannot be trusted, see `bids_sr.dwi.trust.distrust`, is left out, as the application leaves it out.

    Parameters
    ----------
    series : DwiSeries
    b0 : ndarray, (x, y, z)
        As acquired, or degraded.
    grid : Grid
        Of the b0.
    mask : ndarray of bool, (x, y, z)
        The brain.
    """
    if series.t1w is None:
        return PlacedT1w(None, reason=NO_T1W)
    voxels, own = load_volume(series.t1w), load_grid(series.t1w)
    if series.t1w_is_aligned:
        return PlacedT1w(T1wImage(voxels, own))
    try:
        found = register_rigid(b0, grid.affine, mask, voxels, own.affine)
    except T1wRegistrationError as error:
        return PlacedT1w(None, reason=str(error.fields["reason"]))
    if reason := distrust(asdict(found)):
        return PlacedT1w(None, found.agreement, reason)
    return PlacedT1w(T1wImage(voxels, Grid(own.shape, found.matrix @ own.affine)), found.agreement)

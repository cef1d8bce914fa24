"""What the files of a series must tell before anything runs: headers, gradients, the mask that is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_sr.bids.inputs import DwiSeries
from bids_sr.dwi.gradients import check_gradients, read_gradients
from bids_sr.dwi.mask import check_mask_grid, full_mask_notes
from bids_sr.errors import EmptyMaskError
from bids_sr.geometry import Grid
from bids_sr.headers import open_series, open_volume, place_notes, read_voxels, slice_notes


@dataclass(frozen=True)
class Preflight:
    """What is known of a series from its headers and gradients.

    Attributes
    ----------
    source : Grid
        As acquired.
    n_volumes : int
    t1w_shape : tuple of int, (3,)
        Zeros without a T1w.
    notes : tuple of str
        What a reader should know of these files, in sentences.
    """

    source: Grid
    n_volumes: int
    t1w_shape: tuple[int, int, int]
    notes: tuple[str, ...]


def preflight(series: DwiSeries, b0_threshold: float) -> Preflight:
    """Refuse a series that cannot be restored, from its headers, its gradients and its mask.

    Raises
    ------
    InputError
        With the file that is wrong and what to do.
    """
    image = open_series(series.dwi)
    source, n_volumes = Grid.of(image), int(image.shape[3])
    check_gradients(read_gradients(series.bval, series.bvec), n_volumes, b0_threshold, series.dwi.name)
    notes = place_notes(image, series.dwi.name)
    if series.mask is not None:
        notes += _mask_notes(series.mask, source)
    t1w_shape = (0, 0, 0)
    if series.t1w is not None:
        t1w = open_volume(series.t1w, "T1w image")
        t1w_shape = Grid.of(t1w).shape
        notes += place_notes(t1w, series.t1w.name) + slice_notes(t1w)
    return Preflight(source, n_volumes, t1w_shape, tuple(notes))


def _mask_notes(file: Path, source: Grid) -> list[str]:
    """Refuse a mask that is empty or lies on another grid; tell of one that masks nothing."""
    image = open_volume(file, "brain mask")
    check_mask_grid(Grid.of(image), source, str(file))
    brain = np.asarray(read_voxels(image, file) > 0.5)
    if not brain.any():
        raise EmptyMaskError(image=file, reason="the mask given is empty (no voxel above 0.5)")
    return full_mask_notes(brain, file.name)

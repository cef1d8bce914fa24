"""Diffusion series of BIDS datasets, read as scans to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_sr.bids.inputs import DwiSeries, find_series, subject_labels
from bids_sr.companions import given_mask, placed_t1w
from bids_sr.config import Config
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import check_gradients, read_gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.t1w import refined_t1w
from bids_sr.errors import (
    InputError,
    NoSuchSubjectError,
    NotFourDimensionalError,
    TrainingDataError,
)
from bids_sr.geometry import Grid
from bids_sr.images import load_array, load_grid
from bids_sr.training.packing import PackedScan, pack_scan

#: How far, in s/mm2, the b-value of a volume may lie from that of the shell asked for.
BVAL_TOLERANCE = 50.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ReadingOptions:
    """What is read of a dataset.

    Attributes
    ----------
    participants : tuple of str
        Labels, with or without ``sub-``; empty for all.
    b0_threshold : float
        Largest b-value, in s/mm2, that counts as b0.
    bvals : tuple of float
        Shells to keep next to the b0 volumes, in s/mm2, each within `BVAL_TOLERANCE`; empty for all.
    use_t1w : bool
        Whether T1w images are looked for and registered.
    derivatives : mapping
        Name to folder of derivative datasets searched for masks and T1w images.
    """

    participants: tuple[str, ...] = ()
    b0_threshold: float = 50.0
    bvals: tuple[float, ...] = ()
    use_t1w: bool = True
    derivatives: Mapping[str, Path] = field(default_factory=dict)


def read_scans(datasets: Sequence[Path], options: ReadingOptions, tell: Tell = print) -> Iterator[PackedScan]:
    """Read the series of BIDS datasets, raw or derivative, one at a time.

    Parameters
    ----------
    datasets : sequence of Path
        A subject that is asked for must be in one of them at least. With several, scans bear the dataset's folder name.
    options : ReadingOptions
    tell : callable
        Is given one line for each series, and one for whatever was found wrong with it but could be mended.

    Yields
    ------
    PackedScan

    Raises
    ------
    InputError
        If a dataset or a subject is not there, or no series can be used; one that cannot be used among others is left
        out, and `tell` is given the reason.
    """
    problems: list[InputError] = []
    n_read = 0
    for root, labels in _chosen_subjects(datasets, options.participants):
        config = Config(
            root, root, root, participants=labels, b0_threshold=options.b0_threshold,
            use_t1w=options.use_t1w, derivatives=options.derivatives,
        )  # fmt: skip
        for series in find_series(config):
            name = series.stem if len(datasets) == 1 else f"{root.name}/{series.stem}"
            try:
                scan = _read_series(series, name, options, tell)
            except InputError as problem:
                tell(f"{name}: left out: {problem}")
                problems.append(problem)
                continue
            n_read += 1
            yield scan
    if problems and n_read == 0:
        raise problems[0]


def _chosen_subjects(datasets: Sequence[Path], participants: Sequence[str]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each dataset with the labels to read of it; datasets that hold none of the subjects asked for are left out."""
    roots = [root.resolve() for root in datasets]
    labels = [label.removeprefix("sub-") for label in participants]
    present = {label for root in roots for label in subject_labels(root)}
    missing = [label for label in labels if label not in present]
    if missing and all(root.is_dir() for root in roots):
        raise NoSuchSubjectError(
            missing=", sub-".join(missing),
            bids_dir=", ".join(map(str, roots)),
            available=", ".join(sorted(present)) or "none",
        )
    for root in roots:
        here = tuple(label for label in labels if label in subject_labels(root))
        if here or not labels:
            yield root, here


def _read_series(series: DwiSeries, name: str, options: ReadingOptions, tell: Tell) -> PackedScan:
    """One series as a packed scan, with its T1w where there is one that fits."""
    data = load_array(series.dwi)
    grid = load_grid(series.dwi)
    if data.ndim != 4:
        raise NotFourDimensionalError(dwi=series.dwi, shape=data.shape)
    gradients = read_gradients(series.bval, series.bvec)
    check_gradients(gradients, data.shape[-1], options.b0_threshold, series.dwi.name)
    kept = _kept_volumes(gradients.bvals, options, name)
    data, bvals = _cleaned(data[..., kept], name, tell), gradients.bvals[kept]
    b0 = mean_b0(data, bvals, options.b0_threshold)
    mask = brain_mask(b0, grid.affine) if series.mask is None else given_mask(series.mask, grid)
    t1w, note = _fine_t1w(series, b0, grid, mask)
    scan = pack_scan(
        name, data, bvals, mask, options.b0_threshold, voxel_sizes=grid.voxel_sizes, t1w=t1w,
        bvecs=gradients.bvecs[kept],
    )  # fmt: skip
    tell(f"{name}: {len(kept)} volumes, {len(scan.inside)} voxels of brain, {note}")
    return scan


def _kept_volumes(bvals: NDArray[np.float64], options: ReadingOptions, name: str) -> NDArray[np.int64]:
    """The b0 volumes and those of the shells asked for, all if none is."""
    if not options.bvals:
        return np.arange(len(bvals))
    distance = np.abs(bvals[:, None] - np.array(options.bvals))
    weighted = bvals > options.b0_threshold
    for shell in np.flatnonzero(~np.any((distance <= BVAL_TOLERANCE) & weighted[:, None], axis=0)):
        present = ", ".join(f"{b:g}" for b in np.unique(np.rint(bvals)))
        problem = (
            f"no volume has b = {options.bvals[shell]:g} s/mm2, to within {BVAL_TOLERANCE:g}; it has b = {present}"
        )
        raise TrainingDataError(where=name, problem=problem)
    return np.flatnonzero(np.any(distance <= BVAL_TOLERANCE, axis=1) | ~weighted)


def _cleaned(data: NDArray[np.float32], name: str, tell: Tell) -> NDArray[np.float32]:
    """The series, (x, y, z, n), with zeros where it is not finite."""
    gaps = ~np.isfinite(data)
    if not gaps.any():
        return data
    empty = np.flatnonzero(gaps.all(axis=(0, 1, 2)))
    if len(empty) > 0:
        raise TrainingDataError(where=name, problem=f"volume {empty[0]} (counted from 0) has no finite value")
    n_volumes = int(gaps.any(axis=(0, 1, 2)).sum())
    tell(f"{name}: {int(gaps.sum())} values in {n_volumes} volumes are not finite and count as zero")
    return np.where(gaps, np.float32(0), data)


def _fine_t1w(
    series: DwiSeries, b0: NDArray[np.float32], grid: Grid, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32] | None, str]:
    """The scaled T1w on the series' grid with finer voxels, None where none fits, and a note that says which."""
    placed = placed_t1w(series, b0, grid, mask)
    if placed.image is None:
        return None, "no T1w" if series.t1w is None else f"without its T1w: {placed.reason}"
    note = "T1w in the same space" if placed.agreement is None else f"T1w (agreement {placed.agreement:.3f})"
    return refined_t1w(placed.image.voxels, placed.image.grid, grid, mask), note

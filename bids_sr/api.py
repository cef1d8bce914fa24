"""Super-resolution of images in memory, for notebooks and scripts: the stages of the command without its files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike, NDArray

from bids_sr.bids.outputs import image_header
from bids_sr.config import SCALE_RANGE
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import Gradients, check_gradients, is_b0, read_gradients
from bids_sr.dwi.mask import brain_mask, check_mask_grid, full_mask_notes, millilitres
from bids_sr.dwi.normalization import check_volumes, describe_odd_volumes
from bids_sr.dwi.registration import register_rigid
from bids_sr.dwi.t1w import T1wImage
from bids_sr.errors import ConfigurationError, EmptyMaskError, GradientFileError
from bids_sr.geometry import Grid, target_grid
from bids_sr.headers import check_series, check_volume, open_image, place_notes, read_voxels, slice_notes
from bids_sr.images import as_volume
from bids_sr.inference.device import resolve_device
from bids_sr.inference.fitting import FitLog
from bids_sr.inference.shown_t1w import ShownT1w, show_t1w
from bids_sr.inference.upsampler import check_scale, restore_mask, restore_volumes
from bids_sr.interfaces.progress import show_progress
from bids_sr.models.registry import ModelCard, check_tells_uncertainty, load_model, read_trained_card
from bids_sr.records import stage_warnings
from bids_sr.workflows.training_range import outside_training

logger = logging.getLogger("bids_sr")

#: An image, or the path of one.
ImageLike = Any
#: One number for all axes, or one per axis.
PerAxis = float | tuple[float, float, float]


@dataclass(frozen=True)
class SuperResolved:
    """A series on its new grid, and what it was made with.

    Attributes
    ----------
    dwi : nibabel image, (x, y, z, n)
        The restored series, float32, in the units of the input. Volumes, axes and centre of the field of view are
        those of the input.
    bvals : ndarray, (n,)
        As given.
    bvecs : ndarray, (n, 3)
        As given: the axes are the same, so the directions are too, and the files of the input go with the result.
    mask : nibabel image, (x, y, z)
        The brain on the new grid.
    acquired_mask : nibabel image
        The brain on the grid of the input: the one given, or what was found in the mean b0.
    deviations : nibabel image, (x, y, z, n), or None
        Standard deviations of the restored series, where they were asked for.
    t1w : nibabel image or None
        The T1w in the world of the series, its voxels untouched; None where none was given, or the model uses none.
    t1w_used : bool
        Whether the model was shown the T1w.
    model : ModelCard
        What is known of the model.
    warnings : tuple of str
        What a reader should know of the result, in plain sentences; they are logged too.
    """

    dwi: Any
    bvals: NDArray[np.float64]
    bvecs: NDArray[np.float64]
    mask: Any
    acquired_mask: Any
    deviations: Any | None
    t1w: Any | None
    t1w_used: bool
    model: ModelCard
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Scan:
    """A series as it came: its voxels, gradients and grid, its image, what to call it, and which b-values are b0."""

    data: NDArray[Any]
    gradients: Gradients
    grid: Grid
    image: Any
    name: str
    b0_threshold: float

    @property
    def stored_grid(self) -> Grid:
        """The grid as a NIfTI file of what is made of the series holds it, in single precision."""
        return Grid(self.grid.shape, _as_stored(self.grid.affine))


@dataclass(frozen=True)
class _PlacedT1w:
    """A T1w in the world of a series, how it came there (nothing where it was given so), and what its header tells."""

    t1w: T1wImage
    image: Any
    registration: dict[str, Any]
    notes: tuple[str, ...]


def super_resolve(
    dwi: ImageLike,
    bvals: ArrayLike | str | Path,
    bvecs: ArrayLike | str | Path,
    *,
    mask: ImageLike | None = None,
    t1w: ImageLike | None = None,
    t1w_is_aligned: bool = False,
    scale: PerAxis | None = None,
    voxel_size: PerAxis | None = None,
    model: str = "default",
    device: str = "auto",
    b0_threshold: float = 50.0,
    uncertainty: bool = False,
    progress: bool = False,
) -> SuperResolved:
    """Restore a diffusion series on a finer grid.

    The voxels are those that ``bids_sr`` writes for the same images and options. The tensor, the self-check and the
    report of the command are not made. The result is held in memory: four bytes per voxel and volume.

    Parameters
    ----------
    dwi : nibabel image or path, (x, y, z, n)
        The series.
    bvals : array_like, (n,), or path
        b-values in s/mm2.
    bvecs : array_like, (n, 3) or (3, n), or path
        Directions in the FSL convention. Both gradients are arrays, or both paths of FSL files.
    mask : nibabel image or path, optional
        The brain on the grid of the series; found in the mean b0 if not given.
    t1w : nibabel image or path, optional
        A T1w image of the same person, which guides the models that use it.
    t1w_is_aligned : bool
        Whether the T1w lies in the world of the series already, as QSIPrep writes it; else it is registered rigidly.
    scale : float or tuple of float, (3,), optional
        New voxels per acquired voxel, from 1 to 4; the corners of the field of view stay.
    voxel_size : float or tuple of float, (3,), optional
        New voxel size in mm. One of `scale` and `voxel_size` is given.
    model : str
        Name of a model, or path of a model card.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    b0_threshold : float
        Largest b-value in s/mm2 that counts as b0.
    uncertainty : bool
        Tell standard deviations too, if the model does.
    progress : bool
        Show it on standard error.

    Raises
    ------
    InputError
        In one line, what cannot be used and what to do: the grid, the gradients, the images, the model or the device.
    """
    card = _card(model, uncertainty)
    scan = _read_scan(dwi, bvals, bvecs, b0_threshold)
    target = _target(scan, scale, voxel_size)
    check_scale(scan.grid, target, card, scan.name)
    b0 = mean_b0(scan.data, scan.gradients.bvals, b0_threshold)
    brain = _brain(mask, b0, scan.stored_grid)
    placed = _place_t1w(t1w, t1w_is_aligned, b0, scan, brain) if card.uses_t1w and t1w is not None else None
    shown = _show(card, placed, scan.grid, brain)
    network, _ = load_model(model, resolve_device(device))
    log = _fit_log(card, progress)
    volumes = restore_volumes(
        scan.data,
        scan.gradients.bvals,
        scan.grid,
        target,
        brain,
        network,
        signal=card.signal,
        b0_threshold=b0_threshold,
        device=resolve_device(device),
        t1w=shown.channel,
        guide=shown.image,
        deviations=uncertainty,
        fit_log=log,
    )
    n_volumes = len(scan.gradients)
    watched = show_progress(volumes, n_volumes, f"volumes restored ({card.name})") if progress else volumes
    restored, deviations = _gather(watched, target, n_volumes, deviations=uncertainty)
    target_mask = restore_mask(brain, scan.stored_grid, target)
    return SuperResolved(
        dwi=_image_like(scan.image, restored, target.affine),
        bvals=scan.gradients.bvals,
        bvecs=scan.gradients.bvecs,
        mask=_image_like(scan.image, target_mask, target.affine),
        acquired_mask=_image_like(scan.image, brain, scan.grid.affine),
        deviations=None if deviations is None else _image_like(scan.image, deviations, target.affine),
        t1w=None if placed is None else placed.image,
        t1w_used=shown.image is not None,
        model=card,
        warnings=_warnings(card, scan, target, brain, placed, shown, log),
    )


def _card(model: str, uncertainty: bool) -> ModelCard:
    """The card of a model that can do what is asked."""
    card = read_trained_card(model)
    if uncertainty:
        check_tells_uncertainty(card)
    return card


def _fit_log(card: ModelCard, progress: bool) -> FitLog:
    """How a model that learns from the scan is fitted."""
    if not progress:
        return FitLog()
    label = f"steps of the fit ({card.name})"
    return FitLog(progress=lambda steps, total: show_progress(steps, total, label, unit="step"))


def _open(image: ImageLike, what: str) -> tuple[Any, str]:
    """An image as it is, or from its file, and its name: that of its file, or what it is."""
    opened = open_image(Path(image)) if isinstance(image, (str, os.PathLike)) else image
    if not isinstance(opened, SpatialImage):
        reason = f"a nibabel image or the path of one is needed, not {type(image).__name__}."
        raise ConfigurationError(option=what, reason=reason)
    file = opened.get_filename()
    return opened, Path(file).name if file else what


def _read_scan(dwi: ImageLike, bvals: Any, bvecs: Any, b0_threshold: float) -> _Scan:
    """The series with its gradients, which must fit it."""
    image, name = _open(dwi, "the series")
    check_series(image, name)
    gradients = _gradients(bvals, bvecs)
    check_gradients(gradients, image.shape[3], b0_threshold, name)
    # Compressed files are read once as a whole: single volumes of them would each be read from the file's beginning.
    data = read_voxels(image, name)
    check_volumes(data, name)
    return _Scan(data, gradients, Grid.of(image), image, name, b0_threshold)


def _gradients(bvals: Any, bvecs: Any) -> Gradients:
    """Gradients from arrays, or from a pair of FSL files."""
    files = [isinstance(given, (str, os.PathLike)) for given in (bvals, bvecs)]
    if all(files):
        return read_gradients(Path(bvals), Path(bvecs))
    if any(files):
        array, path = ("bvecs", "bvals") if files[0] else ("bvals", "bvecs")
        raise GradientFileError(file=array, problem=f"it is an array, and {path} is a path; give two of a kind")
    values, vectors = _numbers("bvals", bvals), _numbers("bvecs", bvecs)
    if vectors.ndim != 2 or 3 not in vectors.shape:
        raise GradientFileError(file="bvecs", problem=f"its shape is {vectors.shape}, not (n, 3)")
    return Gradients(values.ravel(), vectors if vectors.shape[1] == 3 else vectors.T)


def _numbers(name: str, given: Any) -> NDArray[np.float64]:
    """Gradients that were given as an array, or as nested lists."""
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GradientFileError(file=name, problem=str(error)[:200]) from error


def _target(scan: _Scan, scale: PerAxis | None, voxel_size: PerAxis | None) -> Grid:
    """The grid that is asked for."""
    if (scale is None) == (voxel_size is None):
        raise ConfigurationError(option="super_resolve", reason="give one of scale and voxel_size.")
    factors, sizes = _three("scale", scale), _three("voxel_size", voxel_size)
    if factors is not None and not all(SCALE_RANGE[0] <= factor <= SCALE_RANGE[1] for factor in factors):
        reason = f"factors from {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g} can be restored."
        raise ConfigurationError(option="scale", reason=reason)
    if sizes is not None and not all(0 < size < np.inf for size in sizes):
        raise ConfigurationError(option="voxel_size", reason="voxel sizes in mm are larger than zero.")
    return target_grid(scan.grid, sizes, factors, scan.name)


def _three(option: str, given: PerAxis | None) -> tuple[float, float, float] | None:
    """One number per axis."""
    if given is None:
        return None
    numbers = np.atleast_1d(np.asarray(given, dtype=np.float64))
    if numbers.shape not in ((1,), (3,)):
        raise ConfigurationError(option=option, reason=f"one number or three, not {given!r}.")
    x, y, z = np.broadcast_to(numbers, 3).tolist()
    return x, y, z


def _brain(mask: ImageLike | None, b0: NDArray[np.float32], grid: Grid) -> NDArray[np.bool_]:
    """The brain on the grid of the series: the mask given, or what is found in the mean b0."""
    if mask is None:
        return brain_mask(b0, grid.affine)
    image, name = _open(mask, "the mask")
    check_volume(image, name, "brain mask")
    check_mask_grid(Grid.of(image), grid, name)
    brain = as_volume(np.asarray(read_voxels(image, name) > 0.5))
    if not brain.any():
        raise EmptyMaskError(image=name, reason="it holds no voxel")
    return brain


def _place_t1w(
    t1w: ImageLike, aligned: bool, b0: NDArray[np.float32], scan: _Scan, brain: NDArray[np.bool_]
) -> _PlacedT1w:
    """The T1w in the world of the series."""
    image, name = _open(t1w, "the T1w")
    check_volume(image, name, "T1w image")
    voxels, grid = as_volume(np.asarray(read_voxels(image, name), dtype=np.float32)), Grid.of(image)
    notes = (*place_notes(image, name), *slice_notes(image))
    if aligned:
        return _PlacedT1w(T1wImage(voxels, grid), image, {}, notes)
    found = register_rigid(b0, scan.stored_grid.affine, brain, voxels, grid.affine)
    affine = _as_stored(found.matrix @ grid.affine)
    moved = T1wImage(voxels, Grid(grid.shape, affine))
    return _PlacedT1w(moved, _image_like(image, voxels, affine), asdict(found), notes)


def _show(card: ModelCard, placed: _PlacedT1w | None, grid: Grid, brain: NDArray[np.bool_]) -> ShownT1w:
    """What the model sees of the T1w."""
    if not card.uses_t1w:
        return ShownT1w()
    return show_t1w(placed.t1w if placed else None, placed.registration if placed else {}, grid, brain)


def _gather(
    volumes: Iterator[NDArray[np.float32]], target: Grid, n_volumes: int, *, deviations: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The restored volumes as one array, (x, y, z, n), and their deviations."""
    # Volume after volume, as they come and as files hold them.
    series = [np.empty((*target.shape, n_volumes), np.float32, order="F") for _ in range(1 + deviations)]
    for index, volume in enumerate(volumes):
        for whole, part in zip(series, volume.reshape(len(series), *target.shape), strict=True):
            whole[..., index] = part
    return series[0], series[1] if deviations else None


def _as_stored(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine as a NIfTI file holds it, in single precision: then notebook and command work with the same numbers."""
    return affine.astype(np.float32).astype(np.float64)


def _image_like(source: Any, data: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    """An image with the units and form codes of another."""
    dtype = np.dtype(np.uint8 if data.dtype == np.bool_ else np.float32)
    given = source.header if isinstance(source.header, nib.Nifti1Header) else None
    return nib.Nifti1Image(data.astype(dtype, copy=False), affine, image_header(data.shape, dtype, affine, given))


def _warnings(
    card: ModelCard,
    scan: _Scan,
    target: Grid,
    brain: NDArray[np.bool_],
    placed: _PlacedT1w | None,
    shown: ShownT1w,
    log: FitLog,
) -> tuple[str, ...]:
    """What the command would warn of: of the images, of the model, and of what the stages found."""
    odd = describe_odd_volumes(scan.data, scan.gradients.bvals, brain, scan.b0_threshold)
    parts: dict[str, Any] = {
        "mask": {"volume_ml": millilitres(brain, scan.grid), "odd_volumes": odd},
        "fit": log.record,
    }
    if card.uses_t1w:
        parts |= {"registration": placed.registration if placed else {}, "t1w": shown.record}
    found = [
        *place_notes(scan.image, scan.name),
        *full_mask_notes(brain, "given"),
        *(placed.notes if placed else ()),
        *_range_notes(card, scan, target),
        *stage_warnings(parts),
    ]
    # Reports show below their warnings what should be looked at.
    warnings = tuple(warning.replace(" below.", ".") for warning in found)
    for warning in warnings:
        logger.warning("%s", warning)
    return warnings


def _range_notes(card: ModelCard, scan: _Scan, target: Grid) -> list[str]:
    """That the model was trained on scans of another kind."""
    bvals, sizes = scan.gradients.bvals, target.voxel_sizes
    weighted = bvals[~is_b0(bvals, scan.b0_threshold)]
    return outside_training(card.name, card.training, weighted, sizes, scan.grid.voxel_sizes / sizes)

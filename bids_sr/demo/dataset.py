"""How the made head becomes a raw BIDS dataset with its truth as a derivative dataset inside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_sr.degradation import add_rician_noise
from bids_sr.demo import descriptions
from bids_sr.demo.acquisition import (
    acquire,
    fsl_bvecs,
    gradient_scheme,
    noise_free_series,
    random_rigid,
)
from bids_sr.demo.analytic import analytic_phantom
from bids_sr.demo.brain import icbm152_phantom, load_icbm152
from bids_sr.demo.phantom import Phantom
from bids_sr.dwi.gradients import Gradients
from bids_sr.dwi.tensor import colour_fa, fit_tensor
from bids_sr.errors import DemoOutputError
from bids_sr.geometry import Grid

#: How far the subject moves between the dMRI and the T1w. Enough to blur a tensor map, too little to be seen at once.
ROTATION_DEGREES = 3.0
TRANSLATION_MM = 4.0

#: Ratio of white matter to noise in the T1w.
T1W_SNR = 40.0

#: Volumes up to this b-value (s/mm2) are b0.
B0_THRESHOLD = 50.0


@dataclass(frozen=True)
class Protocol:
    """What is measured.

    Attributes
    ----------
    dwi_shape, dwi_voxel_size
        Grid of the dMRI, size in mm. The truth has voxels half as wide in the same box.
    t1w_shape, t1w_voxel_size
        Grid of the T1w.
    centre : tuple of float, (3,)
        World coordinates of both boxes' centres in mm.
    n_b0, n_directions, bval
        Volumes, and their b-value in s/mm2.
    """

    dwi_shape: tuple[int, int, int]
    dwi_voxel_size: float
    t1w_shape: tuple[int, int, int]
    t1w_voxel_size: float
    centre: tuple[float, float, float]
    n_b0: int
    n_directions: int
    bval: float = 1000.0

    @property
    def dwi_grid(self) -> Grid:
        """Grid of the dMRI, stored with x towards the left as scanners' series are."""
        return centred_grid(
            self.dwi_shape, (-self.dwi_voxel_size, self.dwi_voxel_size, self.dwi_voxel_size), self.centre
        )

    @property
    def t1w_grid(self) -> Grid:
        """Grid of the T1w, before the subject moved."""
        return centred_grid(self.t1w_shape, (self.t1w_voxel_size,) * 3, self.centre)

    @property
    def truth_grid(self) -> Grid:
        """Grid of the truth: what `--output-resolution` or `--scale 2` make of the dMRI's."""
        return self.dwi_grid.scaled(np.full(3, 2.0))


FULL = Protocol((72, 86, 68), 2.5, (176, 212, 174), 1.0, (0.0, -17.0, 9.0), n_b0=2, n_directions=16)
SMALL = Protocol((24, 28, 22), 3.0, (42, 48, 38), 1.75, (0.0, 0.0, 0.0), n_b0=2, n_directions=14)


def centred_grid(
    shape: tuple[int, int, int], steps: tuple[float, float, float], centre: tuple[float, float, float]
) -> Grid:
    """The axis-aligned grid of these signed voxel sizes whose box is centred on a point of the world."""
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = np.array(centre) - np.array(steps) * (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def make_dataset(out: Path, *, small: bool = False, seed: int = 0, snr: float = 25.0, n_sessions: int = 1) -> None:
    """Write a BIDS dataset of one made subject, with its truth in `derivatives/truth`.

    Parameters
    ----------
    out : Path
        Folder to make. It appears whole or not at all.
    small : bool
        The small head of ellipsoids (24 x 28 x 22 voxels of 3 mm, seconds) instead of the ICBM152 brain.
    seed : int
        Noise, folding and motion follow from it; same seed, same bytes.
    snr : float
        Signal of white matter in a b0 volume over the standard deviation of the noise.
    n_sessions : int
        Sessions to measure the same head in; with one, no session is named.

    Raises
    ------
    DemoOutputError
        If `out` exists and is not an empty folder.
    MissingExtraError
        If the ICBM152 maps are asked for without nilearn.
    """
    out = out.resolve()
    check_output(out)
    protocol = SMALL if small else FULL
    phantom = _phantom(protocol, small, seed)
    bvals, directions = gradient_scheme(protocol.n_b0, protocol.n_directions, protocol.bval)
    series = noise_free_series(phantom, bvals, directions)
    gradients = Gradients(bvals, fsl_bvecs(directions, phantom.grid.affine))
    with _whole_folder(out) as folder:
        _write_dataset_files(folder)
        for session in range(1, n_sessions + 1):
            stem = f"sub-01_ses-{session}" if n_sessions > 1 else "sub-01"
            generator = np.random.default_rng([seed, session])
            motion = random_rigid(ROTATION_DEGREES, TRANSLATION_MM, np.array(protocol.centre), generator)
            _write_raw(folder, stem, phantom, series, gradients, motion, snr, generator)
            _write_truth(folder / "derivatives" / "truth", stem, phantom, series, gradients, motion)


def check_output(out: Path) -> None:
    """Refuse a place that holds something.

    Raises
    ------
    DemoOutputError
        If `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DemoOutputError(out=out)


def _phantom(protocol: Protocol, small: bool, seed: int) -> Phantom:
    """The head on the grids of the protocol."""
    if small:
        return analytic_phantom(protocol.truth_grid, protocol.t1w_grid)
    return icbm152_phantom(load_icbm152(), protocol.truth_grid, protocol.t1w_grid, np.random.default_rng(seed))


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its name when all is written, and goes where something fails."""
    temporary = out.parent / f".{out.name}.{os.getpid()}.tmp"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_raw(
    folder: Path,
    stem: str,
    phantom: Phantom,
    series: NDArray[np.float32],
    gradients: Gradients,
    motion: NDArray[np.float64],
    snr: float,
    generator: np.random.Generator,
) -> None:
    """Measure the head once: its dMRI, and its T1w after the subject moved by the inverse of `motion`."""
    scale = 2.0
    acquired, grid = acquire(series, phantom.grid, scale, snr, generator)
    dwi = _in_folder(folder, stem, "dwi")
    _write_image(dwi / f"{stem}_dwi.nii.gz", np.rint(acquired).astype(np.int16), grid.affine, descriptions.RAW_DWI)
    _write_gradients(dwi / f"{stem}_dwi", gradients)
    sigma = float(phantom.t1w.max()) / T1W_SNR
    t1w = np.rint(add_rician_noise(phantom.t1w, sigma, generator)).astype(np.int16)
    moved = np.linalg.inv(motion) @ phantom.t1w_grid.affine
    _write_image(_in_folder(folder, stem, "anat") / f"{stem}_T1w.nii.gz", t1w, moved, descriptions.RAW_T1W)


def _write_truth(
    folder: Path,
    stem: str,
    phantom: Phantom,
    series: NDArray[np.float32],
    gradients: Gradients,
    motion: NDArray[np.float64],
) -> None:
    """The noise-free series at its full resolution, the tensor fitted to it, mask and tissues."""
    size = f"{phantom.grid.voxel_sizes[0]:g}"
    start = f"{stem}_res-{size.replace('.', 'p')}_desc-"
    place = _in_folder(folder, stem, "dwi")
    common = {
        "SkullStripped": False,
        "Resolution": f"{size} mm, isotropic: the resolution that the truth is known at",
        "SpatialReference": f"bids:raw:{place.relative_to(folder)}/{stem}_dwi.nii.gz",
    }
    fitted = {"Sources": [f"bids::{place.relative_to(folder)}/{start}truth_dwi.nii.gz"]}
    maps = fit_tensor(series, gradients, B0_THRESHOLD, phantom.mask)
    # Signal, mask and tissues were made, not computed from files: their lists of sources are empty.
    images: list[tuple[str, NDArray[Any], Mapping[str, Any]]] = [
        ("truth_dwi", series, {"Description": "Noise-free signal", "T1wToDwi": motion.tolist(), "Sources": []}),
        (
            "truth_FA",
            maps.fa,
            {"Description": "Fractional anisotropy of the tensor of the noise-free signal", **fitted},
        ),
        ("truth_ADC", maps.md, {"Description": "Mean diffusivity of that tensor", "Units": "mm^2/s", **fitted}),
        ("truth_colFA", colour_fa(maps, phantom.grid.affine), {"Description": "Its direction times FA", **fitted}),
        (
            "brain_mask",
            phantom.mask.astype(np.uint8),
            {"Description": "Brain with its ventricles", "Type": "Brain", "Sources": []},
        ),
        ("truth_dseg", phantom.tissue, {"Description": "1 CSF, 2 grey matter, 3 white matter", "Sources": []}),
    ]
    for name, data, sidecar in images:
        _write_image(place / f"{start}{name}.nii.gz", data, phantom.grid.affine, {**common, **sidecar})
    _write_gradients(place / f"{start}truth_dwi", gradients)


def _write_dataset_files(folder: Path) -> None:
    """What a dataset says about itself, for the raw one and for the truth."""
    truth = folder / "derivatives" / "truth"
    truth.mkdir(parents=True)
    _write_json(folder / "dataset_description.json", descriptions.RAW_DATASET)
    _write_json(truth / "dataset_description.json", descriptions.TRUTH_DATASET)
    _write_json(truth / "descriptions.json", descriptions.DESCRIPTIONS_COLUMNS)
    _write_json(folder / "participants.json", descriptions.PARTICIPANTS_COLUMNS)
    texts = {
        folder / "README.md": descriptions.RAW_README,
        folder / "participants.tsv": descriptions.PARTICIPANTS,
        truth / "README.md": descriptions.TRUTH_README,
        truth / "descriptions.tsv": descriptions.DESCRIPTIONS,
        truth / ".bidsignore": descriptions.TRUTH_IGNORED,
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def _in_folder(folder: Path, stem: str, datatype: str) -> Path:
    """The folder of a stem's files of one kind, made where needed."""
    place = folder.joinpath(*stem.split("_"), datatype)
    place.mkdir(parents=True, exist_ok=True)
    return place


def _write_image(path: Path, data: NDArray[Any], affine: NDArray[np.float64], sidecar: Mapping[str, Any]) -> None:
    """A NIfTI file in scanner coordinates, and its sidecar."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4 and "RepetitionTime" in sidecar:
        image.header.set_zooms((*image.header.get_zooms()[:3], sidecar["RepetitionTime"]))
    image.to_filename(path)
    _write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), sidecar)


def _write_gradients(stem: Path, gradients: Gradients) -> None:
    """The FSL pair of gradient files."""
    np.savetxt(f"{stem}.bval", gradients.bvals[None], fmt="%g")
    np.savetxt(f"{stem}.bvec", gradients.bvecs.T, fmt="%.6f")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON file for people to read."""
    path.write_text(json.dumps(content, indent=2) + "\n")

"""One scan stored in other ways: along other axes, and at other places in the world."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

#: Axes that are up to four degrees off right angles; with columns of length one, voxels keep their size.
SHEAR = np.array([[1, 0.06, 0], [0, 1, -0.04], [0.02, 0, 1.0]])

#: Turns and shears the whole world about its origin: head, axes and directions together.
WORLDS: Mapping[str, np.ndarray] = {
    "oblique": Rotation.from_euler("xyz", [17, -9, 24], degrees=True).as_matrix(),
    "sheared": SHEAR / np.linalg.norm(SHEAR, axis=0),
}
AXES = ("RAS", "LAS", "LPS", "PSL")


def along(image: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    """The same image in the same place, stored along other axes."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(axes))
    return image.as_reoriented(change)


def moved(image: nib.Nifti1Image, world: np.ndarray) -> nib.Nifti1Image:
    """The same voxels in another world."""
    matrix = np.eye(4)
    matrix[:3, :3] = world
    return nib.Nifti1Image(np.asanyarray(image.dataobj), matrix @ image.affine)


def bvecs_along(bvecs: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """b-vectors (n, 3) of an image whose axes were permuted and flipped from affine `old` to `new`, by counting signs.

    FSL's x runs against the first axis where the affine's determinant is positive.
    """

    def flip(affine: np.ndarray) -> np.ndarray:
        return np.array([-1 if np.linalg.det(affine[:3, :3]) > 0 else 1, 1, 1])

    signed = np.rint(np.linalg.inv(new[:3, :3] / np.linalg.norm(new[:3, :3], axis=0)) @ (
        old[:3, :3] / np.linalg.norm(old[:3, :3], axis=0)
    ))  # fmt: skip
    return (bvecs * flip(old)) @ signed.T * flip(new)


def write_variants(raw: Path, out: Path) -> None:
    """A dataset whose subjects are one scan of another dataset, stored in every way."""
    out.mkdir()
    shutil.copy(raw / "dataset_description.json", out)
    start = raw / "sub-01" / "dwi" / "sub-01_dwi"
    series, bvecs = nib.load(f"{start}.nii.gz"), np.loadtxt(f"{start}.bvec").T
    t1w = nib.load(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    base = along(series, "RAS")
    for name in (*AXES, *WORLDS):
        stored = moved(base, WORLDS[name]) if name in WORLDS else along(series, name)
        reference = base if name in WORLDS else stored
        vectors = bvecs_along(bvecs, series.affine, reference.affine)
        anatomy = moved(t1w, WORLDS[name]) if name in WORLDS else t1w
        _write_subject(out, name, stored, anatomy, vectors, Path(f"{start}.bval"))


def _write_subject(
    out: Path, name: str, series: nib.Nifti1Image, t1w: nib.Nifti1Image, bvecs: np.ndarray, bval: Path
) -> None:
    """A subject's scan."""
    folder = out / f"sub-{name}"
    for datatype in ("dwi", "anat"):
        (folder / datatype).mkdir(parents=True)
    stem = folder / "dwi" / f"sub-{name}_dwi"
    series.to_filename(f"{stem}.nii.gz")
    t1w.to_filename(folder / "anat" / f"sub-{name}_T1w.nii.gz")
    shutil.copy(bval, f"{stem}.bval")
    np.savetxt(f"{stem}.bvec", bvecs.T, fmt="%.6f")
    Path(f"{stem}.json").write_text(json.dumps({"EchoTime": 0.09}))


def canonical(image: nib.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine of an image brought along RAS by permuting and flipping alone."""
    order = io_orientation(image.affine)
    data = nib.orientations.apply_orientation(np.asarray(image.dataobj, dtype=np.float32), order)
    return data, image.affine @ inv_ornt_aff(order, image.shape[:3])

"""Small BIDS trees for tests: real folders, names and sidecars, images of a few voxels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

# One b0 and six directions that determine a tensor.
BVALS = np.array([0, 1000, 1000, 1000, 1000, 1000, 1000], float)
BVECS = np.array(
    [[0, 0, 0], [1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]], float
) / np.sqrt([[1], [2], [2], [2], [2], [2], [2]])  # fmt: skip
SIDECAR = {"PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05, "EchoTime": 0.09, "RepetitionTime": 5.0}


class Skeleton:
    """Builds a dataset file by file; every method returns the path it made.

    ``Skeleton(tmp_path).dwi("sub-01_ses-1_dir-AP")`` writes image, gradients and sidecar into ``sub-01/ses-1/dwi``.
    """

    def __init__(self, root: Path, *, name: str = "Skeleton", derivative: bool = False) -> None:
        self.root = root
        description: dict[str, Any] = {"Name": name, "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["A", "B"]}
        description["DatasetType"] = "derivative" if derivative else "raw"
        if derivative:
            description["GeneratedBy"] = [{"Name": "QSIPrep", "Version": "1.0.0"}]
        self.json("dataset_description.json", description)
        self.text("README", "A dataset made for tests.\n" * 10)

    def text(self, path: str, content: str) -> Path:
        """A text file at a path inside the dataset."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def json(self, path: str, content: dict[str, Any]) -> Path:
        """A JSON file."""
        return self.text(path, json.dumps(content))

    def image(
        self, stem: str, suffix: str, datatype: str, shape: tuple[int, ...] = (6, 6, 4), size: float = 2.0
    ) -> Path:
        """An image of ones with isotropic voxels of `size` mm, in the folder that its name calls for."""
        file = self.folder(stem) / datatype / f"{stem}_{suffix}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(np.ones(shape, np.float32), np.diag([size, size, size, 1]))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(file)
        return file

    def dwi(self, stem: str, *, gradients: bool = True, sidecar: bool = True, **image: Any) -> Path:
        """A diffusion series of seven volumes."""
        file = self.image(stem, "dwi", "dwi", **({"shape": (6, 6, 4, len(BVALS))} | image))
        relative = file.relative_to(self.root).as_posix().removesuffix(".nii.gz")
        if gradients:
            self.gradients(relative)
        if sidecar:
            self.json(f"{relative}.json", SIDECAR)
        return file

    def gradients(self, stem: str) -> tuple[Path, Path]:
        """b-values and b-vectors at a path without its extension."""
        bvals = " ".join(f"{b:g}" for b in BVALS)
        bvecs = "\n".join(" ".join(f"{x:.6f}" for x in row) for row in BVECS.T)
        return self.text(f"{stem}.bval", bvals + "\n"), self.text(f"{stem}.bvec", bvecs + "\n")

    def t1w(self, stem: str, **image: Any) -> Path:
        """A T1w image with a sidecar."""
        file = self.image(stem, "T1w", "anat", **({"shape": (8, 8, 8), "size": 1.5} | image))
        self.json(f"{file.relative_to(self.root).as_posix().removesuffix('.nii.gz')}.json", {"SkullStripped": False})
        return file

    def mask(self, stem: str, **image: Any) -> Path:
        """A brain mask of the diffusion data."""
        return self.image(stem, "mask", "dwi", **image)

    def folder(self, stem: str) -> Path:
        """Folder of the subject, or of the session, that a name belongs to."""
        return self.root.joinpath(*(part for part in stem.split("_") if part.startswith(("sub-", "ses-"))))


def qsiprep(root: Path, subject: str = "01", session: str | None = None, space: str = "ACPC") -> Skeleton:
    """A QSIPrep derivative dataset of one subject: preprocessed series, its mask, a T1w image in the same space."""
    skeleton = Skeleton(root, name="qsiprep", derivative=True)
    stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    skeleton.dwi(f"{stem}_space-{space}_desc-preproc")
    skeleton.mask(f"{stem}_space-{space}_desc-brain")
    skeleton.t1w(f"sub-{subject}" + ("_space-ACPC" if space == "ACPC" else "") + "_desc-preproc")
    return skeleton

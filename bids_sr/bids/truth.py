"""Finds the known truth of a series, which only datasets made by `bids-sr-demo` carry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from bids_sr.bids.inputs import DwiSeries
from bids_sr.geometry import Grid, same_grid


@dataclass(frozen=True)
class Truth:
    """The noise-free series at the resolution of the target grid, its brain and its tissues.

    Attributes
    ----------
    dwi, bval, bvec : Path
        Series and gradients.
    mask, tissues : Path
        Brain mask, and labels 1 CSF, 2 GM, 3 WM.
    """

    dwi: Path
    bval: Path
    bvec: Path
    mask: Path
    tissues: Path


def find_truth(series: DwiSeries, target: Grid) -> Truth | None:
    """The truth of a series in ``derivatives/truth`` of its dataset, if it is known on the target grid."""
    folder = series.dataset_root / "derivatives" / "truth" / series.dwi.parent.relative_to(series.dataset_root)
    for dwi in sorted(folder.glob(f"{series.stem}_res-*_desc-truth_dwi.nii.gz")):
        start = dwi.name.removesuffix("_desc-truth_dwi.nii.gz")
        files = (f"{start}_desc-{name}" for name in _NAMES)
        truth = Truth(*(folder / name for name in files))
        if same_grid(Grid.of(nib.load(dwi)), target) and truth.mask.is_file() and truth.tissues.is_file():
            return truth
    return None


_NAMES = ("truth_dwi.nii.gz", "truth_dwi.bval", "truth_dwi.bvec", "brain_mask.nii.gz", "truth_dseg.nii.gz")

"""A tiny series on disk, and its plan."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from bids_sr.bids.inputs import DwiSeries
from bids_sr.config import Config
from bids_sr.models.registry import CUBIC
from bids_sr.workflows.plan import plan_series

BVALS = np.array([0, 1000, 1000, 1000, 1000, 1000, 1000, 1000])
BVECS = np.array(
    [
        [0, 0, 0],
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0.7071, 0.7071, 0],
        [0.7071, 0, 0.7071],
        [0, 0.7071, 0.7071],
        [-1, 0, 0],
    ]
)


@pytest.fixture
def config(tmp_path):
    return Config(
        bids_dir=tmp_path / "in",
        output_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        scale=(2.0, 2.0, 2.0),
        model="cubic",
        device="cpu",
        nprocs=1,
        memory_gb=8.0,
        run_id="run1",
    )


@pytest.fixture
def series(tmp_path):
    """A series with a T1w, as the dataset's search gives it."""
    folder = tmp_path / "in" / "sub-01" / "dwi"
    folder.mkdir(parents=True)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    dwi, t1w = folder / "sub-01_dwi.nii.gz", folder / "sub-01_T1w.nii.gz"
    nib.Nifti1Image(np.full((6, 5, 4, 8), 100, np.int16), affine).to_filename(dwi)
    nib.Nifti1Image(np.ones((5, 5, 5), np.int16), np.eye(4)).to_filename(t1w)
    np.savetxt(folder / "sub-01_dwi.bval", BVALS[None], fmt="%d")
    np.savetxt(folder / "sub-01_dwi.bvec", BVECS.T, fmt="%.4f")
    return DwiSeries(
        dwi=dwi,
        bval=folder / "sub-01_dwi.bval",
        bvec=folder / "sub-01_dwi.bvec",
        entities={"sub": "01"},
        t1w=t1w,
        t1w_note="same session",
        dataset_root=tmp_path / "in",
        dataset_name="tiny",
    )


@pytest.fixture
def make_plan(config, series):
    """Plan of the tiny series with some options and parts replaced."""

    def make(card=CUBIC, device="cpu", options=None, **parts):
        changed = dataclasses.replace(config, **({"model": card.name} | (options or {})))
        return plan_series(dataclasses.replace(series, **parts), changed, card, device)

    return make

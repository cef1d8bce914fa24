"""A series of a dataset as a reference: its volumes, its mask, its T1w."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr import companions
from bids_sr.bids.inputs import DwiSeries
from bids_sr.dwi.gradients import tensor_rank
from bids_sr.dwi.registration import Registration
from bids_sr.errors import EmptyMaskError, MaskGridError, NotFourDimensionalError
from bids_sr.evaluation.benchmark import degrade_reference
from bids_sr.evaluation.reading import read_reference, read_t1w
from tests.evaluation.made import SHAPE, reference

REFERENCE = reference(12)
ONES = np.ones(SHAPE, np.float32)


def write(file: Path, data: np.ndarray, size: float = 2.0) -> Path:
    nib.Nifti1Image(data, np.diag([size, size, size, 1.0])).to_filename(file)
    return file


@pytest.fixture
def series(tmp_path):
    """The made series with its mask, on disk."""
    np.savetxt(tmp_path / "bval", REFERENCE.gradients.bvals[None])
    np.savetxt(tmp_path / "bvec", REFERENCE.gradients.bvecs.T)
    files = [write(tmp_path / "dwi.nii", REFERENCE.data), tmp_path / "bval", tmp_path / "bvec"]
    mask = write(tmp_path / "mask.nii", REFERENCE.mask.astype(np.uint8))
    return DwiSeries(*files, entities={"sub": "01"}, mask=mask)


def registration(agreement: float) -> Registration:
    """A shift by a world of 4 mm along x."""
    matrix = np.eye(4)
    matrix[0, 3] = 4
    return Registration(matrix, 1.0, agreement, -0.3, 0.0, 4.0, "scanner")


def test_a_series_is_read_with_the_mask_that_comes_with_it(series):
    read = read_reference(series, 50.0)
    np.testing.assert_array_equal(read.data, REFERENCE.data)
    np.testing.assert_array_equal(read.mask, REFERENCE.mask)
    np.testing.assert_allclose(read.grid.affine, REFERENCE.grid.affine)


def test_a_part_of_the_volumes_keeps_their_gradients(series):
    read = read_reference(series, 50.0, 6)
    assert read.data.shape[-1] == len(read.gradients) == 7
    for index, bvec in enumerate(read.gradients.bvecs):
        (origin,) = np.flatnonzero(np.all(np.abs(REFERENCE.gradients.bvecs - bvec) < 1e-9, axis=1))
        np.testing.assert_array_equal(read.data[..., index], REFERENCE.data[..., origin])


def test_values_that_are_not_finite_count_as_zero(series):
    data = REFERENCE.data.copy()
    data[0, 0, 0, :] = np.nan
    write(series.dwi, data)
    assert not read_reference(series, 50.0).data[0, 0, 0].any()


def test_without_a_mask_the_brain_is_looked_for(series):
    write(series.dwi, np.where(REFERENCE.mask[..., None], REFERENCE.data, 1.0).astype(np.float32))
    found = read_reference(replace(series, mask=None), 50.0).mask
    assert (found & REFERENCE.mask).sum() > 0.8 * REFERENCE.mask.sum()


def test_series_that_cannot_be_compared_are_refused(series, tmp_path):
    with pytest.raises(EmptyMaskError, match="no voxel"):
        read_reference(replace(series, mask=write(tmp_path / "empty.nii", 0 * ONES)), 50.0)
    with pytest.raises(MaskGridError):
        read_reference(replace(series, mask=write(tmp_path / "other.nii", ONES, size=1.0)), 50.0)
    with pytest.raises(NotFourDimensionalError):
        read_reference(replace(series, dwi=write(tmp_path / "flat.nii", ONES)), 50.0)


def test_volumes_are_taken_that_determine_a_tensor(series):
    bvecs = REFERENCE.gradients.bvecs.copy()
    bvecs[1::2] = [1, 0, 0]  # every other one, which are those that come first
    np.savetxt(series.bvec, bvecs.T)
    gradients = read_reference(series, 50.0, 6).gradients
    assert len(gradients) == 7
    assert tensor_rank(gradients.bvecs[1:]) == 6


def halves(folder: Path) -> Path:
    """A T1w of 1 mm, twice as fine as the series: a dark and a bright half along x."""
    image = np.where(np.arange(32)[:, None, None] < 16, 100.0, 1000.0) * np.ones((32, 28, 24))
    return write(folder / "t1w.nii", image.astype(np.float32), size=1.0)


def test_the_t1w_lies_where_the_registration_puts_it(series, tmp_path, monkeypatch):
    """Moved by one degraded voxel along x, with its voxels untouched; registered to what a run would see."""
    seen = []

    def register(b0, affine, mask, *_):
        seen.append((b0, affine, mask))
        return registration(agreement=0.5)

    degraded = degrade_reference(REFERENCE, (2.0, 2.0, 2.0))
    aligned, why = read_t1w(replace(series, t1w=halves(tmp_path), t1w_is_aligned=True), degraded, REFERENCE)
    assert why == ""
    assert aligned.voxels.shape == (32, 28, 24)
    monkeypatch.setattr(companions, "register_rigid", register)
    moved, _ = read_t1w(replace(series, t1w=tmp_path / "t1w.nii"), degraded, REFERENCE)
    np.testing.assert_array_equal(moved.voxels, aligned.voxels)
    shift = moved.grid.affine - aligned.grid.affine
    assert shift[0, 3] == 4
    assert np.count_nonzero(shift) == 1
    ((b0, affine, mask),) = seen
    assert b0.shape == mask.shape == degraded.mask.shape
    np.testing.assert_array_equal(affine, degraded.grid.affine)


def test_a_t1w_that_does_not_fit_is_left_out_and_the_reason_told(series, tmp_path, monkeypatch):
    degraded = degrade_reference(REFERENCE, (2.0, 2.0, 2.0))
    assert read_t1w(series, degraded, REFERENCE) == (None, "there is none")
    flat = replace(series, t1w=write(tmp_path / "flat.nii", ONES))
    image, why = read_t1w(flat, degraded, REFERENCE)
    assert image is None
    assert "constant" in why
    monkeypatch.setattr(companions, "register_rigid", lambda *_: registration(agreement=0.05))
    other = replace(series, t1w=halves(tmp_path))
    image, why = read_t1w(other, degraded, REFERENCE)
    assert image is None
    assert "agreement 0.05" in why
    assert read_t1w(replace(flat, t1w_is_aligned=True), degraded, REFERENCE) == (
        None, "it shows nothing where the brain is"
    )  # fmt: skip

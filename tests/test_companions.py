"""The mask and the T1w of a series: taken, refused or left out, with the reason."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from bids_sr import companions
from bids_sr.bids.inputs import DwiSeries
from bids_sr.companions import given_mask, placed_t1w
from bids_sr.dwi.registration import Registration
from bids_sr.dwi.trust import LEAST_AGREEMENT
from bids_sr.errors import EmptyMaskError, MaskGridError, T1wRegistrationError
from bids_sr.geometry import Grid

GRID = Grid((6, 5, 4), np.diag([2.0, 2.0, 2.0, 1.0]))
BRAIN = np.zeros(GRID.shape, bool)
BRAIN[1:4, 1:4, 1:3] = True
B0 = np.where(BRAIN, 100, 0).astype(np.float32)


@pytest.fixture
def mask_file(tmp_path):
    """Writes a mask."""

    def write(voxels, affine=GRID.affine):
        nib.Nifti1Image(voxels.astype(np.uint8), affine).to_filename(tmp_path / "mask.nii")
        return tmp_path / "mask.nii"

    return write


@pytest.fixture
def series(tmp_path):
    """A series with a T1w, which is not aligned."""
    t1w = tmp_path / "t1w.nii"
    nib.Nifti1Image(np.arange(8 * 7 * 6, dtype=np.float32).reshape(8, 7, 6), np.eye(4)).to_filename(t1w)
    files = [tmp_path / name for name in ("dwi.nii", "bval", "bvec")]
    return DwiSeries(*files, entities={"sub": "01"}, t1w=t1w)


def registering(monkeypatch, agreement, contrast=-0.3, coverage=1.0):
    matrix = np.eye(4)
    matrix[:3, 3] = [1, -2, 3]
    found = Registration(matrix, 1.0, agreement, contrast, 0.0, 4.0, "scanner", coverage)
    monkeypatch.setattr(companions, "register_rigid", lambda *_: found)
    return matrix


def test_a_mask_on_the_grid_of_the_series_is_taken(mask_file):
    np.testing.assert_array_equal(given_mask(mask_file(BRAIN), GRID), BRAIN)


def test_other_masks_are_refused(mask_file):
    with pytest.raises(MaskGridError):
        given_mask(mask_file(BRAIN[1:]), GRID)
    with pytest.raises(MaskGridError):
        given_mask(mask_file(BRAIN, np.eye(4)), GRID)
    with pytest.raises(EmptyMaskError, match="no voxel"):
        given_mask(mask_file(~BRAIN & BRAIN), GRID)


def test_only_the_affine_of_a_t1w_is_moved(series, monkeypatch):
    matrix = registering(monkeypatch, 0.2)
    placed = placed_t1w(series, B0, GRID, BRAIN)
    assert placed.reason == ""
    assert placed.agreement == 0.2
    np.testing.assert_array_equal(placed.image.voxels, nib.load(series.t1w).get_fdata())
    np.testing.assert_allclose(placed.image.grid.affine, matrix)


def test_an_aligned_t1w_is_not_registered(series, monkeypatch):
    monkeypatch.delattr(companions, "register_rigid")
    placed = placed_t1w(replace(series, t1w_is_aligned=True), B0, GRID, BRAIN)
    assert placed.agreement is None
    np.testing.assert_allclose(placed.image.grid.affine, np.eye(4))


@pytest.mark.parametrize(("agreement", "taken"), [(LEAST_AGREEMENT + 1e-6, True), (LEAST_AGREEMENT - 1e-3, False)])
def test_the_least_agreement_decides(series, monkeypatch, agreement, taken):
    registering(monkeypatch, agreement)
    placed = placed_t1w(series, B0, GRID, BRAIN)
    assert (placed.image is not None) == taken
    assert ("shares little" in placed.reason) != taken


def test_an_image_of_another_contrast_is_left_out(series, monkeypatch):
    registering(monkeypatch, 0.2, contrast=0.4)
    placed = placed_t1w(series, B0, GRID, BRAIN)
    assert placed.image is None
    assert "not that of a T1w" in placed.reason


def test_an_image_of_half_a_head_is_left_out(series, monkeypatch):
    registering(monkeypatch, 0.2, coverage=0.5)
    placed = placed_t1w(series, B0, GRID, BRAIN)
    assert placed.image is None
    assert "only 50% of the brain" in placed.reason


def test_without_a_t1w_or_a_registration_the_reason_is_told(series, monkeypatch):
    def failing(*_):
        raise T1wRegistrationError(reason="the T1w is constant")

    monkeypatch.setattr(companions, "register_rigid", failing)
    assert placed_t1w(series, B0, GRID, BRAIN).reason == "the T1w is constant"
    assert placed_t1w(replace(series, t1w=None), B0, GRID, BRAIN).reason == "there is none"

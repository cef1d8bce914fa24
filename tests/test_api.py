"""Restoring images in memory: what is taken, what is refused, and what is told."""

import logging
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

import bids_sr
from bids_sr import super_resolve
from bids_sr.errors import (
    CertainModelError,
    ConfigurationError,
    EmptyMaskError,
    GradientCountError,
    GradientFileError,
    InputError,
    MaskGridError,
    NotFourDimensionalError,
)
from tests.made_models import save_tiny_model

SHAPE = (10, 9, 8)
# Numbers that single precision holds, as a file does.
AFFINE = np.array([[-2.0, 0.125, 0, 30], [0.125, 2, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])
BVALS = np.array([0.0, 1000, 1000, 1000, 1000, 1000, 1000])
BVECS = np.array([[0, 0, 0], [1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]]) / np.sqrt(2)


@pytest.fixture
def scan():
    """A ball in noise."""
    distance = np.linalg.norm(np.indices(SHAPE).T - np.array(SHAPE) / 2, axis=-1).T
    b0 = np.where(distance < 4, 1000, 20)
    weights = np.where(BVALS > 0, 0.4, 1.0)
    noise = np.random.default_rng(0).uniform(0, 10, (*SHAPE, len(BVALS)))
    return nib.Nifti1Image((b0[..., None] * weights + noise).astype(np.float32), AFFINE)


@pytest.fixture
def mask(scan):
    return nib.Nifti1Image((np.asarray(scan.dataobj)[..., 0] > 500).astype(np.uint8), AFFINE)


def restore(scan, *, bvals=BVALS, bvecs=BVECS, **options):
    grid = {} if {"scale", "voxel_size"} & set(options) else {"scale": 1.5}
    return super_resolve(scan, bvals, bvecs, **{"model": "cubic", "device": "cpu"} | grid | options)


def test_gradients_may_be_arrays_either_way_round_or_files(scan, mask, tmp_path):
    np.savetxt(tmp_path / "bval", BVALS[None])
    np.savetxt(tmp_path / "bvec", BVECS.T)
    given = [(BVALS, BVECS), (BVALS.tolist(), BVECS.T.tolist()), (tmp_path / "bval", str(tmp_path / "bvec"))]
    results = [restore(scan, bvals=bvals, bvecs=bvecs, mask=mask) for bvals, bvecs in given]
    for result in results:
        np.testing.assert_allclose(result.bvecs, BVECS)
        np.testing.assert_array_equal(result.bvals, BVALS)
        np.testing.assert_array_equal(result.dwi.get_fdata(), results[0].dwi.get_fdata())


def test_images_may_be_files(scan, mask, tmp_path):
    files = {"dwi": tmp_path / "dwi.nii.gz", "mask": tmp_path / "mask.nii"}
    scan.to_filename(files["dwi"])
    mask.to_filename(files["mask"])
    found = restore(files["dwi"], mask=str(files["mask"]))
    np.testing.assert_array_equal(found.dwi.get_fdata(), restore(scan, mask=mask).dwi.get_fdata())


@pytest.mark.parametrize(
    "grid", [{"scale": 2}, {"scale": (2, 1, 1.5)}, {"voxel_size": 1.0}, {"voxel_size": [1, 2, 2.5]}]
)
def test_the_grid_is_the_one_asked_for_around_the_same_centre(scan, mask, grid):
    result = restore(scan, mask=mask, **grid)
    sizes = np.linalg.norm(AFFINE[:3, :3], axis=0)
    wanted = sizes / grid["scale"] if "scale" in grid else np.broadcast_to(grid["voxel_size"], 3)
    np.testing.assert_allclose(result.dwi.header.get_zooms()[:3], wanted, rtol=0.05)
    for image in (result.dwi, result.mask):
        centres = [i.affine @ [*(np.array(i.shape[:3]) - 1) / 2, 1] for i in (image, scan)]
        np.testing.assert_allclose(*centres, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scale": 2, "voxel_size": 1.0}, ConfigurationError, "one of scale and voxel_size"),
        ({"scale": None}, ConfigurationError, "one of scale and voxel_size"),
        ({"scale": 5}, ConfigurationError, "from 1 to 4"),
        ({"scale": (2, 2)}, ConfigurationError, "one number or three"),
        ({"voxel_size": -1}, ConfigurationError, "larger than zero"),
        ({"voxel_size": 3}, InputError, "cannot make voxels larger"),
        ({"bvals": BVALS[1:]}, GradientCountError, "6 b-values"),
        ({"bvecs": BVECS[:, :2]}, GradientFileError, r"\(7, 2\)"),
        ({"model": "no such"}, InputError, "no model named"),
        ({"device": "tpu"}, InputError, "tpu"),
        ({"uncertainty": True}, CertainModelError, "does not tell"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(scan, options, error, words):
    with pytest.raises(error, match=words) as refused:
        restore(scan, **options)
    assert "\n" not in str(refused.value)


def test_images_that_do_not_fit_are_refused(scan, mask):
    with pytest.raises(NotFourDimensionalError, match="the series"):
        restore(mask)
    with pytest.raises(MaskGridError):
        restore(scan, mask=nib.Nifti1Image(np.asarray(mask.dataobj), np.diag([2, 2, 2, 1])))
    with pytest.raises(EmptyMaskError):
        restore(scan, mask=nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE))


def test_a_model_that_uses_no_t1w_does_not_touch_it(scan, mask):
    result = restore(scan, mask=mask, t1w=nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)))
    assert result.t1w is None
    assert not result.t1w_used


def test_a_t1w_that_shows_nothing_is_told_and_logged(scan, mask, tmp_path, caplog):
    card = save_tiny_model(tmp_path, ("volume", "b0"), "b0", guided=True)
    blank = nib.Nifti1Image(np.ones((20, 20, 20), np.float32), AFFINE)
    with caplog.at_level(logging.WARNING, "bids_sr"):
        result = restore(scan, mask=mask, model=card, t1w=blank, t1w_is_aligned=True)
    assert not result.t1w_used
    assert any("did not guide the model" in warning for warning in result.warnings)
    assert set(result.warnings) <= set(caplog.messages)
    without = restore(scan, mask=mask, model=card)
    np.testing.assert_array_equal(result.dwi.get_fdata(), without.dwi.get_fdata())


def test_the_uncertainty_comes_with_the_same_series(scan, mask, tmp_path):
    card = save_tiny_model(tmp_path, ("volume", "b0", "shell"), uncertain=True)
    result = restore(scan, mask=mask, model=card, uncertainty=True)
    assert result.deviations.shape == result.dwi.shape
    assert (result.deviations.get_fdata()[np.asarray(result.mask.dataobj) > 0] > 0).all()
    np.testing.assert_array_equal(result.dwi.get_fdata(), restore(scan, mask=mask, model=card).dwi.get_fdata())


def test_progress_is_off_unless_asked_for(scan, mask, capfd):
    restore(scan, mask=mask)
    assert "volumes restored" not in capfd.readouterr().err
    restore(scan, mask=mask, progress=True)
    assert "volumes restored (cubic)" in capfd.readouterr().err


def test_the_public_names_are_there_and_nothing_else_is():
    assert {"super_resolve", "init_super_resolution_wf", "SuperResolved"} <= set(dir(bids_sr))
    for name in bids_sr.__all__:
        assert getattr(bids_sr, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bids_sr.no_such_name


def test_a_notebook_needs_no_workflow_engine():
    code = "import sys; from bids_sr import super_resolve; sys.exit(bool({'nipype', 'bids'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)

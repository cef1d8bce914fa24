"""Restoring images in memory: what is taken, what is refused, and what is told."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import bids_sr
from bids_sr import super_resolve
from bids_sr.errors import (
    CertainModelError,
    ConfigurationError,
    EmptyMaskError,
    EmptyVolumeError,
    GradientCountError,
    GradientFileError,
    InputError,
    MaskGridError,
    NotFourDimensionalError,
    NotThreeDimensionalError,
    PlaceError,
    UnreadableImageError,
    VoxelSizeError,
    VoxelTypeError,
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
        ({"bvals": "dwi.bval"}, GradientFileError, "bvecs.* is an array, and bvals is a path"),
        ({"bvecs": "dwi.bvec"}, GradientFileError, "bvals.* is an array, and bvecs is a path"),
        ({"bvals": ["a", "b"]}, GradientFileError, "bvals"),
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


def with_voxels(image, data, affine=AFFINE):
    """An image with other voxels."""
    return nib.Nifti1Image(data(np.asarray(image.dataobj)), affine)


def colours(data):
    """Voxels as an image of colours holds them."""
    return np.zeros(data.shape, [(channel, np.uint8) for channel in "RGB"])


def emptied(data):
    """A volume of the series without signal."""
    return np.where(np.arange(data.shape[-1]) == 3, 0, data)


REFUSED = [
    (lambda data: (data * np.exp(0.8j)).astype(np.complex64), VoxelTypeError, "complex numbers"),
    (colours, VoxelTypeError, "colours"),
    (lambda data: np.stack([data, data], axis=-1), (NotThreeDimensionalError, NotFourDimensionalError), "shape"),
    (lambda data: data[:0], UnreadableImageError, "shape"),
]


@pytest.mark.parametrize(("harm", "error", "words"), REFUSED, ids=["complex", "colours", "an axis more", "no voxels"])
@pytest.mark.parametrize("which", ["dwi", "mask", "t1w"])
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "file"])
def test_images_of_another_kind_are_refused_as_the_command_does(
    scan, mask, tmp_path, harm, error, words, which, stored
):
    images = {"dwi": scan, "mask": mask, "t1w": with_voxels(mask, np.float32)}
    images[which] = with_voxels(images[which], harm)
    if stored:
        images[which].to_filename(tmp_path / "file.nii")
        images[which] = tmp_path / "file.nii"
    card = save_tiny_model(tmp_path, ("volume", "b0"), "b0", guided=True)
    with pytest.raises(error, match=words) as refused:
        restore(images["dwi"], mask=images["mask"], t1w=images["t1w"], model=card)
    assert "\n" not in str(refused.value)
    assert ("file.nii" if stored else {"dwi": "the series", "mask": "the mask", "t1w": "the T1w"}[which]) in str(
        refused.value
    )


def test_a_volume_may_have_a_fourth_axis_of_one_entry(scan, mask, tmp_path):
    card, t1w = save_tiny_model(tmp_path, ("volume", "b0"), "b0", guided=True), with_voxels(mask, np.float32)
    plain = restore(scan, mask=mask, t1w=t1w, t1w_is_aligned=True, model=card)
    longer = [with_voxels(image, lambda data: data[..., None]) for image in (mask, t1w)]
    result = restore(scan, mask=longer[0], t1w=longer[1], t1w_is_aligned=True, model=card)
    assert result.t1w_used
    np.testing.assert_array_equal(result.dwi.get_fdata(), plain.dwi.get_fdata())


@pytest.mark.parametrize(
    ("data", "affine", "error"),
    [
        (emptied, AFFINE, EmptyVolumeError),
        (np.float32, np.diag([2000, 2000, 2500, 1]), VoxelSizeError),
        (np.float32, np.array([[2, 0, 2, 0], [0, 2, 2, 0], [0, 0, 0.001, 0], [0, 0, 0, 1]]), PlaceError),
        (np.float32, None, PlaceError),
    ],
)
def test_a_series_without_signal_or_place_is_refused(scan, data, affine, error):
    with pytest.raises(error, match="the series"):
        restore(with_voxels(scan, data, affine))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_files_that_are_missing_or_damaged_are_refused(scan, tmp_path, ending):
    file = tmp_path / f"dwi{ending}"
    with pytest.raises(UnreadableImageError, match="dwi"):
        restore(file)
    scan.to_filename(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UnreadableImageError, match="dwi"):
        restore(file)
    opened = nib.load(file)
    file.unlink()
    with pytest.raises(UnreadableImageError, match="dwi"):
        restore(opened)
    with pytest.raises(ConfigurationError, match="a nibabel image"):
        restore(np.asarray(scan.dataobj))


def test_images_need_not_be_nifti(scan, mask, tmp_path):
    other = nib.MGHImage(np.asarray(mask.dataobj), AFFINE)
    other.to_filename(tmp_path / "mask.mgz")
    expected = restore(scan, mask=mask).dwi.get_fdata()
    for given in (other, tmp_path / "mask.mgz"):
        np.testing.assert_array_equal(restore(scan, mask=given).dwi.get_fdata(), expected)


def test_what_the_command_warns_of_before_and_while_it_runs_is_told(scan, mask, tmp_path, caplog):
    """A strong weighting, a volume on another scale, a mask of everything, an orientation that is not told."""
    card = save_tiny_model(tmp_path, ("volume", "b0", "shell"))
    known = json.loads(Path(card).read_text())
    known["training"] = {"range": {"bvals": [900, 3000], "voxel_sizes": [0.5, 4]}, "patches": {"scale_range": [1, 4]}}
    Path(card).write_text(json.dumps(known))
    assert not [w for w in restore(scan, mask=mask, model=card).warnings if "ml, unlikely" not in w]

    data = np.asarray(scan.dataobj) * np.where(np.arange(len(BVALS)) == 4, 20, 1).astype(np.float32)
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape)
    header.set_zooms((2, 2, 2.5, 1))
    odd = nib.Nifti1Image(data, None, header)
    odd.to_filename(tmp_path / "dwi.nii.gz")
    whole = nib.Nifti1Image(np.ones(SHAPE, np.uint8), nib.load(tmp_path / "dwi.nii.gz").affine)
    with caplog.at_level(logging.WARNING, "bids_sr"):
        told = restore(tmp_path / "dwi.nii.gz", bvals=BVALS * 9, mask=whole, model=card).warnings
    for words in ("dwi.nii.gz does not tell", "b = 9000 s/mm2 (trained on 900", "4 (b = 9000", "whole field of view"):
        assert any(words in warning for warning in told), words
    assert set(told) <= set(caplog.messages)


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

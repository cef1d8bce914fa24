"""What is written is read again, and a damaged image is told."""

import nibabel as nib
import numpy as np
import pytest

from bids_sr.errors import UnreadableImageError
from bids_sr.images import load_array, load_grid, load_mask, load_volume, save_working

AFFINE = np.array([[0, -2.0, 0, 7], [1.5, 0, 0, -3], [0, 0, 2.5, 11], [0, 0, 0, 1]])


def test_what_was_saved_is_loaded(tmp_path):
    data = np.random.default_rng(0).random((4, 3, 2)).astype(np.float32)
    file = save_working(data, AFFINE, tmp_path, "data")
    np.testing.assert_array_equal(load_array(file), data)
    grid = load_grid(file)
    assert grid.shape == data.shape
    np.testing.assert_allclose(grid.affine, AFFINE)


def test_a_mask_is_true_where_it_is_one(tmp_path):
    mask = np.random.default_rng(0).random((4, 3, 2)) > 0.5
    file = save_working(mask, AFFINE, tmp_path, "mask")
    np.testing.assert_array_equal(load_mask(file), mask)
    assert nib.load(file).get_data_dtype() == np.uint8


def test_a_fourth_axis_of_one_entry_is_none(tmp_path):
    data = np.random.default_rng(0).random((4, 3, 2)).astype(np.float32)
    file = tmp_path / "volume.nii.gz"
    nib.Nifti1Image(data[..., None], AFFINE).to_filename(file)
    np.testing.assert_array_equal(load_volume(file), data)
    np.testing.assert_array_equal(load_mask(file), data > 0.5)


def test_a_damaged_image_is_the_users_error(tmp_path):
    whole, broken = tmp_path / "whole.nii.gz", tmp_path / "t1w.nii.gz"
    nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8)), AFFINE).to_filename(whole)
    broken.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(UnreadableImageError, match="t1w"):
        load_array(broken)

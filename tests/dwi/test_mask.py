"""A bright ball in the dark is found, whatever its grid."""

import numpy as np
import pytest

from bids_sr.dwi.mask import block_average, brain_mask, fill_slices, largest_piece
from bids_sr.errors import EmptyMaskError


def scaling(voxel_sizes):
    """The affine of an image with these voxel sizes."""
    return np.diag([*voxel_sizes, 1.0])


def ball(shape, voxel_sizes, radius=60.0):
    """A ball of `radius` mm around the middle of the grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, voxel_sizes, strict=True)]
    squares = sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij"))
    return squares < radius**2


@pytest.mark.parametrize(
    ("shape", "voxel_sizes"),
    [((80, 81, 60), (2.0, 2.0, 2.5)), ((41, 43, 24), (3.5, 3.5, 6.0)), ((60, 60, 30), (2.5, 2.5, 5.0))],
)
def test_a_noisy_ball_is_found(shape, voxel_sizes):
    truth = ball(shape, voxel_sizes)
    noise = np.random.default_rng(0).normal(0, 30, shape)
    found = brain_mask(np.abs(1000 * truth + noise), scaling(voxel_sizes))
    assert found.dtype == bool
    # A median filter wears off what is convex: four passes take 2 mm of this ball.
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_the_unit_of_the_image_does_not_matter():
    image = 1000 * ball((40, 40, 40), (4, 4, 4)) + np.random.default_rng(0).uniform(0, 50, (40, 40, 40))
    affine = scaling((4, 4, 4))
    np.testing.assert_array_equal(brain_mask(image, affine), brain_mask(image * 1e-3, affine))


def test_small_pieces_are_left_out_and_holes_filled():
    truth = ball((50, 50, 50), (4, 4, 4))
    image = 1000.0 * truth
    image[22:28, 22:28, 22:28] = 0
    image[2:7, 2:7, 2:7] = 1000
    found = brain_mask(image, scaling((4.0, 4, 4)))
    assert found[25, 25, 25]
    assert not found[4, 4, 4]


@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 4, 3), (64, 64, 1), (7, 30, 2)])
def test_tiny_and_flat_grids_give_a_mask_of_their_shape(shape):
    image = np.zeros(shape)
    image[tuple(slice(n // 4, n - n // 4) for n in shape[:2])] = 100
    image.flat[0] = 0
    image.flat[-1] = 100
    assert brain_mask(image, scaling((3.0, 3, 3))).shape == shape


@pytest.mark.parametrize("image", [np.zeros((8, 8, 8)), np.full((8, 8, 8), 7.0), np.full((8, 8, 8), np.nan)])
def test_an_image_without_contrast_is_refused(image):
    with pytest.raises(EmptyMaskError, match="equal"):
        brain_mask(image, scaling((2.0, 2, 2)))


def test_block_averages_keep_the_mean_and_repeat_the_edge():
    image = np.arange(24.0).reshape(4, 3, 2)
    np.testing.assert_allclose(block_average(image, np.array([4, 3, 2])), image.mean())
    assert block_average(image, np.array([3, 1, 1])).shape == (2, 3, 2)


def test_the_largest_piece_of_nothing_is_nothing():
    assert not largest_piece(np.zeros((3, 3, 3), bool)).any()


def test_a_hole_that_opens_at_the_last_slice_is_filled():
    mask = np.ones((5, 5, 4), bool)
    mask[2, 2, 2:] = False
    assert fill_slices(mask).all()

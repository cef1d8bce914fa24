"""A made head that was moved is moved back."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from bids_sr.dwi.registration import _coverage, _rank_correlation, _Volume, register_rigid
from bids_sr.errors import T1wRegistrationError

T1W_AFFINE = np.array([[0, 0, 3.0, -98.0], [3.0, 0, 0, -120], [0, 3.0, 0, -125], [0, 0, 0, 1]])
B0_AFFINE = np.array([[-4.0, 0, 0, 90], [0, 4, 0, -108], [0, 0, 5.0, -70], [0, 0, 0, 1]])

#: Name of each part of the head: centre and half axes in mm, and its T1w and b0 signal. Later parts cover earlier ones.
PARTS = {
    "neck": ((0, -15, -95), (50, 55, 60), 90, 10),
    "scalp": ((0, 0, 0), (84, 100, 80), 120, 15),
    "skull": ((0, 0, 0), (77, 93, 73), 10, 5),
    "fluid": ((0, 0, 0), (72, 88, 68), 25, 100),
    "grey": ((0, 0, 2), (69, 85, 64), 60, 60),
    "white left": ((-32, -5, 8), (24, 60, 38), 90, 40),
    "white right": ((33, 4, 6), (26, 52, 42), 90, 40),
    "ventricle": ((-9, 8, 12), (6, 30, 12), 25, 100),
    "other ventricle": ((10, -4, 10), (5, 22, 14), 25, 100),
    "nucleus": ((22, 25, -8), (10, 14, 9), 62, 55),
    "cerebellum": ((-4, -52, -42), (40, 22, 16), 70, 52),
    "eye": ((28, 90, -30), (12, 12, 12), 20, 60),
}


def points_of(shape, affine):
    return np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]


def paint(shape, affine, column):
    """The head on a grid: column 2 of the parts is its T1w, 3 its b0."""
    points, image = points_of(shape, affine), np.zeros(np.prod(shape))
    for part in PARTS.values():
        image[np.sum(((points - part[0]) / part[1]) ** 2, axis=1) < 1] = part[column]
    return gaussian_filter(image.reshape(shape), 0.6)


@pytest.fixture(scope="module")
def head():
    """b0, mask and T1w of one head, each with its coil's shading and some noise."""
    rng = np.random.default_rng(0)
    b0, t1w = paint((46, 54, 29), B0_AFFINE, 3), paint((84, 84, 66), T1W_AFFINE, 2)
    b0 = b0 * np.linspace(0.7, 1.3, 54)[None, :, None] + rng.normal(0, 3, b0.shape)
    t1w = t1w * np.linspace(1.4, 0.6, 84)[:, None, None] + rng.normal(0, 3, t1w.shape)
    points = points_of(b0.shape, B0_AFFINE)
    mask = np.sum((points / (72, 88, 68)) ** 2, axis=1).reshape(b0.shape) < 1
    return b0, mask, t1w


def motion(rotation_vector, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def error_in_the_brain(mask, residual):
    """Mean distance (mm) that a matrix which should be the identity moves the brain."""
    points = np.argwhere(mask) @ B0_AFFINE[:3, :3].T + B0_AFFINE[:3, 3]
    return np.linalg.norm(points @ residual[:3, :3].T + residual[:3, 3] - points, axis=1).mean()


@pytest.mark.parametrize("offset", [motion([9, -8, 9], [-12, 12, 10])])
def test_a_moved_head_is_moved_back(head, offset):
    b0, mask, t1w = head
    found = register_rigid(b0, B0_AFFINE, mask, t1w, offset @ T1W_AFFINE)
    assert error_in_the_brain(mask, found.matrix @ offset) < 1
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert found.rotation_degrees == pytest.approx(np.degrees(Rotation.from_matrix(offset[:3, :3]).magnitude()), abs=1)
    assert 0.1 < found.agreement <= 1
    assert found.mutual_information > 0


def test_a_mask_full_of_holes_serves(head):
    b0, mask, t1w = head
    sparse = np.zeros_like(mask)
    sparse[::2, ::2] = mask[::2, ::2]
    offset = motion([5, 0, 0], [4, 0, 0])
    found = register_rigid(b0, B0_AFFINE, sparse, t1w, offset @ T1W_AFFINE)
    assert error_in_the_brain(mask, found.matrix @ offset) < 2


def test_worlds_that_have_nothing_in_common_are_joined(head):
    b0, mask, t1w = head
    offset = motion([0, 0, 0], [150, -300, 900])
    found = register_rigid(b0, B0_AFFINE, mask, t1w, offset @ T1W_AFFINE, sloppy=True)
    assert found.start == "head"
    assert error_in_the_brain(mask, found.matrix @ offset) < 1


def test_the_same_input_gives_the_same_motion_in_any_unit(head):
    b0, mask, t1w = head
    once = register_rigid(b0, B0_AFFINE, mask, t1w, T1W_AFFINE, sloppy=True)
    again = register_rigid(b0, B0_AFFINE, mask, t1w, T1W_AFFINE, sloppy=True)
    np.testing.assert_array_equal(once.matrix, again.matrix)
    scaled = register_rigid(64 * b0, B0_AFFINE, mask, t1w / 128, T1W_AFFINE, sloppy=True)
    assert error_in_the_brain(mask, scaled.matrix @ np.linalg.inv(once.matrix)) < 0.1


def test_voxels_that_are_not_finite_do_no_harm(head):
    b0, mask, t1w = head
    holed = t1w.copy()
    holed[40, 40, 30:35] = np.nan
    found = register_rigid(b0, B0_AFFINE, mask, holed, T1W_AFFINE, sloppy=True)
    assert error_in_the_brain(mask, found.matrix) < 1


def test_strangers_agree_less(head):
    b0, mask, t1w = head
    own = register_rigid(b0, B0_AFFINE, mask, t1w, T1W_AFFINE, sloppy=True)
    stranger = register_rigid(b0, B0_AFFINE, mask, t1w[::-1, :, ::-1], T1W_AFFINE, sloppy=True)
    assert stranger.agreement < 0.8 * own.agreement


def test_an_inverted_contrast_is_told_and_lies_where_the_other_does(head):
    b0, mask, t1w = head
    own = register_rigid(b0, B0_AFFINE, mask, t1w, T1W_AFFINE, sloppy=True)
    inverted = register_rigid(
        b0, B0_AFFINE, mask, np.where(t1w > 0.05 * t1w.max(), 1.2 * t1w.max() - t1w, 0), T1W_AFFINE, sloppy=True
    )
    assert own.contrast < 0 < 0.1 < inverted.contrast
    assert error_in_the_brain(mask, inverted.matrix @ np.linalg.inv(own.matrix)) < 1


@pytest.mark.parametrize("rows", [slice(0, 84), slice(0, 42), slice(30, 84)])
def test_how_much_of_the_brain_a_cropped_t1w_shows_is_told(head, rows):
    """The T1w's second voxel axis runs from feet to head."""
    _, mask, t1w = head
    cropped = T1W_AFFINE.copy()
    cropped[:3, 3] += rows.start * T1W_AFFINE[:3, 1]
    offset = motion([0, 0, 0], [150, -300, 900])
    found = _coverage(offset, _Volume(mask, B0_AFFINE), _Volume(t1w[:, rows], offset @ cropped))
    height = np.argwhere(mask) @ B0_AFFINE[2, :3] + B0_AFFINE[2, 3]
    low, high = (-125 + 3 * (edge - 0.5) for edge in (rows.start, rows.stop))
    assert found == pytest.approx(np.mean((height > low) & (height < high)))


@pytest.mark.parametrize(
    ("joint", "expected"), [(np.eye(5) / 5, 1), (np.eye(5)[::-1] / 5, -1), (np.full((4, 4), 1 / 16), 0)]
)
def test_the_rank_correlation_of_known_distributions(joint, expected):
    assert _rank_correlation(joint) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("broken", ["t1w", "b0", "mask"])
def test_empty_images_are_refused(head, broken):
    images = dict(zip(("b0", "mask", "t1w"), head, strict=True))
    images[broken] = np.zeros_like(images[broken])
    with pytest.raises(T1wRegistrationError):
        register_rigid(images["b0"], B0_AFFINE, images["mask"], images["t1w"], T1W_AFFINE)

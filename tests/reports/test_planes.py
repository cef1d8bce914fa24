"""Cuts show whole voxels, at the right place, the right way round, for any orientation of the image."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform

from bids_sr.geometry import Grid
from bids_sr.reports import planes
from tests.reports.brains import AFFINE, ellipsoid

SHAPE = (20, 22, 13)
ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


def reoriented(volume, affine, order, flips):
    """The same image with its axes in another order and direction."""
    start = np.array([[0, 1], [1, 1], [2, 1]])
    end = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)])
    transform = ornt_transform(start, end)
    return apply_orientation(volume, transform), affine @ inv_ornt_aff(transform, volume.shape)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_a_cut_does_not_depend_on_how_the_image_is_stored(order, flips):
    volume = np.random.default_rng(1).random(SHAPE)
    mask = ellipsoid(SHAPE, AFFINE)
    other, affine = reoriented(volume, AFFINE, order, flips)
    other_mask, _ = reoriented(mask, AFFINE, order, flips)
    frames = planes.make_frame(AFFINE, mask), planes.make_frame(affine, other_mask)
    for plane in planes.PLANES:
        expected, found = planes.cut(frames[0], volume, AFFINE, plane), planes.cut(frames[1], other, affine, plane)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        np.testing.assert_allclose(found.box, expected.box, atol=1e-9)


@pytest.mark.parametrize("plane", planes.PLANES, ids=lambda plane: plane.name)
def test_letters_tell_the_truth(plane):
    """World coordinates as values: they must grow towards the letter that stands for growth."""
    frame = planes.make_frame(AFFINE, ellipsoid(SHAPE, AFFINE))
    world = apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))
    axes = {
        letter: (axis, sign)
        for axis, pair in enumerate(("RL", "AP", "SI"))
        for letter, sign in zip(pair, (1, -1), strict=True)
    }
    pixels = planes.cut(frame, world, AFFINE, plane).pixels
    left, top = axes[plane.left], axes[plane.top]
    assert (np.sign(pixels[:, 0, left[0]] - pixels[:, -1, left[0]]) == left[1]).all()
    assert (np.sign(pixels[0, :, top[0]] - pixels[-1, :, top[0]]) == top[1]).all()


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.floats(0.4, 3.0)] * 3))
def test_a_finer_grid_is_drawn_at_the_same_place(scale):
    """The centre of mass of a ball lies at the same spot of the window on every grid, to a fraction of a voxel."""
    grid = Grid(SHAPE, AFFINE)
    fine = grid.scaled(np.array(scale))
    frame = planes.make_frame(AFFINE, ellipsoid(SHAPE, AFFINE))
    for plane in planes.PLANES:
        shown = [planes.cut(frame, ellipsoid(g.shape, g.affine, 12.0), g.affine, plane) for g in (grid, fine)]
        coarse, other = (centre_in_window(cut, frame.window(plane)) for cut in shown)
        assert np.abs(coarse - other).max() < 1.6


def centre_in_window(cut, window):
    """Centre of mass of a cut in mm from the window's left and top."""
    rows, columns = np.nonzero(cut.pixels)
    left, top, width, height = cut.box
    height_of, width_of = cut.pixels.shape
    return np.array(
        [
            (left + width * (columns.mean() + 0.5) / width_of) * window.size[0],
            (top + height * (rows.mean() + 0.5) / height_of) * window.size[1],
        ]
    )


def test_pixels_have_the_shape_of_voxels():
    frame = planes.make_frame(AFFINE, ellipsoid(SHAPE, AFFINE))
    for plane in planes.PLANES:
        shown, window = planes.cut(frame, np.zeros(SHAPE), AFFINE, plane), frame.window(plane)
        height, width = shown.pixels.shape
        sizes = np.array(window.size) * [shown.box[2] / width, shown.box[3] / height]
        np.testing.assert_allclose(sizes, frame.voxel_sizes[[plane.column, plane.row]])


def test_the_frame_sits_at_the_centre_of_mass():
    mask = ellipsoid(SHAPE, AFFINE)
    frame = planes.make_frame(AFFINE, mask)
    centre = apply_affine(AFFINE, np.argwhere(mask).mean(axis=0))
    assert (np.abs(frame.world(frame.centre) - centre) <= frame.voxel_sizes / 2 + 1e-9).all()


def test_an_empty_mask_shows_everything():
    frame = planes.make_frame(AFFINE, np.zeros(SHAPE, dtype=bool))
    np.testing.assert_allclose(frame.high - frame.low, np.array(SHAPE) * frame.voxel_sizes)


def test_the_enlarged_region_finds_the_detail():
    affine = np.diag([1.0, 1, 1, 1])
    mask = np.ones((120, 120, 120), dtype=bool)
    values = np.zeros(mask.shape)
    values[88:104:4, 18:30, :] = 1  # stripes at high x (left of the picture) and low y (its bottom)
    frame = planes.make_frame(affine, mask)
    axial = planes.PLANES[2]
    found = planes.most_detailed(frame, values, mask, affine, axial)
    assert found.low[0] < 88 and found.high[0] > 104 and found.low[1] < 18 and found.high[1] > 30
    np.testing.assert_allclose(found.size, planes.ZOOM)


def test_sampling_reads_a_world_ramp_exactly():
    """A T1w of any pose whose value is its world x gives the world x of each pixel."""
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, [-30, -35, -30]
    ramp = apply_affine(affine, np.moveaxis(np.indices((70, 70, 70)), 0, -1))[..., 0]
    frame = planes.make_frame(AFFINE, ellipsoid(SHAPE, AFFINE))
    axial = planes.PLANES[2]
    sampled = planes.sample_plane(frame, axial, ramp, affine, 1.0, order=1)
    high, low = frame.window(axial).high[0], frame.window(axial).low[0]
    edges = [frame.world(np.array([x, 0.0, 0.0]))[0] for x in (high, low)]
    width = (edges[0] - edges[1]) / sampled.shape[1]
    np.testing.assert_allclose(sampled[5, [0, -1]], [edges[0] - width / 2, edges[1] + width / 2], atol=1e-3)

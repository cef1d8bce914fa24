"""A network on a fixed grid answers at any point, and gives at its voxels what it computed there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bids_sr.models.base import Lattice
from bids_sr.models.convolutional import InterpolatedRDN
from bids_sr.models.grid import GridNetwork, interpolate, working_grid
from bids_sr.models.interpolation import CubicSpline
from tests.models.networks import SMALL, small

ANYWHERE = Lattice((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def silent(channels=1):
    """A network that gives back the interpolated volume."""
    return InterpolatedRDN(channels, features=2, growth=2, blocks=1, layers=1, residual=True)


def voxels_of(lattice, shape):
    axes = [o + c * np.arange(n) for o, c, n in zip(lattice.origin, lattice.cell, shape, strict=True)]
    return torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32))


@torch.inference_mode()
@pytest.mark.parametrize("scale", [None, 2, 2.5])
def test_at_its_voxels_a_model_gives_what_the_network_gave(scale):
    network, channels = small("rescnn3d"), torch.rand(2, 2, 6, 7, 5)
    lattice = Lattice((0.1, -0.2, 3.3), (0.4, 0.5, 0.8))
    model = GridNetwork(network, scale)
    encoded = model.encode(channels, lattice)
    nodes, shape = working_grid((6, 7, 5), lattice, scale)
    positions = [
        torch.from_numpy(o + c * np.arange(n))[None] for o, c, n in zip(nodes.origin, nodes.cell, shape, strict=True)
    ]
    computed = network(interpolate(channels, positions)).flatten(1)
    found = model.query(encoded, voxels_of(nodes, shape), torch.tensor(nodes.cell))
    np.testing.assert_allclose(found, computed, atol=2e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", SMALL)
def test_training_and_inference_agree(name):
    channels, model = torch.rand(2, 2, 5, 5, 5), GridNetwork(small(name), 3)
    nodes, shape = working_grid((5, 5, 5), ANYWHERE, 3)
    points, cell = voxels_of(nodes, shape), torch.full((3,), 1 / 3)
    trained = model(channels, points.expand(2, -1, -1), cell.expand(2, -1))
    np.testing.assert_allclose(model.query(model.encode(channels, nodes), points, cell), trained, atol=2e-5)


def test_patches_of_a_batch_may_be_asked_at_different_places():
    model, channels = GridNetwork(silent()), torch.rand(2, 1, 6, 6, 6)
    nodes, shape = working_grid((6, 6, 6), ANYWHERE, 2)
    points = torch.stack([voxels_of(nodes, shape), voxels_of(nodes, shape) + torch.tensor([0.0, 0.1, 0.3])])
    values = model(channels, points, torch.full((2, 3), 0.5)).detach()
    for found, volume, where in zip(values, channels[:, 0].numpy(), points.numpy(), strict=True):
        inside = np.clip(where.T, 0, 5)
        np.testing.assert_allclose(found, ndimage.map_coordinates(volume, inside, order=3, mode="mirror"), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.tuples(*[st.floats(0.2, 1)] * 3),
    st.sampled_from([None, 1, 2, 3, 2.5]),
)
def test_the_working_grid_fills_the_box(shape, origin, cell, scale):
    nodes, fine = working_grid(shape, Lattice(origin, cell), scale)
    for axis in range(3):
        first, last = nodes.origin[axis], nodes.origin[axis] + nodes.cell[axis] * (fine[axis] - 1)
        assert first - nodes.cell[axis] < -0.5 + 1e-3
        assert last + nodes.cell[axis] > shape[axis] - 0.5 - 1e-3
        if scale is None:
            steps = (first - origin[axis]) / cell[axis]
            assert steps == pytest.approx(round(steps), abs=1e-6)
            assert -0.51 <= first <= last <= shape[axis] - 0.49


def test_the_cells_of_a_fixed_scale_are_aligned():
    nodes, shape = working_grid((4, 4, 4), ANYWHERE, 2)
    assert nodes.origin == (-0.25, -0.25, -0.25)
    assert shape == (8, 8, 8)


@torch.inference_mode()
def test_without_a_scale_the_network_runs_on_the_lattice_asked_for():
    channels, points = torch.rand(1, 1, 9, 9, 9), voxels_of(Lattice((0.2,) * 3, (0.7,) * 3), (12, 12, 12))
    exact = CubicSpline().query(CubicSpline().encode(channels, ANYWHERE), points, torch.ones(3))
    lattice = Lattice((0.2, 0.2, 0.2), (0.7, 0.7, 0.7))
    model = GridNetwork(silent())
    found = model.query(model.encode(channels, lattice), points, torch.full((3,), 0.7))
    np.testing.assert_allclose(found, exact, atol=2e-5)
    # On the fixed grid of 2x, the same points lie between voxels.
    fixed = GridNetwork(silent(), 2)
    between = fixed.query(fixed.encode(channels, lattice), points, torch.full((3,), 0.7))
    assert 1e-4 < (between - exact).abs().max() < 0.3


@torch.inference_mode()
@pytest.mark.parametrize("name", SMALL)
def test_what_lies_beyond_the_radius_changes_nothing(name):
    model, channels = GridNetwork(small(name), 2), torch.rand(1, 2, 40, 5, 5)
    point = torch.tensor([[2.3, 2, 2]])
    value = model.query(model.encode(channels, ANYWHERE), point, torch.full((3,), 0.5))
    channels[:, :, 3 + model.radius :] += 1
    changed = model.query(model.encode(channels, ANYWHERE), point, torch.full((3,), 0.5))
    np.testing.assert_allclose(changed, value, atol=1e-5)


@torch.inference_mode()
def test_mixed_precision_leaves_the_interpolation_alone():
    channels = torch.rand(1, 1, 6, 6, 6)
    nodes, shape = working_grid((6, 6, 6), ANYWHERE, 2)
    arguments = channels, voxels_of(nodes, shape)[None], torch.full((1, 3), 0.5)
    full = GridNetwork(silent())(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = GridNetwork(silent())(*arguments)
    np.testing.assert_allclose(mixed, full, atol=1e-6)


def test_what_a_grid_network_cannot_do_is_said():
    model, channels = GridNetwork(silent()), torch.rand(2, 1, 4, 4, 4)
    with pytest.raises(ValueError, match="needs all of them"):
        model(channels, torch.rand(2, 100, 3), torch.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="one scale per batch"):
        model(channels, torch.rand(2, 512, 3), torch.tensor([[0.5] * 3, [0.25] * 3]))
    with pytest.raises(ValueError, match="below 1"):
        GridNetwork(silent(), 0.5)

"""Voxels see those of their window, in the volume as in any part of it that begins with a window."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_sr.models.registry import count_parameters
from bids_sr.models.transformer import (
    CONVOLUTION,
    Swin3D,
    WindowAttention,
    WindowLayer,
    reach,
    relative_positions,
    windows_of,
)
from tests.models.networks import small

CPU = torch.device("cpu")
shapes = st.tuples(*[st.integers(1, 11)] * 3)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def window_numbers(shape, edge, shift):
    """Which window each voxel lies in, on a grid without end, (h, w, d, 3)."""
    axes = (torch.arange(n) for n in shape)
    return torch.stack(torch.meshgrid(*((axis - shift) // edge for axis in axes), indexing="ij"), dim=-1)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([(2, 0), (2, 1), (4, 0), (4, 2)]))
def test_voxels_see_those_of_their_window_and_no_others(shape, window):
    edge, shift = window
    windows, numbers = windows_of(shape, edge, shift, CPU), window_numbers(shape, edge, shift).flatten(0, 2)
    # Which voxels of the volume see each other, by way of the windows' regions.
    identity = torch.arange(windows.voxels.shape[0])[:, None] * 27 + windows.regions
    found = identity.flatten()[windows.places.long()]
    same = (numbers[:, None] == numbers[None]).all(dim=2)
    assert torch.equal(found[:, None] == found[None], same)
    # Each place holds its voxel, and nothing that was filled up is seen from there.
    assert torch.equal(windows.voxels.flatten()[windows.places.long()], torch.arange(len(numbers), dtype=torch.int32))
    filled = torch.ones(windows.voxels.numel(), dtype=torch.bool)
    filled[windows.places.long()] = False
    assert not set(identity.flatten()[filled].tolist()) & set(found.tolist())
    assert torch.equal(windows.mixed, (windows.regions != windows.regions[:, :1]).any(dim=1))


@pytest.mark.parametrize("edge", [2, 4])
def test_voxels_at_the_same_offset_share_their_bias(edge):
    offsets = relative_positions(edge)
    places = list(itertools.product(range(edge), repeat=3))
    known = {}
    for (i, one), (j, other) in itertools.product(enumerate(places), repeat=2):
        offset = tuple(a - b for a, b in zip(one, other, strict=True))
        assert known.setdefault(offset, int(offsets[i, j])) == offsets[i, j]
    assert sorted(known.values()) == list(range((2 * edge - 1) ** 3))


def test_the_attention_is_that_of_the_paper():
    torch.manual_seed(0)
    attention, x = WindowAttention(6, 2, 2).double(), torch.randn(3, 8, 6, dtype=torch.float64)
    torch.nn.init.normal_(attention.bias)
    seen = torch.rand(3, 8, 8) > 0.4
    seen |= torch.eye(8, dtype=torch.bool)
    read = attention.read(x).chunk(3, dim=2)
    heads = []
    for head in range(2):
        q, k, v = (part[:, :, 3 * head : 3 * head + 3] for part in read)
        weights = q @ k.transpose(1, 2) / 3**0.5 + attention.bias[attention.offsets][:, :, head]
        heads.append(weights.masked_fill(~seen, -torch.inf).softmax(dim=2) @ v)
    torch.testing.assert_close(attention(x, seen), attention.give(torch.cat(heads, dim=2)))


@torch.no_grad()
@pytest.mark.parametrize("shift", [0, 2])
def test_a_layer_changes_the_window_of_a_voxel_and_nothing_else(shift):
    torch.manual_seed(0)
    layer, volume = WindowLayer(4, 2, 4, shift), torch.randn(2, 4, 7, 5, 6)
    moved = volume.clone()
    moved[:, :, 3, 1, 5] += torch.randn(4)
    changed = (layer(moved) != layer(volume)).any(dim=1)
    numbers = window_numbers((7, 5, 6), 4, shift)
    assert torch.equal(changed, (numbers == numbers[3, 1, 5]).all(dim=3).expand(2, -1, -1, -1))


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (4, 5, 9), (8, 4, 12)])
def test_any_shape_will_do(shape):
    found = small("swin3d")(torch.rand(2, 2, *shape))
    assert found.shape == (2, 1, *shape)
    assert found.isfinite().all()


def test_windows_of_an_inference_can_be_trained_with():
    network, volume = small("swin3d"), torch.rand(1, 2, 5, 9, 3)
    windows_of.cache_clear()
    with torch.inference_mode():
        network(volume)
    network(volume).sum().backward()
    assert network.groups[0].layers[0].attention.bias.grad.any()


@pytest.mark.parametrize("arguments", [{}, {"features": 12, "groups": 3, "layers": 5, "heads": 3, "window": 6}])
def test_the_parameters_are_those_of_its_layers(arguments):
    sizes = {"features": 64, "groups": 4, "layers": 2, "heads": 4, "window": 4} | arguments
    width, offsets = sizes["features"], (2 * sizes["window"] - 1) ** 3
    convolution = 27 * width**2 + width
    # Queries, keys, values and their mix; two layers of twice the width; two normalizations; biases.
    layer = 4 * (width + 1) * width + (4 * width + 3) * width + 4 * width + offsets * sizes["heads"]
    ends = 27 * 2 * width + width + 27 * width + 1
    expected = ends + convolution + sizes["groups"] * (sizes["layers"] * layer + convolution)
    with torch.device("meta"):
        assert count_parameters(Swin3D(2, **arguments)) == expected


def test_how_far_windows_and_convolutions_reach():
    assert reach([CONVOLUTION] * 3, 4) == 3
    assert reach([0], 4) == reach([2], 4) == 3
    # Half a window further with each shift; a convolution in between may open another window.
    assert reach([0, 2], 4) == 5
    assert reach([0, 2, 0, 2], 4) == 9
    assert reach([0, CONVOLUTION, 0], 4) == 7


@torch.no_grad()
def test_bfloat16_is_enough():
    network, volume = small("swin3d"), torch.rand(1, 2, 9, 6, 7)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(volume)
    torch.testing.assert_close(found.float(), network(volume), atol=0.05, rtol=0.05)

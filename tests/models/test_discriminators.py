"""Discriminators score patches of any size, each by itself."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from bids_sr.models.discriminators import (
    DISCRIMINATORS,
    no_normalization,
    patch_discriminator,
    patch_normalization,
    spectrally_normalized,
    srgan_discriminator,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("shape", [(1, 1, 7, 7, 7), (2, 1, 16, 12, 9), (3, 1, 1, 2, 3)])
def test_patches_of_any_shape_are_scored_each_by_itself(name, shape):
    network = DISCRIMINATORS[name](4, patch_normalization)
    patches = torch.randn(shape)
    scores = network(patches)
    assert len(scores) == shape[0]
    for patch, score in zip(patches, scores, strict=True):
        torch.testing.assert_close(network(patch[None])[0], score)


def test_that_of_srgan_has_eight_convolutions_of_its_widths_and_strides():
    network = srgan_discriminator(64, no_normalization)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [layer.stride[0] for layer in convolutions] == [1, 2] * 4
    assert network(torch.randn(2, 1, 16, 16, 16)).shape == (2, 1)
    # About the 14 million that its convolutions have at this width in three dimensions.
    widths = [1, 64, 64, 128, 128, 256, 256, 512, 512]
    expected = 27 * sum(n_in * n_out for n_in, n_out in pairwise(widths))
    assert sum(layer.weight.numel() for layer in convolutions) == expected == pytest.approx(14.05e6, rel=0.01)


def test_a_score_of_the_patch_discriminator_sees_23_voxels_along_each_axis():
    network = patch_discriminator(2, no_normalization)
    patch = torch.randn(1, 1, 48, 5, 5, requires_grad=True)
    scores = network(patch).unflatten(1, (12, 2, 2))
    (gradient,) = torch.autograd.grad(scores[0, 6, 0, 0], patch)
    seen = torch.nonzero(gradient[0, 0].abs().sum(dim=(1, 2)))[:, 0]
    assert (int(seen.min()), int(seen.max())) == (6 * 4 - 11, 6 * 4 + 11)


def test_without_normalization_level_and_contrast_are_seen():
    """The first convolution is never normalized, so a patch is told from a brighter one."""
    network = srgan_discriminator(4, patch_normalization)
    patch = torch.randn(1, 1, 8, 8, 8)
    assert not torch.allclose(network(patch), network(patch + 0.5))


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_spectral_normalization_makes_the_largest_singular_value_one(name):
    network = spectrally_normalized(DISCRIMINATORS[name](4, no_normalization))
    patches = torch.randn(1, 1, 8, 8, 8)
    for _ in range(60):
        network(patches)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv3d, nn.Linear))]
    assert len(layers) == {"srgan": 10, "patch": 4}[name]
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)
    assert math.isfinite(network(patches).sum().item())

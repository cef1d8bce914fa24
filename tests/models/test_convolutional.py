"""The networks have the sizes that were published, and see as far as they say."""

import pytest
import torch

from bids_sr.errors import ModelCardError
from bids_sr.models import diffusion
from bids_sr.models.convolutional import DCSRN, MDCSRN, SRCNN3D, VDSR3D, InterpolatedRDN, ResCNN3D, UNet3D
from bids_sr.models.grid import NETWORKS
from bids_sr.models.registry import build_model, count_parameters
from tests.models.networks import SMALL, small

#: Those whose correction begins at zero.
SILENT = ("srcnn3d", "vdsr3d", "mdcsrn", "unet3d", "swin3d")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_every_network_is_tested():
    assert set(SMALL) == set(NETWORKS)


def test_the_published_sizes():
    assert count_parameters(DCSRN(1)) == 223_633
    assert count_parameters(ResCNN3D(1)) == 1_995_329
    assert count_parameters(SRCNN3D(1)) == 52_801
    assert count_parameters(SRCNN3D(1, kernels=(3, 3, 3))) == 57_985
    assert count_parameters(VDSR3D(1)) == 1_995_329


def test_the_rdn_is_the_encoder_of_csr_dmri_with_one_channel_at_its_end():
    to_features, to_one = 128 * (27 * 64 + 1), 27 * 64 + 1
    assert count_parameters(InterpolatedRDN(2)) == 5_920_512 - to_features + to_one


@pytest.mark.parametrize(("channels", "growth", "blocks", "units"), [(1, 16, 4, 4), (2, 5, 3, 2)])
def test_the_dense_blocks_have_the_weights_that_their_connections_need(channels, growth, blocks, units):
    first = 2 * growth * (27 * channels + 1)
    # A unit normalizes (two weights per feature) and convolves all features before it.
    block = sum((2 + 27 * growth) * (2 + index) * growth for index in range(units))
    fused = sum((2 + index * units) * growth + 1 for index in range(1, blocks)) * 2 * growth
    last = (2 + blocks * units) * growth + 1
    assert count_parameters(MDCSRN(channels, growth, blocks, units)) == first + blocks * block + fused + last


def test_the_u_net_has_the_weights_of_its_levels():
    """In units of width^2: 27 for a convolution between equal widths, 8 for a transposed one."""
    widths = {1: 8, 2: 16, 4: 32}
    pairs = 27 * ((1 + 2 + 4 + 8 + 16) + (8 + 4 + 2 + 1))
    raised = 8 * (4 * 2 + 2 * 1)
    biases = 2 * (1 + 2 + 4) + 3 * (2 + 1)
    expected = 8 * 8 * (pairs + raised) + 8 * (biases + 27 * 3) + widths[1] + 1
    assert count_parameters(UNet3D(3, features=8)) == expected


def reach(network, length, plane):
    """How far from a plane of a volume the result changes when the plane does."""
    volume = torch.rand(1, 2, length, 3, 3, dtype=torch.float64)
    moved = volume.clone()
    moved[:, :, plane] += 100 * torch.randn(2, 3, 3, dtype=torch.float64)
    changed = (network(moved) != network(volume))[0, 0].flatten(1).any(dim=1).nonzero()
    return int((changed - plane).abs().max())


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_voxel_sees_as_far_as_the_radius(name, monkeypatch):
    # A correction that is held at its limit shows no influence.
    monkeypatch.setattr(diffusion, "LARGEST", 1e9)
    # In double precision, because the outermost influence is a product of many small weights.
    network = small(name).double()
    planes = range(network.radius + 1, network.radius + 1 + network.alignment)
    assert max(reach(network, 2 * network.radius + 7, plane) for plane in planes) == network.radius


@pytest.mark.parametrize("levels", [1, 2, 4])
@torch.no_grad()
def test_the_radius_of_a_u_net_follows_from_its_levels(levels):
    torch.manual_seed(levels)
    network = UNet3D(2, features=4, levels=levels).double()
    network.last.reset_parameters()
    planes = range(network.radius + 1, network.radius + 1 + network.alignment)
    assert max(reach(network, 2 * network.radius + 9, plane) for plane in planes) == network.radius


@pytest.mark.parametrize("name", SILENT)
def test_the_residual_networks_start_from_their_input(name):
    volume = torch.rand(2, 2, 7, 5, 6)
    torch.testing.assert_close(NETWORKS[name](2, **SMALL[name])(volume), volume[:, :1], rtol=0, atol=0)
    assert (small(name)(volume) - volume[:, :1]).abs().max() > 1e-3


def test_the_older_residual_networks_correct_their_input_too():
    volume = torch.rand(2, 2, 5, 5, 5)
    silent = InterpolatedRDN(2, features=4, growth=4, blocks=1, layers=1, residual=True)
    torch.testing.assert_close(silent(volume), volume[:, :1])
    network = small("rescnn3d")
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.zeros_(network.last.bias)
    torch.testing.assert_close(network(volume), volume[:, :1])


@pytest.mark.parametrize("name", ["dcsrn", "mdcsrn"])
def test_batch_normalization_gives_a_volume_the_same_value_whatever_it_is_batched_with(name):
    network, volumes = small(name).train(), torch.rand(3, 2, 6, 6, 6) * torch.tensor([1.0, 5, 9]).view(3, 1, 1, 1, 1)
    network(volumes)
    in_training = network(volumes[:1])
    network.eval()
    alone, together = network(volumes[:1]), network(volumes)
    torch.testing.assert_close(alone, together[:1], atol=1e-5, rtol=1e-5)
    assert (in_training - alone).abs().max() > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns(name):
    network = small(name).train()
    learned, wanted = network.compared(torch.rand(2, 2, 8, 8, 8), torch.ones(2, 512))
    (learned - wanted).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_from_the_start_lower_the_loss(name):
    """The truth is what no interpolation knows: the second channel, sharpened."""
    torch.manual_seed(0)
    network = NETWORKS[name](2, **SMALL[name])
    volumes = torch.rand(2, 2, 8, 8, 8)
    truth = (volumes[:, :1] + 2 * (volumes[:, 1:] - neighbourhood_mean(volumes[:, 1:]))).flatten(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        learned, wanted = network.compared(volumes, truth)
        loss = (learned - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # One that does not start from interpolation shall be better than that too.
    interpolation = (volumes[:, 0].flatten(1) - truth).square().mean().item()
    assert losses[-1] < 0.9 * (min(losses[0], interpolation) if wanted is truth else losses[0])


def neighbourhood_mean(volumes):
    """Means of the neighbourhoods of 3^3 voxels."""
    return torch.nn.functional.avg_pool3d(volumes, 3, stride=1, padding=1)


def test_signals_pass_the_twenty_layers_of_vdsr():
    """With torch's own start, what reaches the last of them is a ten-thousandth of what entered, and nothing learns."""
    torch.manual_seed(0)
    network = VDSR3D(2, features=16)
    volume = torch.randn(1, 2, 8, 8, 8)
    kept = network.layers[:-1](volume).std() / volume.std()
    assert 0.05 < kept < 20


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (4, 5, 9), (7, 6, 3)])
def test_the_u_net_takes_any_shape(shape):
    assert small("unet3d")(torch.rand(2, 2, *shape)).shape == (2, 1, *shape)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("srcnn3d", {"kernels": [9, 1]}),
        ("srcnn3d", {"kernels": [3, 2, 3]}),
        ("srcnn3d", {"kernels": 3}),
        ("vdsr3d", {"layers": 0}),
        ("vdsr3d", {"layers": 1}),
        ("mdcsrn", {"blocks": 0}),
        ("unet3d", {"levels": 0}),
        ("unet3d", {"features": -2}),
        ("swin3d", {"groups": 0}),
        ("swin3d", {"layers": 0}),
        ("swin3d", {"window": 3}),
        ("swin3d", {"heads": 3}),
        ("swin3d", {"heads": 0}),
    ],
)
def test_networks_that_cannot_be_are_refused_in_one_line(name, arguments):
    with pytest.raises(ModelCardError, match=name) as caught:
        build_model(name, arguments, 2)
    assert "\n" not in str(caught.value)

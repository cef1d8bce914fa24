"""The networks have the sizes that were published, and see as far as they say."""

import pytest
import torch
from torch import nn

from bids_sr.models.convolutional import DCSRN, InterpolatedRDN, ResCNN3D
from bids_sr.models.registry import count_parameters

SMALL = {
    "dcsrn": lambda: DCSRN(2, first=6, growth=4, units=2),
    "rescnn3d": lambda: ResCNN3D(2, features=4, blocks=2, layers=2),
    "rdn": lambda: InterpolatedRDN(2, features=4, growth=4, blocks=2, layers=2),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_the_published_sizes():
    assert count_parameters(DCSRN(1)) == 223_633
    assert count_parameters(ResCNN3D(1)) == 1_995_329


def test_the_rdn_is_the_encoder_of_csr_dmri_with_one_channel_at_its_end():
    to_features, to_one = 128 * (27 * 64 + 1), 27 * 64 + 1
    assert count_parameters(InterpolatedRDN(2)) == 5_920_512 - to_features + to_one


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_voxel_sees_as_far_as_the_radius(name):
    torch.manual_seed(0)
    # In double precision, because the outermost influence is a product of many small weights.
    network = SMALL[name]().double().eval()
    volume = torch.rand(1, 2, 2 * network.radius + 3, 3, 3, dtype=torch.float64)
    centre = network.radius + 1
    reference = network(volume)[0, 0, centre]

    def change(distance):
        moved = volume.clone()
        moved[:, :, centre + distance] += 100
        return (network(moved)[0, 0, centre] - reference).abs().max()

    assert change(network.radius) > 0
    assert change(network.radius + 1) == 0


def test_the_residual_networks_start_from_their_input():
    volume = torch.rand(2, 2, 5, 5, 5)
    silent = InterpolatedRDN(2, features=4, growth=4, blocks=1, layers=1, residual=True)
    torch.testing.assert_close(silent(volume), volume[:, :1])
    network = SMALL["rescnn3d"]()
    nn.init.zeros_(network.last.weight)
    nn.init.zeros_(network.last.bias)
    torch.testing.assert_close(network(volume), volume[:, :1])


def test_dcsrn_gives_a_volume_the_same_value_whatever_it_is_batched_with():
    network, volumes = SMALL["dcsrn"](), torch.rand(3, 2, 6, 6, 6) * torch.tensor([1.0, 5, 9]).view(3, 1, 1, 1, 1)
    network(volumes)
    in_training = network(volumes[:1])
    network.eval()
    alone, together = network(volumes[:1]), network(volumes)
    torch.testing.assert_close(alone, together[:1], atol=1e-5, rtol=1e-5)
    assert (in_training - alone).abs().max() > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns(name):
    torch.manual_seed(0)
    network = SMALL[name]()
    (network(torch.rand(2, 2, 6, 6, 6)) - 1).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())

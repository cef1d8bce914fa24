"""Slabs give what one pass gives, and keep to their memory."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.models import slabs
from bids_sr.models.base import Lattice
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.rdn import ResidualDenseNetwork
from bids_sr.models.slabs import plan_slabs, run_in_slabs
from tests.models.networks import SMALL, small

#: One whose slabs may begin anywhere, and one whose slabs may not.
PLANNED = {name: small(name) for name in ("dcsrn", "unet3d")}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network_of(name):
    if name != "encoder":
        return small(name)
    torch.manual_seed(0)
    return ResidualDenseNetwork(2, features=4, growth=4, blocks=1, layers=2, out_channels=5).eval()


@torch.inference_mode()
@pytest.mark.parametrize("name", ["encoder", *SMALL])
@pytest.mark.parametrize("shape", [(0, 7, 6), (6, 0, 7), (5, 7, 0)])
def test_slabs_give_what_the_whole_gives(name, shape, monkeypatch):
    network = network_of(name)
    sliced = getattr(network, "sliced", network)
    # Three slabs, the last of them thin.
    volumes = torch.rand(2, 2, *(edge or 4 * sliced.radius + 3 for edge in shape))
    whole = network(volumes)
    monkeypatch.setattr(slabs, "SLAB_VALUES", 1)
    assert len(plan_slabs(tuple(volumes.shape[2:]), sliced)) == 3
    in_slabs = run_in_slabs(network, volumes) if network is sliced else network.restore(volumes)
    torch.testing.assert_close(in_slabs, whole, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_a_volume_encoded_in_slabs_is_asked_as_if_it_were_encoded_at_once(monkeypatch):
    torch.manual_seed(0)
    model = CsrDmri(2, features=4, growth=4, blocks=1, layers=2, feature_channels=5, hidden=8, coordinates="cell")
    channels, lattice = torch.rand(1, 2, 30, 6, 7), Lattice((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    whole = model.encode(channels, lattice)
    monkeypatch.setattr(slabs, "SLAB_VALUES", 1)
    torch.testing.assert_close(model.encode(channels, lattice).rows, whole.rows, atol=1e-6, rtol=1e-5)


@given(st.integers(1, 400), st.integers(1, 10**9), st.sampled_from(["dcsrn", "unet3d"]))
def test_slabs_cover_the_grid_once_and_keep_to_their_budget_or_half_of_it_is_result(length, budget, name):
    network = PLANNED[name]
    shape = (length, 4, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slabs, "SLAB_VALUES", budget)
        planned = plan_slabs(shape, network)
    assert [index for slab in planned for index in range(slab.start, slab.stop)] == list(range(max(shape)))
    for slab in planned:
        thickness = slab.high - slab.low
        values = thickness * network.live * np.prod(shape) / max(shape)
        assert values <= budget or thickness <= 4 * network.radius + network.alignment - 1
        assert slab.low % network.alignment == 0
        assert slab.low <= max(0, slab.start - network.radius)
        assert slab.high >= min(max(shape), slab.stop + network.radius)


class SmallGpu:
    """A network on a GPU with room for so many planes; it counts how often it was too small."""

    radius, live, alignment = 1, 1, 1

    def __init__(self, planes):
        self.planes, self.refused = planes, 0

    def __call__(self, volumes):
        if max(volumes.shape[2:]) > self.planes:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return volumes


def test_slabs_are_made_smaller_until_a_gpu_has_room_for_them():
    network, volumes = SmallGpu(planes=9), torch.rand(1, 2, 40, 3, 4)
    torch.testing.assert_close(run_in_slabs(network, volumes), volumes)
    assert network.refused > 0


def test_a_gpu_without_room_for_the_smallest_slab_is_too_small():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run_in_slabs(SmallGpu(planes=3), torch.rand(1, 2, 40, 3, 4))

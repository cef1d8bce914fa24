"""Estimates grow with what they are estimates of, and count what the network computes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bids_sr.inference.memory import _costs, estimate
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.registry import CUBIC, ModelCard, read_card

SMALL, LARGE = (40, 50, 30), (80, 100, 60)


def test_memory_does_not_grow_with_the_number_of_volumes_and_time_does():
    card = read_card("light")
    few, many = estimate(SMALL, 10, LARGE, card), estimate(SMALL, 100, LARGE, card)
    assert few.peak_gb == many.peak_gb
    assert many.seconds == pytest.approx(10 * few.seconds)


def test_finer_grids_and_wider_networks_cost_more():
    light, paper = read_card("light"), ModelCard("paper", "", "csr_dmri")
    assert estimate(SMALL, 10, SMALL, light).seconds < estimate(SMALL, 10, LARGE, light).seconds
    assert estimate(SMALL, 10, LARGE, light).peak_gb < estimate(SMALL, 10, LARGE, paper).peak_gb
    assert estimate(SMALL, 10, LARGE, CUBIC).seconds < estimate(SMALL, 10, LARGE, light).seconds


def test_threads_share_the_work():
    card = read_card("light")
    assert estimate(SMALL, 10, LARGE, card, threads=4).seconds < estimate(SMALL, 10, LARGE, card).seconds


@pytest.mark.parametrize("arguments", [{}, read_card("light").arguments], ids=["paper", "light"])
def test_the_operations_of_the_network_are_counted(arguments):
    model = CsrDmri(**arguments)
    channels, points = torch.rand(1, arguments.get("channels", 2), 6, 6, 6), torch.rand(100, 3)
    with FlopCounterMode(display=False) as encoder:
        encoded = model.encode(channels)
    with FlopCounterMode(display=False) as decoder:
        model.query(encoded, points, torch.full((3,), 0.5))
    per_voxel, per_query, _ = _costs(ModelCard("x", "", "csr_dmri", arguments))
    assert 2 * per_voxel * 6**3 == pytest.approx(encoder.get_total_flops(), rel=0.01)
    assert 2 * per_query * 100 == pytest.approx(decoder.get_total_flops(), rel=0.05)

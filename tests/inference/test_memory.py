"""Estimates grow with what they are estimates of, and count what the network computes."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bids_sr.inference.memory import _work, estimate
from bids_sr.models import slabs
from bids_sr.models.base import Lattice
from bids_sr.models.registry import CUBIC, ModelCard, build_model, read_card

SMALL, LARGE = (40, 50, 30), (80, 100, 60)
CELL = (0.5, 0.5, 0.5)
#: PyTorch's counter does not know the product that is added in place.
IN_PLACE = {torch.ops.aten.addmm_: lambda rows, first, second, **_: 2 * first[0] * first[1] * second[1]}
counting = partial(FlopCounterMode, display=False, custom_mapping=IN_PLACE)
ANY = Lattice((-0.25, -0.25, -0.25), CELL)
SMALL_NETWORKS = {
    "dcsrn": {"first": 32, "growth": 16, "units": 2},
    "rescnn3d": {"features": 32, "blocks": 1, "layers": 2},
    "rdn": {"features": 32, "growth": 16, "blocks": 1, "layers": 2},
    "srcnn3d": {"features": 16, "mapping": 8, "kernels": [5, 1, 3]},
    "vdsr3d": {"features": 16, "layers": 4},
    "mdcsrn": {"growth": 8, "blocks": 2, "units": 2},
    "unet3d": {"features": 16},
    "swin3d": {"features": 16, "groups": 1, "heads": 2},
    "ddpm3d": {"features": 8, "steps": 3, "samples": 2, "spread": True},
}
#: Few layers, so that the test is fast; memory is a matter of their width.
MEASURED = {
    "csr_dmri": {"features": 64, "growth": 64, "blocks": 1, "feature_channels": 128},
    "dcsrn": {"first": 32, "growth": 32, "units": 2},
    "rescnn3d": {"features": 40, "blocks": 1, "layers": 2},
    "rdn": {"features": 32, "growth": 16, "blocks": 1, "layers": 2},
    "srcnn3d": {"features": 64, "mapping": 64, "kernels": [3, 3, 3]},
    "vdsr3d": {"features": 64, "layers": 3},
    "mdcsrn": {"growth": 16, "blocks": 2, "units": 2},
    "unet3d": {"features": 32, "levels": 2},
    "swin3d": {"features": 64, "groups": 1},
    "ddpm3d": {"features": 32, "levels": 2, "steps": 1},
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


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
    card = ModelCard("x", "", "csr_dmri", arguments)
    model = build_model("csr_dmri", arguments, 3)
    channels, points = torch.rand(1, 3, 4, 4, 4), torch.rand(100, 3)
    with counting() as encoder:
        encoded = model.encode(channels, ANY)
    with counting() as decoder:
        model.query(encoded, points, torch.full((3,), 0.5))
    nothing_asked, asked = (_work((4, 4, 4), CELL, queries, card).operations for queries in (0, 100))
    assert 2 * nothing_asked == pytest.approx(encoder.get_total_flops(), rel=0.01)
    assert 2 * (asked - nothing_asked) == pytest.approx(decoder.get_total_flops(), rel=0.01)


def test_guidance_costs_the_operations_that_it_takes():
    arguments = read_card("light").arguments | {"guided": True}
    model = build_model("csr_dmri", arguments, 3)
    encoded = model.encode(torch.rand(1, 11, 4, 4, 4), ANY)
    with counting() as decoder:
        model.query(encoded, torch.rand(100, 3), torch.full((3,), 0.5), torch.rand(100, 28))
    guided, light = ModelCard("x", "", "csr_dmri", arguments), read_card("light")
    nothing_asked, asked = (_work((4, 4, 4), CELL, queries, guided).operations for queries in (0, 100))
    assert 2 * (asked - nothing_asked) == pytest.approx(decoder.get_total_flops(), rel=0.01)
    assert estimate(SMALL, 1, LARGE, guided).peak_gb > estimate(SMALL, 1, LARGE, light).peak_gb


@pytest.mark.parametrize("scale", [None, 2])
@pytest.mark.parametrize("slab_values", [10**9, 1], ids=["whole", "slabs"])
@pytest.mark.parametrize("architecture", SMALL_NETWORKS)
def test_the_operations_of_a_grid_network_are_counted_on_the_fine_grid(architecture, scale, slab_values, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_VALUES", slab_values)
    arguments = {"scale": scale, **SMALL_NETWORKS[architecture]}
    # Fine voxels that fill windows, and pairs of them.
    model, box = build_model(architecture, arguments, 3), (6, 8, 16)
    with counting() as counter:
        model.encode(torch.rand(1, 3, *box), ANY)
    counted = _work(box, ANY.cell, 0, ModelCard("x", "", architecture, arguments)).operations
    # The interpolation before the network is counted by torch, and not by us.
    assert 2 * counted == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_a_fixed_fine_grid_costs_the_same_whatever_is_asked_for():
    fixed, free = (ModelCard("x", "", "rescnn3d", {"scale": scale}, inputs=("volume",)) for scale in (3, None))
    assert _work(SMALL, CELL, 0, fixed) == _work(SMALL, (1, 1, 1), 0, fixed)
    assert _work(SMALL, CELL, 0, free).operations > 4 * _work(SMALL, (1, 1, 1), 0, free).operations


def test_slabs_bound_the_memory_of_a_grid_network():
    card = ModelCard("x", "", "rescnn3d", {"scale": None}, inputs=("volume",))
    whole_brain = estimate((110, 110, 70), 1, (220, 220, 140), card)
    assert whole_brain.peak_gb < 6


#: Prints the values that were alive, by the system's account, while each network encoded a box.
MEASUREMENT = """
import json, sys
from pathlib import Path
import torch
from bids_sr.models.base import Lattice
from bids_sr.models.registry import build_model

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
networks, box, lattice = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Lattice((-0.25,) * 3, (0.5,) * 3)
with torch.inference_mode():
    for architecture, arguments in networks.items():
        model, channels = build_model(architecture, arguments, 3).eval(), torch.rand(1, 3, *box)
        model.encode(channels[..., :9, :9, :9], lattice)
        Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
        before = resident("VmRSS")
        encoded = model.encode(channels, lattice)
        print((resident("VmHWM") - before) / 4)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is read from /proc")
def test_the_values_alive_are_those_that_the_system_measures():
    box = (20, 20, 20)
    # Every tensor is given back to the system when it is freed, as the large ones of a whole brain always are.
    result = subprocess.run(
        [sys.executable, "-c", MEASUREMENT, json.dumps(MEASURED), json.dumps(box)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for (architecture, arguments), line in zip(MEASURED.items(), result.stdout.split(), strict=True):
        stated = _work(box, CELL, 0, ModelCard("x", "", architecture, arguments)).values
        assert 0.6 * stated < float(line) < 1.15 * stated, architecture

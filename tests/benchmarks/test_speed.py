"""What the benchmark of speed compares gives the same values, and its figures are those of what it timed."""

import shutil

import numpy as np
import pytest
import torch

from benchmarks import processor, speed
from bids_sr.geometry import Grid
from bids_sr.models.registry import load_model

SMALL = Grid((12, 13, 10), np.diag([14.0, 14, 14, 1]))


@pytest.fixture(params=["light", "default"])
def subject(request, monkeypatch):
    torch.set_num_threads(1)
    for name, value in {"EDGE": 6, "QUERIES": 200, "MATRIX": 16, "HEAD": SMALL, "SMALL_HEAD": SMALL}.items():
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(speed.Peak, "__init__", lambda self: None)
    monkeypatch.setattr(speed.Peak, "measured", lambda self, threads: 1e12)
    device = torch.device("cpu")
    return speed.Subject(*load_model(request.param, device), device, threads=1, repeats=1)


@torch.inference_mode()
def test_features_looked_up_as_others_do_give_the_same_values(subject):
    assert speed.difference(subject) < 1e-4


@torch.inference_mode()
def test_every_part_is_measured(subject, monkeypatch):
    monkeypatch.setattr(speed, "exponents", lambda subject: [])
    found = speed.report(subject, speed.rates(subject))
    for part in ("multiply-adds in registers", "encoder", "queries", "loop of ArSSR", "fair version", "dipy"):
        assert part in found


@torch.inference_mode()
def test_parts_do_more_operations_per_byte_the_more_stays_in_the_cache(subject):
    found = {name: [1e9] for name in ("peak", "product", "encoder", "queries")}
    product, encoder, queries = speed.parts(subject, found)
    assert product.intensity == pytest.approx(speed.MATRIX / 6)
    # Read once and written once, the encoder's maps alone would be this much at the most.
    assert 1 < encoder.intensity < 2 * speed.multiply_adds(subject.model.encoder) / (4 * subject.model.kept)
    assert queries.rate == 1e9
    assert 10 < queries.intensity < 100


def test_a_power_is_found():
    assert speed.slope([1, 2, 4], {"a": [3.0, 3.5], "b": [9.0, 6.0], "c": [12.0]}) == pytest.approx(1)


@pytest.mark.skipif(shutil.which("cc") is None, reason="the loop is compiled by cc")
def test_a_processor_does_more_than_a_million_and_less_than_a_trillion_operations_per_second(monkeypatch):
    monkeypatch.setattr(processor, "ROUNDS", 10_000)
    assert 1e6 < processor.Peak().measured(1) < 1e12

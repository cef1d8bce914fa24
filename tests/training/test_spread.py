"""What a network tells of its uncertainty is how much it errs, and it restores as before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_sr.errors import TrainingDataError
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.registry import ModelCard, build_model
from bids_sr.training import spread
from bids_sr.training.spread import Errors, SpreadSettings, fit_spread
from tests.training.trainings import TINY, made_scan

SETTINGS = SpreadSettings(places=6, points=200, b0_share=0.3)
CARD = ModelCard("tiny", "For tests.", "csr_dmri", TINY)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network(arguments=TINY) -> CsrDmri:
    torch.manual_seed(0)
    model = build_model("csr_dmri", arguments, 3)
    torch.nn.init.normal_(model.decoder.stages[-1][-1].weight, std=0.05)
    return model.eval().requires_grad_(False)


def made_errors(weight: torch.Tensor, bias: float, shared: float, n: int = 40_000) -> Errors:
    """Errors of known deviations, which two volumes share in part."""
    hidden = torch.randn(n, len(weight)) * 3 + 1
    deviations = (hidden @ weight + bias).exp()
    common, first, second = torch.randn(3, n)
    errors, partner = (deviations * (shared**0.5 * common + (1 - shared) ** 0.5 * own) for own in (first, second))
    return Errors(hidden, errors, partner)


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_known_deviations_are_found(shared):
    torch.manual_seed(0)
    weight, bias = torch.tensor([0.2, -0.1, 0.0]), -2.0
    errors = made_errors(weight, bias, shared)
    found, offset = spread._fit_layer([errors], [1.0])
    torch.testing.assert_close(found, weight, atol=0.01, rtol=0)
    assert offset == pytest.approx(bias, abs=0.02)
    assert spread.coverage(errors, found, offset) == pytest.approx(0.9, abs=0.01)
    assert spread.shared_variance([errors], found, offset) == pytest.approx(shared, abs=0.03)


def test_each_subject_counts_the_same():
    torch.manual_seed(0)
    weight = torch.zeros(2)
    small, large = made_errors(weight, -3.0, 0), made_errors(weight, -1.0, 0)
    _, once = spread._fit_layer([small, large], [1, 1])
    _, twice = spread._fit_layer([small, small, large], [0.5, 0.5, 1])
    assert once == pytest.approx(twice, abs=1e-3)


def test_the_layer_covers_the_validation_and_changes_nothing_else():
    model, scans = network(), ([made_scan("sub-01", 0)], [made_scan("sub-02", 1)])
    uncertain, card = fit_spread(model, CARD, *scans, SETTINGS)
    assert card.uncertain and card.uncertainty["coverage"]["sub-02"] == pytest.approx(0.9, abs=0.002)
    weights = uncertain.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value)
    errors = spread.gather_errors(model, CARD, *scans[1], SETTINGS)
    told = spread.coverage(errors, weights["spread.weight"][0], float(weights["spread.bias"]))
    assert told == pytest.approx(0.9, abs=0.002)


def test_patches_are_sampled_as_in_the_training():
    """A network that learned several samplings errs most where it cannot tell them apart."""
    scan, model = made_scan("sub-01", 0), network()
    told = {"patches": {"profiles": ["kspace"], "psf_range": [0.8, 1.15]}}
    gaussian, kspace = (
        spread.gather_errors(model, replace(CARD, training=training), scan, SETTINGS).errors for training in ({}, told)
    )
    assert gaussian.shape == kspace.shape
    assert not torch.allclose(gaussian, kspace)


def test_two_volumes_are_of_one_shell():
    random, shells = np.random.default_rng(0), np.array([0, 1, 1, 1, 2, 2])
    drawn = [spread._two_volumes(shells, 0.3, random) for _ in range(100)]
    assert all(shells[first] == shells[second] for first, second in drawn)
    assert all((first == second) == (shells[first] == 0) for first, second in drawn)
    assert {first for first, _ in drawn} == set(range(6))


def test_simulated_scans_alone_are_refused():
    made = made_scan("sub-01", 0)
    simulated = made.__class__(**{**vars(made), "simulated": True})
    with pytest.raises(TrainingDataError, match="acquired"):
        fit_spread(network(), CARD, [simulated], [made], SETTINGS)


@pytest.mark.parametrize(("arguments", "normalization"), [({"residual": False}, "shell"), ({}, "b0")])
def test_networks_that_cannot_have_the_layer_are_refused(arguments, normalization):
    options = TINY | arguments
    card = ModelCard("tiny", "For tests.", "csr_dmri", options, normalization=normalization)
    with pytest.raises(TrainingDataError, match="residual"):
        fit_spread(network(options), card, [made_scan("sub-01", 0)], [made_scan("sub-02", 1)], SETTINGS)

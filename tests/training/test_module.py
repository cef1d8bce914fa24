"""The learning rate follows its schedule, and a step looks at what the settings ask for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.models.registry import build_model
from bids_sr.training.module import FIRST_RATE, Restoration, rate_factor
from bids_sr.training.patches import Batch
from bids_sr.training.settings import Loss, Optimization

TINY = {"features": 4, "growth": 4, "blocks": 1, "layers": 1, "feature_channels": 4, "hidden": 8, "stages": 1}


@given(st.integers(1, 50), st.integers(200, 500))
def test_the_cosine_rises_to_one_falls_to_zero_and_never_jumps(warmup, steps):
    options = Optimization(warmup_steps=warmup, max_steps=steps)
    rates = [rate_factor(step, options) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(FIRST_RATE)
    assert rates[warmup] == max(rates) == pytest.approx(1)
    assert rates[steps] == pytest.approx(0, abs=1e-12)
    assert sorted(rates[: warmup + 1]) == rates[: warmup + 1]
    assert sorted(rates[warmup:], reverse=True) == rates[warmup:]
    assert rates[(warmup + steps) // 2] == pytest.approx(0.5, abs=math.pi / (steps - warmup))


def test_a_short_training_comes_to_rest_too():
    options = Optimization(warmup_steps=200, max_steps=200)
    rates = [rate_factor(step, options) for step in range(201)]
    assert rates[50] == max(rates) == pytest.approx(1)
    assert rates[200] == pytest.approx(0, abs=1e-12)


def test_halving_is_that_of_the_paper():
    """1e-4, halved every 200 of 1,000 epochs of 70 steps (Wu et al. 2024)."""
    options = Optimization(schedule="halving", halve_every=14000, max_steps=70000)
    assert [rate_factor(step, options) for step in (0, 13999, 14000, 28000, 69999)] == [1, 1, 0.5, 0.25, 1 / 16]


def module_of(loss: Loss | None = None, **options) -> Restoration:
    torch.manual_seed(0)
    return Restoration(build_model("csr_dmri", TINY, 1), loss or Loss(), Optimization(**options))


def batch(n: int = 8, channels: int = 1):
    random = torch.Generator().manual_seed(1)
    low = torch.rand(2, channels, 4, 4, 4, generator=random)
    axis = (torch.arange(n) + 0.5) * 4 / n - 0.5
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 3).repeat(2, 1, 1)
    return Batch(low, points, torch.full((2, 3), 4 / n), torch.rand(2, n**3, generator=random))


def test_the_loss_is_that_of_the_settings():
    examples = batch()
    plain = module_of().training_step(examples, 0)
    module = module_of(Loss(fourier=0.01))
    error = (module(examples) - examples.truth).reshape(2, 8, 8, 8)
    fourier = torch.fft.fftn(error, dim=(1, 2, 3)).abs().mean()
    torch.testing.assert_close(module.training_step(examples, 0), plain + 0.01 * fourier)


def test_parameters_that_are_frozen_are_not_given_to_the_optimizer():
    module = module_of()
    module.model.encoder.requires_grad_(False)
    given_parameters = module.configure_optimizers()["optimizer"].param_groups[0]["params"]
    assert {id(p) for p in given_parameters} == {id(p) for p in module.model.decoder.parameters()}


def test_adam_has_the_rate_and_betas_of_the_settings():
    configured = module_of(learning_rate=3e-4, betas=(0.8, 0.95), warmup_steps=10).configure_optimizers()
    group = configured["optimizer"].param_groups[0]
    assert group["betas"] == (0.8, 0.95)
    assert group["lr"] == pytest.approx(3e-4 * FIRST_RATE)
    assert configured["lr_scheduler"]["interval"] == "step"


def test_convolutions_have_the_fast_layout():
    weight = module_of().model.encoder.second.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)

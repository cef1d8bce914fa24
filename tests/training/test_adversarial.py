"""A discriminator learns beside a network; both can be stopped and go on, and only the network is written."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bids_sr.errors import TrainingDataError
from bids_sr.models.registry import load_model, read_card
from bids_sr.training.adversarial import (
    Adversary,
    adversarial_loss,
    as_volumes,
    discriminator_loss,
    gradient_penalty,
)
from bids_sr.training.checkpoints import checkpoints_in
from bids_sr.training.patches import PatchSettings
from bids_sr.training.settings import Adversarial, Loss, Optimization, TrainingSettings
from tests.training.trainings import TINY, assert_equal, changed, trained

SMALL = Adversarial(weight=0.1, features=2, learning_rate=1e-3)
GRID_SETTINGS = TrainingSettings(
    architecture="vdsr3d",
    inputs=("volume",),
    model={"features": 4, "layers": 3},
    patches=PatchSettings(patch=6, border=0, points=0, scale_range=(1.5, 2.0), isotropic_share=1.0, noise_share=0.0),
    loss=Loss(l1=1.0),
    optimization=Optimization(max_steps=6, validate_every=3, batch_size=2, validation_examples=2, learning_rate=1e-3),
)


def adversarial(settings: TrainingSettings = GRID_SETTINGS, **options) -> TrainingSettings:
    """Settings with a discriminator."""
    return dataclasses.replace(settings, adversarial=dataclasses.replace(SMALL, **options))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


# Formulae

SCORES = torch.tensor([[0.3, -1.2], [2.0, 0.1]]), torch.tensor([[-0.5, 0.4], [1.5, -2.2]])


def test_the_losses_have_the_values_of_their_formulae():
    real, made = (scores.double().numpy() for scores in SCORES)
    share_real, share_made = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-made))
    expected = {
        "bce": (-np.log(share_real).mean() - np.log(1 - share_made).mean(), -np.log(share_made).mean()),
        "least-squares": (((real - 1) ** 2).mean() / 2 + (made**2).mean() / 2, ((made - 1) ** 2).mean() / 2),
        "wasserstein-gp": (made.mean() - real.mean(), -made.mean()),
    }
    for kind, (of_discriminator, of_network) in expected.items():
        assert discriminator_loss(*SCORES, kind).item() == pytest.approx(of_discriminator, rel=1e-6)
        assert adversarial_loss(SCORES[1], kind).item() == pytest.approx(of_network, rel=1e-6)


def test_of_a_discriminator_that_cannot_tell_the_cross_entropy_is_two_bits():
    """Its value at the equilibrium, -log 4 as a gain (Goodfellow et al. 2014, theorem 1)."""
    nothing = torch.zeros(3, 1)
    assert discriminator_loss(nothing, nothing, "bce").item() == pytest.approx(math.log(4))


def test_of_certain_scores_the_losses_stay_finite():
    certain = torch.full((2, 1), 1e4, requires_grad=True)
    loss = discriminator_loss(-certain, certain, "bce") + adversarial_loss(-certain, "bce")
    loss.backward()
    assert loss.isfinite()
    assert certain.grad.isfinite().all()


class Linear(nn.Module):
    """A critic whose gradient is the same everywhere."""

    def __init__(self, slope):
        super().__init__()
        self.slope = nn.Parameter(slope)

    def forward(self, patches):
        return (patches * self.slope).sum(dim=(1, 2, 3, 4))[:, None]


@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_slope(norm):
    slope = torch.randn(1, 3, 4, 5)
    critic = Linear(norm * slope / slope.norm())
    patches = torch.randn(2, 2, 1, 3, 4, 5)
    penalty = gradient_penalty(critic, *patches, torch.rand(2))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)
    penalty.backward()
    # It is lowered by bringing the norm of the slope to one.
    assert (critic.slope.grad * critic.slope).sum().item() == pytest.approx(2 * (norm - 1) * norm, abs=1e-4)


def test_the_gradient_is_taken_between_the_two_patches():
    """The slope of a square at x is 2 x: at the acquired patch for a share of one, at the restored one for none."""
    acquired, restored = torch.full((2, 1, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1, 1), 1.0)

    def square(patches):
        return patches.flatten(1).square()

    assert gradient_penalty(square, acquired, restored, torch.tensor([1.0, 1.0])).item() == pytest.approx(25)
    assert gradient_penalty(square, acquired, restored, torch.tensor([0.0, 0.0])).item() == pytest.approx(1)
    assert gradient_penalty(square, acquired, restored, torch.tensor([0.5, 0.5])).item() == pytest.approx(9)


# The discriminator


@pytest.mark.parametrize(
    ("loss", "discriminator", "spectral"),
    [("bce", "srgan", False), ("least-squares", "patch", True), ("wasserstein-gp", "patch", False)],
)
def test_it_learns_to_tell_smooth_patches_from_rough_ones(loss, discriminator, spectral):
    settings = dataclasses.replace(
        SMALL, loss=loss, discriminator=discriminator, spectral_normalisation=spectral, steps=2, learning_rate=3e-3
    )
    adversary = Adversary(settings, seed=0)
    random = torch.Generator().manual_seed(1)
    for step in range(20):
        rough = torch.randn(2, 1, 8, 8, 8, generator=random)
        adversary.learn(rough, nn.functional.avg_pool3d(rough, 3, stride=1, padding=1), step)
    rough = torch.randn(8, 1, 8, 8, 8, generator=random)
    smooth = nn.functional.avg_pool3d(rough, 3, stride=1, padding=1)
    assert adversary.network(rough).mean() > adversary.network(smooth).mean()
    # And a network is told so.
    assert adversary.judge(smooth) > adversary.judge(rough)


def test_judging_gives_the_network_a_gradient_and_the_discriminator_none():
    adversary = Adversary(SMALL, seed=0)
    restored = torch.randn(2, 1, 6, 6, 6, requires_grad=True)
    adversary.judge(restored).backward()
    assert restored.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.network.parameters())


def test_learning_does_not_reach_the_network():
    adversary = Adversary(SMALL, seed=0)
    restored = torch.randn(2, 1, 6, 6, 6, requires_grad=True)
    adversary.learn(torch.randn(2, 1, 6, 6, 6), restored, 0)
    assert restored.grad is None


def test_the_same_seed_makes_the_same_discriminator_and_leaves_other_numbers_as_they_are():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = Adversary(SMALL, seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert_equal(first.network.state_dict(), Adversary(SMALL, seed=0).network.state_dict())
    other = Adversary(SMALL, seed=1).network.state_dict()
    assert any(not torch.equal(other[key], value) for key, value in first.network.state_dict().items())


def test_whole_patches_are_put_on_their_grid():
    patch = torch.arange(24.0).reshape(1, 24)
    assert torch.equal(as_volumes(patch, (2, 3, 4))[0, 0], torch.arange(24.0).reshape(2, 3, 4))


# Training

SETTINGS = [
    adversarial(loss="wasserstein-gp", steps=2),
    adversarial(loss="least-squares", discriminator="patch", spectral_normalisation=True, start_after=2),
]


@pytest.mark.parametrize(("settings", "step"), zip(SETTINGS, (2, 3), strict=True), ids=["penalty", "spectral"])
def test_a_checkpoint_leads_to_the_same_weights(tmp_path, monkeypatch, settings, step):
    """Bit for bit: of the network, its average, the discriminator and the state of both optimizers."""
    monkeypatch.setattr("bids_sr.training.checkpoints.KEPT", 100)
    settings = changed(settings, checkpoint_every=1, ema=0.5)
    whole = tmp_path / "whole"
    weights = trained(settings, whole)
    last = "step-00000006.ckpt"
    end = torch.load(whole / "checkpoints" / last, weights_only=True)
    assert end["adversary"]["network"].keys()
    assert end["adversary"]["optimizer"]["state"]
    folder = shutil.copytree(whole, tmp_path / str(step))
    for later in checkpoints_in(folder / "checkpoints")[step:]:
        later.unlink()
    assert_equal(trained(settings, folder, resume=folder), weights)
    resumed = torch.load(folder / "checkpoints" / last, weights_only=True)
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "adversary"):
        assert_equal(resumed[key], end[key])


@pytest.fixture(scope="module")
def contested(tmp_path_factory):
    """A training with a discriminator."""
    folder = tmp_path_factory.mktemp("adversarial")
    return folder, trained(changed(adversarial(), ema=0.5), folder)


def test_only_the_network_is_written_and_the_card_tells_of_the_discriminator(contested):
    folder, weights = contested
    model, card = load_model(str(folder / "tiny.json"), torch.device("cpu"))
    assert weights.keys() == model.state_dict().keys()
    assert card.training["adversarial"] == dataclasses.asdict(SMALL) | {"betas": [0.5, 0.999]}
    assert (card.architecture, card.training["progress"]["steps"]) == ("vdsr3d", 6)
    checkpoint = torch.load(folder / "checkpoints" / "step-00000006.ckpt", weights_only=True)
    assert {key.removeprefix("model.") for key in checkpoint["state_dict"]} == weights.keys()


def test_the_terms_are_logged_and_the_validation_is_without_them(contested):
    progress = read_card(str(contested[0] / "tiny.json")).training["progress"]
    assert {"train_adversarial", "train_discriminator"} <= progress.keys()
    assert progress["train_loss"] == pytest.approx(progress["train_l1"] + 0.1 * progress["train_adversarial"], rel=1e-4)
    assert progress["validation_loss"] == pytest.approx(progress["validation_l1"])


def test_the_discriminator_changes_what_is_learned_from_its_first_step_on(tmp_path):
    plain = trained(GRID_SETTINGS, tmp_path / "plain")
    late = trained(adversarial(start_after=6), tmp_path / "late")
    assert_equal(plain, late)
    early = trained(adversarial(start_after=5), tmp_path / "early")
    assert any(not torch.equal(plain[key], early[key]) for key in plain)


def test_a_network_that_answers_at_points_can_be_contested_too(tmp_path):
    settings = dataclasses.replace(adversarial(), architecture="csr_dmri", inputs=("volume", "b0", "shell"), model=TINY)
    trained(changed(settings, max_steps=1, validate_every=1), tmp_path)
    assert read_card(str(tmp_path / "tiny.json")).training["adversarial"]["weight"] == 0.1


def test_a_checkpoint_without_a_discriminator_is_of_another_training(contested, tmp_path):
    with pytest.raises(TrainingDataError, match=r"adversarial was .*, and is None now"):
        trained(changed(GRID_SETTINGS, ema=0.5), tmp_path, resume=contested[0])
    with pytest.raises(TrainingDataError, match=r"adversarial\.weight was 0\.1, and is 0\.2 now"):
        trained(changed(adversarial(weight=0.2), ema=0.5), tmp_path, resume=contested[0])


def test_a_network_that_learns_no_intensities_is_not_judged(tmp_path, monkeypatch):
    def compared(self, channels, points, cell, truth, guide=None):
        return self(channels, points, cell), truth + 1

    monkeypatch.setattr("bids_sr.models.grid.GridNetwork.compared", compared)
    with pytest.raises(TrainingDataError, match=r"\[adversarial\]: it judges intensities"):
        trained(adversarial(), tmp_path)


def test_fine_tuning_may_begin_with_a_network_that_had_no_discriminator(contested, tmp_path):
    trained(GRID_SETTINGS, tmp_path / "plain")
    start = load_model(str(tmp_path / "plain" / "tiny.json"), torch.device("cpu"))
    settings = changed(adversarial(), max_steps=1, learning_rate=1e-12)
    tuned = trained(settings, tmp_path / "tuned", initial=start)
    torch.testing.assert_close(tuned, load_file(tmp_path / "plain" / "tiny.safetensors"))


def learn_apart(rank, folder):
    """What one of two processes does: it learns from patches of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=(Path(folder) / "meeting").as_uri(), rank=rank, world_size=2
    )
    adversary = Adversary(dataclasses.replace(SMALL, loss="wasserstein-gp"), 0)
    patches = torch.randn(2, 2, 1, 6, 6, 6, generator=torch.Generator().manual_seed(rank))
    adversary.learn(*patches, 0)
    torch.save(adversary.network.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_that_train_together_have_one_discriminator(tmp_path):
    torch.multiprocessing.spawn(learn_apart, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert_equal(first, second)
    before = Adversary(SMALL, 0).network.state_dict()
    assert any(not torch.equal(first[key], before[key]) for key in before)

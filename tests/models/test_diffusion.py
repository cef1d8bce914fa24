"""Noise that is known is taken away, and a draw is the same wherever and whenever it is made."""

import numpy as np
import pytest
import torch

from bids_sr.errors import ModelCardError
from bids_sr.models import slabs
from bids_sr.models.base import Lattice
from bids_sr.models.diffusion import DDPM3D, STEPS, kept_signal, steps_taken, waves, without_noise
from bids_sr.models.grid import GridNetwork
from bids_sr.models.registry import ModelCard, build_model, count_parameters
from tests.models.networks import SMALL, small

SCHEDULES = ("linear", "cosine")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network(**options):
    """The small network with other options, and the weights of the small one."""
    made = DDPM3D(2, **SMALL["ddpm3d"] | options)
    made.load_state_dict(small("ddpm3d").state_dict())
    return made.eval()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_signal_fades_step_by_step_until_nothing_is_left(schedule):
    kept = kept_signal(schedule)
    assert kept.shape == (STEPS,)
    assert np.all(np.diff(kept) < 0)
    assert 1 > kept[0] > 0.999 - 1e-4 and 0 < kept[-1] < 1e-4


def test_the_schedules_are_those_of_the_papers():
    added = 1e-4 + (0.02 - 1e-4) * np.arange(STEPS) / (STEPS - 1)
    np.testing.assert_allclose(kept_signal("linear")[499], np.prod(1 - added[:500]), rtol=1e-9)
    share = [np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 for t in (0, 0.5)]
    np.testing.assert_allclose(kept_signal("cosine")[499], share[1] / share[0], rtol=1e-9)


def test_the_steps_go_from_noise_to_signal():
    assert steps_taken(1) == [999]
    assert steps_taken(3) == [999, 500, 0]
    assert steps_taken(STEPS) == list(range(999, -1, -1))
    for count in (10, 20, 50):
        assert len(steps_taken(count)) == count
        assert np.ptp(np.diff(steps_taken(count))) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 20, 50])
def test_the_true_noise_leads_back_to_the_signal(schedule, count):
    random = torch.Generator().manual_seed(0)
    signal, noise = torch.randn(2, 500, generator=random, dtype=torch.float64)
    kept, steps = kept_signal(schedule), steps_taken(count)
    noisy = np.sqrt(kept[steps[0]]) * signal + np.sqrt(1 - kept[steps[0]]) * noise
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        kept_next = 1.0 if following is None else kept[following]
        noisy = without_noise(noisy, noise, kept[step], kept_next)
        torch.testing.assert_close(noisy, np.sqrt(kept_next) * signal + np.sqrt(1 - kept_next) * noise)
    torch.testing.assert_close(noisy, signal)


def test_what_a_network_without_knowledge_draws_stays_within_bounds():
    silent, volumes = DDPM3D(2, **SMALL["ddpm3d"]), torch.rand(1, 2, 6, 6, 6)
    corrections = silent.restore(volumes) - volumes[:, :1]
    assert 0 < corrections.abs().max() <= 10 * SMALL["ddpm3d"]["deviation"] + 1e-6


def test_every_step_looks_different():
    numbers = waves(torch.arange(STEPS))
    nearest = torch.cdist(numbers, numbers).fill_diagonal_(9).min()
    assert numbers.abs().max() <= 1 and nearest > 0.1


def test_the_parameters_are_those_of_the_u_net_and_of_the_layers_that_read_the_step():
    u_net = count_parameters(build_model("unet3d", {"features": 8, "levels": 3}, 4))
    step = 2 * (64 * 64 + 64)
    read = 4 + 8 + 16 + 2 * 16 + 2 * 8
    assert count_parameters(DDPM3D(3, features=8, levels=3)) == u_net + step + 65 * 2 * read


@torch.inference_mode()
def test_the_same_seed_gives_the_same_bytes_and_another_one_another_draw():
    volumes = torch.rand(1, 2, 6, 7, 5)
    first, again = network(seed=3).restore(volumes), network(seed=3).restore(volumes)
    assert torch.equal(first, again)
    assert (network(seed=4).restore(volumes) - first).abs().max() > 1e-3


@torch.inference_mode()
def test_a_volume_is_drawn_alike_whatever_it_is_batched_with():
    volumes = torch.rand(3, 2, 6, 7, 5)
    together, alone = network().restore(volumes), network().restore(volumes[1:2])
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("scale", [None, 2])
def test_the_draw_belongs_to_the_place_whatever_part_of_the_scan_is_encoded(scale):
    """A coarse network draws what lies far from the border alike in a part of the volume."""
    model = GridNetwork(plain(), scale)
    volume = torch.rand(1, 2, 40, 4, 4)
    points, cell = torch.tensor([[20.2, 1.0, 2.0], [19.0, 2.0, 2.5]]), torch.full((3,), 0.5)
    whole = model.query(model.encode(volume, Lattice((-0.25,) * 3, (0.5,) * 3)), points, cell)
    part = model.encode(volume[:, :, 4:], Lattice((-4.25, -0.25, -0.25), (0.5,) * 3))
    shifted = model.query(part, points - torch.tensor([4.0, 0, 0]), cell)
    torch.testing.assert_close(shifted, whole, atol=1e-5, rtol=1e-4)
    elsewhere = model.query(model.encode(volume[:, :, 4:], Lattice((-0.25,) * 3, (0.5,) * 3)), points, cell)
    assert (elsewhere - whole).abs().max() > 1e-3


def plain():
    """One level and three steps, which see six voxels."""
    torch.manual_seed(0)
    made = DDPM3D(2, features=4, levels=1, steps=3, deviation=0.05)
    made.predictor.unet.last.reset_parameters()
    return made.eval()


@torch.inference_mode()
def test_several_draws_give_their_mean_and_their_spread(monkeypatch):
    volumes = torch.rand(2, 2, 7, 6, 5)
    drawn = torch.stack([network().draw(volumes, (2, 0, -3), number) for number in range(3)])
    told = network(samples=3, spread=True).restore(volumes, (2, 0, -3))
    assert told.shape == (2, 2, 7, 6, 5)
    torch.testing.assert_close(told[:, :1], volumes[:, :1] + 0.05 * drawn.mean(dim=0))
    torch.testing.assert_close(told[:, 1:], 0.05 * drawn.std(dim=0), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(network(samples=3).restore(volumes, (2, 0, -3)), told[:, :1])
    monkeypatch.setattr(slabs, "SLAB_VALUES", 1)
    torch.testing.assert_close(network(samples=3, spread=True).restore(volumes, (2, 0, -3)), told)


@torch.inference_mode()
def test_a_model_tells_the_spread_at_any_point():
    model, channels = GridNetwork(network(samples=3, spread=True)), torch.rand(1, 2, 6, 6, 6)
    lattice, cell = Lattice((0.0,) * 3, (0.5,) * 3), torch.full((3,), 0.5)
    nodes = torch.tensor([[1.0, 2.0, 3.0], [2.5, 3.0, 1.5]])
    encoded = model.encode(channels, lattice)
    values, deviations = model.query_with_deviations(encoded, nodes, cell)
    torch.testing.assert_close(values, model.query(encoded, nodes, cell))
    assert deviations.shape == (1, 2) and (deviations > 0).all()
    between, _ = model.query_with_deviations(encoded, nodes + 0.1, cell)
    assert between.shape == (1, 2)
    certain = GridNetwork(network())
    with pytest.raises(ValueError, match="uncertainty"):
        certain.query_with_deviations(certain.encode(channels, lattice), nodes, cell)


@pytest.mark.parametrize(
    ("options", "normalization", "told"),
    [
        ({"samples": 2, "spread": True}, "shell", True),
        ({"samples": 2, "spread": True}, "b0", False),
        ({}, "shell", False),
    ],
)
def test_the_card_says_whether_the_spread_is_told(options, normalization, told):
    card = ModelCard("x", "", "ddpm3d", SMALL["ddpm3d"] | options, ("volume",), normalization)
    assert card.uncertain is told


def test_the_noise_of_a_batch_is_a_function_of_the_batch():
    """So that a training that is resumed goes on as if nothing had happened."""
    volumes, truth = torch.rand(2, 2, 6, 6, 6), torch.rand(2, 216)
    torch.manual_seed(1)
    first = network().compared(volumes, truth)
    torch.manual_seed(2)
    again = network().compared(volumes, truth)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(network().compared(volumes, truth + 1e-3)[1], first[1])
    assert first[1].std() == pytest.approx(1, abs=0.15)


def test_an_untrained_network_sees_what_is_best_where_nothing_is_known():
    """The mean of the noise in a sum of normal numbers whose variances add up to one has this proportion to it."""
    model, noisy = DDPM3D(2, **SMALL["ddpm3d"]), torch.rand(2, 3, 6, 6, 6)
    found = model.predictor(noisy, torch.tensor([3, 700]), torch.tensor([0.9, 0.1]))
    torch.testing.assert_close(found, noisy[:, :1] * torch.tensor([0.1, 0.9]).sqrt().view(2, 1, 1, 1, 1))


@torch.inference_mode()
def test_a_correction_that_is_always_the_same_is_learned_and_drawn(monkeypatch):
    """With the best prediction there is of it, a draw is that correction, whatever noise it began with."""
    model, volumes = DDPM3D(1, levels=1, deviation=0.2, steps=10), torch.rand(1, 1, 5, 5, 5)
    correction = torch.linspace(-2, 2, 5)

    def predict(x, steps, kept):
        return (x[:, :1] - kept.sqrt() * correction) / (1 - kept).sqrt()

    monkeypatch.setattr(model.predictor, "forward", predict)
    torch.testing.assert_close(model(volumes), volumes + 0.2 * correction, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 0}, {"steps": 1001}, {"samples": 0}, {"samples": 1, "spread": True}, {"seed": -1}, {"deviation": 0},
        {"schedule": "quadratic"}, {"levels": 0},
    ],
)  # fmt: skip
def test_models_that_cannot_be_are_refused_in_one_line(arguments):
    with pytest.raises(ModelCardError, match="ddpm3d") as caught:
        build_model("ddpm3d", arguments, 2)
    assert "\n" not in str(caught.value)

"""A fit is run once, told as it goes, and repeated to the byte; it touches nothing else."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from bids_sr.errors import ModelCardError
from bids_sr.geometry import Grid
from bids_sr.inference import fitting
from bids_sr.inference.fitting import FitLog, fitted
from bids_sr.inference.memory import estimate
from bids_sr.models.base import Encoded, Lattice
from bids_sr.models.fitting import (
    Cost,
    Fit,
    FittableModel,
    FittedModel,
    Learning,
    Scan,
    spread_volumes,
    steps_within,
)
from bids_sr.models.interpolation import CubicSpline
from bids_sr.models.registry import FITTED_TO_SCAN, load_model, read_card

CPU = torch.device("cpu")
SCAN = Scan(
    lambda index: np.full((1, 2, 2, 2), index, np.float32), np.array([0, 1, 1]), np.ones((2, 2, 2), bool),
    Grid((2, 2, 2), np.eye(4)), Lattice((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)),
)  # fmt: skip


class Level(FittedModel):
    """One number."""

    def __init__(self) -> None:
        super().__init__(1)
        self.number = nn.Parameter(torch.rand(()))

    def encode(self, channels, lattice):
        return Encoded(channels.flatten(2).movedim(1, 2), (2, 2, 2))


class Learner(FittableModel):
    """Learns the mean of the last volume, with noise that is drawn for each step."""

    radius = 1

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate

    def begin_fit(self, scan, device):
        model, volume = Level(), scan.channels(len(scan.shells) - 1)

        def loss(random):
            return (model.number - float(volume.mean()) - random.normal(0, 0.01)) ** 2

        return Fit(model, "A number.", Learning((volume,), 100, loss, self.rate))

    def cost(self, box, cell, n_channels):
        return Cost(0, 0, 0)


def fit(log=None, model=None, scan=SCAN):
    return fitted(model or Learner(), lambda: scan, CPU, log or FitLog())


def test_it_learns_and_says_what():
    log = FitLog()
    model = fit(log)
    assert float(model.number) == pytest.approx(2, abs=0.1)
    assert not model.training
    assert not model.number.requires_grad
    assert log.record.pop("seconds") >= 0
    assert log.record == {"learned": True, "sentence": "A number.", "steps": 100}


def test_a_model_that_needs_no_fit_is_not_fitted():
    model, log = CubicSpline(), FitLog()
    assert fitted(model, lambda: pytest.fail("the scan was read"), CPU, log) is model
    assert log.record == {}


def test_the_seed_decides_and_other_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    numbers = [float(fit(FitLog(seed)).number) for seed in (1, 1, 2)]
    assert numbers[0] == numbers[1] != numbers[2]
    torch.testing.assert_close(torch.rand(4), expected)


def test_it_learns_where_gradients_are_off():
    with torch.inference_mode():
        assert float(fit().number) == pytest.approx(2, abs=0.1)


def test_progress_is_shown_step_by_step():
    seen = []

    def progress(steps, total):
        for step in steps:
            seen.append((step, total))
            yield step

    fit(FitLog(progress=progress))
    assert seen == [(step, 100) for step in range(100)]


def test_a_rerun_takes_what_was_learned(tmp_path, monkeypatch):
    first = fit(FitLog(folder=tmp_path / "fits"))
    monkeypatch.setattr(fitting, "_learn", lambda *_: pytest.fail("it was fitted again"))
    assert float(fit(FitLog(folder=tmp_path / "fits")).number) == float(first.number)


@pytest.mark.parametrize(
    "change",
    [
        {"log": lambda folder: FitLog(1, folder)},
        {"model": Learner(0.2)},
        {"scan": dataclasses.replace(SCAN, channels=lambda index: np.full((1, 2, 2, 2), index + 1, np.float32))},
        {"scan": dataclasses.replace(SCAN, lattice=Lattice((0.0, 0.0, 0.0), (0.4, 0.5, 0.5)))},
    ],
    ids=["seed", "settings", "data", "grid"],
)
def test_what_was_learned_otherwise_is_not_taken(tmp_path, change):
    fit(FitLog(folder=tmp_path))
    given = {"log": FitLog(folder=tmp_path), **change}
    if callable(given["log"]):
        given["log"] = given["log"](tmp_path)
    fit(**given)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_fitted_again(tmp_path):
    first = fit(FitLog(folder=tmp_path))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:20])
    assert float(fit(FitLog(folder=tmp_path)).number) == float(first.number)
    assert file.read_bytes() == content


def test_where_nothing_can_be_written_it_is_fitted_all_the_same(tmp_path):
    (tmp_path / "taken").write_text("")
    assert float(fit(FitLog(folder=tmp_path / "taken")).number) == pytest.approx(2, abs=0.1)


def test_every_shell_has_its_part():
    shells = np.array([0, *[1] * 10, *[2] * 30, 3])
    chosen = spread_volumes(shells, 14)
    counts = np.bincount(shells[chosen])
    assert counts.tolist() == [1, 3, 10, 1]
    assert np.all(np.diff(chosen) > 0)
    np.testing.assert_array_equal(spread_volumes(shells, 100), np.arange(len(shells)))


def test_a_step_at_least_fits_into_every_budget():
    assert steps_within(1e-9, 1e12) == 1
    assert steps_within(60, 1e8) == pytest.approx(2 * steps_within(30, 1e8), abs=1)


@pytest.mark.parametrize("name", list(FITTED_TO_SCAN))
def test_the_estimate_counts_the_fit_once_and_shares_it_among_threads(name):
    card = read_card(name)
    few, many = (estimate((60, 70, 30), n, (60, 70, 60), card) for n in (10, 20))
    budget = card.arguments["seconds"]
    assert budget < few.seconds < many.seconds < 2 * few.seconds
    assert estimate((60, 70, 30), 10, (60, 70, 60), card, threads=2).seconds == pytest.approx(few.seconds / 2, rel=0.1)
    assert few.peak_gb == many.peak_gb < estimate((90, 100, 60), 10, (90, 100, 120), card).peak_gb < 4


def test_a_card_of_senseless_arguments_is_refused_in_a_line(tmp_path):
    for change in ({"features": 0}, {"unheard": 1}, {"seconds": "long"}):
        card = dataclasses.replace(read_card("smore"), arguments=change)
        file = tmp_path / "card.json"
        file.write_text(json.dumps(dataclasses.asdict(card)))
        with pytest.raises(ModelCardError):
            load_model(str(file), CPU)


@pytest.mark.parametrize("name", list(FITTED_TO_SCAN))
def test_cards_hold_the_defaults_of_their_models(name):
    model, card = load_model(name, CPU)
    assert vars(model) == vars(type(model)())
    assert set(card.arguments) <= set(vars(model))
    assert card.guided == getattr(model, "guided", False)

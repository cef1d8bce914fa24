"""What a table tells of its trainings and tests."""

from pathlib import Path

import pytest

from benchmarks.table_layout import TABLES, Cost
from benchmarks.table_report import Trained, Trial, costs, report, scales_without_t1w, training_table
from bids_sr.models.registry import ModelCard

TRAINING = {
    "scans": ["sub-a", "sub-b", "simulated-1-0"],
    "simulated_scans": 1,
    "scans_with_t1w": 2,
    "validation_scans": ["sub-c"],
    "optimization": {
        "max_steps": 1000, "batch_size": 4, "learning_rate": 5e-4, "schedule": "cosine", "precision": "32-true"
    },
    "hardware": {"device": "A processor", "threads": 1},
}  # fmt: skip


def trained(model, seed, seconds, inputs=("volume",)):
    progress = {"steps": 1000, "patches": 4000, "seconds": seconds, "validation_loss": 0.1}
    card = ModelCard(
        f"{model}_seed-{seed}", "", "csr_dmri", inputs=inputs, parameters=1234,
        training=TRAINING | {"progress": progress},
    )  # fmt: skip
    return Trained(model, seed, card, Path())


def test_a_network_is_told_once_with_the_spread_of_its_seconds():
    lines = training_table([trained("m1", 0, 100.0), trained("m1", 1, 102.0), trained("m2", 0, 50.0)]).splitlines()
    assert lines[2:] == [
        "| m1 | 1,234 | 1,000 | 4,000 | 101 ± 1 | A processor, threads: 1, 32-true |",
        "| m2 | 1,234 | 1,000 | 4,000 | 50 | A processor, threads: 1, 32-true |",
    ]


def test_budget_data_and_seeds_are_stated():
    trial = Trial("Scans", ["sub-d"], 6)
    text = report(TABLES["2"], {}, [trained("m1", 0, 1.0), trained("m1", 7, 1.0)], trial, [])
    assert "1,000 steps of 4 patches" in text
    assert "sub-a, sub-b and 1 simulated scans, 2 of 3 with a T1w; validation: sub-c" in text
    assert "sub-d of Scans, the b0 volumes and 6 weighted ones, degraded by the profile gaussian" in text
    assert "over the seeds 0, 7" in text
    assert "T1w was used" not in text


def test_budgets_that_differ_in_more_than_the_seed_are_not_called_one():
    one, other = trained("m1", 0, 1.0), trained("arssr", 0, 1.0)
    longer = TRAINING["optimization"] | {"max_steps": 2000}
    other.card.training["optimization"] = longer
    text = report(TABLES["paper1"], {}, [one, other], Trial("Scans", [], None), [])
    assert "every network" not in text
    other.card.training["optimization"] = TRAINING["optimization"] | {"seed": 5}
    assert "every network" in report(TABLES["paper1"], {}, [one, other], Trial("Scans", [], None), [])


@pytest.mark.parametrize(("without", "ending"), [([], "takes one."), (["3", "4"], "takes one, but not at 3x, 4x.")])
def test_it_is_said_whether_the_t1w_took_part(without, ending):
    text = report(TABLES["2"], {}, [trained("m2", 0, 1.0, ("volume", "t1w"))], Trial("Scans", [], None), without)
    assert ending in text


def test_only_networks_that_take_a_t1w_can_do_without_it():
    rows = [
        {"model": "cubic", "scale": "2", "t1w": "False"},
        {"model": "m1_seed-0", "scale": "2", "t1w": "False"},
        {"model": "m2_seed-0", "scale": "2", "t1w": "True"},
        {"model": "m2_seed-0", "scale": "10", "t1w": "False"},
        {"model": "m2_seed-0", "scale": "4", "t1w": "False"},
    ]
    networks = [trained("m1", 0, 1.0), trained("m2", 0, 1.0, ("volume", "t1w"))]
    assert scales_without_t1w(rows, networks) == ["4", "10"]


def test_costs_are_means_over_the_seeds_and_those_of_shipped_models_have_no_time():
    found = costs(TABLES["families"], [trained("unet3d", 0, 10.0), trained("unet3d", 1, 20.0)])
    assert found["unet3d"] == Cost(1234, 15.0)
    assert found["light"].parameters > 1e5
    assert found["light"].seconds is None
    assert set(found) == {"unet3d", "light", "default"}


def test_a_table_without_published_rows_is_not_compared_with_a_paper():
    trial = Trial("Scans", [], None)
    assert "published" not in report(TABLES["families"], {}, [], trial, [])
    assert "### Beside the published figures" in report(TABLES["1"], {}, [], trial, [])


def test_networks_of_one_length_that_differ_otherwise_are_told_so():
    one, other = trained("unet3d", 0, 1.0), trained("srcnn3d_915", 0, 1.0)
    other.card.training["optimization"] = TRAINING["optimization"] | {"learning_rate": 1e-4}
    text = report(TABLES["families"], {}, [one, other], Trial("Scans", [], None), [])
    assert "Training of every network: 1,000 steps, 32-true; the rest is in the presets." in text

"""What would run is told from headers alone, the T1w's part in it too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bids_sr.bids.inputs import DwiSeries
from bids_sr.cli.app import main
from bids_sr.cli.dry_run import seconds
from bids_sr.config import Config
from bids_sr.geometry import Grid
from bids_sr.models.registry import CUBIC, read_card
from bids_sr.workflows.plan import SeriesPlan
from tests.made_models import save_tiny_model
from tests.skeleton import Skeleton


@pytest.fixture
def table(tmp_path, capsys):
    """The table for a subject with a T1w and one without, by model inputs."""
    skeleton = Skeleton(tmp_path / "data")
    skeleton.dwi("sub-01")
    skeleton.dwi("sub-02")
    skeleton.t1w("sub-02")

    def lines(inputs, *options):
        card = save_tiny_model(tmp_path / "model", inputs)
        words = [str(skeleton.root), str(tmp_path / "out"), "participant", "--scale", "2", "--dry-run", "--model", card]
        assert main([*words, "--device", "cpu", *options]) == 0
        return capsys.readouterr().out.splitlines()[1:3]

    return lines


def test_a_model_that_uses_the_t1w_is_guided_or_given_zeros(table):
    without, guided = table(("volume", "t1w"))
    assert "none (zeros for the model)" in without
    assert "guides the model" in guided
    assert all("none (zeros for the model)" in line for line in table(("volume", "t1w"), "--no-t1w"))


def test_a_model_that_does_not_use_it_is_not(table):
    without, other = table(("volume", "b0"))
    assert "zeros" not in without
    assert "guides" not in other


@pytest.mark.parametrize(
    ("shape", "options", "told"),
    [
        ((24, 24, 24, 7), [], "yes"),
        ((24, 24, 24, 7), ["--no-self-check"], "no"),
        ((6, 6, 6, 7), [], "cannot be done"),
    ],
)
def test_it_is_told_whether_the_scan_can_be_checked_on_itself(tmp_path, capsys, shape, options, told):
    skeleton = Skeleton(tmp_path / "data")
    skeleton.dwi("sub-01", shape=shape)
    words = [str(skeleton.root), str(tmp_path / "out"), "participant", "--scale", "2", "--dry-run", "--model", "light"]
    assert main([*words, "--device", "cpu", *options]) == 0
    heading, row, *_ = capsys.readouterr().out.splitlines()
    column = heading.index("self-check")
    assert row[column : heading.index("time")].strip() == told


@pytest.fixture
def plan(tmp_path):
    """A series of 40 volumes, of a model that does not use the T1w, without the self-check."""
    source = Grid((64, 64, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    series = DwiSeries(Path("dwi.nii"), Path("bval"), Path("bvec"), entities={"sub": "01"}, t1w=Path("t1w.nii"))
    config = replace(Config(tmp_path, tmp_path, tmp_path, scale=(2.0, 2.0, 2.0)), self_check=False)
    target = source.scaled(np.full(3, 2.0))
    return SeriesPlan(series, config, read_card("light"), "cpu", source, target, 40, (0, 0, 0), None, "")


def test_the_self_check_takes_its_part_of_the_time(plan):
    """It restores 26 of 40 volumes, from an eighth of the voxels to an eighth of them: 8 % of the time."""
    checked = replace(plan, config=replace(plan.config, self_check=True))
    assert seconds(checked) / seconds(plan) == pytest.approx(1 + 26 / 40 / 8, rel=0.02)
    assert seconds(replace(checked, card=CUBIC)) == seconds(replace(plan, card=CUBIC))


def test_what_is_restored_again_without_the_t1w_takes_time_too(plan):
    """Ten of 40 volumes; none for a series without a T1w."""
    card = replace(plan.card, inputs=("volume", "b0", "shell", "t1w"))
    checked = replace(plan, card=card, config=replace(plan.config, self_check=True))
    without = replace(checked, series=replace(plan.series, t1w=None))
    assert seconds(checked) - seconds(without) == pytest.approx(seconds(replace(plan, card=card)) / 4, rel=0.02)


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_a_model_without_weights_is_refused_before_anything_runs(tmp_path, capsys, options):
    skeleton = Skeleton(tmp_path / "data")
    skeleton.dwi("sub-01")
    words = [str(skeleton.root), str(tmp_path / "out"), "participant", "--scale", "2", "--device", "cpu"]
    assert main([*words, "--model", "csr_dmri_paper", "--skip-bids-validation", *options]) == 2
    assert (
        "csr_dmri_paper has no weights; train it: bids-sr-train fit --preset csr_dmri_paper" in capsys.readouterr().err
    )
    assert not list((tmp_path / "out").glob("sub-*"))

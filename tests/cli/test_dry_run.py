"""What would run is told from headers alone, the T1w's part in it too."""

import pytest

from bids_sr.cli.app import main
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

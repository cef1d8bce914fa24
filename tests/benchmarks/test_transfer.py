"""A network tuned to one scan is tested on its repeat and on others, before and after."""

import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import transfer
from benchmarks.transfer import AFTER, BEFORE, Row, Scan, changes, introduction, main, repeats
from bids_sr.dwi.gradients import Gradients
from bids_sr.errors import InputError, NoB0Error
from bids_sr.evaluation.benchmark import Reference
from bids_sr.geometry import Grid
from bids_sr.models.registry import ModelCard, read_card
from tests.benchmarks.test_tables import PRESET
from tests.tiny import make_tiny

#: Seven, any six of which determine a tensor.
DIRECTIONS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)], dtype=float)
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)


def scan(bvals):
    """A scan whose volumes hold their numbers."""
    data = np.broadcast_to(np.arange(len(bvals), dtype=np.float32), (2, 2, 2, len(bvals)))
    gradients = Gradients(np.array(bvals, dtype=float), np.resize(DIRECTIONS, (len(bvals), 3)))
    return Scan("sub-a", Reference(data, gradients, Grid((2, 2, 2), np.eye(4)), np.ones((2, 2, 2), bool), 50.0))


@pytest.fixture
def one_series(monkeypatch):
    """`repeats` of a subject with one series of these b-values."""

    def halves(bvals):
        monkeypatch.setattr(transfer, "read_scan", lambda series: scan(bvals))
        return repeats(["its series"])

    return halves


def test_a_single_series_is_tuned_on_its_first_half_and_tested_on_its_second(one_series):
    first, second = one_series([0, *[1000] * 6, 0, *[1000] * 6])
    assert (first.name, second.name) == ("sub-a_part-1", "sub-a_part-2")
    assert first.reference.data[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert second.reference.data[0, 0, 0].tolist() == [7, 8, 9, 10, 11, 12, 13]
    assert second.reference.gradients.bvals.tolist() == [0] + [1000] * 6


def test_a_single_b0_is_in_both_halves(one_series):
    first, second = one_series([1000, 0, *[1000] * 12])
    assert first.reference.data[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert second.reference.data[0, 0, 0].tolist() == [1, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize(("bvals", "problem"), [([1000] * 14, NoB0Error), ([0, 1000, 0, 1000], InputError)])
def test_a_half_that_is_no_scan_is_refused(one_series, bvals, problem):
    with pytest.raises(problem, match="sub-a_part-"):
        one_series(bvals)


def test_two_series_are_repeats_as_they_are(monkeypatch):
    monkeypatch.setattr(transfer, "read_scan", lambda series: replace(scan([0, 1000]), name=series))
    assert [part.name for part in repeats(["sub-a_dir-AP", "sub-a_dir-PA"])] == ["sub-a_dir-AP", "sub-a_dir-PA"]


def test_changes_are_after_less_before():
    before, after = (
        {"psnr_mask": psnr, "ssim_mask": 0.5, "fa_error": fa, "md_error": 1e-4} for psnr, fa in ((30, 0.2), (31, 0.15))
    )
    rows = [Row("sub-a", "", "cubic", before), Row("sub-a", "", BEFORE, before), Row("sub-a", "", AFTER, after)]
    assert list(changes(rows)) == [["sub-a", "+1.00", "+0.000", "-0.0500", "+0.000"]]


@pytest.mark.parametrize(("learned_from", "warned"), [("sub-a_dir-AP", True), ("set/sub-a", True), ("sub-ab", False)])
def test_it_is_told_if_the_network_knew_the_subject(learned_from, warned):
    training = {
        "hardware": {"device": "A processor"},
        "optimization": {"batch_size": 4, "learning_rate": 1e-4},
        "progress": {"steps": 10, "seconds": 5.0},
    }
    before = ModelCard("before", "", "csr_dmri", training={"scans": [learned_from]})
    after = ModelCard("after", "", "csr_dmri", training=training)
    options = Namespace(volumes=None, scale=2.0, seed=3, threads=1)
    text = "\n".join(introduction(before, after, scan([0] + [1000] * 6), options))
    assert ("had learned from scans of sub-a before" in text) == warned
    assert "sub-a (7 volumes), 10 steps of 4 patches from a rate of 0.0001, seed 3, 5 s" in text


@pytest.fixture
def words(tmp_path):
    """The command line for two steps on made heads: two sessions of one subject, one session of two others."""
    raw = make_tiny(tmp_path / "raw", n_sessions=2)
    for label in ("02", "03"):
        copied(raw, label)
    (tmp_path / "tiny.toml").write_text(PRESET)
    return [
        str(raw), "--subject", "01", "--first", "02", "--others", "sub-03", "--preset", f"{tmp_path}/tiny.toml",
        "--steps", "2", "--device", "cpu", "--work", f"{tmp_path}/work", "--output", f"{tmp_path}/out.md",
    ]  # fmt: skip


def copied(dataset: Path, label: str) -> None:
    """Another subject of a dataset, with the first session of sub-01."""
    shutil.copytree(dataset / "sub-01" / "ses-1", dataset / f"sub-{label}" / "ses-1")
    for file in [path for path in (dataset / f"sub-{label}").rglob("sub-01*") if path.is_file()]:
        file.rename(file.with_name(file.name.replace("sub-01", f"sub-{label}")))


@pytest.mark.slow
def test_one_command_tunes_tests_and_writes_and_trains_nothing_twice(words, tmp_path, monkeypatch):
    assert main(words) == 0
    text = (tmp_path / "out.md").read_text()
    for name in ("sub-01_ses-2", "sub-03_ses-1"):
        assert all(f"| {name} | " in line for line in text.splitlines() if name in line)
        assert sum(line.startswith(f"| {name} | ") for line in text.splitlines()) == 4
    before, after = (read_card(str(tmp_path / "work" / name / f"{name}.json")) for name in (BEFORE, AFTER))
    assert (before.training["scans"], after.training["scans"]) == (["sub-02_ses-1"], ["sub-01_ses-1"])
    assert after.training["started_from"]["weights_sha256"] == before.weights_sha256
    assert after.training["optimization"]["learning_rate"] == 1e-4
    trained = []
    monkeypatch.setattr(transfer, "train", lambda *given, **named: trained.append(given[3]))
    assert main(words) == 0
    assert not trained
    # Another seed is another training.
    monkeypatch.setattr(
        transfer, "figures_of", lambda *given: dict.fromkeys([name for name, *_ in transfer.COLUMNS], 1.0)
    )
    assert main([*words, "--seed", "1"]) == 0
    assert trained == [BEFORE, AFTER]


@pytest.mark.parametrize("others", [["--first", "sub-01", "--others", "03"], ["--first", "02", "--others", "03", "01"]])
def test_the_subject_that_is_tuned_to_must_be_new(others, tmp_path, capsys):
    assert main([str(tmp_path), "--subject", "01", *others, "--work", f"{tmp_path}/work"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmarks.transfer: --")
    assert line.endswith("the subject that is tuned to (--subject)")

"""Bars are told as they are, and one command fills the table and goes on where it was."""

import numpy as np
import pytest

from benchmarks import default_model
from benchmarks.default_model import bars, figure_rows, main
from benchmarks.tables import Job
from bids_sr import companions
from bids_sr.cli import evaluate
from bids_sr.dwi.registration import Registration
from bids_sr.evaluation import process
from tests.cli.test_evaluate import grey
from tests.made_models import save_tiny_model

CUBIC = {"psnr_mask": 29.0, "ssim_mask": 0.8, "fa_error": 0.10, "md_error": 2e-4, "v1_angle": 9.0, "n_t1w": 0}
OURS = {"psnr_mask": 31.7, "ssim_mask": 0.9, "fa_error": 0.05, "md_error": 1e-4, "v1_angle": 7.0, "n_t1w": 1}


def table(scales=("2",), **changes):
    """Figures of one subject, the model's with changes."""
    return {
        ("sub-01", scale, model): figures
        for scale in scales
        for model, figures in (("default", OURS | changes), ("cubic", CUBIC))
    }


def told(found, text):
    """The one bar whose text begins so."""
    (bar,) = [bar for bar in bars(found, "default") if bar.text.startswith(text)]
    return bar.reached, bar.met


@pytest.mark.parametrize(("psnr", "met"), [(31.7, True), (31.59, False), (28.0, False)])
def test_a_gain_is_held_against_its_bar(psnr, met):
    reached = told(table(psnr_mask=psnr), "PSNR over cubic at 2x")
    assert reached == (f"{psnr - 29:+.2f} dB", met)


@pytest.mark.parametrize(("fa", "met"), [(0.059, True), (0.061, False)])
def test_errors_are_parts_of_those_of_cubic(fa, met):
    assert told(table(fa_error=fa), "FA error at 2x") == (f"{fa * 10:.2f}", met)
    assert told(table(fa_error=fa), "MD error at 2x") == ("0.50", True)


@pytest.mark.parametrize(
    ("changes", "worse"),
    [
        ({}, "none"),
        ({"ssim_mask": 0.79}, "SSIM"),
        ({"fa_error": 0.11, "md_error": 3e-4}, "FA, MD"),
        ({"psnr_mask": float("nan")}, "PSNR"),
        (CUBIC, "none"),
    ],
)
def test_nothing_may_be_worse_than_by_cubic(changes, worse):
    assert told(table(("1x1x2",), **changes), "never worse than cubic at 1x1x2") == (worse, worse == "none")


def test_scales_that_were_not_tried_have_no_bar():
    assert [bar.text.split(":")[0] for bar in bars(table(("1.25",)), "default")] == ["never worse than cubic at 1.25"]
    assert told(table(("2", "4")), "far goal") == ("31.70 dB", True)
    assert not list(bars({key: value for key, value in table().items() if key[2] != "cubic"}, "default"))


def test_figures_go_by_subject_then_scale():
    found = table(("1x1x2", "4", "1.25"))
    rows = list(figure_rows(found))
    assert [row[1] for row in rows] == ["1.25", "1.25", "4", "4", "1x1x2", "1x1x2"]
    assert rows[0][2:7] == ("default", "yes", "31.70", "+2.70", "0.900")
    assert rows[0][8] == "0.50"
    alone = {key: value for key, value in found.items() if key[2] != "cubic"}
    assert {row[5] for row in figure_rows(alone)} == {"–"}


@pytest.fixture
def in_process(monkeypatch):
    """Jobs run in this process, on restorations that are stood in for, with the T1w left where it is."""
    found = Registration(np.eye(4), 1.0, 0.5, -0.3, 0.0, 0.0, "scanner")
    monkeypatch.setattr(companions, "register_rigid", lambda *_: found)
    monkeypatch.setattr(process, "restore_apart", grey)
    monkeypatch.setattr(evaluate, "_write_figure", lambda *_: None)
    monkeypatch.setattr(Job, "run", lambda job, _: evaluate.main(job.command[3:]) == 0)


def test_one_command_fills_the_table_and_does_nothing_twice(dataset, tmp_path, in_process, monkeypatch):
    model = save_tiny_model(tmp_path / "model", ("volume",), guided=True)
    words = [str(dataset), "--subjects", "01", "--scales", "2", "--volumes", "6", "--model", model]
    words += ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "default.md")]
    assert main(words) == 0
    text = (tmp_path / "default.md").read_text()
    assert "| sub-01 | PSNR over cubic at 2x | +2.6 dB | +0.00 dB | **no** |" in text
    for name, t1w in (("tiny", "yes"), ("light", "no"), ("cubic", "no"), ("tiny without T1w", "no")):
        assert f"| sub-01 | 2 | {name} | {t1w} |" in text
    assert "| sub-01 | residuals | " in text
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.json")}
    assert len(kept) == 5, "four restorations, one noise"
    for module, work in ((default_model, "ceilings"), (process, "restore_apart")):
        monkeypatch.delattr(module, work)
    assert main(words) == 0
    assert kept == {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.json")}
    assert (tmp_path / "default.md").read_text() == text


def test_what_fails_leaves_the_rest(dataset, tmp_path, in_process, monkeypatch):
    run = Job.run
    monkeypatch.setattr(Job, "run", lambda job, threads: "scale 3" not in job.label and run(job, threads))
    words = [str(dataset), "--subjects", "01", "--scales", "3", "2", "--volumes", "6", "--model", "light"]
    assert main([*words, "--work", str(tmp_path / "work"), "--output", str(tmp_path / "default.md")]) == 1
    text = (tmp_path / "default.md").read_text()
    assert "| sub-01 | 2 | light | no |" in text
    assert "| sub-01 | 3 |" not in text


def test_a_model_that_is_not_there_is_one_line(dataset, tmp_path, capsys):
    words = [str(dataset), "--model", "nobody", "--work", str(tmp_path), "--output", str(tmp_path / "x.md")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks.default_model: ")
    assert "no model named nobody" in error
    assert error.count("\n") == 1

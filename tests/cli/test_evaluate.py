"""`bids-sr-evaluate` from a BIDS dataset to its tables: whole, cut off, and refused in one line."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bids_sr import companions
from bids_sr.bids import outputs
from bids_sr.bids.inputs import DwiSeries
from bids_sr.cli import evaluate
from bids_sr.cli.evaluate import build_parser, main, parse_scale, scale_text, within_range
from bids_sr.degradation import PROFILES
from bids_sr.dwi.registration import Registration
from bids_sr.errors import NoSignalError
from bids_sr.evaluation import process
from bids_sr.evaluation.process import Cost
from bids_sr.models.registry import ModelCard, build_model, read_card, save_model
from tests.made_models import save_narrow_vgg, save_tiny_model

TINY = {"features": 4, "growth": 4, "blocks": 1, "layers": 1, "feature_channels": 4, "hidden": 8, "stages": 1}


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A whole evaluation with real processes; nobody writes into it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert main([str(dataset), str(out), "--models", "light", "cubic", "--volumes", "6", "--threads", "1"]) == 0
    return out


def grey(order, folder, progress, label):
    """Stands in for a restoration: images of a ripple, without a process."""
    level = np.load(folder / "data.npy").mean(axis=(1, 2, 3))
    ripple = 1 + 0.01 * np.indices(order.target.shape).sum(axis=0)[..., None]
    return (level * ripple).astype(np.float32), Cost(1.0, 0.5, 0.0)


@pytest.fixture
def restored(monkeypatch):
    """Labels of what was restored by the stand-in; no figure is drawn."""
    labels = []

    def stand_in(order, folder, progress, label):
        labels.append(label)
        return grey(order, folder, progress, label)

    monkeypatch.setattr(process, "restore_apart", stand_in)
    monkeypatch.setattr(evaluate, "_write_figure", lambda *_: None)
    return labels


@pytest.fixture(scope="module")
def stood_in(dataset, tmp_path_factory):
    """A whole evaluation by the stand-in, to be copied."""
    out = tmp_path_factory.mktemp("stood_in") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "restore_apart", grey)
        patch.setattr(evaluate, "_write_figure", lambda *_: None)
        assert main(words(dataset, out)) == 0
    return out


def table(out, name):
    return list(csv.DictReader((out / f"{name}.csv").open()))


def card(folder, inputs=("volume", "b0", "shell"), seed=0):
    """A model with random weights."""
    torch.manual_seed(seed)
    model = build_model("csr_dmri", TINY, len(inputs))
    save_model(model, ModelCard("tiny", "Untrained.", "csr_dmri", TINY, inputs=inputs), folder)
    return str(folder / "tiny.json")


def test_every_table_holds_what_it_should(finished):
    volumes, scans, subjects = (table(finished, name) for name in ("volumes", "scans", "subjects"))
    n_volumes = int(scans[0]["n_volumes"])
    assert [row["model"] for row in scans] == [row["model"] for row in subjects] == ["light", "cubic"]
    assert len(volumes) == 2 * n_volumes
    assert sum(row["weighted"] == "True" for row in volumes) == 2 * 6
    for row in subjects:
        assert 10 < float(row["psnr_mask"]) < 60
        assert 0.3 < float(row["ssim_mask"]) < 1
        assert 0.001 < float(row["fa_error"]) < 0.3
        assert 0.05 < float(row["peak_gb"]) < 4
        assert float(row["seconds"]) > 0


def test_the_network_took_longer_and_more_memory_than_the_spline(finished):
    light, cubic = table(finished, "scans")
    assert float(light["seconds"]) > float(cubic["seconds"])
    assert float(light["peak_gb"]) > float(cubic["peak_gb"])


def test_the_summary_and_the_figure_are_there(finished):
    text = (finished / "summary.md").read_text()
    assert "- light: " in text
    assert "the b0 volumes and 6 weighted ones" in text
    assert "| 2 | cubic | 1 | 0 |" in text
    assert (finished / "figure.svg").stat().st_size > 5000
    assert (finished / "figure.png").stat().st_size > 5000
    assert not list(finished.glob(".scratch*"))


def test_the_same_command_does_nothing_again(dataset, finished, restored, capsys):
    before = (finished / "summary.md").read_bytes()
    assert main([str(dataset), str(finished), "--models", "light", "cubic", "--volumes", "6", "--threads", "1"]) == 0
    assert restored == []
    assert "2 restorations, 2 of them finished before" in capsys.readouterr().err
    assert (finished / "summary.md").read_bytes() == before


def words(dataset, out, *more):
    return [str(dataset), str(out), "--models", "trilinear", "cubic", "--volumes", "6", "--device", "cpu", *more]


def test_an_evaluation_that_was_cut_off_goes_on_where_it_was(dataset, tmp_path, restored, monkeypatch, capsys):
    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        stand_in = process.restore_apart
        patch.setattr(process, "restore_apart", lambda *order: stand_in(*order) if not restored else cut_off())
        assert main(words(dataset, tmp_path)) == 130
    assert len(table(tmp_path, "scans")) == 1, "what had ended is in the tables"
    assert main(words(dataset, tmp_path)) == 0
    assert restored == ["sub-01, scale 2, trilinear", "sub-01, scale 2, cubic"]
    assert [row["model"] for row in table(tmp_path, "scans")] == ["trilinear", "cubic"]
    assert "2 of 2: sub-01, scale 2, cubic: PSNR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "n_restored"),
    [
        ([], 0),
        (["--threads", "7"], 0),
        (["--overwrite"], 2),
        (["--noise", "0.1", "--models", "cubic"], 1),
        (["--profile", "box", "--models", "cubic"], 1),
        (["--volumes", "8", "--models", "cubic"], 1),
        (["--scales", "2", "3", "--models", "cubic"], 1),
    ],
)
def test_what_decides_the_figures_decides_what_is_done_again(dataset, stood_in, tmp_path, restored, change, n_restored):
    shutil.copytree(stood_in, tmp_path, dirs_exist_ok=True)
    assert main(words(dataset, tmp_path, *change)) == 0
    assert len(restored) == n_restored


def test_figures_by_vgg_are_added_when_its_weights_are_given(dataset, stood_in, tmp_path, restored, monkeypatch):
    shutil.copytree(stood_in, tmp_path, dirs_exist_ok=True)
    weights = save_narrow_vgg(monkeypatch, tmp_path)
    assert "vgg" not in table(tmp_path, "scans")[0]
    assert main(words(dataset, tmp_path, "--vgg-weights", str(weights))) == 0
    assert len(restored) == 2
    for row in table(tmp_path, "scans"):
        assert float(row["vgg"]) > 0
        assert float(row["fid"]) > 0
    assert "As VGG19 sees it" in (tmp_path / "summary.md").read_text()
    assert main(words(dataset, tmp_path, "--vgg-weights", str(weights))) == 0
    assert len(restored) == 2


def test_a_change_of_the_series_is_noticed(dataset, stood_in, tmp_path, restored):
    shutil.copytree(dataset, tmp_path / "raw")
    shutil.copytree(stood_in, tmp_path / "out")
    (bval,) = (tmp_path / "raw").glob("sub-*/dwi/*.bval")
    bval.write_text(bval.read_text().replace("1000", "1001"))
    assert main(words(tmp_path / "raw", tmp_path / "out", "--models", "cubic")) == 0
    assert len(restored) == 1


def test_tables_go_by_scale_then_model_as_they_were_asked_for(dataset, tmp_path, restored):
    assert main(words(dataset, tmp_path, "--scales", "1x1x2", "2", "2")) == 0
    rows = [(row["scale"], row["true_scale"], row["model"]) for row in table(tmp_path, "scans")]
    assert rows == [
        ("1x1x2", "1x1x2", "trilinear"),
        ("1x1x2", "1x1x2", "cubic"),
        ("2", "2x2x2", "trilinear"),
        ("2", "2x2x2", "cubic"),
    ]


def test_models_of_the_same_name_are_told_apart_by_their_cards(dataset, tmp_path, restored):
    cards = [card(tmp_path / name, seed=seed) for seed, name in enumerate(("first", "second"))]
    assert main([str(dataset), str(tmp_path / "out"), "--models", *cards, "--volumes", "6"]) == 0
    rows = table(tmp_path / "out", "subjects")
    assert [row["model"] for row in rows] == cards
    assert len({row["weights"] for row in rows}) == 2
    card(tmp_path / "second", seed=2)
    assert main([str(dataset), str(tmp_path / "out"), "--models", *cards, "--volumes", "6"]) == 0
    assert len(restored) == 3, "only the model that was trained anew runs again"


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "t1w as input"])
def test_a_model_that_uses_the_t1w_is_given_it(dataset, tmp_path, restored, monkeypatch, capsys, guided):
    given_t1w = []

    def stand_in(order, folder, progress, label):
        given_t1w.append((folder / "t1w.npy").exists())
        return np.ones((*order.target.shape, len(order.bvals)), np.float32), Cost(1.0, 0.5, 0.0)

    def agreeing(agreement):
        monkeypatch.setattr(
            companions, "register_rigid", lambda *_: Registration(np.eye(4), 1, agreement, -0.3, 0, 0, "")
        )

    def t1w_of(table_name, column, *options):
        assert main([str(dataset), str(tmp_path / "out"), "--volumes", "6", "--models", *options]) == 0
        return [row[column] for row in table(tmp_path / "out", table_name)]

    monkeypatch.setattr(process, "restore_apart", stand_in)
    agreeing(0.5)
    using = save_tiny_model(tmp_path, ("volume", "b0") if guided else ("volume", "b0", "t1w"), guided=guided)
    assert t1w_of("scans", "t1w", using, "cubic") == ["True", "False"]
    assert t1w_of("subjects", "n_t1w", using, "cubic") == ["1", "0"]
    assert given_t1w == [True, True]
    agreeing(0.05)
    assert t1w_of("scans", "t1w", using, "--overwrite") == ["False"]
    assert "restored without a T1w: it shares little with the b0 (agreement 0.050" in capsys.readouterr().err
    agreeing(0.5)
    assert t1w_of("scans", "t1w", using, "--no-t1w") == ["False"]
    assert given_t1w == [True, True, False, False]
    assert capsys.readouterr().err == "1 restorations, 0 of them finished before\n"


def test_a_restoration_that_fails_does_not_stop_the_others(dataset, tmp_path, restored, monkeypatch, capsys):
    stand_in = process.restore_apart

    def failing(order, folder, progress, label):
        if order.model == "trilinear":
            raise NoSignalError(shell="1000")  # noqa: S604
        return stand_in(order, folder, progress, label)

    monkeypatch.setattr(process, "restore_apart", failing)
    assert main(words(dataset, tmp_path)) == 2
    assert [row["model"] for row in table(tmp_path, "scans")] == ["cubic"]
    assert "b = 1000 have no signal" in capsys.readouterr().err


def test_where_nothing_can_be_written_it_ends(dataset, tmp_path, restored, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_text", full)
    assert main(words(dataset, tmp_path)) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("bids-sr-evaluate: OUTPUT_DIR: ")
    assert len(restored) == 1
    assert not list(tmp_path.glob(".scratch*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--models", "nobody"], "no model named nobody"),
        (["--models", "csr_dmri_paper"], "has no weights"),
        (["--models", "none.json"], "no model named none.json"),
        (["--scales", "0.5"], "cannot be smaller"),
        (["--scales", "1x0.9x1"], "cannot be smaller"),
        (["--scales", "two"], "not a number"),
        (["--scales", "2x2"], "not a number"),
        (["--scales", "nan"], "not a number"),
        (["--scales", "-2"], "--scales"),
        (["--scales", "40"], "no voxel lies in the brain"),
        (["--volumes", "5"], "at least 6"),
        (["--volumes", "few"], "--volumes"),
        (["--noise", "-1"], "--noise"),
        (["--profile", "lens"], "'lens' is none of gaussian"),
        (["--profile", "box", "box"], "one name or three"),
        (["--participant-label", "99"], "no sub-99"),
        (["--device", "tpu"], "--device"),
        (["--b0-threshold", "much"], "--b0-threshold"),
        (["--threads", "0"], "--threads"),
        (["--vgg-weights", "none.pth"], "none.pth: no weights of VGG19: no such file"),
        (["--surprise"], "--surprise"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(dataset, tmp_path, capsys, change, message):
    assert main(words(dataset, tmp_path / "out", *change)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "finished before" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("bids-sr-evaluate: ")
    assert message in lines[0]


def test_folders_that_cannot_be_used_are_refused(dataset, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    refused = {
        "cannot be written to": (dataset, tmp_path / "file"),
        "does not exist": (tmp_path / "nowhere", tmp_path / "out"),
        "not a BIDS dataset": (tmp_path / "empty", tmp_path / "out"),
        "Only its derivatives/": (dataset, dataset / "sub-01"),
    }
    for message, (source, target) in refused.items():
        assert main([str(source), str(target), "--models", "cubic"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@given(st.tuples(*[st.floats(1, 9).map(lambda x: round(x, 3))] * 3), st.booleans())
def test_a_scale_is_read_as_it_is_written(scale, isotropic):
    scale = (scale[0],) * 3 if isotropic else scale
    assert parse_scale(scale_text(scale)) == scale
    assert ("x" in scale_text(scale)) == (len(set(scale)) > 1)


def test_a_scale_may_be_off_by_a_rounding():
    wide, narrow = (ModelCard("some", "", "csr_dmri", scale_range=limits) for limits in ((1.0, 4.0), (2.0, 3.0)))
    assert within_range(wide, (4.05, 1.0, 1.0))
    assert not within_range(wide, (4.5, 1.0, 1.0))
    assert not within_range(narrow, (2.0, 2.0, 1.0))


@pytest.mark.parametrize(
    ("patches", "scale", "expected"),
    [
        ({"points": 2048, "isotropic_share": 0.5}, (1.0, 1.01, 2.0), True),
        ({"points": 2048, "isotropic_share": 0.5}, (1.0, 1.1, 2.0), False),
        ({"points": 2048, "isotropic_share": 0.5}, (1.0, 1.0, 1.0), False),
        ({"points": 2048, "isotropic_share": 1.0}, (1.0, 1.0, 2.0), False),
        ({"points": 0, "isotropic_share": 0.5}, (1.0, 1.0, 2.0), False),
        ({}, (1.0, 1.0, 2.0), False),
    ],
)
def test_axes_that_keep_their_voxels_are_what_some_models_were_made_for(patches, scale, expected):
    card = ModelCard("some", "", "csr_dmri", scale_range=(1.2, 4.0), training={"patches": patches})
    assert within_range(card, scale) == expected


def test_the_default_model_was_made_for_thick_slices():
    assert within_range(read_card("default"), (1.0, 1.0, 2.0))


@pytest.mark.parametrize(
    ("learned_from", "told"),
    [
        (["set/sub-01", "set/sub-02_dir-AP"], " **Trained on subjects of the same name: sub-01, sub-02.**"),
        (["set/sub-012", "simulated-1-0"], ""),
    ],
)
def test_it_is_told_if_a_model_knew_a_subject_by_whichever_scan(learned_from, told):
    trained = ModelCard("some", "A model.", "csr_dmri", weights_sha256="0" * 64, training={"scans": learned_from})
    found = ({"sub": "01"}, {"sub": "02", "dir": "PA"}, {"sub": "03"})
    series = [DwiSeries(Path(), Path(), Path(), entities=entities) for entities in found]
    line = evaluate._about(evaluate._Contender("some", "some", trained), series)
    assert line.endswith("made for scales of 1 to 4." + told)


def test_the_help_names_every_profile():
    text = " ".join(build_parser().format_help().split())
    assert all(profile in text for profile in PROFILES)


def test_the_help_imports_nothing_heavy():
    heavy = ("torch", "nipype", "dipy", "bids", "matplotlib", "skimage", "nibabel", "numpy")
    program = (
        f"import sys, bids_sr.cli.evaluate as e; e.build_parser(); print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

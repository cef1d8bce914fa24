"""One command trains what is not trained yet, tests it and writes the table."""

import csv
import dataclasses
import json
import sys

import pytest

from benchmarks import table_layout, tables
from benchmarks.table_layout import Table, any_scale
from benchmarks.tables import Job, main, only_one, results_of
from bids_sr.cli.train import main as train_main
from bids_sr.demo.dataset import make_dataset
from bids_sr.errors import TrainingDataError
from bids_sr.training.packing import load_pack, save_pack

PRESET = """
architecture = "csr_dmri"
inputs = ["volume"]
[model]
features = 4
growth = 4
blocks = 1
layers = 1
feature_channels = 4
hidden = 8
stages = 1
coordinates = "cell"
residual = true
[patches]
patch = 4
border = 0
points = 0
scale_range = [2.0, 2.0]
[optimization]
max_steps = 2
batch_size = 2
validate_every = 2
validation_examples = 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A made dataset, a pack of it, and one that says it is of another subject."""
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "raw", small=True)
    assert train_main(["pack", str(folder / "raw"), str(folder / "train.safetensors"), "--no-t1w"]) == 0
    scan = load_pack(folder / "train.safetensors")[0]
    object.__setattr__(scan, "name", "sub-02")
    save_pack([scan], folder / "validation.safetensors")
    return folder


@pytest.fixture
def words(data, tmp_path, monkeypatch):
    """The command line for a table of one tiny network at one scale."""
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny.toml").write_text(PRESET)
    tiny = Table("Tiny", (any_scale("Bicubic", "cubic", "bicubic"), any_scale("Tiny", "tiny")))
    monkeypatch.setattr(table_layout, "LIGHT_PRESETS", tmp_path / "presets")
    monkeypatch.setitem(tables.TABLES, "1", tiny)
    for module in (tables, table_layout):
        monkeypatch.setattr(module, "SCALES", (2.0,))
    return [
        "1", "--train", f"{data}/train.safetensors", "--validation", f"{data}/validation.safetensors",
        "--test", f"{data}/raw", "--participant-label", "sub-01", "--seeds", "3", "--volumes", "6", "--device", "cpu",
        "--work", f"{tmp_path}/work", "--output", f"{tmp_path}/out",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_table_from_packs_and_nothing_is_trained_twice(words, tmp_path, capsys, monkeypatch):
    assert main(words) == 0
    out = tmp_path / "out"
    text = (out / "table1.md").read_text()
    assert "2 steps of 2 patches" in text
    assert "sub-01" in text
    with (out / "subjects.csv").open() as rows:
        tested = {row["model"]: row for row in csv.DictReader(rows)}
    assert set(tested) == {"cubic", "tiny_seed-3"}
    shown = f"{float(tested['tiny_seed-3']['psnr_mask']):.2f} / {float(tested['tiny_seed-3']['ssim_mask']):.3f}"
    assert f"| Tiny | {shown} |" in text
    with (out / "trainings.csv").open() as rows:
        (training,) = csv.DictReader(rows)
    assert (training["seed"], training["steps"], training["patches"]) == ("3", "2", "4")
    assert json.loads((out / "cards" / "tiny_seed-3.json").read_text())["training"]["optimization"]["seed"] == 3
    assert (out / "presets" / "tiny.toml").read_text() == PRESET
    assert [path.name for path in (out / "logs").iterdir()] == ["tiny_seed-3_run-1.csv"]
    assert (out / "figure.svg").read_text().startswith("<?xml")

    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("finished")
    assert main([*words, "--dry-run", "--steps", "4"]) == 2
    assert "max_steps was 2, and is 4 now" in capsys.readouterr().err
    labels = []
    monkeypatch.setattr(tables, "run_jobs", lambda jobs, options: labels.extend(job.label for job in jobs) or True)
    assert main(words) == 0
    assert labels == ["test at 2x"]


def finish(words, preset=PRESET, steps=2):
    """Leave the card of a training that ended as it was asked for; where it is."""
    options = tables.build_parser().parse_args(words)
    (training,) = tables.planned(tables.TABLES["1"], options)
    training.preset.write_text(preset)
    settings = tables.settings_of(training, options)
    scans = tables.scans_of(tuple(options.train))
    card = tables.card_of(training.name, settings, scans, (), tables.Hardware("cpu")).trained({"steps": steps})
    training.folder.mkdir(parents=True)
    training.card.write_text(json.dumps(dataclasses.asdict(card)))
    training.preset.write_text(PRESET)
    return training


def test_a_training_as_asked_for_is_finished(words, capsys):
    finish(words)
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("finished")


@pytest.mark.parametrize(
    ("preset", "steps", "asked", "told"),
    [
        (PRESET.replace("max_steps = 2", "max_steps = 2\nprecision = 'bf16-mixed'"), 2, [], "precision was bf16-mixed"),
        (PRESET.replace("hidden = 8", "hidden = 16"), 2, [], "arguments.hidden was 16, and is 8 now"),
        (PRESET.replace("patch = 4", "patch = 5"), 2, [], "patches.patch was 5, and is 4 now"),
        (PRESET + "[loss]\nl1 = 0.5", 2, [], "loss.l1 was 0.5, and is 1.0 now"),
        (PRESET, 2, ["--precision", "bf16-mixed"], "precision was 32-true, and is bf16-mixed now"),
        (PRESET, 2, ["--train", "validation"], "scans was ['sub-01'], and is ['sub-02'] now"),
        (PRESET, 3, [], "it has done 3 steps, and 2 are asked for"),
    ],
)
def test_a_training_of_other_scans_or_settings_is_refused(preset, steps, asked, told, words, data, capsys):
    """Before anything is trained or tested; nothing of it may get into the table."""
    training = finish(words, preset, steps)
    given = [str(data / "validation.safetensors") if word == "validation" else word for word in asked]
    assert main([*words, *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"benchmarks.tables: {training.card}: it is of another training: ")
    assert told in line
    assert line.rstrip(".").endswith(f"name another folder (--work), or remove {training.folder}")


def test_the_plan_tells_size_and_budget(words, capsys):
    assert main([*words, "--dry-run", "--steps", "7"]) == 0
    network, seed, parameters, steps, patches, precision, *state = capsys.readouterr().out.splitlines()[1].split()
    assert (network, seed, steps, patches, precision, state) == ("tiny", "3", "7", "14", "32-true", ["to", "do"])
    assert int(parameters.replace(",", "")) > 100


def test_a_job_that_fails_is_told_in_one_line(tmp_path, capsys):
    script = (
        "import sys; print('0 %'); print('bids-sr-train: a.safetensors: no such file', file=sys.stderr); sys.exit(2)"
    )
    job = Job("train tiny", [sys.executable, "-c", script], tmp_path / "logs" / "tiny.txt")
    assert job.run(threads=1) is False
    line = capsys.readouterr().out
    assert line.startswith("train tiny: failed (2): bids-sr-train: a.safetensors: no such file")
    assert line.count("\n") == 1
    assert (tmp_path / "logs" / "tiny.txt").read_text().startswith("0 %")


def test_a_training_that_was_cut_short_goes_on(words):
    options = tables.build_parser().parse_args(words)
    (training,) = tables.planned(tables.TABLES["1"], options)
    assert "--resume" not in tables.fit_job(training, options).command
    (training.folder / "checkpoints").mkdir(parents=True)
    (training.folder / "checkpoints" / "step-00000001.ckpt").touch()
    command = tables.fit_job(training, options).command
    assert command[command.index("--resume") + 1] == str(training.folder)


def test_a_network_of_another_table_is_refused(words, capsys):
    assert main([*words, "--only", "rescnn3d_2x"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "benchmarks.tables: --only rescnn3d_2x: not in this table; it has tiny"
    ]


def test_two_runs_do_not_share_a_folder(tmp_path):
    with only_one(tmp_path), pytest.raises(TrainingDataError, match="in use"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_figures_are_found_by_model_seed_and_scale_and_averaged_over_subjects():
    rows = [
        {"model": "cubic", "scale": "2.4", "subject": "sub-01", "psnr_mask": "20"},
        {"model": "cubic", "scale": "2.4", "subject": "sub-02", "psnr_mask": "22"},
        {"model": "dcsrn_3x_seed-1@target", "scale": "4", "subject": "sub-01", "psnr_mask": "n/a"},
        {"model": "dcsrn_3x_seed-12", "scale": "4", "subject": "sub-01", "psnr_mask": "30"},
    ]
    found = results_of(rows)
    assert set(found) == {("cubic", 0, 2.4), ("dcsrn_3x@target", 1, 4.0), ("dcsrn_3x", 12, 4.0)}
    assert found["cubic", 0, 2.4]["psnr_mask"] == 21
    assert found["dcsrn_3x", 12, 4.0]["psnr_mask"] == 30
    assert found["dcsrn_3x@target", 1, 4.0]["psnr_mask"] != found["dcsrn_3x@target", 1, 4.0]["psnr_mask"]

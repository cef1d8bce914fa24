"""`bids-sr-train` from BIDS datasets to a model that `bids_sr` takes, and its one-line refusals."""

import errno
import re
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_sr.cli.train import main
from bids_sr.models.base import Lattice
from bids_sr.models.registry import load_model, read_card
from bids_sr.training.packing import load_pack, save_pack
from bids_sr.training.patches import PatchStream

PRESET = """
description = "A tiny model."
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
patch = 8
points = 64
[optimization]
max_steps = 2
batch_size = 2
validate_every = 2
validation_examples = 2
"""


@pytest.fixture(scope="module")
def packs(dataset, tmp_path_factory):
    """A pack of the dataset, and one that says it is of another subject."""
    folder = tmp_path_factory.mktemp("packs")
    words = ["--participant-label", "sub-01", "--no-t1w"]
    assert main(["pack", str(dataset), str(folder / "train.safetensors"), *words]) == 0
    scan = load_pack(folder / "train.safetensors")[0]
    object.__setattr__(scan, "name", "sub-02")
    save_pack([scan], folder / "validation.safetensors")
    return folder


def fit(packs, out, *words, preset: str = PRESET):
    out.mkdir(exist_ok=True)
    (out / "tiny.toml").write_text(preset)
    train, validation = packs / "train.safetensors", packs / "validation.safetensors"
    files = ["fit", str(train), "--validation", str(validation), "--output", str(out)]
    return main([*files, "--device", "cpu", "--threads", "1", "--preset", str(out / "tiny.toml"), *words])


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("bids-sr-train: ")
    return error


def test_a_pack_holds_the_series_of_the_subjects_asked_for(packs, dataset):
    (scan,) = load_pack(packs / "train.safetensors")
    n_volumes = nib.Nifti1Image.from_filename(next(dataset.rglob("*_dwi.nii.gz"))).shape[3]
    assert scan.name == "sub-01"
    assert scan.data.shape[0] == n_volumes
    assert scan.t1w is None


def test_a_pack_holds_the_subjects_of_a_list_from_several_datasets(dataset, tmp_path, capsys):
    other = shutil.copytree(dataset, tmp_path / "other")
    (tmp_path / "subjects.txt").write_text("01\n")
    pack = tmp_path / "both.safetensors"
    words = ["--participant-file", str(tmp_path / "subjects.txt"), "--no-t1w", "--bval", "1000"]
    assert main(["pack", str(dataset), str(other), str(pack), *words]) == 0
    assert len({scan.name for scan in load_pack(pack)}) == 2
    assert "sub-01" in capsys.readouterr().out
    (tmp_path / "subjects.txt").write_text("99\n")
    assert main(["pack", str(dataset), str(tmp_path / "none.safetensors"), *words]) == 2
    assert "99" in one_line(capsys)
    (tmp_path / "subjects.txt").write_text("\n")
    assert main(["pack", str(dataset), str(tmp_path / "none.safetensors"), *words]) == 2
    assert "it holds no labels" in one_line(capsys)
    assert not (tmp_path / "none.safetensors").exists()


def test_heads_are_simulated_into_a_pack(packs, tmp_path, monkeypatch):
    asked = []

    def simulate_scans(heads, seed, settings, tell):
        asked.append((heads, seed))
        return load_pack(packs / "train.safetensors")

    monkeypatch.setattr("bids_sr.training.simulation.simulate_scans", simulate_scans)
    assert main(["simulate", str(tmp_path / "pack.safetensors"), "--heads", "3", "--seed", "7"]) == 0
    assert asked == [(3, 7)]
    assert load_pack(tmp_path / "pack.safetensors")


def test_a_model_is_trained_and_can_be_loaded(packs, tmp_path):
    assert fit(packs, tmp_path, "--max-steps", "4", "--seed", "5") == 0
    model, card = load_model(str(tmp_path / "tiny.json"), torch.device("cpu"))
    assert card.training["scans"] == ["sub-01"]
    assert card.training["progress"]["steps"] == 4
    assert card.training["optimization"]["seed"] == 5
    assert card.description == "A tiny model."
    lattice = Lattice((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert np.isfinite(model.encode(torch.rand(1, 3, 4, 4, 4), lattice).rows.numpy()).all()


def test_a_training_can_begin_with_the_weights_of_another(packs, tmp_path, capsys):
    assert fit(packs, tmp_path / "first") == 0
    first = tmp_path / "first" / "tiny.json"
    assert fit(packs, tmp_path / "second", "--init-from", str(first), "--freeze-encoder", "--name", "tuned") == 0
    card = read_card(str(tmp_path / "second" / "tuned.json"))
    assert card.training["started_from"]["weights_sha256"] == read_card(str(first)).weights_sha256
    assert card.training["optimization"]["freeze_encoder"]
    capsys.readouterr()
    assert fit(packs, tmp_path / "third", "--init-from", "light") == 2
    assert "another architecture" in one_line(capsys)
    assert fit(packs, tmp_path / "third", "--init-from", "cubic") == 2
    assert "no weights" in one_line(capsys)


def test_an_interrupted_training_names_its_last_checkpoint_and_can_go_on(packs, tmp_path, capsys, monkeypatch):
    batch = PatchStream.batch

    def interrupted(self, number):
        if number == 5:
            signal.raise_signal(signal.SIGINT)
        return batch(self, number)

    # Shells start what runs in their background with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as context:
        context.setattr(PatchStream, "batch", interrupted)
        assert fit(packs, tmp_path, "--max-steps", "8") == 130
    signal.signal(signal.SIGINT, before)
    error = capsys.readouterr().err
    checkpoint = Path(re.search(r"interrupted; go on with --resume (\S+)\n", error).group(1))
    assert checkpoint == tmp_path / "checkpoints" / "step-00000004.ckpt"
    assert fit(packs, tmp_path, "--max-steps", "8", "--resume", str(checkpoint)) == 0
    assert read_card(str(tmp_path / "tiny.json")).training["progress"]["steps"] == 8


@pytest.mark.parametrize("ending", [".safetensors", ".json", ".ckpt"])
def test_on_a_full_disk_nothing_half_written_is_left(packs, tmp_path, capsys, monkeypatch, ending):
    write = Path.write_bytes

    def full(self, content):
        if ending in self.name:
            write(self, bytes(content)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert fit(packs, tmp_path) == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    left = {file.suffix for file in tmp_path.rglob("*") if file.is_file() and "log" not in file.parts}
    assert left <= ({".toml"} if ending != ".ckpt" else {".toml", ".safetensors", ".json"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack", "nowhere", "x.safetensors"], "nowhere"),
        (["pack", "x.safetensors"], "pack"),
        (["simulate", "x.safetensors", "--heads", "0"], "positive"),
        (["fit", "nowhere", "--validation", "nowhere", "--output", "out"], "not a pack"),
        (["fit", "nowhere", "--validation", "nowhere", "--output", "out", "--preset", "heavy"], "preset heavy"),
        (["fit", "nowhere", "--validation", "nowhere", "--output", "out", "--precision", "half"], "precision"),
        (["fit", "nowhere", "--validation", "nowhere", "--output", "out", "--name", "../x"], "not a name"),
        (["fit", "nowhere", "--output", "out"], "--validation"),
        (["fit"], "pack"),
        ([], "step"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_exit_2(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in one_line(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "preset", "message"),
    [
        ([], PRESET + "max_step = 3", "max_step"),
        ([], PRESET.replace("hidden = 8", "hiden = 8"), "hiden"),
        (["--freeze-encoder"], 'architecture = "dcsrn"\n[patches]\npoints = 0', "no encoder"),
        (["--resume", "nowhere.ckpt"], PRESET, "no such file"),
        (["--resume", "."], PRESET, "no checkpoint"),
        (["--init-from", "csr_dmri_paper"], PRESET, "no weights"),
        (["--init-from", "huge"], PRESET, "huge"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line_and_exit_2(packs, words, preset, message, capsys, tmp_path):
    assert fit(packs, tmp_path, *words, preset=preset) == 2
    assert message in one_line(capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.toml"]


def test_a_checkpoint_of_another_architecture_is_one_line_and_exit_2(packs, tmp_path, capsys):
    assert fit(packs, tmp_path / "first") == 0
    capsys.readouterr()
    wider = PRESET.replace("hidden = 8", "hidden = 16")
    assert fit(packs, tmp_path / "second", "--resume", str(tmp_path / "first"), preset=wider) == 2
    assert "arguments.hidden was 8, and is 16 now" in one_line(capsys)


def test_an_output_that_is_a_file_is_one_line_and_exit_2(packs, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "file").write_text("")
    assert fit(packs, tmp_path / "out", "--output", str(tmp_path / "file")) == 2
    assert "cannot be written to" in one_line(capsys)


def test_training_and_validating_on_one_subject_is_refused(packs, tmp_path, capsys):
    train = str(packs / "train.safetensors")
    assert main(["fit", train, "--validation", train, "--output", str(tmp_path)]) == 2
    assert "sub-01" in one_line(capsys)
    (scan,) = load_pack(Path(train))
    object.__setattr__(scan, "name", "sub-01_run-2")
    save_pack([scan], tmp_path / "again.safetensors")
    assert main(["fit", train, "--validation", str(tmp_path / "again.safetensors"), "--output", str(tmp_path)]) == 2
    assert "sub-01" in one_line(capsys)


@pytest.mark.parametrize(
    ("trained", "validated", "code"),
    [("a/sub-01_dir-AP", "sub-01", 2), ("sub-01", "a/sub-01", 2), ("a/sub-01", "b/sub-01", 0)],
)
def test_one_subject_is_one_whether_its_pack_was_made_of_one_dataset_or_several(
    packs, tmp_path, capsys, trained, validated, code
):
    assert fit(renamed(packs, tmp_path, trained, validated), tmp_path / "out") == code
    if code:
        assert "sub-01: given both for training and for validation" in one_line(capsys)


def renamed(packs, folder, train="sub-01", validation="sub-02"):
    """The packs, of other subjects."""
    folder.mkdir(exist_ok=True)
    for part, name in (("train", train), ("validation", validation)):
        (scan,) = load_pack(packs / f"{part}.safetensors")
        object.__setattr__(scan, "name", name)
        save_pack([scan], folder / f"{part}.safetensors")
    return folder


def test_validating_on_what_the_model_begun_with_has_learned_from_is_refused(packs, tmp_path, capsys):
    assert fit(packs, tmp_path / "first") == 0
    assert fit(renamed(packs, tmp_path / "new", "sub-03"), tmp_path / "second", *started(tmp_path / "first")) == 0
    others = renamed(packs, tmp_path / "others", "sub-04", "sub-01_run-2")
    capsys.readouterr()
    for origin in ("first", "second"):
        assert fit(others, tmp_path / "out", *started(tmp_path / origin)) == 2
        assert "sub-01: given for validation, and tiny has learned from it" in one_line(capsys)
        words = [str(others / "train.safetensors"), "--validation", str(others / "validation.safetensors")]
        model = str(tmp_path / origin / "tiny.json")
        assert main(["uncertainty", *words, "--model", model, "--output", str(tmp_path / "told")]) == 2
        assert "sub-01: given for validation, and tiny has learned from it" in one_line(capsys)
    assert not (tmp_path / "told").exists()


def started(folder):
    return ["--init-from", str(folder / "tiny.json")]


def test_one_label_in_two_datasets_is_warned_of(packs, tmp_path, capsys):
    both = renamed(packs, tmp_path / "packs", "bids/sub-01", "qsiprep/sub-01_space-ACPC_desc-preproc")
    assert fit(both, tmp_path / "out") == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert told.startswith("bids-sr-train: warning: sub-01 of one dataset to learn from and of another one")
    assert fit(renamed(packs, tmp_path / "apart", "bids/sub-01", "qsiprep/sub-02"), tmp_path / "again") == 0
    assert "warning" not in capsys.readouterr().err


GUIDED = PRESET.replace("residual = true", "residual = true\nguided = true")


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ('inputs = ["volume", "b0", "shell", "t1w"]\n' + PRESET, "the model will not learn to use one"),
        (GUIDED, "the model will learn to use one from pictures made of the scans alone"),
        (GUIDED.replace("[optimization]", "[patches.guide]\nmade = 0\n[optimization]"), "will not learn to use one"),
        (PRESET, None),
    ],
    ids=["as input", "guided", "guided without made pictures", "not used"],
)
def test_it_is_said_when_no_scan_has_the_t1w_that_a_model_wants(packs, tmp_path, capsys, preset, said):
    assert fit(packs, tmp_path, preset=preset) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "no scan has a T1w" in line]
    assert len(warned) == (said is not None)
    assert all(line.startswith("bids-sr-train: warning: ") and line.endswith(said) for line in warned)

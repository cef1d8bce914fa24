"""`bids-sr-train` from a BIDS dataset to a model that `bids_sr` takes, and its one-line refusals."""

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_sr.cli.train import main
from bids_sr.demo.dataset import make_dataset
from bids_sr.models.registry import load_model, read_card
from bids_sr.training.packing import load_pack, save_pack

PRESET = """
description = "A tiny model."
[model]
channels = 3
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
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "raw"
    make_dataset(folder, small=True)
    return folder


@pytest.fixture(scope="module")
def packs(dataset, tmp_path_factory):
    """A pack of the dataset, and one that says it is of another subject."""
    folder = tmp_path_factory.mktemp("packs")
    assert main(["pack", str(dataset), str(folder / "train.safetensors"), "--participant-label", "sub-01"]) == 0
    scan = load_pack(folder / "train.safetensors")[0]
    object.__setattr__(scan, "name", "sub-02")
    save_pack([scan], folder / "validation.safetensors")
    return folder


def fit(packs, out, *words):
    preset = out / "tiny.toml"
    preset.write_text(PRESET)
    train, validation = packs / "train.safetensors", packs / "validation.safetensors"
    files = ["fit", str(train), "--validation", str(validation), "--output", str(out)]
    return main([*files, "--name", "tiny", "--device", "cpu", "--preset", str(preset), *words])


def test_a_pack_holds_the_series_of_the_subjects_asked_for(packs, dataset):
    (scan,) = load_pack(packs / "train.safetensors")
    n_volumes = nib.Nifti1Image.from_filename(next(dataset.rglob("*_dwi.nii.gz"))).shape[3]
    assert scan.name == "sub-01"
    assert scan.data.shape[0] == n_volumes


def test_a_model_is_trained_and_can_be_loaded(packs, tmp_path):
    assert fit(packs, tmp_path, "--max-steps", "4") == 0
    model, card = load_model(str(tmp_path / "tiny.json"), torch.device("cpu"))
    assert card.training["scans"] == ["sub-01"]
    assert card.training["progress"]["steps"] == 4
    assert card.description == "A tiny model."
    assert np.isfinite(model.encode(torch.rand(1, 3, 4, 4, 4)).rows.numpy()).all()


def test_a_training_can_begin_with_the_weights_of_another(packs, tmp_path, capsys):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    assert fit(packs, tmp_path / "first") == 0
    first = tmp_path / "first" / "tiny.json"
    assert fit(packs, tmp_path / "second", "--init-from", str(first)) == 0
    card = read_card(str(tmp_path / "second" / "tiny.json"))
    assert card.training["started_from"]["weights_sha256"] == read_card(str(first)).weights_sha256
    assert fit(packs, tmp_path / "second", "--init-from", "light") == 2
    assert "another architecture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack", "nowhere", "x.safetensors"], "nowhere"),
        (["fit", "nowhere", "--validation", "nowhere", "--output", "out"], "not a pack"),
        (["fit", "nowhere", "--validation", "nowhere", "--output", "out", "--preset", "heavy"], "preset heavy"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_exit_2(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_training_and_validating_on_one_scan_is_refused(packs, tmp_path, capsys):
    train = str(packs / "train.safetensors")
    assert main(["fit", train, "--validation", train, "--output", str(tmp_path)]) == 2
    assert "sub-01" in capsys.readouterr().err

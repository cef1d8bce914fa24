"""Networks of other families, trained for a few steps, restore a scan through the whole application."""

import csv
import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_sr.cli.app import main
from bids_sr.training.patches import PatchSettings
from bids_sr.training.run import train
from bids_sr.training.settings import Loss, TrainingSettings
from tests.models.networks import SMALL
from tests.training.trainings import CPU, SCANS, changed

pytestmark = pytest.mark.integration
#: What is trained, and what the application is asked for beside the restoration.
FAMILIES = {
    "swin3d": ({}, Loss(), []),
    "ddpm3d": ({"samples": 2, "spread": True}, Loss(l1=0, l2=1), ["--uncertainty"]),
}


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request, dataset, tmp_path_factory):
    """Name, card of the trained model and output of a run with it."""
    torch.set_num_threads(1)
    folder, (options, loss, words) = tmp_path_factory.mktemp(request.param), FAMILIES[request.param]
    patches = PatchSettings(patch=5, points=0, scale_range=(1.5, 2.5), noise_share=0.0)
    settings = TrainingSettings(
        "A tiny network.", request.param, ("volume", "b0"), "shell", SMALL[request.param] | options, patches, loss,
        dataclasses.replace(changed().optimization, max_steps=20, validate_every=10, learning_rate=1e-2),
    )  # fmt: skip
    train(*SCANS, settings, "tiny", folder / "model", CPU)
    places = [str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
    places += ["--output-resolution", "2.1", "1.9", "2", "--device", "cpu", "--no-self-check", "--sloppy"]
    assert main([*places, "--save-cubic", "--model", str(folder / "model" / "tiny.json"), *words]) == 0
    return request.param, json.loads((folder / "model" / "tiny.json").read_text()), folder / "out"


def volume(out, ending):
    """The voxels of an output."""
    (file,) = out.rglob(f"*_{ending}.nii.gz")
    return nib.load(file).get_fdata()


def test_the_training_lowered_the_loss(finished):
    name, card, out = finished
    with (out.parent / "model" / "log" / "run-1" / "metrics.csv").open() as file:
        losses = [float(row["validation/loss"]) for row in csv.DictReader(file) if row["validation/loss"]]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert (card["architecture"], card["training"]["progress"]["steps"]) == (name, 20)


def test_the_scan_is_restored_on_the_grid_that_was_asked_for(finished):
    name, _, out = finished
    restored, cubic = volume(out, "desc-sr_dwi"), volume(out, "desc-cubic_dwi")
    mask = volume(out, "res-*_desc-brain_mask") > 0
    assert restored.shape == cubic.shape
    assert np.isfinite(restored).all() and (restored >= 0).all()
    corrections = np.abs(restored - cubic)[mask]
    assert 1e-4 < corrections.mean() / cubic[mask].mean() < 1
    (record,) = (json.loads(file.read_text()) for file in out.rglob("*record.json"))
    assert record["model"]["architecture"] == name


def test_a_diffusion_model_tells_how_its_draws_differ(finished):
    name, _, out = finished
    if name != "ddpm3d":
        pytest.skip("it draws nothing")
    deviations = volume(out, "desc-uncertainty_dwimap")
    mask = volume(out, "res-*_desc-brain_mask") > 0
    assert np.median(deviations[mask]) > 0
    assert "was not measured" in next(out.glob("sub-*.html")).read_text()

"""Training learns, resumes where it stopped, and refuses what it does not understand."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from bids_sr.errors import TrainingDataError
from bids_sr.models.registry import ModelCard, load_model
from bids_sr.training.packing import pack_scan
from bids_sr.training.patches import PatchSettings
from bids_sr.training.run import Optimization, TrainingSettings, describe, load_settings, train

TINY = {
    "channels": 3, "features": 8, "growth": 8, "blocks": 1, "layers": 2, "feature_channels": 8, "hidden": 16,
    "stages": 1, "coordinates": "cell", "residual": True,
}  # fmt: skip
SETTINGS = TrainingSettings(
    "A tiny model.",
    TINY,
    PatchSettings(patch=10, points=512, scale_range=(1.5, 2.5), noise_share=0.0),
    Optimization(
        max_steps=60, warmup_steps=5, batch_size=2, validate_every=30, validation_examples=4, learning_rate=4e-3
    ),
)


def made_scan(name: str, seed: int):
    """Smooth blobs: blurred noise, which a network can sharpen after seeing little of it."""
    noise = np.random.default_rng(seed).standard_normal((40, 40, 40, 3))
    data = 100 + 800 * ndimage.gaussian_filter(noise, (2, 2, 2, 0))
    return pack_scan(
        name, data.clip(1).astype(np.float32), np.array([0.0, 1000, 1000]), np.ones((40, 40, 40), bool), 50
    )


@pytest.fixture(scope="module")
def scans():
    return [made_scan("one", 0)], [made_scan("two", 1)]


def trained(scans, settings, folder, **options):
    card = ModelCard("tiny", settings.description, "csr_dmri", TINY, training=describe(settings, scans[0]))
    train(*scans, settings, card, folder, threads=1, accelerator="cpu", **options)
    return load_file(folder / "tiny.safetensors")


@pytest.fixture(scope="module")
def finished(scans, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return folder, trained(scans, SETTINGS, folder)


def test_the_restored_scan_is_closer_to_the_truth_than_the_interpolated_one(scans, finished):
    model, card = load_model(str(finished[0] / "tiny.json"), torch.device("cpu"))
    from bids_sr.training.patches import PatchStream
    from bids_sr.training.run import CsrDmri

    interpolation = CsrDmri(**TINY)
    errors = {"trained": 0.0, "interpolated": 0.0}
    stream = PatchStream(scans[1], [1.0], SETTINGS.patches, seed=99)
    for number in range(8):
        example = stream.example(number)
        inputs = [torch.from_numpy(a) for a in (example.channels[None], example.points, example.cell)]
        for name, network in (("trained", model), ("interpolated", interpolation)):
            values = network.query(network.encode(inputs[0]), *inputs[1:])[0].detach().numpy()
            errors[name] += float(np.abs(values - example.truth).mean())
    assert errors["trained"] < 0.95 * errors["interpolated"]
    assert card.training["progress"]["steps"] == 60
    assert card.training["scans"] == ["one"]


def test_the_same_seed_gives_the_same_weights(scans, finished, tmp_path):
    short = dataclasses.replace(SETTINGS, optimization=dataclasses.replace(SETTINGS.optimization, max_steps=30))
    first, second = (trained(scans, short, tmp_path / name) for name in "ab")
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0)
    assert not torch.equal(first["decoder.stages.0.0.weight"], finished[1]["decoder.stages.0.0.weight"])


def test_going_on_from_a_checkpoint_gives_the_weights_of_one_run(scans, finished, tmp_path):
    folder, whole = finished
    checkpoint = next((folder / "checkpoints").glob("*step=30*"))
    resumed = trained(scans, SETTINGS, tmp_path, resume=checkpoint)
    for key in whole:
        torch.testing.assert_close(resumed[key], whole[key], rtol=0, atol=0)


def test_the_shipped_preset_is_understood():
    settings = load_settings("light")
    assert settings.patches.scale_range[1] == 4
    assert settings.description


@pytest.mark.parametrize(
    "text",
    ["[patches]\npatsh = 3", "[modle]", "[optimization]\nmax_step = 3", "not toml", None],
    ids=["unknown key", "unknown section", "unknown option", "no TOML", "no file"],
)
def test_other_presets_are_refused(tmp_path, text):
    file = tmp_path / "x.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TrainingDataError, match="preset"):
        load_settings(str(file))

"""Trainings in processes of their own: one is killed, and two share the work."""

import random
import signal
import subprocess
import sys
import time

import pytest

from bids_sr.models.registry import read_card
from bids_sr.training.checkpoints import checkpoints_in
from bids_sr.training.packing import save_pack
from bids_sr.training.settings import load_settings
from tests.training.trainings import SCANS, assert_equal, trained

PRESET = """
[model]
features = 8
growth = 8
blocks = 1
layers = 2
feature_channels = 8
hidden = 16
stages = 1
coordinates = "cell"
residual = true
[patches]
patch = 8
points = 128
[optimization]
max_steps = 60
batch_size = 2
validate_every = 10
validation_examples = 4
checkpoint_every = 4
learning_rate = 4e-3
ema = 0.9
"""


#: The same against a discriminator.
ADVERSARIAL = (
    PRESET.replace("points = 128", "points = 0\nscale_range = [1.5, 2.0]")
    + """
[adversarial]
features = 4
loss = "wasserstein-gp"
discriminator = "patch"
spectral_normalisation = true
"""
)


def fit(folder, *words, preset=PRESET):
    """`bids-sr-train fit` as a user runs it."""
    for name, part in zip(("train", "validation"), SCANS, strict=True):
        save_pack(part, folder / f"{name}.safetensors")
    (folder / "tiny.toml").write_text(preset)
    words = [
        "fit", folder / "train.safetensors", "--validation", folder / "validation.safetensors",
        "--preset", folder / "tiny.toml", "--device", "cpu", "--threads", "1", "--output", folder / "out", *words,
    ]  # fmt: skip
    command = [sys.executable, "-m", "bids_sr.cli.train", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_training_that_was_killed_at_any_step_gives_the_weights_of_one_that_was_not(tmp_path):
    process = fit(tmp_path)
    step = random.randrange(1, 50)  # noqa: S311
    out = tmp_path / "out"
    while process.poll() is None and not [c for c in checkpoints_in(out / "checkpoints") if int(c.stem[5:]) >= step]:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert max(int(checkpoint.stem[5:]) for checkpoint in checkpoints_in(out / "checkpoints")) < 60
    settings = load_settings(str(tmp_path / "tiny.toml"))
    assert_equal(trained(settings, out, resume=out), trained(settings, tmp_path / "whole"))


@pytest.mark.slow
def test_two_processes_share_the_work_and_one_of_them_writes(tmp_path):
    """By lightning's ddp, which starts the second one itself; the discriminator's part of the work is ours to share."""
    process = fit(tmp_path, "--max-steps", "6", "--devices", "2", "--strategy", "ddp", preset=ADVERSARIAL)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors
    progress = read_card(str(tmp_path / "out" / "tiny.json")).training["progress"]
    assert (progress["steps"], progress["patches"]) == (6, 6 * 2 * 2)
    assert [file.name for file in (tmp_path / "out" / "log").iterdir()] == ["run-1"]

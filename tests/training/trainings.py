"""Small trainings that tests share."""

import dataclasses

import numpy as np
import torch
from safetensors.torch import load_file
from scipy import ndimage

from bids_sr.training.packing import PackedScan, pack_scan
from bids_sr.training.patches import PatchSettings
from bids_sr.training.run import Hardware, train
from bids_sr.training.settings import Optimization, TrainingSettings

CPU = Hardware("cpu")
TINY = {
    "features": 8, "growth": 8, "blocks": 1, "layers": 2, "feature_channels": 8, "hidden": 16, "stages": 1,
    "coordinates": "cell", "residual": True,
}  # fmt: skip
SETTINGS = TrainingSettings(
    "A tiny model.",
    model=TINY,
    patches=PatchSettings(patch=8, points=128, scale_range=(1.5, 2.5), noise_share=0.0),
    optimization=Optimization(
        max_steps=18, warmup_steps=5, batch_size=2, validate_every=6, validation_examples=4, learning_rate=4e-3
    ),
)


def made_scan(name: str, seed: int) -> PackedScan:
    """Smooth blobs: blurred noise, which a network can sharpen after seeing little of it."""
    noise = np.random.default_rng(seed).standard_normal((40, 40, 40, 3))
    data = 100 + 800 * ndimage.gaussian_filter(noise, (2, 2, 2, 0))
    return pack_scan(
        name, data.clip(1).astype(np.float32), np.array([0.0, 1000, 1000]), np.ones((40, 40, 40), bool), 50,
        voxel_sizes=np.full(3, 2.0),
    )  # fmt: skip


#: Scans to train on, and scans to validate on.
SCANS = [made_scan("sub-01", 0)], [made_scan("sub-02", 1)]


def changed(settings: TrainingSettings = SETTINGS, **options) -> TrainingSettings:
    """Settings with other values for the optimization."""
    return dataclasses.replace(settings, optimization=dataclasses.replace(settings.optimization, **options))


def trained(settings: TrainingSettings, folder, **options) -> dict[str, torch.Tensor]:
    """The weights that a training writes."""
    torch.set_num_threads(1)
    train(*SCANS, settings, "tiny", folder, CPU, **options)
    return load_file(folder / "tiny.safetensors")


def assert_equal(first, second) -> None:
    """Nested values are the same, tensors bit by bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second

"""Models with random weights on disk, as `--model` takes them."""

from pathlib import Path

import torch

from bids_sr.models.registry import ModelCard, build_model, save_model

TINY = {"features": 4, "growth": 4, "blocks": 1, "layers": 1, "feature_channels": 4, "hidden": 8, "stages": 1,
        "coordinates": "cell"}  # fmt: skip


def save_tiny_model(folder: Path, inputs: tuple[str, ...], normalization: str = "shell", name: str = "tiny") -> str:
    """Write a small CSR-dMRI that is not trained and return the path of its card."""
    torch.manual_seed(0)
    card = ModelCard(name, "For tests.", "csr_dmri", TINY, inputs=inputs, normalization=normalization)
    save_model(build_model("csr_dmri", TINY, len(inputs)), card, folder)
    return str(folder / f"{name}.json")

"""Models with random weights on disk, as `--model` takes them."""

import math
from pathlib import Path

import pytest
import torch

from bids_sr.models import vgg
from bids_sr.models.registry import ModelCard, build_model, save_model

TINY = {"features": 4, "growth": 4, "blocks": 1, "layers": 1, "feature_channels": 4, "hidden": 8, "stages": 1,
        "coordinates": "cell"}  # fmt: skip


def save_tiny_model(
    folder: Path,
    inputs: tuple[str, ...],
    normalization: str = "shell",
    name: str = "tiny",
    *,
    guided: bool = False,
    uncertain: bool = False,
) -> str:
    """Write a small CSR-dMRI that is not trained, but does not start silent, and return the path of its card."""
    torch.manual_seed(0)
    arguments = TINY | {"residual": True, "guided": True} if guided else TINY
    facts = {}
    if uncertain:
        arguments = arguments | {"residual": True, "spread": True}
        coverage = {"sub-w": 0.85, "sub-x": 0.8, "sub-y": 0.9}
        facts = {"shared": 0.4, "coverage": coverage, "scans": ["sub-w", "sub-x"], "validation_scans": ["sub-y"]}
    card = ModelCard(
        name, "For tests.", "csr_dmri", arguments, inputs=inputs, normalization=normalization, uncertainty=facts
    )
    model = build_model("csr_dmri", arguments, len(inputs))
    if guided:
        torch.nn.init.normal_(list(model.decoder.parameters())[-2], std=0.5)
    if uncertain:
        torch.nn.init.constant_(model.spread.bias, math.log(0.1))
    save_model(model, card, folder)
    return str(folder / f"{name}.json")


def save_narrow_vgg(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Weights of a VGG19 that is two features wide, which is what VGG19 is from now on."""
    monkeypatch.setattr(vgg, "BLOCKS", tuple((2,) * len(block) for block in vgg.BLOCKS))
    torch.manual_seed(0)
    network = vgg.Vgg19()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
        else:
            # Of so few features, some must be there.
            torch.nn.init.ones_(parameter)
    torch.save(network.state_dict(), folder / "vgg19.pth")
    return folder / "vgg19.pth"

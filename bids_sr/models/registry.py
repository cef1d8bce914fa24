"""Models by name: a card that describes each, and weights that are checked before they are used."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bids_sr.errors import ModelCardError, UnknownModelError, WeightsError
from bids_sr.models.base import RestorationModel
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.interpolation import CubicSpline

_SHIPPED = files("bids_sr") / "data" / "weights"


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model.

    Attributes
    ----------
    name : str
    description : str
        One sentence for reports.
    architecture : str
        ``csr_dmri`` or ``cubic``.
    arguments : dict
        Of the architecture.
    normalization : str
        How signals are put to the model; ``shell`` is `bids_sr.dwi.normalization`.
    scale_range : tuple of float, (2,)
        Magnifications that the model was made for.
    uses_t1w : bool
        Whether the T1w takes part in the restoration.
    parameters : int
        Number of trained parameters.
    weights_sha256 : str
        Checksum of the weights file, empty where there is none.
    training : dict
        Data, degradation, budget and result of the training.
    """

    name: str
    description: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    normalization: str = "shell"
    scale_range: tuple[float, float] = (1.0, 4.0)
    uses_t1w: bool = False
    parameters: int = 0
    weights_sha256: str = ""
    training: dict[str, Any] = field(default_factory=dict)

    def trained(self, progress: dict[str, Any]) -> "ModelCard":
        """The card with what the training has come to."""
        return dataclasses.replace(self, training={**self.training, "progress": progress})


CUBIC = ModelCard("cubic", "Cubic B-spline interpolation; nothing is learned.", "cubic", scale_range=(0.0, 1e3))


def list_models() -> tuple[str, ...]:
    """Names that `load_model` knows."""
    shipped = sorted(entry.name.removesuffix(".json") for entry in _SHIPPED.iterdir() if entry.name.endswith(".json"))
    return (*shipped, CUBIC.name)


def read_card(name: str) -> ModelCard:
    """The card of a model in the registry, or of a card file (.json).

    Raises
    ------
    UnknownModelError
        If there is none.
    ModelCardError
        If the file is not a card.
    """
    if name == CUBIC.name:
        return CUBIC
    path = card_path(name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["scale_range"] = tuple(content["scale_range"])
        return ModelCard(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelCardError(card=path, problem=error) from error


def card_path(name: str) -> Path:
    """Where the card of a model lies; weights lie beside it, with the ending .safetensors."""
    path = Path(name) if name.endswith(".json") else Path(str(_SHIPPED / f"{name}.json"))
    if not path.is_file():
        raise UnknownModelError(name=name, known=", ".join(list_models()))
    return path


def load_model(name: str, device: torch.device) -> tuple[RestorationModel, ModelCard]:
    """A model ready for inference, and its card.

    Parameters
    ----------
    name : str
        A name of `list_models`, or the path of a card.
    device : torch.device

    Raises
    ------
    UnknownModelError, ModelCardError
        See `read_card`.
    WeightsError
        If the weights are absent, changed, or of another architecture.
    """
    card = read_card(name)
    if card.architecture == "cubic":
        return CubicSpline(), card
    weights = card_path(name).with_suffix(".safetensors")
    return _with_weights(card, weights).to(device), card


def _with_weights(card: ModelCard, weights: Path) -> CsrDmri:
    """The network of a card with the weights of a file, whose checksum must be the card's."""
    if not weights.is_file():
        raise WeightsError(weights=weights, problem="no such file")
    if file_sha256(weights) != card.weights_sha256:
        raise WeightsError(weights=weights, problem="its SHA-256 is not the one in the model card")
    if card.architecture != "csr_dmri":
        raise ModelCardError(card=card.name, problem=f"unknown architecture {card.architecture}")
    try:
        model = CsrDmri(**card.arguments)
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise WeightsError(weights=weights, problem=str(error).splitlines()[0]) from error
    return model.eval().requires_grad_(False)


def save_model(model: CsrDmri, card: ModelCard, folder: Path) -> None:
    """Write `NAME.safetensors` and `NAME.json` to a folder, the card last: it never names absent weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{card.name}.safetensors"
    partial = weights.with_suffix(".partial")
    # Not `save_file`, whose files only their owner can read.
    partial.write_bytes(save({key: value.contiguous() for key, value in model.state_dict().items()}))
    partial.replace(weights)
    complete = dataclasses.replace(
        card, weights_sha256=file_sha256(weights), parameters=sum(p.numel() for p in model.parameters())
    )
    text = json.dumps(dataclasses.asdict(complete), indent=1)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(weights.with_suffix(".json"))


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

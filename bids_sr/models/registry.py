"""Models by name: a card that describes each, and weights that are checked before they are used."""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from bids_sr.errors import (
    CertainModelError,
    ModelCardError,
    ModelWriteError,
    SignalError,
    UnknownModelError,
    UntrainedModelError,
    WeightsError,
)
from bids_sr.models.base import RestorationModel, Signal, TrainableModel
from bids_sr.models.coordinates import CoordinateNetwork
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.fitting import FittableModel
from bids_sr.models.grid import NETWORKS, GridNetwork
from bids_sr.models.interpolation import CubicSpline, Trilinear
from bids_sr.models.smore import Smore

_SHIPPED = Path(str(files("bids_sr"))) / "data" / "weights"
_PRESETS = Path(str(files("bids_sr"))) / "data" / "presets"
#: Other names of presets.
_ALIASES = {"paper": "csr_dmri_paper"}
#: After the name of a grid network: run it on the grid that is asked for, not on the one that it was trained for.
AT_TARGET = "@target"


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model.

    Attributes
    ----------
    name : str
    description : str
        One sentence for reports.
    architecture : str
        ``csr_dmri``, one of `bids_sr.models.grid.NETWORKS`, ``cubic`` or ``trilinear``.
    arguments : dict
        Of the architecture, without the number of its input channels.
    inputs : tuple of str
        Names of its input channels, see `bids_sr.models.base.Signal`.
    normalization : str
        How signals are put to the model, see `bids_sr.models.base.Signal`.
    scale_range : tuple of float, (2,)
        Magnifications that the model was made for.
    parameters : int
        Number of trained parameters.
    weights_sha256 : str
        Checksum of the weights file, empty where there is none.
    training : dict
        Data, degradation, budget and result of the training.
    uncertainty : dict
        How the layer that tells the uncertainty was fitted, how often its intervals hold, and how much of an error the
        volumes of a shell share; empty where there is none.
    """

    name: str
    description: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("volume", "b0", "shell")
    normalization: str = "shell"
    scale_range: tuple[float, float] = (1.0, 4.0)
    parameters: int = 0
    weights_sha256: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)

    @property
    def uses_t1w(self) -> bool:
        """Whether the T1w takes part in the restoration."""
        return self.guided or "t1w" in self.inputs

    @property
    def guided(self) -> bool:
        """Whether the T1w guides it at its own resolution, see `bids_sr.models.base.GuidedModel`."""
        return bool(self.arguments.get("guided", False))

    @property
    def uncertain(self) -> bool:
        """Whether it tells how uncertain it is, see `bids_sr.models.base.UncertainModel`; in units of shells alone.

        What was divided by the mean b0 would have the uncertainty of that too.
        """
        return bool(self.arguments.get("spread", False)) and self.normalization == "shell"

    @property
    def signal(self) -> Signal:
        """What the model is given of a scan."""
        return Signal(self.inputs, self.normalization, self.guided)

    def trained(self, progress: dict[str, Any]) -> "ModelCard":
        """The card with what the training has come to."""
        return dataclasses.replace(self, training={**self.training, "progress": progress})


CUBIC = ModelCard(
    "cubic", "Cubic B-spline interpolation; nothing is learned.", "cubic", inputs=("volume",), scale_range=(0.0, 1e3)
)
TRILINEAR = ModelCard(
    "trilinear", "Trilinear interpolation; nothing is learned.", "trilinear", inputs=("volume",), scale_range=(0.0, 1e3)
)
#: What needs no training.
INTERPOLATORS: dict[str, tuple[ModelCard, RestorationModel]] = {
    CUBIC.name: (CUBIC, CubicSpline()),
    TRILINEAR.name: (TRILINEAR, Trilinear()),
}

#: Architectures that learn from the scan itself, and so have no weights before they see it.
FITTED_TO_SCAN: dict[str, type[FittableModel]] = {"smore": Smore, "inr": CoordinateNetwork}


def list_models() -> tuple[str, ...]:
    """Names of the models that are ready for use."""
    return (*sorted(path.stem for path in _SHIPPED.glob("*.json")), *INTERPOLATORS)


def list_presets() -> tuple[str, ...]:
    """Names of the recipes that models can be trained by."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.toml")))


def preset_file(name: str) -> Path:
    """The recipe of a name, which may be an alias, or the path of one; it need not exist."""
    shipped = _PRESETS / f"{_ALIASES.get(name, name)}.toml"
    return shipped if shipped.is_file() else Path(name)


def build_model(architecture: str, arguments: Mapping[str, Any], n_channels: int) -> CsrDmri | GridNetwork:
    """A network with random weights.

    Parameters
    ----------
    architecture : str
        "csr_dmri", or one of `bids_sr.models.grid.NETWORKS`.
    arguments : mapping
        Of `CsrDmri`; or of the network in `bids_sr.models.grid`, and `scale` of `GridNetwork`.
    n_channels : int
        Input channels, without those of a guiding T1w.

    Raises
    ------
    ModelCardError
        If there is no such network, or it cannot be made of these arguments.
    """
    options = dict(arguments)
    try:
        if architecture == "csr_dmri":
            return CsrDmri(n_channels, **options)
        if architecture in NETWORKS:
            scale = options.pop("scale", None)
            return GridNetwork(NETWORKS[architecture](n_channels, **options), scale)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ModelCardError(card=architecture, problem=str(error).splitlines()[0]) from error
    known = ", ".join(["csr_dmri", *NETWORKS])
    raise ModelCardError(card=architecture, problem=f"not a network that can be trained; known: {known}")


def build_fittable(card: ModelCard) -> FittableModel:
    """The model of a card of one of `FITTED_TO_SCAN`.

    Raises
    ------
    ModelCardError
        If it cannot be made of the card's arguments.
    """
    try:
        return FITTED_TO_SCAN[card.architecture](**card.arguments)
    except (TypeError, ValueError) as error:
        raise ModelCardError(card=card.name, problem=str(error).splitlines()[0]) from error


def count_parameters(model: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def read_card(name: str) -> ModelCard:
    """The card of a model in the registry, of a preset (which has no weights yet), or of a card file (.json).

    A grid network's name may end in ``@target``: it is then run on the grid that is asked for.

    Raises
    ------
    UnknownModelError
        If there is none.
    ModelCardError
        If the file is not a card, or the network does not work on a fixed grid.
    """
    plain = name.removesuffix(AT_TARGET)
    preset = preset_file(plain)
    if plain in INTERPOLATORS:
        card = INTERPOLATORS[plain][0]
    elif plain not in list_models() and preset.parent == _PRESETS:
        card = _card_of_preset(preset)
    else:
        card = _card_of_file(card_path(plain))
    return card if plain == name else _at_target(card)


def _card_of_file(path: Path) -> ModelCard:
    """The card in a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content |= {"scale_range": tuple(map(float, content["scale_range"])), "inputs": tuple(content["inputs"])}
        card = ModelCard(**content)
        _ = card.signal
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SignalError) as error:
        raise ModelCardError(card=path, problem=error) from error
    return card


def _card_of_preset(path: Path) -> ModelCard:
    """The card of the model that a preset is the recipe of."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        given: dict[str, Any] = {"architecture": content.get("architecture", "csr_dmri")}
        given |= {key: content[key] for key in ("normalization",) if key in content}
        tuples = {"inputs": content.get("inputs"), "scale_range": content.get("patches", {}).get("scale_range")}
        given |= {key: tuple(values) for key, values in tuples.items() if values}
        card = ModelCard(path.stem, content.get("description", ""), arguments=content.get("model", {}), **given)
        _ = card.signal
    except (OSError, ValueError, TypeError, AttributeError, SignalError) as error:
        raise ModelCardError(card=path, problem=error) from error
    with torch.device("meta"):
        model = build_model(card.architecture, card.arguments, len(card.inputs))
    return dataclasses.replace(card, parameters=count_parameters(model))


def _at_target(card: ModelCard) -> ModelCard:
    """The card of a grid network that runs on the grid asked for."""
    if card.architecture not in NETWORKS:
        raise ModelCardError(
            card=card.name, problem=f"{AT_TARGET} is for networks on a fixed grid, not {card.architecture}"
        )
    return dataclasses.replace(card, name=card.name + AT_TARGET, arguments={**card.arguments, "scale": None})


def card_path(name: str) -> Path:
    """Where the card of a model lies; weights lie beside it, with the ending .safetensors."""
    path = Path(name) if name.endswith(".json") else _SHIPPED / f"{name}.json"
    if not path.is_file():
        raise UnknownModelError(name=name, known=", ".join(list_models()))
    return path


def check_tells_uncertainty(card: ModelCard) -> None:
    """Refuse to ask a model for the uncertainty that it does not tell.

    Raises
    ------
    CertainModelError
    """
    if not card.uncertain:
        known = ", ".join(name for name in list_models() if read_card(name).uncertain) or "your own (bids-sr-train)"
        raise CertainModelError(name=card.name, known=known)


def read_trained_card(name: str) -> ModelCard:
    """The card of a model that can be run: `read_card`, without presets that have no weights yet.

    Raises
    ------
    UnknownModelError, ModelCardError
        See `read_card`.
    UntrainedModelError
        If it is a preset.
    """
    card = read_card(name)
    if card.architecture not in {*INTERPOLATORS, *FITTED_TO_SCAN} and not card.weights_sha256:
        raise UntrainedModelError(name=card.name)
    return card


def load_model(name: str, device: torch.device) -> tuple[RestorationModel | FittableModel, ModelCard]:
    """A model ready for inference, or to be fitted to a scan, and its card.

    Parameters
    ----------
    name : str
        A name of `list_models`, or the path of a card; see `read_card`.
    device : torch.device

    Raises
    ------
    UnknownModelError, ModelCardError, UntrainedModelError
        See `read_trained_card`.
    WeightsError
        If the weights are absent, changed, or of another architecture.
    """
    card = read_trained_card(name)
    if card.architecture in INTERPOLATORS:
        return INTERPOLATORS[card.architecture][1], card
    if card.architecture in FITTED_TO_SCAN:
        return build_fittable(card), card
    weights = card_path(name.removesuffix(AT_TARGET)).with_suffix(".safetensors")
    return _with_weights(card, weights).to(device), card


def _with_weights(card: ModelCard, weights: Path) -> TrainableModel:
    """The network of a card with the weights of a file, whose checksum must be the card's."""
    if not weights.is_file():
        raise WeightsError(weights=weights, problem="no such file")
    if file_sha256(weights) != card.weights_sha256:
        raise WeightsError(weights=weights, problem="its SHA-256 is not the one in the model card")
    model = build_model(card.architecture, card.arguments, len(card.inputs))
    try:
        model.load_state_dict(load_file(weights))
    except SafetensorError as error:
        raise WeightsError(weights=weights, problem=str(error).splitlines()[0]) from error
    except RuntimeError as error:
        problem = f"they are of another network than the card's ({card.architecture} {card.arguments})"
        raise WeightsError(weights=weights, problem=problem) from error
    # A first layer that reads few channels gives its maps in another layout, which would be that of all after it, were
    # it not for the weights: 17 % slower for three channels, 28 % for one.
    model = model.eval().requires_grad_(False)
    return cast(TrainableModel, model.to(memory_format=torch.channels_last_3d))  # type: ignore[call-overload]


def save_model(model: TrainableModel, card: ModelCard, folder: Path) -> None:
    """Write `NAME.safetensors` and `NAME.json` to a folder, the card last: it never names absent weights.

    Raises
    ------
    ModelWriteError
        If the disk is full or the folder not writable; what lay there before is then unchanged.
    """
    # Not `save_file`, whose files only their owner can read.
    content = save({key: value.contiguous() for key, value in model.state_dict().items()})
    complete = dataclasses.replace(
        card, weights_sha256=hashlib.sha256(content).hexdigest(), parameters=count_parameters(model)
    )
    text = json.dumps(dataclasses.asdict(complete), indent=1) + "\n"
    _write_together({folder / f"{card.name}.safetensors": content, folder / f"{card.name}.json": text.encode()})


def _write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files of one folder, in this order and only when there is room for all of them."""
    partial = {path: path.with_name(f"{path.name}.partial") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial[path].write_bytes(content)
        for path, written in partial.items():
            written.replace(path)
    except OSError as error:
        for written in partial.values():
            with suppress(OSError):
                written.unlink()
        raise ModelWriteError(path=next(iter(contents)).parent, reason=error.strerror or error) from error


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

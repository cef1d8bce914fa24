"""What decides how a training goes, read from a TOML file and checked before anything starts."""

import dataclasses
import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from bids_sr.errors import BidsSrError, TrainingDataError
from bids_sr.evaluation.metrics import WINDOW
from bids_sr.models.base import Signal
from bids_sr.models.grid import NETWORKS
from bids_sr.models.registry import build_model, preset_file
from bids_sr.models.vgg import Layer
from bids_sr.training.patches import FEWEST_VOLUMES, PatchSettings

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Perceptual:
    """A term that compares what a network for photographs sees in slices of restored and of acquired patches.

    Attributes
    ----------
    weights : str
        File with the weights of VGG19, see `bids_sr.models.vgg.load_vgg`. None come with the package.
    weight : float
        Of the term, see `bids_sr.training.losses.PerceptualLoss`.
    layer : {"1_2", "2_2", "3_4", "4_4", "5_4"}
        Whose features are compared, by its block and the convolution in it.

    Raises
    ------
    TrainingDataError
        If no file is named, or the weight is not positive.
    """

    weights: str = ""
    weight: float = 0.1
    layer: Layer = "3_4"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.weights:
            problem = "needs weights, the path of a file with those of torchvision's vgg19; none come with the package"
            raise TrainingDataError(where="[loss.perceptual]", problem=problem)
        if self.weight <= 0:
            problem = f"weight = {self.weight} is not positive; leave the table out to train without"
            raise TrainingDataError(where="[loss.perceptual]", problem=problem)


@dataclass(frozen=True)
class Loss:
    """Weights of the terms of the loss.

    Attributes
    ----------
    l1, l2 : float
        Of the mean absolute and of the mean squared error.
    fourier : float
        Of the mean modulus of the error's spectrum, see `bids_sr.training.losses.fourier_l1`.
    fourier_norm : {"backward", "ortho"}
        Of that spectrum. With "backward" the term grows with the root of the number of voxels, with "ortho" not.
    ssim : float
        Of one minus the mean structural similarity, see `bids_sr.training.losses.dissimilarity`.
    tensor : float
        Of the mean absolute error of the diffusion tensor, see `bids_sr.training.losses.tensor_l1`.
    perceptual : Perceptual, optional
        Without it there is no such term.

    Raises
    ------
    TrainingDataError
        If a weight is negative, or all are zero.
    """

    l1: float = 1.0
    l2: float = 0.0
    fourier: float = 0.0
    fourier_norm: Literal["backward", "ortho"] = "backward"
    ssim: float = 0.0
    tensor: float = 0.0
    perceptual: Perceptual | None = None

    @property
    def of_patches(self) -> tuple[str, ...]:
        """The terms with a weight that compare whole patches instead of points."""
        return tuple(name for name in ("fourier", "ssim", "perceptual") if self.weight(name) > 0)

    def weight(self, term: str) -> float:
        """The weight of a term by its name."""
        value = getattr(self, term)
        return value.weight if isinstance(value, Perceptual) else float(value or 0)

    def __post_init__(self) -> None:
        """Refuse weights that mean nothing."""
        weights = [self.weight(term) for term in ("l1", "l2", "fourier", "ssim", "tensor", "perceptual")]
        if min(weights) < 0 or max(weights) == 0:
            raise TrainingDataError(where="[loss]", problem="weights must not be negative, and not all zero")


@dataclass(frozen=True)
class Optimization:
    """How long and how fast to learn.

    Attributes
    ----------
    learning_rate : float
        Of Adam, at its peak.
    betas : tuple of float, (2,)
        Of Adam.
    schedule : {"cosine", "halving"}
        The rate goes to zero along a cosine, or is halved every `halve_every` steps.
    halve_every : int
        In steps; for "halving" only.
    warmup_steps : int
        Steps in which the rate grows from a twentieth of its peak; of a cosine, at most a quarter of `max_steps`.
    max_steps : int
        Steps in all.
    batch_size : int
        Patches of a step, on each device.
    precision : {"32-true", "bf16-mixed", "16-mixed"}
        Of the arithmetic.
    gradient_clip : float
        Largest norm of the gradient; 0 for any.
    ema : float
        Decay, per step, of a moving average of the weights, which is then what is validated and written; 0 for none.
    patience : int
        Validations without gain after which the training stops; the weights written are then those of the best
        validation. 0 trains to the end and writes the last weights.
    validate_every : int
        In steps.
    checkpoint_every : int
        In steps; 0 for as often as validations.
    validation_examples : int
        Patches of a validation; rounded up to whole batches.
    freeze_encoder : bool
        Only the decoder learns.
    seed : int
        Of the first weights and of the patches.

    Raises
    ------
    TrainingDataError
        If a value cannot be used.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "halving"] = "cosine"
    halve_every: int = 0
    warmup_steps: int = 0
    max_steps: int = 6000
    batch_size: int = 6
    precision: Precision = "32-true"
    gradient_clip: float = 0.0
    ema: float = 0.0
    patience: int = 0
    validate_every: int = 250
    checkpoint_every: int = 0
    validation_examples: int = 48
    freeze_encoder: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("max_steps", "batch_size", "validate_every", "validation_examples"):
            if getattr(self, name) < 1:
                raise TrainingDataError(
                    where="[optimization]", problem=f"{name} = {getattr(self, name)} is not positive"
                )
        for name in ("warmup_steps", "gradient_clip", "patience", "checkpoint_every", "halve_every", "seed"):
            if getattr(self, name) < 0:
                raise TrainingDataError(where="[optimization]", problem=f"{name} = {getattr(self, name)} is negative")
        for wrong, problem in (
            (self.learning_rate <= 0, f"learning_rate = {self.learning_rate} is not positive"),
            (not all(0 <= beta < 1 for beta in self.betas), f"betas = {list(self.betas)} are not in [0, 1)"),
            (not 0 <= self.ema < 1, f"ema = {self.ema} is not in [0, 1)"),
            (self.schedule == "halving" and self.halve_every < 1, 'schedule = "halving" needs halve_every'),
        ):
            if wrong:
                raise TrainingDataError(where="[optimization]", problem=problem)


@dataclass(frozen=True)
class Adversarial:
    """A discriminator that learns beside the network to tell what it restores from what was acquired.

    Attributes
    ----------
    weight : float
        Of the adversarial term in the loss of the network.
    loss : {"bce", "least-squares", "wasserstein-gp"}
        See `bids_sr.training.adversarial`.
    penalty : float
        Weight of the gradient penalty; for "wasserstein-gp" only.
    discriminator : {"srgan", "patch"}
        See `bids_sr.models.discriminators`.
    features : int
        Width of its first convolution.
    spectral_normalisation : bool
        Divide its weights by their largest singular values, in the place of other normalization.
    learning_rate : float
        Of its own Adam, at its peak; the schedule is that of the network.
    betas : tuple of float, (2,)
        Of that Adam.
    steps : int
        Of the discriminator for each step of the network, all on that step's batch.
    start_after : int
        Steps of the network before the discriminator begins to learn and its term to count.

    Raises
    ------
    TrainingDataError
        If a value cannot be used.
    """

    weight: float = 1e-3
    loss: Literal["bce", "least-squares", "wasserstein-gp"] = "bce"
    penalty: float = 10.0
    discriminator: Literal["srgan", "patch"] = "srgan"
    features: int = 32
    spectral_normalisation: bool = False
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    steps: int = 1
    start_after: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for wrong, problem in (
            (self.weight <= 0, f"weight = {self.weight} is not positive; leave the table out to train without"),
            (self.penalty < 0, f"penalty = {self.penalty} is negative"),
            (self.features < 1, f"features = {self.features} is not positive"),
            (self.learning_rate <= 0, f"learning_rate = {self.learning_rate} is not positive"),
            (not all(0 <= beta < 1 for beta in self.betas), f"betas = {list(self.betas)} are not in [0, 1)"),
            (self.steps < 1, f"steps = {self.steps} is not positive"),
            (self.start_after < 0, f"start_after = {self.start_after} is negative"),
        ):
            if wrong:
                raise TrainingDataError(where="[adversarial]", problem=problem)


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides what a training gives, apart from its data.

    Attributes
    ----------
    description : str
        One sentence for the model's card.
    architecture : str
        See `bids_sr.models.registry.build_model`.
    inputs : tuple of str
        Names of the input channels, see `bids_sr.models.base.Signal`.
    normalization : str
        How signals are put to the model, see `bids_sr.models.base.Signal`.
    model : mapping
        Arguments of the architecture.
    patches : PatchSettings
    loss : Loss
    optimization : Optimization
    adversarial : Adversarial, optional
        Without it there is no discriminator.

    Raises
    ------
    TrainingDataError
        If the architecture or the loss needs whole fine patches and `patches` does not give them.
    SignalError
        If the inputs or the normalization are unknown.
    ModelCardError
        If there is no such network, or it cannot be made of these arguments.
    """

    description: str = ""
    architecture: str = "csr_dmri"
    inputs: tuple[str, ...] = ("volume", "b0", "shell")
    normalization: str = "shell"
    model: Mapping[str, Any] = field(default_factory=dict)
    patches: PatchSettings = field(default_factory=PatchSettings)
    loss: Loss = field(default_factory=Loss)
    optimization: Optimization = field(default_factory=Optimization)
    adversarial: Adversarial | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        with torch.device("meta"):
            build_model(self.architecture, self.model, len(self.signal.inputs))
        if self.patches.points > 0 and self.architecture in NETWORKS:
            problem = f"{self.architecture} restores whole grids and needs points = 0"
            raise TrainingDataError(where="[patches]", problem=problem)
        if self.patches.points == 0 and self.signal.guided:
            raise TrainingDataError(where="[patches]", problem="a guided network needs points > 0")
        if self.patches.points > 0 and self.loss.of_patches:
            problem = f"the {self.loss.of_patches[0]} term needs whole patches: points = 0"
            raise TrainingDataError(where="[loss]", problem=problem)
        if self.loss.ssim > 0 and round(self.patches.patch * self.patches.scale_range[0]) < WINDOW:
            problem = f"the ssim term needs fine patches of {WINDOW} voxels and more: a larger patch or scale"
            raise TrainingDataError(where="[loss]", problem=problem)
        if self.patches.points > 0 and self.adversarial is not None:
            raise TrainingDataError(where="[adversarial]", problem="a discriminator needs whole patches: points = 0")
        if self.patches.volumes and self.optimization.batch_size % self.patches.volumes:
            problem = f"batch_size = {self.optimization.batch_size} is no multiple of volumes = {self.patches.volumes}"
            raise TrainingDataError(where="[optimization]", problem=problem)
        if self.loss.tensor > 0 and self.patches.volumes < FEWEST_VOLUMES:
            problem = f"the tensor term needs places in several volumes: volumes = {FEWEST_VOLUMES} and more"
            raise TrainingDataError(where="[loss]", problem=problem)
        if self.optimization.freeze_encoder and self.architecture != "csr_dmri":
            problem = f"freeze_encoder: {self.architecture} has no encoder apart from its decoder"
            raise TrainingDataError(where="[optimization]", problem=problem)

    @property
    def signal(self) -> Signal:
        """What the model is given of a scan."""
        return Signal(self.inputs, self.normalization, bool(self.model.get("guided", False)))


def load_settings(preset: str, instead: Mapping[str, Any] | None = None) -> TrainingSettings:
    """The settings of a preset, by its name or the path of a TOML file.

    Parameters
    ----------
    preset : str
    instead : mapping, optional
        Values that take the place of those in its section `optimization`.

    Raises
    ------
    TrainingDataError
        If there is no such preset, or a key in it is unknown or has a value that cannot be used.
    """
    file = preset_file(preset)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        if instead:
            content["optimization"] = {**content.get("optimization", {}), **instead}
        _check_finite(content, "")
        return _parsed(TrainingSettings, content, "")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, BidsSrError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        raise TrainingDataError(where=f"preset {preset}", problem=problem) from error


def _check_finite(content: Mapping[str, Any], section: str) -> None:
    """Refuse the numbers `nan` and `inf`, which TOML knows: every comparison with the first is false."""
    for key, value in content.items():
        if isinstance(value, dict):
            _check_finite(value, key)
        numbers = value if isinstance(value, list) else [value]
        if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
            place = f"[{section}]" if section else "top level"
            raise TrainingDataError(where=place, problem=f"{key} = {value!r} is not finite")


Parsed = TypeVar("Parsed")


def _parsed(kind: type[Parsed], content: Mapping[str, Any], section: str) -> Parsed:
    """A table of a TOML file as the data class that it describes."""
    hints = get_type_hints(kind)
    place = f"[{section}]" if section else "top level"
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in hints:
            raise TrainingDataError(where=place, problem=f"unknown key {key}; known: {', '.join(hints)}")
        table = _table(hints[key])
        if table is not None and isinstance(value, dict):
            values[key] = _parsed(table, value, key)
        else:
            values[key] = tuple(value) if isinstance(value, list) else value
            if not _fits(values[key], hints[key]):
                raise TrainingDataError(where=place, problem=f"{key} = {value!r} is not {_words(hints[key])}")
    return kind(**values)


def _table(hint: Any) -> type[Any] | None:
    """The data class that a table describes, also where it may be left out; None for a plain setting."""
    options = (hint, *get_args(hint))
    return next((option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)), None)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value of a TOML file is of the type of a setting."""
    origin, options = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in options
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is tuple:
        return isinstance(value, tuple) and _all_fit(value, options)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _all_fit(values: tuple[object, ...], hints: tuple[Any, ...]) -> bool:
    """Whether values are of the types that a tuple is declared with."""
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_fits(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(_fits, values, hints))


def _words(hint: Any) -> str:
    """A type in words for a message."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        options = get_args(hint)
        return f"a list, each {_words(options[0])}" if options[1] is Ellipsis else f"a list of {len(options)} numbers"
    if _table(hint) is not None or (get_origin(hint) is not None and get_origin(hint) is not types.UnionType):
        return "a table"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "left out"}
    return " or ".join(names.get(option, str(option)) for option in (get_args(hint) or (hint,)))

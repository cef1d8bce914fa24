"""From packed scans and a preset to weights with their card."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from bids_sr.errors import TrainingDataError
from bids_sr.models.csr_dmri import CsrDmri
from bids_sr.models.registry import ModelCard, save_model
from bids_sr.training.module import Restoration
from bids_sr.training.packing import PackedScan
from bids_sr.training.patches import PatchSettings, PatchStream


@dataclass(frozen=True)
class Optimization:
    """How long and how fast to learn; see the presets for values in use."""

    learning_rate: float = 1e-3
    warmup_steps: int = 200
    max_steps: int = 6000
    batch_size: int = 6
    precision: Any = "32-true"
    validate_every: int = 250
    validation_examples: int = 48
    seed: int = 0


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides what a training gives, apart from its data; `description` goes to the model's card."""

    description: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    patches: PatchSettings = field(default_factory=PatchSettings)
    optimization: Optimization = field(default_factory=Optimization)


Settings = TypeVar("Settings", PatchSettings, Optimization)


def load_settings(preset: str) -> TrainingSettings:
    """The settings of a preset, by its name or the path of a TOML file.

    Raises
    ------
    TrainingDataError
        If there is no such preset, or a key in it is unknown.
    """
    shipped = files("bids_sr") / "data" / "presets" / f"{preset}.toml"
    source = shipped if shipped.is_file() else Path(preset)
    try:
        content = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingDataError(where=f"preset {preset}", problem=str(error)) from error
    unknown = set(content) - {entry.name for entry in fields(TrainingSettings)}
    if unknown:
        raise TrainingDataError(where=f"preset {preset}", problem=f"unknown section {sorted(unknown)[0]}")
    return TrainingSettings(
        content.get("description", ""),
        content.get("model", {}),
        _section(PatchSettings, content.get("patches", {}), preset),
        _section(Optimization, content.get("optimization", {}), preset),
    )


def _section(kind: type[Settings], content: Mapping[str, Any], preset: str) -> Settings:
    """One section of a preset as its data class; lists become tuples."""
    unknown = set(content) - {entry.name for entry in fields(kind)}
    if unknown:
        raise TrainingDataError(where=f"preset {preset}", problem=f"unknown key {sorted(unknown)[0]}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    return kind(**values)


class _WriteWeights(Callback):
    """Write weights and card after each validation, so that a training that is cut short leaves a model."""

    def __init__(self, card: ModelCard, folder: Path) -> None:
        self.card, self.folder = card, folder

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Called by lightning."""
        progress = {
            "steps": trainer.global_step,
            **{key.replace("/", "_"): float(value) for key, value in trainer.callback_metrics.items()},
        }
        save_model(cast(Restoration, pl_module).model, self.card.trained(progress), self.folder)


def train(
    scans: Sequence[PackedScan],
    validation: Sequence[PackedScan],
    settings: TrainingSettings,
    card: ModelCard,
    folder: Path,
    *,
    threads: int,
    accelerator: str = "auto",
    resume: Path | None = None,
    initial: nn.Module | None = None,
) -> None:
    """Train a model; weights, card, log and checkpoints go to `folder`.

    Scans are drawn in proportion to the voxels of their brain masks. Validation examples come from other scans, and are
    the same each time. `resume` is a checkpoint of a training that was cut; `initial` has weights to begin with.

    Raises
    ------
    TrainingDataError
        If `initial` is of another architecture.
    """
    torch.set_num_threads(threads)
    lightning.seed_everything(settings.optimization.seed, verbose=False)
    options = settings.optimization
    model = CsrDmri(**settings.model)
    if initial is not None:
        _copy_weights(initial, model)
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=options.precision,
        max_steps=options.max_steps,
        gradient_clip_val=1.0,
        val_check_interval=options.validate_every,
        limit_val_batches=options.validation_examples // options.batch_size,
        num_sanity_val_steps=0,
        logger=CSVLogger(folder, name="log", version=""),
        callbacks=[
            ModelCheckpoint(
                folder / "checkpoints",
                monitor="step",
                mode="max",
                save_top_k=2,
                every_n_train_steps=options.validate_every,
            ),
            _WriteWeights(card, folder),
        ],
        log_every_n_steps=25,
        enable_model_summary=False,
    )
    step = Restoration(model, options.learning_rate, options.warmup_steps, options.max_steps)
    trainer.fit(step, datamodule=_Patches(scans, validation, settings), ckpt_path=resume)


def _copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give a model the weights of another of the same architecture."""
    try:
        target.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise TrainingDataError(where="initial weights", problem="they are of another architecture") from error


class _Patches(lightning.LightningDataModule):
    """Batches of examples; a training that resumes goes on with the example after the last one it saw."""

    def __init__(
        self, scans: Sequence[PackedScan], validation: Sequence[PackedScan], settings: TrainingSettings
    ) -> None:
        super().__init__()
        self.scans, self.validation, self.settings, self.first = scans, validation, settings, 0

    def train_dataloader(self) -> DataLoader[Any]:
        """Called by lightning."""
        return self._loader(self.scans, self.settings.optimization.seed, self.first)

    def val_dataloader(self) -> DataLoader[Any]:
        """Called by lightning."""
        return self._loader(self.validation, self.settings.optimization.seed + 1, 0)

    def _loader(self, scans: Sequence[PackedScan], seed: int, first: int) -> DataLoader[Any]:
        stream = PatchStream(scans, [len(scan.inside) for scan in scans], self.settings.patches, seed, first)
        return DataLoader(stream, batch_size=self.settings.optimization.batch_size)

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps: the number of the next example."""
        steps = cast(lightning.Trainer, self.trainer).global_step
        return {"first": steps * self.settings.optimization.batch_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Called by lightning before the first batch of a training that resumes."""
        self.first = state_dict["first"]


def describe(settings: TrainingSettings, scans: Sequence[PackedScan]) -> dict[str, Any]:
    """What a model card tells of a training."""
    return {
        "scans": [scan.name for scan in scans],
        "patches": asdict(settings.patches),
        "optimization": asdict(settings.optimization),
        "degradation": "Gaussian point-spread function, cells aligned",
        "torch": torch.__version__,
    }

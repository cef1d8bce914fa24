"""Checkpoints: written whole or not at all, and only gone on from by the training that they are of."""

import dataclasses
import io
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from bids_sr.bids.outputs import write_atomically
from bids_sr.errors import TrainingDataError
from bids_sr.models.registry import ModelCard

#: Checkpoints that are kept: the last one, and one before in case that it is damaged.
KEPT = 2
#: Where a checkpoint keeps the card of the model that it is of.
_CARD = "bids_sr_card"
#: What must be the same on both cards for a training to go on, and under `training` on them.
_SAME = ("architecture", "arguments", "inputs", "normalization")
_SAME_IN_TRAINING = ("scans", "patches", "loss", "optimization", "adversarial")
#: What must be the same under `training` as far as both cards tell it: those of earlier versions tell less, and to ask
#: whether a network is trained takes no scans for validation.
_SAME_IF_TOLD = ("validation_scans", "scans_with_t1w", "range", "checksums")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, whenever the process ends.

    Lightning writes to the folder for temporary files and moves the file from there, which is a copy when that folder
    is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint next to its place, then move it there."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with write_atomically(Path(path)) as partial:
            partial.write_bytes(content.getbuffer())


class WriteCheckpoints(Callback):
    """Write a checkpoint every so many steps, after the validation of that step if there is one.

    A training that resumes from a checkpoint written before a validation would leave that validation out, and with it
    what early stopping makes of it. To be listed last.

    Parameters
    ----------
    card : ModelCard
        Of the model that is trained.
    folder : Path
    every : int
        Steps between checkpoints.
    validate_every : int
        Steps between validations.
    """

    def __init__(self, card: ModelCard, folder: Path, every: int, validate_every: int) -> None:
        self.card, self.folder, self.every, self.validate_every = card, folder, every, validate_every
        self.latest: Path | None = None

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write, unless there is a validation first."""
        if trainer.global_step % self.validate_every != 0:
            self._write(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write after a validation within the training."""
        if trainer.state.fn == "fit":
            self._write(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell what the checkpoint is of."""
        checkpoint[_CARD] = _as_json(self.card)

    def _write(self, trainer: lightning.Trainer) -> None:
        """Write a checkpoint of this step if it is time, and remove old ones."""
        if trainer.global_step % self.every != 0 and trainer.global_step != trainer.max_steps:
            return
        latest = self.folder / f"step-{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(latest)
        self.latest = latest
        if trainer.is_global_zero:
            earlier = [file for file in checkpoints_in(self.folder) if file.name < latest.name]
            for old in earlier[: 1 - KEPT]:
                old.unlink()


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the latest step last."""
    return sorted(folder.glob("step-*.ckpt"))


def find_checkpoint(place: Path) -> Path:
    """A checkpoint, or the last one in the output folder of a training.

    Raises
    ------
    TrainingDataError
        If there is none.
    """
    if place.is_dir():
        found = checkpoints_in(place / "checkpoints") or checkpoints_in(place)
        if not found:
            raise TrainingDataError(where=f"--resume {place}", problem="no checkpoint in this folder")
        return found[-1]
    if not place.is_file():
        raise TrainingDataError(where=f"--resume {place}", problem="no such file or folder")
    return place


def requeued_checkpoint(folder: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The last checkpoint in the output folder of a training whose job SLURM has put back and started again."""
    found = checkpoints_in(folder / "checkpoints")
    return found[-1] if found and environment.get("SLURM_RESTART_COUNT", "0") != "0" else None


def resumed_card(checkpoint: Path, card: ModelCard, folder: Path) -> ModelCard:
    """The card of a training that goes on from a checkpoint: where its weights came from stays on it.

    Raises
    ------
    TrainingDataError
        If the file is not a checkpoint of `bids-sr-train`, or is of a training with other data or settings, or the best
        weights of that training lie in another folder than the one to write to.
    """
    try:
        # Tensors and plain values only: a file that holds anything else is not executed but refused.
        before = json.loads(torch.load(checkpoint, map_location="cpu", weights_only=True)[_CARD])
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        problem = "not a checkpoint of bids-sr-train, or damaged"
        raise TrainingDataError(where=checkpoint, problem=problem) from error
    changed = difference(before, card)
    if changed:
        raise TrainingDataError(where=checkpoint, problem=f"it is of another training: {changed}")
    home = checkpoint.resolve().parent.parent
    if card.training["optimization"]["patience"] and home != folder.resolve():
        raise TrainingDataError(where=checkpoint, problem=f"its best weights lie beside it; go on with --output {home}")
    # The weights are the checkpoint's, whatever else was named to begin with.
    origin = {key: value for key, value in before["training"].items() if key == "started_from"}
    training = {key: value for key, value in card.training.items() if key != "started_from"}
    return dataclasses.replace(card, training=training | origin)


def difference(before: Mapping[str, Any], card: ModelCard) -> str:
    """In words, the first setting or scans by which a training differs from one of before; empty if they are the same.

    Parameters
    ----------
    before : mapping
        The fields of the card of then.
    card : ModelCard
        Of now.
    """
    now = json.loads(_as_json(card))
    pairs = {name: (before[name], now[name]) for name in _SAME}
    for name in _SAME_IN_TRAINING:
        then, today = (_decisive(fields["training"].get(name), card.guided) for fields in (before, now))
        pairs[name] = then, today
    pairs |= {name: _told(before["training"].get(name), now["training"].get(name)) for name in _SAME_IF_TOLD}
    found = (_changed(name, *pair) for name, pair in pairs.items())
    return next((words for words in found if words), "")


def _told(before: Any, now: Any) -> tuple[Any, Any]:
    """What both cards tell: of tables the keys that both have, and of a list or number nothing if one has none."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() & now.keys()
        return {key: before[key] for key in keys}, {key: now[key] for key in keys}
    return (before, now) if before not in (None, []) and now not in (None, []) else (None, None)


def _as_json(card: ModelCard) -> str:
    """A card as a checkpoint keeps it."""
    return json.dumps(dataclasses.asdict(card))


def _decisive(section: Any, guided: bool) -> Any:
    """The settings of a section that must not change.

    A schedule that does not look at its end can be prolonged, and what is done to a T1w that guides plays no part in
    other models.
    """
    if not isinstance(section, dict):
        return section
    free = {"checkpoint_every"} | ({"max_steps"} if section.get("schedule") == "halving" else set())
    free |= set() if guided else {"guide"}
    return {key: value for key, value in section.items() if key not in free}


def _changed(name: str, before: Any, now: Any) -> str:
    """In words, the first value in which two settings differ; empty if in none."""
    if isinstance(before, dict) and isinstance(now, dict):
        # A setting that there was not then does nothing while it is off.
        keys = (key for key in sorted(before.keys() | now.keys()) if key in before or now[key])
        found = (_changed(f"{name}.{key}", before.get(key), now.get(key)) for key in keys)
        return next((words for words in found if words), "")
    return "" if before == now else f"{name} was {before}, and is {now} now"

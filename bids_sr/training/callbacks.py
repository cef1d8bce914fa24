"""What a training shows of itself while it goes on: weights with their card, and how far it has come."""

import math
import sys
import time
from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from bids_sr.errors import TrainingDataError
from bids_sr.models.registry import ModelCard, save_model
from bids_sr.training.module import Restoration

#: Name of the metric that decides which weights are best.
MONITORED = "validation/loss"


class WriteWeights(Callback):
    """Write weights and card after each validation, so that a training that is cut short leaves a model.

    A loss that is not finite ends the training, and the weights written before stay.

    To be listed before a callback that averages weights, which takes its average out again after a validation.

    Parameters
    ----------
    card : ModelCard
    folder : Path
    best_only : bool
        Write only when the validation is the best so far.
    """

    def __init__(self, card: ModelCard, folder: Path, best_only: bool) -> None:
        self.card, self.folder, self.best_only = card, folder, best_only
        self.best, self.seconds, self.started = math.inf, 0.0, time.monotonic()
        self.validated_step = -1

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write what was validated."""
        # On every rank: the metrics are averaged over them when they are read.
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if not math.isfinite(metrics[MONITORED]):
            problem = "the loss is not a number any more; lower learning_rate or set gradient_clip"
            raise TrainingDataError(where=f"step {trainer.global_step}", problem=problem)
        self.validated_step = trainer.global_step
        gain = metrics[MONITORED] < self.best
        self.best = min(self.best, metrics[MONITORED])
        if trainer.is_global_zero and (gain or not self.best_only):
            save_model(
                cast(Restoration, pl_module).model, self.card.trained(self._progress(trainer, metrics)), self.folder
            )

    def _progress(self, trainer: lightning.Trainer, metrics: dict[str, float]) -> dict[str, Any]:
        """What the training has come to, for the card."""
        batch_size = self.card.training["optimization"]["batch_size"]
        return {
            "steps": trainer.global_step,
            "patches": trainer.global_step * batch_size * trainer.world_size,
            "seconds": round(self._elapsed(), 1),
            **{key.replace("/", "_"): value for key, value in metrics.items()},
        }

    def _elapsed(self) -> float:
        """Seconds of training, those before a resumption included."""
        return self.seconds + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "seconds": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by lightning for a training that resumes."""
        self.best, self.seconds = state_dict["best"], state_dict["seconds"]


class StepBar(TQDMProgressBar):
    """A progress bar over all steps; the data have no end by themselves."""

    def __init__(self) -> None:
        # A log file needs no line for each step.
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else 100)

    @property
    def total_train_batches(self) -> int:
        """Steps in all."""
        return self.trainer.max_steps

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """What stands beside the bar: losses, not the number of the run."""
        metrics = super().get_metrics(trainer, pl_module)
        return {key: value for key, value in metrics.items() if key != "v_num"}

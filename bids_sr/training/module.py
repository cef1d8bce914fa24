"""One step of training, for lightning."""

import math
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor

from bids_sr.models.base import TrainableModel
from bids_sr.training.losses import Grid, fine_grid, loss_terms
from bids_sr.training.patches import Batch
from bids_sr.training.settings import Loss, Optimization

#: Rate of the first step of a warm-up, as a part of the peak.
FIRST_RATE = 0.05


class Restoration(lightning.LightningModule):
    """A network that learns to give acquired intensities back, by Adam.

    Parameters
    ----------
    model : TrainableModel
    loss : Loss
    optimization : Optimization
    """

    def __init__(self, model: TrainableModel, loss: Loss, optimization: Optimization) -> None:
        super().__init__()
        # The layout in which convolutions are fastest, on processors as on GPUs.
        self.model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.loss, self.optimization = loss, optimization

    def forward(self, batch: Batch) -> Tensor:
        """Intensities, (N, Q), at the points of each patch."""
        channels = batch.channels.contiguous(memory_format=torch.channels_last_3d)
        if batch.guide is None:
            return self.model(channels, batch.points, batch.cell)
        return self.model(channels, batch.points, batch.cell, batch.guide)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss."""
        terms = loss_terms(self(batch), batch.truth, self._grid(batch), self.loss)
        for name, term in terms.items():
            self.log(f"train/{name}", term, prog_bar=name == "loss", batch_size=len(batch.channels))
        return terms["loss"]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The loss, and mean squared and mean absolute error whatever the loss is."""
        restored = self(batch)
        terms = loss_terms(restored, batch.truth, self._grid(batch), self.loss)
        error = restored.float() - batch.truth
        terms |= {"mse": error.square().mean(), "l1": error.abs().mean()}
        for name, term in terms.items():
            self.log(
                f"validation/{name}", term, prog_bar=name == "loss", sync_dist=True, batch_size=len(batch.channels)
            )

    def _grid(self, batch: Batch) -> Grid | None:
        """The fine grid of a batch if the loss needs it; on a GPU, looking costs a wait."""
        return fine_grid(batch.channels, batch.cell, batch.points.shape[1]) if self.loss.of_patches else None

    def configure_optimizers(self) -> Any:
        """Adam with the learning rate as a function of the step."""
        options = self.optimization
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=options.learning_rate, betas=options.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate_factor, options=options))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_factor(step: int, options: Optimization) -> float:
    """The learning rate of a step, counted from 0, as a part of its peak."""
    if step < options.warmup_steps:
        return FIRST_RATE + (1 - FIRST_RATE) * step / options.warmup_steps
    if options.schedule == "halving":
        return 0.5 ** (step // options.halve_every)
    progress = (step - options.warmup_steps) / max(1, options.max_steps - options.warmup_steps)
    return (1 + math.cos(math.pi * min(progress, 1))) / 2

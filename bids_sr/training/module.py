"""One step of training, for lightning."""

import math
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor

from bids_sr.errors import TrainingDataError
from bids_sr.models.base import TrainableModel
from bids_sr.training.adversarial import Adversary, as_volumes
from bids_sr.training.losses import Grid, PerceptualLoss, fine_grid, loss_terms
from bids_sr.training.patches import Batch
from bids_sr.training.settings import Adversarial, Loss, Optimization

#: Rate of the first step of a warm-up, as a part of the peak.
FIRST_RATE = 0.05
#: Where a checkpoint keeps a discriminator.
_ADVERSARY = "adversary"


class Restoration(lightning.LightningModule):
    """A network that learns to give acquired intensities back, by Adam.

    Parameters
    ----------
    model : TrainableModel
    loss : Loss
    optimization : Optimization
    adversarial : Adversarial, optional
        A discriminator that learns beside the network.
    volumes : int
        In how many volumes, one after the other, a batch shows each place; see `PatchSettings`.
    """

    def __init__(
        self,
        model: TrainableModel,
        loss: Loss,
        optimization: Optimization,
        adversarial: Adversarial | None = None,
        volumes: int = 0,
    ) -> None:
        super().__init__()
        # The layout in which convolutions are fastest, on processors as on GPUs.
        self.model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.loss, self.optimization, self.volumes = loss, optimization, volumes
        # Both beside the network: no part of its weights. A discriminator's optimizer is its own, so each step of the
        # trainer is one of the network.
        self.perceptual = None if loss.perceptual is None else PerceptualLoss(loss.perceptual)
        self.adversary = None if adversarial is None else Adversary(adversarial, optimization.seed)

    def forward(self, batch: Batch) -> Tensor:
        """Intensities, (N, Q), at the points of each patch."""
        channels = batch.channels.contiguous(memory_format=torch.channels_last_3d)
        if batch.guide is None:
            return self.model(channels, batch.points, batch.cell)
        return self.model(channels, batch.points, batch.cell, batch.guide)

    def compared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the loss compares, (N, Q) each; see `TrainableModel.compared`."""
        channels = batch.channels.contiguous(memory_format=torch.channels_last_3d)
        return self.model.compared(channels, batch.points, batch.cell, batch.truth, batch.guide)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss; a discriminator learns first."""
        (learned, wanted), grid = self.compared(batch), self._grid(batch)
        if wanted is not batch.truth:
            self._check_intensities()
        terms = self._terms(learned, wanted, grid, batch)
        terms |= self._contested(learned, wanted, grid, terms["loss"])
        for name, term in terms.items():
            self.log(f"train/{name}", term, prog_bar=name == "loss", batch_size=len(batch.channels))
        return terms["loss"]

    def _terms(self, learned: Tensor, wanted: Tensor, grid: Grid | None, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, see `loss_terms`."""
        return loss_terms(
            learned, wanted, grid, self.loss,
            perceptual=self.perceptual, gradients=batch.gradients, volumes=self.volumes,
        )  # fmt: skip

    def _contested(self, restored: Tensor, truth: Tensor, grid: Grid | None, loss: Tensor) -> dict[str, Tensor]:
        """The terms of a discriminator, and the loss with them; none as long as there is no discriminator."""
        adversary = self.adversary
        if adversary is None or grid is None or self.global_step < adversary.settings.start_after:
            return {}
        volumes = as_volumes(restored, grid)
        rate = rate_factor(self.global_step, self.optimization)
        discriminator = adversary.learn(as_volumes(truth, grid), volumes, self.global_step, rate)
        term = adversary.judge(volumes)
        return {"discriminator": discriminator, "adversarial": term, "loss": loss + adversary.settings.weight * term}

    def _check_intensities(self) -> None:
        """Refuse what has a meaning for intensities only, for a network that learns something else to restore them."""
        asked = {
            "[adversarial]": self.adversary is not None,
            "[loss.perceptual]": self.perceptual is not None,
            "[loss] tensor": self.loss.tensor > 0,
        }
        for where, unfit in asked.items():
            if unfit:
                problem = "it judges intensities, and this network learns something else to restore them by"
                raise TrainingDataError(where=where, problem=problem)

    def on_fit_start(self) -> None:
        """Take the discriminator to where the network is."""
        if self.adversary is not None:
            self.adversary.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the discriminator and its optimizer too."""
        if self.adversary is not None:
            checkpoint[_ADVERSARY] = self.adversary.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the discriminator that was kept."""
        if self.adversary is not None:
            self.adversary.load_state_dict(checkpoint[_ADVERSARY])

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The loss without a discriminator's term, and mean squared and mean absolute error whatever the loss is."""
        learned, wanted = self.compared(batch)
        terms = self._terms(learned, wanted, self._grid(batch), batch)
        restored = learned if wanted is batch.truth else self(batch)
        error = restored.float() - batch.truth
        terms |= {"mse": error.square().mean(), "l1": error.abs().mean()}
        for name, term in terms.items():
            self.log(
                f"validation/{name}", term, prog_bar=name == "loss", sync_dist=True, batch_size=len(batch.channels)
            )

    def _grid(self, batch: Batch) -> Grid | None:
        """The fine grid of a batch if the loss needs it; on a GPU, looking costs a wait."""
        needed = self.loss.of_patches or self.adversary is not None
        return fine_grid(batch.channels, batch.cell, batch.points.shape[1]) if needed else None

    def configure_optimizers(self) -> Any:
        """Adam with the learning rate as a function of the step."""
        options = self.optimization
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=options.learning_rate, betas=options.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate_factor, options=options))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_factor(step: int, options: Optimization) -> float:
    """The learning rate of a step, counted from 0, as a part of its peak."""
    halving = options.schedule == "halving"
    # Of a training made short, as a network is tuned, the rate would otherwise grow to its last step. Halving does not
    # look at the end, so that it can be prolonged.
    warmup = options.warmup_steps if halving else min(options.warmup_steps, options.max_steps // 4)
    if step < warmup:
        return FIRST_RATE + (1 - FIRST_RATE) * step / warmup
    if halving:
        return 0.5 ** (step // options.halve_every)
    progress = (step - warmup) / max(1, options.max_steps - warmup)
    return (1 + math.cos(math.pi * min(progress, 1))) / 2

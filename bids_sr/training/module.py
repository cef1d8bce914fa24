"""One step of training, for lightning."""

from typing import Any

import lightning
import torch
from torch import Tensor

from bids_sr.models.csr_dmri import CsrDmri

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class Restoration(lightning.LightningModule):
    """L1 between restored and acquired intensities, Adam, a short warm-up and a cosine to zero.

    Parameters
    ----------
    model : CsrDmri
    learning_rate : float
        At its peak.
    warmup_steps, max_steps : int
        Steps to the peak, and in all.
    """

    def __init__(self, model: CsrDmri, learning_rate: float, warmup_steps: int, max_steps: int) -> None:
        super().__init__()
        self.model = model
        self.learning_rate, self.warmup_steps, self.max_steps = learning_rate, warmup_steps, max_steps

    def forward(self, batch: Batch) -> Tensor:
        """Intensities, (N, Q), at the points of each patch."""
        channels, points, cell, _ = batch
        encoded = self.model.encode(channels)
        restored = [
            self.model.query_one(rows, encoded.shape, points[i], cell[i].expand_as(points[i]))
            for i, rows in enumerate(encoded.rows)
        ]
        return torch.stack(restored)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Mean absolute error."""
        loss = (self(batch).float() - batch[3]).abs().mean()
        self.log("train/l1", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Mean squared and mean absolute error."""
        error = self(batch).float() - batch[3]
        self.log("validation/mse", error.square().mean())
        self.log("validation/l1", error.abs().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Adam with the learning rate as a function of the step."""
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.learning_rate, betas=(0.9, 0.99))
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=self.warmup_steps)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.max_steps - self.warmup_steps))
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [self.warmup_steps])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

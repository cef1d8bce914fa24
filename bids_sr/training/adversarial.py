"""A discriminator that learns beside a network, and what it makes of the patches that the network restores."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from bids_sr.models.discriminators import (
    DISCRIMINATORS,
    no_normalization,
    patch_normalization,
    spectrally_normalized,
)
from bids_sr.training.settings import Adversarial

Kind = Literal["bce", "least-squares", "wasserstein-gp"]


def discriminator_loss(acquired: Tensor, restored: Tensor, kind: Kind) -> Tensor:
    """What the discriminator lowers, without a gradient penalty.

    Parameters
    ----------
    acquired, restored : Tensor, (N, S)
        Scores of acquired and of restored patches.
    kind : {"bce", "least-squares", "wasserstein-gp"}
        The cross-entropy of the logistic function of the scores (Goodfellow et al. 2014, eq. 1), the squared distance
        to 1 and to 0 (Mao et al. 2017, eq. 9), or the difference of the means (Gulrajani et al. 2017, eq. 3).

    Returns
    -------
    Tensor, ()
    """
    if kind == "bce":
        return nn.functional.softplus(-acquired).mean() + nn.functional.softplus(restored).mean()
    if kind == "least-squares":
        return ((acquired - 1).square().mean() + restored.square().mean()) / 2
    return restored.mean() - acquired.mean()


def adversarial_loss(restored: Tensor, kind: Kind) -> Tensor:
    """What the network lowers: its patches shall get the scores of acquired ones.

    With "bce" it is the form of it that does not saturate (Goodfellow et al. 2014, sec. 3); otherwise see
    `discriminator_loss`.
    """
    if kind == "bce":
        return nn.functional.softplus(-restored).mean()
    if kind == "least-squares":
        return (restored - 1).square().mean() / 2
    return -restored.mean()


def gradient_penalty(discriminator: nn.Module, acquired: Tensor, restored: Tensor, share: Tensor) -> Tensor:
    """Mean squared distance from 1 of the norm of the score's gradient (Gulrajani et al. 2017, eq. 3).

    Parameters
    ----------
    discriminator : Module
        The score of a patch is the mean over those of its parts.
    acquired, restored : Tensor, (N, 1, x, y, z)
    share : Tensor, (N,)
        Where between the two the gradient is taken: 1 is at the acquired patch.

    Returns
    -------
    Tensor, ()
        With a graph, so that it can be lowered.
    """
    mixed = torch.lerp(restored, acquired, share.view(-1, 1, 1, 1, 1)).requires_grad_()
    scores = discriminator(mixed).mean(dim=1).sum()
    (gradient,) = torch.autograd.grad(scores, mixed, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


class Adversary:
    """A discriminator with its optimizer.

    It is no part of the network that it judges: averages of weights, gradient clipping and what is written as the model
    know nothing of it. All of it is computed in full precision.

    Parameters
    ----------
    settings : Adversarial
    seed : int
        Of its first weights, and of what the gradient penalty draws.
    """

    def __init__(self, settings: Adversarial, seed: int) -> None:
        self.settings, self.seed = settings, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            spectral = settings.spectral_normalisation
            normalization = no_normalization if spectral else patch_normalization
            network: nn.Module = DISCRIMINATORS[settings.discriminator](settings.features, normalization)
            self.network = spectrally_normalized(network) if spectral else network
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate, betas=settings.betas)

    def __deepcopy__(self, memo: Any) -> "Adversary":
        """Itself: a copy of the network for an average of its weights is judged by no one."""
        return self

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self.network.to(device)
        # Which puts the state of each parameter where that is.
        self.optimizer.load_state_dict(self.optimizer.state_dict())

    def learn(self, acquired: Tensor, restored: Tensor, step: int, rate: float = 1.0) -> Tensor:
        """Learn from the patches of a step, (N, 1, x, y, z), as often as the settings say.

        Parameters
        ----------
        acquired, restored : Tensor, (N, 1, x, y, z)
            The network that restored is not changed.
        step : int
            Number of the step.
        rate : float
            Learning rate of the step as a part of its peak.

        Returns
        -------
        Tensor, ()
            The loss before the last of the steps, its penalty included.
        """
        self._set(rate)
        acquired, restored = acquired.detach().float(), restored.detach().float()
        loss = acquired.new_zeros(())
        with torch.autocast(acquired.device.type, enabled=False):
            for turn in range(self.settings.steps):
                loss = self._loss(acquired, restored, self._shares(len(acquired), step, turn).to(acquired.device))
                self._follow(loss)
        return loss.detach()

    def judge(self, restored: Tensor) -> Tensor:
        """The adversarial term of the loss of the network, whose patches, (N, 1, x, y, z), these are."""
        self.network.requires_grad_(False)
        try:
            with torch.autocast(restored.device.type, enabled=False):
                return adversarial_loss(self.network(restored.float()), self.settings.loss)
        finally:
            self.network.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _set(self, rate: float) -> None:
        """Set the learning rate to a part of its peak."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rate

    def _loss(self, acquired: Tensor, restored: Tensor, share: Tensor) -> Tensor:
        """What the discriminator lowers."""
        scores = self.network(acquired), self.network(restored)
        loss = discriminator_loss(*scores, self.settings.loss)
        if self.settings.loss != "wasserstein-gp":
            return loss
        return loss + self.settings.penalty * gradient_penalty(self.network, acquired, restored, share)

    def _shares(self, count: int, step: int, turn: int) -> Tensor:
        """Where gradients are taken: a function of seed, step and process, so a resumed training draws the same."""
        shares = np.random.default_rng([self.seed, step, turn, _rank()]).random(count, np.float32)
        return torch.from_numpy(shares)

    def _follow(self, loss: Tensor) -> None:
        """A step of the optimizer along the gradient, averaged over processes that train together."""
        parameters = list(self.network.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = _averaged(gradient)
        self.optimizer.step()


def as_volumes(patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Whole patches, (N, x * y * z), as volumes, (N, 1, x, y, z)."""
    return patches.unflatten(1, (1, *grid))


def _rank() -> int:
    """Number of this process among those that train together."""
    return torch.distributed.get_rank() if _together() else 0


def _together() -> bool:
    """Whether several processes train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _averaged(gradient: Tensor) -> Tensor:
    """The mean of a gradient over the processes that train together."""
    if _together():
        torch.distributed.all_reduce(gradient)
        gradient = gradient / torch.distributed.get_world_size()
    return gradient

"""The layer by which a trained network tells how uncertain it is: fitted to the errors that the network makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_sr.errors import TrainingDataError
from bids_sr.models.base import Lattice
from bids_sr.models.csr_dmri import LOG_DEVIATIONS, CsrDmri
from bids_sr.models.registry import ModelCard, build_model
from bids_sr.training.packing import PackedScan
from bids_sr.training.patches import PatchSettings, draw_example

#: Coverage that the intervals are scaled to, and the deviations on either side that give it for a normal distribution.
COVERAGE, DEVIATIONS = 0.9, 1.6449
#: Weight of the squares of the layer's weights in the fit, which has thousands of points for each of them.
RIDGE = 1e-4
#: Largest number of evaluations of the fit; it is convex and ends long before.
EVALUATIONS = 300
#: Largest share of an error that volumes are said to have in common.
LARGEST_SHARE = 0.95


@dataclass(frozen=True)
class SpreadSettings:
    """How the errors are gathered that the layer is fitted to.

    Attributes
    ----------
    places : int
        Patches of each scan, each seen in two volumes of one shell, or twice in a b0 that is the only one.
    points : int
        Points of each patch.
    b0_share : float
        Share of the patches that show b0 volumes.
    t1w_dropped : float
        Share of the patches without a T1w, for a network that one guides.
    seed : int
    """

    places: int = 60
    points: int = 512
    b0_share: float = 0.15
    t1w_dropped: float = 0.4
    seed: int = 0


@dataclass(frozen=True)
class Errors:
    """What the layer would read at points of a scan, and the errors there.

    Attributes
    ----------
    hidden : Tensor, (P, hidden)
    errors : Tensor, (P,)
        Acquired minus restored, in units of the level of the shell.
    partner : Tensor, (P,)
        The errors at the same places in another volume of the shell; NaN where there is none.
    """

    hidden: Tensor
    errors: Tensor
    partner: Tensor


def fit_spread(
    model: CsrDmri,
    card: ModelCard,
    scans: Sequence[PackedScan],
    validation: Sequence[PackedScan],
    settings: SpreadSettings = SpreadSettings(),
) -> tuple[CsrDmri, ModelCard]:
    """A network that tells its uncertainty, and restores as before.

    The errors include the noise of the acquired volumes, so simulated scans, whose noise was chosen, take no part, and
    the patches get no noise but their own; they are sampled by the profiles that the network was trained for. The
    logarithm of the standard deviation is a linear function of what the
    decoder's head reads; it maximizes the likelihood of normally distributed errors, each subject counting the same.
    Errors have longer tails than that, so the deviations are then scaled until `COVERAGE` of the validation's errors
    lie within `DEVIATIONS` of them.

    Parameters
    ----------
    model : CsrDmri
        It is not changed.
    card : ModelCard
    scans : sequence of PackedScan
        To fit to.
    validation : sequence of PackedScan
        Of other subjects.
    settings : SpreadSettings

    Returns
    -------
    model : CsrDmri
    card : ModelCard
        With what `uncertainty` says of the fit.

    Raises
    ------
    TrainingDataError
        If there is no acquired scan, or the network cannot have such a layer.
    """
    acquired, held_out = ([scan for scan in part if not scan.simulated] for part in (scans, validation))
    if not acquired or not held_out:
        raise TrainingDataError(where="uncertainty", problem="needs acquired scans, for the fit and for validation")
    if not model.residual or card.normalization != "shell":
        problem = "needs a residual network and signals in units of their shell"
        raise TrainingDataError(where=f"uncertainty of {card.name}", problem=problem)
    gathered = {scan.name: gather_errors(model, card, scan, settings) for scan in [*acquired, *held_out]}
    fitted = [gathered[scan.name] for scan in acquired]
    weight, bias = _fit_layer(fitted, [1 / _runs(scan, acquired) for scan in acquired])
    bias += math.log(_stretch([gathered[scan.name] for scan in held_out], weight, bias))
    facts = {
        "scans": [scan.name for scan in acquired],
        "validation_scans": [scan.name for scan in held_out],
        "settings": asdict(settings),
        "coverage": {name: round(coverage(errors, weight, bias), 4) for name, errors in gathered.items()},
        "shared": round(shared_variance([*gathered.values()], weight, bias), 3),
    }
    return _with_layer(model, card, weight, bias, facts)


def _runs(scan: PackedScan, scans: Sequence[PackedScan]) -> int:
    """How many of the scans are of the subject of this one."""
    return sum(other.name.partition("_")[0] == scan.name.partition("_")[0] for other in scans)


@torch.inference_mode()
def gather_errors(model: CsrDmri, card: ModelCard, scan: PackedScan, settings: SpreadSettings) -> Errors:
    """What the network reads and how it errs in random patches of a scan."""
    patches = _patches(card, settings)
    found: list[Errors] = []
    for place in range(settings.places):
        random = np.random.default_rng([settings.seed, place])
        volumes = _two_volumes(scan.shells, settings.b0_share, random)
        first, second = (
            _errors_of_patch(model, card, scan, patches, volume, [settings.seed, place, 1]) for volume in volumes
        )
        single = volumes[0] == volumes[1]
        partners = [torch.full_like(e, math.nan) if single else e for _, e in (second, first)]
        pairs = zip((first, second), partners, strict=True)
        found += [Errors(hidden, errors, partner) for (hidden, errors), partner in pairs]
    return Errors(*(torch.cat([getattr(part, name) for part in found]) for name in ("hidden", "errors", "partner")))


def _patches(card: ModelCard, settings: SpreadSettings) -> PatchSettings:
    """How patches are drawn: sampled as in the training that the card tells of, as far as it does."""
    told = card.training.get("patches", {})
    patches = PatchSettings(points=settings.points, noise_share=0, t1w_dropped=settings.t1w_dropped)
    profiles, psf_range = (told.get(name, getattr(patches, name)) for name in ("profiles", "psf_range"))
    return replace(patches, profiles=tuple(profiles), psf_range=tuple(psf_range))


def _two_volumes(shells: NDArray[np.int64], b0_share: float, random: np.random.Generator) -> tuple[int, int]:
    """Two volumes of one shell; twice the same where it has only one."""
    weighted = np.flatnonzero(shells > 0)
    first = int(random.choice(np.flatnonzero(shells == 0) if random.random() < b0_share else weighted))
    others = np.setdiff1d(np.flatnonzero(shells == shells[first]), [first])
    return first, int(random.choice(others)) if len(others) else first


def _errors_of_patch(
    model: CsrDmri, card: ModelCard, scan: PackedScan, patches: PatchSettings, volume: int, seed: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """What the network reads, (Q, hidden), and its errors, (Q,), at the points of one patch of a volume."""
    example = draw_example(scan, patches, card.signal, np.random.default_rng(seed), volume=volume)
    channels, points, cell, truth = (
        torch.from_numpy(array) for array in (example.channels, example.points, example.cell, example.truth)
    )
    guide = None if example.guide is None else torch.from_numpy(example.guide)
    encoded = model.encode(channels[None], Lattice((0, 0, 0), (1, 1, 1)))
    intensities, hidden = model.read(encoded, points, cell, guide)
    return hidden[0], truth - intensities[0]


def _fit_layer(parts: Sequence[Errors], shares: Sequence[float]) -> tuple[Tensor, float]:
    """Weights, (hidden,), and bias of the logarithm of the standard deviation, by maximum likelihood.

    log s + e^2 / (2 s^2) is convex in weights and bias, so the start does not matter.
    """
    hidden = torch.cat([part.hidden for part in parts]).double()
    squares = torch.cat([part.errors for part in parts]).double().square()
    counts = torch.cat([torch.full((len(part.errors),), share) for part, share in zip(parts, shares, strict=True)])
    counts = (counts / counts.sum()).double()
    mean, spread = hidden.mean(dim=0), hidden.std(dim=0).clamp(min=1e-6)
    standard = (hidden - mean) / spread
    layer = torch.zeros(hidden.shape[1] + 1, dtype=torch.float64)
    layer[-1] = 0.5 * torch.log((counts * squares).sum())
    layer.requires_grad_(True)
    optimizer = torch.optim.LBFGS([layer], max_iter=EVALUATIONS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        logarithms = standard @ layer[:-1] + layer[-1]
        likelihood = logarithms + 0.5 * squares * torch.exp(-2 * logarithms)
        value = (counts * likelihood).sum() + RIDGE * layer[:-1].square().sum()
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
    fitted = layer.detach()
    weight = fitted[:-1] / spread
    return weight.float(), float(fitted[-1] - (weight * mean).sum())


def _deviations(hidden: Tensor, weight: Tensor, bias: float) -> Tensor:
    """Standard deviations, (P,), that a layer tells."""
    return (hidden @ weight + bias).clamp(*LOG_DEVIATIONS).exp()


def _stretch(parts: Sequence[Errors], weight: Tensor, bias: float) -> float:
    """What deviations are multiplied by so that the intervals cover `COVERAGE` of the errors."""
    ratios = torch.cat([part.errors.abs() / _deviations(part.hidden, weight, bias) for part in parts])
    return float(np.quantile(ratios.numpy(), COVERAGE)) / DEVIATIONS


def coverage(part: Errors, weight: Tensor, bias: float) -> float:
    """Share of the errors within `DEVIATIONS` standard deviations."""
    return float((part.errors.abs() <= DEVIATIONS * _deviations(part.hidden, weight, bias)).float().mean())


def shared_variance(parts: Sequence[Errors], weight: Tensor, bias: float) -> float:
    """Share of an error's variance that the volumes of a shell have in common, 0 to `LARGEST_SHARE`.

    The correlation of the errors of two volumes at one place, both in standard deviations; the mean of the scans.
    """
    shares = []
    for part in parts:
        paired = part.partner.isfinite()
        deviations = _deviations(part.hidden[paired], weight, bias)
        first, second = part.errors[paired] / deviations, part.partner[paired] / deviations
        shares.append(float((first * second).mean() / first.square().mean()))
    return float(np.clip(np.mean(shares), 0, LARGEST_SHARE))


def _with_layer(
    model: CsrDmri, card: ModelCard, weight: Tensor, bias: float, facts: Mapping[str, Any]
) -> tuple[CsrDmri, ModelCard]:
    """The network and its card with the layer."""
    arguments = {**card.arguments, "spread": True}
    uncertain = cast(CsrDmri, build_model(card.architecture, arguments, len(card.inputs)))
    layer = {"spread.weight": weight[None], "spread.bias": torch.tensor([bias], dtype=torch.float32)}
    uncertain.load_state_dict({**model.state_dict(), **layer})
    return uncertain, replace(card, arguments=arguments, uncertainty=dict(facts))

"""Restored volumes compared by what a network for photographs sees in their slices."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_sr.evaluation.benchmark import Float, Reference
from bids_sr.evaluation.metrics import frechet_distance
from bids_sr.models.vgg import Vgg19

#: Slices across each axis by which a volume is seen.
SLICES = 8


@dataclass(frozen=True)
class PerceptualFigures:
    """How close the slices of a restored series are to those of the acquired one, as VGG19 sees them.

    Attributes
    ----------
    vgg : float
        Mean squared difference of the features of the last convolution (Ledig et al. 2017, eq. 5).
    fid : float
        `metrics.frechet_distance` of these features, averaged over each slice. It is known as FID with the features of
        another network, Inception; values of the two are not comparable.
    """

    vgg: float
    fid: float


def compare_perception(reference: Reference, restored: Float, network: Vgg19) -> PerceptualFigures:
    """Compare the weighted volumes of a restored series, (x, y, z, n), with the acquired ones.

    A volume is seen by `SLICES` slices across each axis, spread evenly over the box of the brain; black is zero, and
    what lies outside the brain, white the largest acquired value in it.
    """
    errors, pooled = [], []
    for index in np.flatnonzero(reference.weighted):
        peak = reference.data[..., index][reference.mask].max()
        acquired, other = (
            [network(slices) for slices in _slices(data[..., index] / peak, reference.mask)]
            for data in (reference.data, restored)
        )
        errors.append(np.mean([float((a - b).square().mean()) for a, b in zip(acquired, other, strict=True)]))
        pooled.append((_averages(acquired), _averages(other)))
    sets = [np.concatenate(features) for features in zip(*pooled, strict=True)]
    return PerceptualFigures(float(np.mean(errors)), frechet_distance(*sets))


def _slices(volume: Float, mask: NDArray[np.bool_]) -> list[Tensor]:
    """Slices of a volume across each axis, (`SLICES`, 1, h, w) or fewer, in the box of the mask and zero outside it."""
    inside = np.argwhere(mask)
    box = tuple(slice(low, high + 1) for low, high in zip(inside.min(axis=0), inside.max(axis=0), strict=True))
    brain = np.where(mask, volume, 0)[box].astype(np.float32)
    return [torch.from_numpy(np.moveaxis(brain, axis, 0)[_spread(brain.shape[axis])][:, None]) for axis in range(3)]


def _spread(count: int) -> NDArray[np.int64]:
    """Numbers of slices spread evenly over `count`, `SLICES` or fewer."""
    return np.unique((np.arange(SLICES) + 0.5) * count // SLICES).astype(np.int64)


def _averages(features: list[Tensor]) -> NDArray[np.float32]:
    """Features averaged over each slice, of slices across all axes, (S, F)."""
    return torch.cat([maps.mean(dim=(2, 3)) for maps in features]).numpy()

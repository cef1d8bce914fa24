"""A made scan with thick slices: the same blobs in every direction, so that its slices show what the others lack."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bids_sr.degradation import degrade
from bids_sr.dwi.t1w import T1wImage
from bids_sr.geometry import Grid
from bids_sr.inference.fitting import FitLog
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.models.base import Signal

BVALS = np.array([0.0, 1000, 1000, 1000, 1000])
SIZE = 30
CPU = torch.device("cpu")


@dataclass(frozen=True)
class MadeScan:
    """The series, where it lies, the truth on the grid that is asked for, and a T1w of the same blobs."""

    data: NDArray[np.float32]
    grid: Grid
    truth: NDArray[np.float32]
    target: Grid
    t1w: T1wImage

    @property
    def mask(self):
        return np.ones(self.grid.shape, bool)


def made_scan(scale=(1.0, 1.0, 3.0)) -> MadeScan:
    """Blobs of 1 mm voxels, seen through voxels `scale` times as large; two kinds of them, mixed by each volume."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((2, SIZE, SIZE, SIZE))
    blobs = np.stack([np.tanh(ndimage.gaussian_filter(one, 2.0) * 40) for one in noise])
    mixtures = [(0.5, 0.1), (0.2, -0.4), (-0.3, 0.3), (0.4, 0.2), (-0.1, -0.4)]
    truth = np.stack([100 * (1 + a * blobs[0] + b * blobs[1]) for a, b in mixtures], -1).astype(np.float32)
    fine = Grid((SIZE,) * 3, np.diag([1.0, 1.0, 1.0, 1.0]))
    data, grid = degrade(truth, fine, np.array(scale))
    t1w = T1wImage((3 + blobs[0] - 0.6 * blobs[1]).astype(np.float32), fine)
    return MadeScan(data, grid, truth, fine, t1w)


def restored(scan: MadeScan, model, signal: Signal, log: FitLog | None = None, *, guide: bool = False):
    """The series that the model gives, (x, y, z, n)."""
    volumes = restore_volumes(
        scan.data, BVALS, scan.grid, scan.target, scan.mask, model,
        signal=signal, b0_threshold=50, device=CPU, fit_log=log, guide=scan.t1w if guide else None,
    )  # fmt: skip
    return np.stack(list(volumes), -1)


def error(scan: MadeScan, found) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean((found - scan.truth) ** 2)))

"""How much memory each stage takes, from the size of its images alone, and the whole of a series."""

from __future__ import annotations

import numpy as np

from bids_sr.dwi.tensor import HELD_BYTES
from bids_sr.evaluation.ablation import MOST_WEIGHTED
from bids_sr.workflows.plan import SeriesPlan

GIGABYTE = 1024**3
#: A worker process with the libraries loaded.
PROCESS_GB = 0.5
#: Brain voxels are at most about this part of a field of view.
BRAIN_FRACTION = 0.6


def volumes_gb(shape: tuple[int, int, int], n_volumes: float) -> float:
    """Memory of `n_volumes` float32 volumes of `shape`, in GB."""
    return float(np.prod(shape)) * 4 * n_volumes / GIGABYTE


def preprocess_gb(plan: SeriesPlan) -> float:
    """A few volumes of the acquired grid in double precision."""
    return PROCESS_GB + volumes_gb(plan.source.shape, 12)


def registration_gb(t1w_shape: tuple[int, int, int]) -> float:
    """The T1w as read, in double precision, and its pyramid."""
    return PROCESS_GB + volumes_gb(t1w_shape, 8)


def fit_gb(shape: tuple[int, int, int], n_volumes: int, keeps_tensor: bool = False) -> float:
    """Signals of a part of the brain, the stretch of volumes being read, seven maps twice and the colours.

    If the tensor is kept, its 18 volumes on the grid, and of each voxel of the brain what they are turned from.
    """
    tensor = 18 + BRAIN_FRACTION * 50 if keeps_tensor else 0.0
    signals = min(volumes_gb(shape, BRAIN_FRACTION * n_volumes), HELD_BYTES / GIGABYTE)
    return PROCESS_GB + 0.5 + signals + volumes_gb(shape, 20 + tensor)


def average_gb(plan: SeriesPlan) -> float:
    """Seven maps of the target grid and the products that are averaged."""
    return PROCESS_GB + volumes_gb(plan.target.shape, 16)


def figures_gb(plan: SeriesPlan) -> float:
    """Two panels on the target grid, one on the acquired grid, averaged maps of two methods."""
    return PROCESS_GB + volumes_gb(plan.target.shape, 30) + volumes_gb(plan.source.shape, 30)


def guards_gb(plan: SeriesPlan) -> float:
    """Signals of a shell in the brain, twice while they are fitted, maps of each shell; a few restored volumes.

    Where the T1w is tested, the tensor of some restored volumes, fitted with it and without.
    """
    acquired = volumes_gb(plan.source.shape, 2 * BRAIN_FRACTION * plan.n_volumes + 60)
    tensors = fit_gb(plan.target.shape, min(plan.n_volumes, 1 + MOST_WEIGHTED)) + volumes_gb(plan.target.shape, 7)
    return PROCESS_GB + acquired + volumes_gb(plan.target.shape, 6) + (tensors if plan.tests_t1w else 0.0)


def uncertainty_gb(plan: SeriesPlan) -> float:
    """What a fit takes, and the deviations of the signals beside the signals."""
    return fit_gb(plan.target.shape, 2 * plan.n_volumes) + volumes_gb(plan.target.shape, 10)


def save_gb(plan: SeriesPlan) -> float:
    """Images are compressed slice by slice from mapped files; a few volumes suffice."""
    return PROCESS_GB + volumes_gb(plan.target.shape, 4)


def peak_gb(plan: SeriesPlan) -> float:
    """The most that one stage of a series takes; stages that do not fit beside it wait for it."""
    plain = [preprocess_gb(plan), average_gb(plan), figures_gb(plan), guards_gb(plan), save_gb(plan)]
    plain += [fit_gb(grid.shape, plan.n_volumes, plan.config.save_tensor) for grid in (plan.source, plan.target)]
    plain += [plan.restore_gb(plan.card.name)]
    plain += [plan.self_check_gb] if plan.checks_itself else []
    plain += [registration_gb(plan.t1w_shape)] if plan.registers_t1w else []
    return max([*plain, *([uncertainty_gb(plan)] if plan.config.uncertainty else [])])

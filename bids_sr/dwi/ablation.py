"""What the T1w changed in a restored series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.b0 import Series
from bids_sr.dwi.comparison import TISSUES
from bids_sr.dwi.consistency import Support
from bids_sr.dwi.gradients import Gradients, is_b0, tensor_rank
from bids_sr.dwi.noise import on_grid
from bids_sr.dwi.tensor import TensorMaps
from bids_sr.geometry import Grid, overlap_average


class ChosenVolumes:
    """Some volumes of a series as a series of their own, which reads no more of it than is asked for.

    Parameters
    ----------
    series : array or array proxy, (x, y, z, n)
    volumes : sequence of int
        Which they are, in order.
    """

    def __init__(self, series: Series, volumes: Sequence[int]) -> None:
        self._series, self._volumes = series, np.asarray(volumes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, (x, y, z, len(volumes))."""
        return (*self._series.shape[:3], len(self._volumes))

    def __getitem__(self, index: tuple[Any, int | slice]) -> NDArray[Any]:
        """One volume, or a stretch of them: `[..., i]`, `[..., i:j]`."""
        chosen = self._volumes[index[1]]
        if np.ndim(chosen) == 0:
            return np.asarray(self._series[..., int(chosen)])
        return np.stack([np.asarray(self._series[..., int(volume)]) for volume in chosen], axis=-1)


@dataclass(frozen=True)
class T1wEffect:
    """How far the restored volumes move when the T1w is taken away.

    Attributes
    ----------
    mask : ndarray of bool, (x, y, z)
        The brain on the acquired grid, where the restored volumes cover it.
    change : ndarray, float32, (x, y, z)
        Mean over the volumes and over the cell of each acquired voxel of the absolute change, in standard deviations
        of the noise of one acquired voxel of that volume; 0 outside the mask.
    n_volumes : int
        Volumes compared.
    fa, md : ndarray, float32, (x, y, z), optional
        Mean over the cell of each acquired voxel of the absolute change of FA, and of mean diffusivity in mm2/s, in
        the tensor of these volumes; 0 outside the mask. None where they do not determine a tensor.
    """

    mask: NDArray[np.bool_]
    change: NDArray[np.float32]
    n_volumes: int
    fa: NDArray[np.float32] | None = None
    md: NDArray[np.float32] | None = None


def t1w_effect(
    pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]],
    volumes: Sequence[int],
    support: Support,
    target: Grid,
    target_mask: NDArray[np.bool_],
) -> T1wEffect:
    """Compare volumes restored with and without the T1w.

    Absolute changes are averaged, not changes: detail finer than an acquired voxel, which the T1w brings and which
    sampling again would average away, counts in full.

    Parameters
    ----------
    pairs : iterable of (ndarray, ndarray), (x, y, z)
        Each volume with and without the T1w, on the target grid; one pair is held at a time.
    volumes : sequence of int
        Which volumes of the series they are.
    support : Support
        Of the acquired series; gives the noise.
    target : Grid
        With the axes of the acquired grid.
    target_mask : ndarray of bool, (x, y, z)
        The brain on the target grid.

    Raises
    ------
    ValueError
        If the axes of the grids differ, or pairs and `volumes` are not equally many.
    """
    total = np.zeros(int(support.mask.sum()), np.float64)
    for volume, (given, without) in zip(volumes, pairs, strict=True):
        change = overlap_average(np.abs(given - without), target, support.grid, weights=target_mask)[support.mask]
        noise = support.voxel_sd[support.shells[volume]]
        total += np.divide(change, noise, out=np.zeros_like(change), where=noise > 0)
    reached = overlap_average(target_mask.astype(np.float32), target, support.grid) > 0
    change = on_grid(total / max(len(volumes), 1), support.mask)
    return T1wEffect(support.mask & reached, np.where(reached, change, 0).astype(np.float32), len(volumes))


def determine_tensor(gradients: Gradients, b0_threshold: float) -> bool:
    """Whether volumes determine a tensor: a b0, and directions enough."""
    b0 = is_b0(gradients.bvals, b0_threshold)
    return bool(b0.any()) and tensor_rank(gradients.bvecs[~b0]) == 6


def with_tensor(
    effect: T1wEffect,
    given: TensorMaps,
    without: TensorMaps,
    grid: Grid,
    target: Grid,
    target_mask: NDArray[np.bool_],
) -> T1wEffect:
    """The effect, with what the T1w changed in the tensor.

    Parameters
    ----------
    effect : T1wEffect
    given, without : TensorMaps
        Of the same volumes with and without the T1w, on the target grid.
    grid, target : Grid
        The acquired grid and the target grid, of the same axes.
    target_mask : ndarray of bool
        The brain on the target grid.
    """

    def change(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
        average = overlap_average(np.abs(one - other), target, grid, weights=target_mask)
        return np.where(effect.mask, average, 0).astype(np.float32)

    return replace(effect, fa=change(given.fa, without.fa), md=change(given.md, without.md))


def summarize_effect(effect: T1wEffect, tissues: NDArray[np.uint8], grid: Grid) -> dict[str, Any]:
    """The numbers of the T1w's effect, ready for JSON.

    Parameters
    ----------
    effect : T1wEffect
    tissues : ndarray of uint8, (x, y, z)
        On the acquired grid: 1 CSF, 2 GM, 3 WM, 0 none.
    grid : Grid
        The acquired grid.

    Returns
    -------
    dict
        "volumes"; "tissues": for the brain and each tissue that is there, "n_voxels", "mean", "p95" (95th percentile)
        and "share" (of voxels changed by more than the noise), changes in standard deviations of the noise, and "fa"
        and "md" (mean absolute changes, of MD in mm2/s) where there is a tensor; "most": "voxel", "centre_mm" (RAS+)
        and "change" of the voxel whose signal changes most.
    """
    classes = {"brain": effect.mask} | {name: effect.mask & (tissues == label) for name, label in TISSUES.items()}
    rows = {name: _row(effect, where) for name, where in classes.items() if where.any()}
    voxel = [int(i) for i in np.unravel_index(np.argmax(effect.change), effect.change.shape)]
    centre = grid.affine[:3] @ [*voxel, 1]
    most = {
        "voxel": voxel,
        "centre_mm": [round(float(x), 1) for x in centre],
        "change": round(float(effect.change[tuple(voxel)]), 3),
    }
    return {"volumes": effect.n_volumes, "tissues": rows, "most": most}


def _row(effect: T1wEffect, where: NDArray[np.bool_]) -> dict[str, float | int]:
    """Summary of the changes of some voxels."""
    change = effect.change[where]
    row: dict[str, float | int] = {
        "n_voxels": int(change.size),
        "mean": round(float(change.mean()), 4),
        "p95": round(float(np.percentile(change, 95)), 4),
        "share": round(float(np.mean(change > 1)), 4),
    }
    maps = {"fa": effect.fa, "md": effect.md}
    return row | {name: float(values[where].mean()) for name, values in maps.items() if values is not None}


def effect_sentence(summary: Mapping[str, Any]) -> str:
    """What `summarize_effect` found, in plain words."""
    brain, most = summary["tissues"]["brain"], summary["most"]
    if not most["change"]:
        return "The T1w changed nothing in the volumes that were restored without it too."
    tissues = {name: row["mean"] for name, row in summary["tissues"].items() if name != "brain"}
    where = ", ".join(f"{x:.0f}".replace("-", "−") for x in most["centre_mm"])
    named = f" ({', '.join(f'{name} {mean:.2f}' for name, mean in tissues.items())})" if tissues else ""
    return (
        f"{_tensor_sentence(summary['tissues'])}The T1w changed the restored signal by {brain['mean']:.2f} times the "
        f"noise of an acquired voxel on average{named}, by more than the noise in {brain['share']:.1%} of the brain, "
        f"and most around ({where}) mm."
    )


def _tensor_sentence(tissues: Mapping[str, Any]) -> str:
    """What changed in the tensor, in white matter if it is known, with a space behind; empty without a tensor."""
    name, row = ("white matter", tissues["WM"]) if "WM" in tissues else ("the brain", tissues["brain"])
    if "fa" not in row:
        return ""
    changed = f"FA by {row['fa']:.3f} and mean diffusivity by {1e3 * row['md']:.3f} × 10⁻³ mm²/s"
    return f"The T1w changed {changed} on average in {name}. "

"""A scan's own test: degraded by the scale asked for, restored, and compared with what was acquired, against cubic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.comparison import TISSUES
from bids_sr.dwi.gradients import Gradients, shells, spread_out, tensor_rank
from bids_sr.dwi.tensor import TensorMaps, fit_tensor
from bids_sr.evaluation.benchmark import LEAST_FA, Degraded, Float, Reference, degrade_reference
from bids_sr.evaluation.metrics import direction_error, mean_absolute_error, psnr, similarity_map
from bids_sr.geometry import Grid, cell_in
from bids_sr.models.interpolation import cubic_on_grid

Scale: TypeAlias = tuple[float, float, float]
Row: TypeAlias = dict[str, str | int | float | None]
Regions: TypeAlias = Mapping[str, NDArray[np.bool_]]
#: Restores the volumes of a degraded series on the acquired grid, one after the other.
Restoration: TypeAlias = Callable[[Degraded], Iterable[Float]]

#: An axis of fewer voxels than this says nothing of a restoration, so none is degraded to fewer.
LEAST_VOXELS = 8
#: Volumes that are checked: b0 ones at most, and weighted ones; more where there are several shells, up to a limit.
N_B0, N_WEIGHTED, N_PER_SHELL, MOST_WEIGHTED = 2, 12, 6, 24
#: Two figures that are equal to this many digits are equal.
DIGITS = 3
#: What is measured, with the sign of what is closer to the acquired scan.
SIGNS = {"PSNR": 1, "SSIM": 1, "FA": -1, "MD": -1, "V1": -1}


@dataclass(frozen=True)
class SelfCheck:
    """What came of the check.

    Attributes
    ----------
    rows : list of dict
        One per measure and tissue, as `compare_methods` gives them.
    reference : Reference
        The volumes that were checked, as acquired.
    degraded : Degraded
        What was restored.
    restored : mapping of str to ndarray, (x, y, z, n)
        "cubic" and "sr", on the acquired grid.
    maps : mapping of str to TensorMaps
        "acquired", "cubic" and "sr"; empty where the directions do not determine a tensor.
    """

    rows: list[Row]
    reference: Reference
    degraded: Degraded
    restored: Mapping[str, Float]
    maps: Mapping[str, TensorMaps]


def checked_scale(source: Grid, target: Grid) -> Scale:
    """By how much a scan on `source` is degraded to try a restoration from `source` to `target`, per axis.

    As much as the restoration magnifies; 1 along axes that it does not magnify by a voxel, or of which fewer than
    `LEAST_VOXELS` would be left.
    """
    asked = 1 / cell_in(source, target)
    left = np.rint(source.shape / asked)
    x, y, z = np.where((left < LEAST_VOXELS) | (left >= source.shape), 1.0, asked).tolist()
    return x, y, z


def volumes_to_check(gradients: Gradients, b0_threshold: float) -> NDArray[np.int64]:
    """The volumes that the check restores, in order: up to two b0 ones, and twelve weighted ones or six per shell.

    Those of each shell are spread over its directions as evenly as they come. All where there are not so many; 26 in
    all at most.
    """
    shell = shells(gradients.bvals, b0_threshold)
    b0 = np.flatnonzero(shell == 0)
    axes = np.nan_to_num(gradients.bvecs)
    groups = [np.flatnonzero(shell == number) for number in range(1, int(shell.max()) + 1)]
    spread = [group[spread_out(axes[group])].tolist() for group in groups]
    in_turn = [volume for turn in zip_longest(*spread) for volume in turn if volume is not None]
    weighted = in_turn[: min(max(N_WEIGHTED, N_PER_SHELL * len(groups)), MOST_WEIGHTED)]
    spread_b0 = b0[np.arange(min(N_B0, len(b0))) * len(b0) // N_B0]
    return np.sort(np.concatenate([spread_b0, np.array(weighted, dtype=np.int64)]))


def self_check(reference: Reference, scale: Scale, restore: Restoration, tissues: NDArray[np.uint8]) -> SelfCheck:
    """Degrade a scan, restore it, and compare what comes back with what was acquired.

    Parameters
    ----------
    reference : Reference
        The volumes to check, as acquired.
    scale : tuple of float, (3,)
        How many times as wide the degraded voxels are, see `checked_scale`; cells aligned, a Gaussian as wide at half
        its maximum as a degraded voxel.
    restore : callable
        The restoration on trial.
    tissues : ndarray of uint8, (x, y, z)
        As `bids_sr.dwi.comparison.tissue_classes` gives them.

    Raises
    ------
    EmptyMaskError
        If the degraded voxels are so large that none lies in the brain.
    """
    degraded = degrade_reference(reference, scale)
    volumes = np.moveaxis(degraded.data, -1, 0)
    cubic = (np.maximum(cubic_on_grid(volume, degraded.grid, reference.grid), 0) for volume in volumes)
    restored = {name: _series(found, reference) for name, found in (("cubic", cubic), ("sr", restore(degraded)))}
    maps = _tensor_maps(reference, restored)
    return SelfCheck(compare_methods(reference, restored, maps, tissues), reference, degraded, restored, maps)


def _series(volumes: Iterable[Float], reference: Reference) -> Float:
    """Volumes, (x, y, z) each, as a series like that of the reference."""
    series = np.empty_like(reference.data)
    for index, volume in enumerate(volumes):
        series[..., index] = volume
    return series


def _tensor_maps(reference: Reference, restored: Mapping[str, Float]) -> dict[str, TensorMaps]:
    """The tensor as acquired and after each restoration; nothing where the directions do not determine one."""
    if tensor_rank(reference.gradients.bvecs[reference.weighted]) < 6:
        return {}
    fitted = {
        name: fit_tensor(data, reference.gradients, reference.b0_threshold, reference.mask)
        for name, data in restored.items()
    }
    return {"acquired": reference.maps} | fitted


def compare_methods(
    reference: Reference,
    restored: Mapping[str, Float],
    maps: Mapping[str, TensorMaps],
    tissues: NDArray[np.uint8],
) -> list[Row]:
    """How close "cubic" and "sr" come to the acquired scan, in the whole brain and by tissue.

    Parameters
    ----------
    reference : Reference
    restored : mapping of str to ndarray, (x, y, z, n)
    maps : mapping of str to TensorMaps
        As in `SelfCheck`; without them only signals are compared.
    tissues : ndarray of uint8, (x, y, z)

    Returns
    -------
    list of dict
        One row per measure and tissue. Keys: measure (PSNR in dB and SSIM, means over the weighted volumes; FA and MD,
        mean absolute error, MD in mm2/s; V1, median angle in degrees where the acquired FA exceeds `LEAST_FA`),
        tissue, n_voxels, cubic, sr, and closer: "sr", "cubic" or "equal". None where a number does not exist.
    """
    regions = {"brain": reference.mask}
    regions |= {name: reference.mask & (tissues == label) for name, label in TISSUES.items()}
    regions = {name: region for name, region in regions.items() if region.any()}
    measured = {method: _signal_figures(reference, data, regions) for method, data in restored.items()}
    if maps:
        for method in measured:
            measured[method] |= _tensor_figures(maps["acquired"], maps[method], regions)
    return [
        _row(measure, tissue, int(region.sum()), {method: found[measure, tissue] for method, found in measured.items()})
        for measure in SIGNS
        for tissue, region in regions.items()
        if all((measure, tissue) in found for found in measured.values())
    ]


def _signal_figures(reference: Reference, restored: Float, regions: Regions) -> dict[tuple[str, str], float]:
    """PSNR and SSIM of each region, averaged over the weighted volumes."""
    found: dict[tuple[str, str], list[float]] = {(name, tissue): [] for name in ("PSNR", "SSIM") for tissue in regions}
    for index in np.flatnonzero(reference.weighted):
        truth, volume = reference.data[..., index], restored[..., index]
        similarity = similarity_map(truth, volume, reference.mask)
        for tissue, region in regions.items():
            found["PSNR", tissue].append(psnr(truth, volume, region))
            found["SSIM", tissue].append(float(similarity[region].mean()))
    return {key: float(np.mean(values)) if values else float("nan") for key, values in found.items()}


def _tensor_figures(acquired: TensorMaps, restored: TensorMaps, regions: Regions) -> dict[tuple[str, str], float]:
    """Errors of FA, MD and V1 in each region."""
    found = {}
    for tissue, region in regions.items():
        found["FA", tissue] = mean_absolute_error(acquired.fa, restored.fa, region)
        found["MD", tissue] = mean_absolute_error(acquired.md, restored.md, region)
        found["V1", tissue] = direction_error(acquired.v1, restored.v1, region & (acquired.fa > LEAST_FA))
    return found


def _row(measure: str, tissue: str, n_voxels: int, values: Mapping[str, float]) -> Row:
    """A row of the table."""
    numbers = {method: float(value) if np.isfinite(value) else None for method, value in values.items()}
    closer = _closer(measure, numbers["cubic"], numbers["sr"])
    return {"measure": measure, "tissue": tissue, "n_voxels": n_voxels, **numbers, "closer": closer}


def _closer(measure: str, cubic: float | None, restored: float | None) -> str | None:
    """Which comes closer; None where that cannot be said."""
    if cubic is None or restored is None:
        return None
    gain = SIGNS[measure] * (float(f"{restored:.{DIGITS}g}") - float(f"{cubic:.{DIGITS}g}"))
    return "equal" if gain == 0 else "sr" if gain > 0 else "cubic"


@dataclass(frozen=True)
class Verdict:
    """Whether super-resolution helped: "yes", "partly" or "no" by the measures over the whole brain, and in words."""

    level: str
    sentence: str


def verdict(rows: Sequence[Row]) -> Verdict:
    """Whether super-resolution helped on the scan that was checked, and where it did not.

    Parameters
    ----------
    rows : sequence of dict
        As `compare_methods` gives them.
    """
    overall = [row for row in rows if row["tissue"] == "brain"]
    ahead = [str(row["measure"]) for row in overall if row["closer"] == "sr"]
    behind = [str(row["measure"]) for row in overall if row["closer"] == "cubic"]
    exceptions = _exceptions(rows)
    if not ahead:
        sentence = "Super-resolution did not help on this scan: over the whole brain it came closer to what was "
        return Verdict("no", f"{sentence}acquired than cubic interpolation by none of the measures.{exceptions}")
    if behind:
        sentence = "Super-resolution helped on this scan only in part: over the whole brain it came closer to what was "
        return Verdict("partly", f"{sentence}acquired than cubic interpolation in {listed(ahead)}.{exceptions}")
    sentence = "Super-resolution helped on this scan: over the whole brain it came closer to what was acquired than "
    return Verdict("yes", f"{sentence}cubic interpolation in {listed(ahead)}.{exceptions}")


def _exceptions(rows: Sequence[Row]) -> str:
    """Where cubic interpolation is closer, as a sentence with a space before it."""
    places: dict[str, list[str]] = {}
    for row in rows:
        if row["closer"] == "cubic":
            tissue = "the whole brain" if row["tissue"] == "brain" else str(row["tissue"])
            places.setdefault(str(row["measure"]), []).append(tissue)
    if not places:
        return " Cubic interpolation was closer in no tissue, by no measure."
    return f" Cubic interpolation was closer in {'; '.join(f'{m} of {listed(t)}' for m, t in places.items())}."


def listed(words: Sequence[str]) -> str:
    """Words as an enumeration."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)

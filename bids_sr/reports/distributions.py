"""How the tensor maps spread before and after, as small tables that the page draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_sr.reports.colours import DIFFERENCE_RANGES, MD_RANGE

TISSUES = {3: "WM", 2: "GM", 1: "CSF"}
RANGES = {"fa": (0.0, 1.0), "md": MD_RANGE}
N_BINS = 48
N_CELLS = 56


def tissue_histograms(
    maps: Mapping[str, Mapping[str, NDArray[np.float32]]], tissues: NDArray[np.uint8]
) -> dict[str, dict[str, Any]]:
    """Share of a tissue's voxels per bin.

    Parameters
    ----------
    maps : mapping of mappings
        "fa" and "md" (mm2/s) to method to values, (x, y, z), all on the grid of the tissues.
    tissues : ndarray of uint8, (x, y, z)
        1 CSF, 2 GM, 3 WM.

    Returns
    -------
    dict
        "fa"/"md" to {"range": [low, high], "WM"/"GM"/"CSF": {method: list of `N_BINS` shares}}; values beyond it are
        counted in the last bin. Tissues without a voxel are left out.
    """
    present = {name: tissues == code for code, name in TISSUES.items() if (tissues == code).any()}
    return {
        key: {"range": list(RANGES[key])}
        | {tissue: {m: _shares(v[where], RANGES[key]) for m, v in methods.items()} for tissue, where in present.items()}
        for key, methods in maps.items()
    }


def agreement_statistics(before: NDArray[np.float32], after: NDArray[np.float32]) -> dict[str, float | None]:
    """Bland-Altman figures of paired values, (n,): bias, limits of agreement (bias -/+ 1.96 SD), Pearson's r.

    Bland and Altman 1986, Lancet 327:307.
    """
    difference = after.astype(np.float64) - before
    bias, spread = float(difference.mean()), float(difference.std())
    varies = before.std() > 0 and after.std() > 0
    correlation = float(np.corrcoef(before, after)[0, 1]) if varies else None
    return {
        "n": int(before.size),
        "bias": bias,
        "lower": bias - 1.96 * spread,
        "upper": bias + 1.96 * spread,
        "correlation": correlation,
    }


def scatter_density(key: str, before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float64]:
    """Voxel counts of after (rows, upwards) against before (columns), (`N_CELLS`, `N_CELLS`); key "fa" or "md"."""
    return _density(before, after, RANGES[key], RANGES[key])


def bland_altman_density(key: str, before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float64]:
    """Voxel counts of the difference (rows, upwards) against the mean of both (columns), (`N_CELLS`, `N_CELLS`)."""
    return _density((before + after) / 2, after - before, RANGES[key], DIFFERENCE_RANGES[key])


def _density(
    x: NDArray[Any], y: NDArray[Any], x_range: tuple[float, float], y_range: tuple[float, float]
) -> NDArray[np.float64]:
    """Counts with rows from the top (largest y) down; what lies beyond the ranges is counted at their edge."""
    clipped = np.clip(x, *x_range), np.clip(y, *y_range)
    counts, _, _ = np.histogram2d(*clipped, bins=N_CELLS, range=[x_range, y_range])
    return counts.T[::-1]


def _shares(values: NDArray[np.float32], bounds: tuple[float, float]) -> list[float]:
    counts, _ = np.histogram(np.clip(values, *bounds), bins=N_BINS, range=bounds)
    return [round(float(share), 5) for share in counts / max(1, values.size)]

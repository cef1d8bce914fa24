"""Pictures of how uncertain the restored series is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_sr.reports.colours import Range, to_grey
from bids_sr.reports.consistency_figure import planes_of, studio_of
from bids_sr.reports.figures import Panel, camel

#: What is drawn, and what white may stand for: weighted signals relative to their median in the brain; FA; MD in mm2/s.
#: A few fixed ends, so that pictures of different scans can be compared and those of a noisy one are not all white.
ENDS: Mapping[str, tuple[float, ...]] = {
    "dwi": (0.1, 0.2, 0.4, 0.8),
    "fa": (0.05, 0.1, 0.2, 0.4),
    "md": (1e-4, 2e-4, 4e-4, 8e-4),
}
#: Share of the brain that may be as white as the end.
WHITE = 0.05


def grey_range(name: str, deviations: NDArray[np.float32], mask: NDArray[np.bool_]) -> Range:
    """Range of the greys: from 0 to the first of the `ENDS` that most of the brain lies below, or the last."""
    reached = float(np.quantile(deviations[mask], 1 - WHITE)) if mask.any() else 0.0
    return 0.0, next((end for end in ENDS[name] if reached <= end), ENDS[name][-1])


def save_uncertainty_figures(
    figures_dir: Path, stem: str, *, acquired: Panel, target: Panel, deviations: Mapping[str, NDArray[np.float32]]
) -> dict[str, Any]:
    """Draw standard deviations in the cuts of `save_series_figures`.

    Parameters
    ----------
    figures_dir : Path
        The subject's figures folder; made where it does not exist.
    stem : str
        Beginning of each file name.
    acquired : Panel
        The acquired scan: decides the cuts.
    target : Panel
        On the grid of the deviations.
    deviations : mapping of str to ndarray, (x, y, z)
        By the keys of `ENDS`.

    Returns
    -------
    dict
        JSON-ready: "planes", "ranges", and the pictures of each by its key.
    """
    studio = studio_of(figures_dir, stem, acquired)
    ranges = {name: grey_range(name, volume, target.mask) for name, volume in deviations.items()}
    pictures = {
        name: studio.views(
            camel("uncertainty", name),
            lambda take, shown=volume, window=ranges[name]: to_grey(take(shown), window),  # type: ignore[misc]
            target,
        )
        for name, volume in deviations.items()
    }
    shown = {name: list(window) for name, window in ranges.items()}
    return {"planes": planes_of(studio.frame), "ranges": shown, **pictures}

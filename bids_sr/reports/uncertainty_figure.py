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

#: What is drawn, and the range of its greys: weighted signals relative to their median in the brain; FA; MD in mm2/s.
RANGES: Mapping[str, Range] = {"dwi": (0.0, 0.4), "fa": (0.0, 0.2), "md": (0.0, 3e-4)}


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
        By the keys of `RANGES`.

    Returns
    -------
    dict
        JSON-ready: "planes", "ranges", and the pictures of each by its key.
    """
    studio = studio_of(figures_dir, stem, acquired)
    pictures = {
        name: studio.views(
            camel("uncertainty", name),
            lambda take, shown=volume, window=RANGES[name]: to_grey(take(shown), window),  # type: ignore[misc]
            target,
        )
        for name, volume in deviations.items()
    }
    ranges = {name: list(RANGES[name]) for name in deviations}
    return {"planes": planes_of(studio.frame), "ranges": ranges, **pictures}

"""The picture of the self-check: one slice as acquired, interpolated and restored, and which of the two is closer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_sr.evaluation.self_check import SelfCheck
from bids_sr.reports.colours import FA_RANGE, Range, grey_range, to_diverging, to_grey
from bids_sr.reports.figures import Studio, camel
from bids_sr.reports.planes import PLANES, cut, make_frame

#: The slice that is shown.
PLANE = next(plane for plane in PLANES if plane.name == "axial")
#: Versions of the scan in the order of the page; "gain" is by how much the restored one is closer than the other.
VERSIONS = ("acquired", "cubic", "sr")
#: The colours of the gain end at this percentile of its size in the brain.
GAIN_PERCENTILE = 98.0

Versions = Mapping[str, NDArray[np.float32]]


def save_check_figures(figures_dir: Path, stem: str, check: SelfCheck, volumes: NDArray[np.int64]) -> dict[str, Any]:
    """Draw a slice of the check: a weighted volume, and FA where there is a tensor.

    Parameters
    ----------
    figures_dir : Path
        Made where it does not exist.
    stem : str
        Beginning of each file name.
    check : SelfCheck
    volumes : ndarray of int, (n,)
        Places in the whole series, from 0, of the volumes that were checked.

    Returns
    -------
    dict
        JSON-ready: "plane", and per contrast ("dwi", "fa") its windows and a picture of each version and of the gain.
    """
    figures_dir.mkdir(parents=True, exist_ok=True)
    reference = check.reference
    frame = make_frame(reference.grid.affine, reference.mask)
    studio = Studio(figures_dir, stem, frame, {})
    shown = int(np.flatnonzero(reference.weighted)[0])
    signals = {"acquired": reference.data, **check.restored}
    dwi = {name: signals[name][..., shown] for name in VERSIONS}
    b = float(reference.gradients.bvals[shown])
    figures: dict[str, Any] = {
        "plane": {
            "name": PLANE.name,
            "size_mm": [round(x, 3) for x in frame.window(PLANE).size],
            "letters": [PLANE.left, PLANE.right, PLANE.top, PLANE.bottom],
        },
        "dwi": _pictures(studio, "dwi", dwi, grey_range(dwi["acquired"], reference.mask), check)
        | {"volume": int(volumes[shown]), "b": b},
    }
    if check.maps:
        fa = {name: check.maps[name].fa for name in VERSIONS}
        figures["fa"] = _pictures(studio, "fa", fa, FA_RANGE, check)
    return figures


def _pictures(studio: Studio, contrast: str, versions: Versions, window: Range, check: SelfCheck) -> dict[str, Any]:
    """One picture per version in the same window, and that of the gain in its own."""
    mask, affine = check.reference.mask, check.reference.grid.affine
    errors = {name: np.abs(versions[name] - versions["acquired"]) for name in ("cubic", "sr")}
    gain = np.where(mask, errors["cubic"] - errors["sr"], 0).astype(np.float32)
    largest = float(np.percentile(np.abs(gain[mask]), GAIN_PERCENTILE)) or 1.0
    painted = {name: to_grey(_slice(studio, versions[name], affine), window) for name in VERSIONS}
    painted["gain"] = to_diverging(_slice(studio, gain, affine), (-largest, largest))
    box = cut(studio.frame, mask, affine, PLANE).box
    pictures = {name: studio.picture(camel("check", contrast, name), pixels, box) for name, pixels in painted.items()}
    return {**pictures, "window": list(window), "gain_range": [-largest, largest]}


def _slice(studio: Studio, volume: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """The slice that is shown of a volume, (rows, columns)."""
    return cut(studio.frame, volume, affine, PLANE).pixels

"""Pictures of where the restored series departs from the acquired one, and of what the T1w changed in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_sr.dwi.ablation import T1wEffect
from bids_sr.dwi.consistency import Departure, Support, seen_means
from bids_sr.dwi.noise import on_grid
from bids_sr.reports.colours import FA_RANGE, Range, grey_range, to_diverging, to_grey
from bids_sr.reports.figures import Panel, Studio, camel
from bids_sr.reports.planes import PLANES, Frame, cut, make_frame, most_detailed

#: Standard errors: what chance does not give (beyond 3) is clearly coloured, and a lesion's departure is not cut off.
DEPARTURE_RANGE: Range = (-10.0, 10.0)
#: Standard deviations of the noise of an acquired voxel.
EFFECT_RANGE: Range = (0.0, 2.0)

Paint = Callable[[NDArray[np.float32]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Pair:
    """Something restored with the T1w and without it.

    Attributes
    ----------
    given, without : ndarray, (x, y, z)
    affine : ndarray, (4, 4)
    mask : ndarray of bool, (x, y, z)
        The brain.
    is_fa : bool
        Whether it is FA; a volume of the series otherwise.
    """

    given: NDArray[np.float32]
    without: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_]
    is_fa: bool


def save_departure_figures(
    figures_dir: Path,
    stem: str,
    *,
    acquired: Panel,
    support: Support,
    departures: Mapping[str, Departure],
    worst: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Draw where the restored series departs from the acquired one, in the cuts of `save_series_figures`.

    Parameters
    ----------
    figures_dir : Path
        The subject's figures folder; made where it does not exist.
    stem : str
        Beginning of each file name.
    acquired : Panel
        The acquired scan: decides the cuts.
    support : Support
        Of the acquired series.
    departures : mapping of str to Departure
        By method, "sr" and "cubic". Each voxel shows the shell in which it departs most.
    worst : mapping, optional
        A region of `bids_sr.dwi.consistency.regions` of "sr". Cuts through it show the acquired mean of its shell,
        what the acquired voxels see of the restored one, and the departure.

    Returns
    -------
    dict
        JSON-ready: "maps", and "worst" where a region is given.
    """
    studio = studio_of(figures_dir, stem, acquired)
    maps: dict[str, Any] = {"range": list(DEPARTURE_RANGE)}
    for method, departed in departures.items():
        strongest = strongest_shell(departed.region_z)
        maps[method] = studio.views(
            camel("departure", method),
            lambda take, z=strongest: to_diverging(take(z), DEPARTURE_RANGE),  # type: ignore[misc]
            acquired,
        )
    if worst is None:
        return {"maps": maps}
    return {"maps": maps, "worst": _worst_pictures(studio, acquired, support, departures["sr"], worst)}


def save_effect_figures(
    figures_dir: Path, stem: str, *, acquired: Panel, effect: T1wEffect, pair: Pair, centre_mm: list[float]
) -> dict[str, Any]:
    """Draw what the T1w changed, and cuts through a place with it, without it, and the change.

    Parameters
    ----------
    figures_dir, stem, acquired
        As in `save_departure_figures`.
    effect : T1wEffect
    pair : Pair
    centre_mm : list of float, (3,)
        The place, in world coordinates.

    Returns
    -------
    dict
        JSON-ready: "maps" and "most".
    """
    studio = studio_of(figures_dir, stem, acquired)
    change = studio.views("t1wEffect", lambda take: to_grey(take(effect.change), EFFECT_RANGE), acquired)
    window = FA_RANGE if pair.is_fa else grey_range(pair.given, pair.mask)
    shown = {
        "without": (pair.without, pair.affine, lambda pixels: to_grey(pixels, window)),
        "sr": (pair.given, pair.affine, lambda pixels: to_grey(pixels, window)),
        "change": (effect.change, acquired.affine, lambda pixels: to_grey(pixels, EFFECT_RANGE)),
    }
    most = _cuts_through(studio, "t1wMost", centre_mm, shown)
    most |= {"contrast": "fa" if pair.is_fa else "dwi", "window": list(window), "range": list(EFFECT_RANGE)}
    return {"maps": {"range": list(EFFECT_RANGE), "sr": change}, "most": most}


def studio_of(figures_dir: Path, stem: str, acquired: Panel) -> Studio:
    """Where pictures are drawn, with the cuts that the acquired scan decides."""
    figures_dir.mkdir(parents=True, exist_ok=True)
    frame = make_frame(acquired.affine, acquired.mask)
    detail = acquired.b0 if acquired.fa is None else acquired.fa
    zooms = {p.name: most_detailed(frame, detail, acquired.mask, acquired.affine, p) for p in PLANES}
    return Studio(figures_dir, stem, frame, zooms)


def strongest_shell(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of several shells, (x, y, z, k), the departure that is largest in size, with its sign: (x, y, z)."""
    shell = np.abs(z).argmax(axis=-1)[..., None]
    return np.take_along_axis(z, shell, axis=-1)[..., 0]


def _worst_pictures(
    studio: Studio, acquired: Panel, support: Support, departed: Departure, worst: Mapping[str, Any]
) -> dict[str, Any]:
    """Three cuts through a region: acquired, restored as the acquired voxels see it, and the departure."""
    shell = int(np.argmin(np.abs(np.array(support.bvals) - worst["b"])))
    mean = on_grid(support.mean[shell], support.mask)
    window = grey_range(mean, support.mask)
    seen, affine = seen_means(departed, support)[..., shell], acquired.affine
    shown = {
        "acquired": (mean, affine, lambda pixels: to_grey(pixels, window)),
        "sr": (seen, affine, lambda pixels: to_grey(pixels, window)),
        "departure": (departed.region_z[..., shell], affine, lambda pixels: to_diverging(pixels, DEPARTURE_RANGE)),
    }
    pictures = _cuts_through(studio, "departureWorst", worst["centre_mm"], shown)
    return pictures | {"b": worst["b"], "window": list(window), "range": list(DEPARTURE_RANGE)}


def _cuts_through(
    studio: Studio,
    name: str,
    centre_mm: list[float],
    shown: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float64], Paint]],
) -> dict[str, Any]:
    """Three cuts through a place of volumes with their affines and colours; with the planes' sizes and letters."""
    frame = _through(studio.frame, np.array(centre_mm))
    figures: dict[str, Any] = {"centre_mm": list(centre_mm), "planes": planes_of(frame)}
    for version, (volume, affine, paint) in shown.items():
        figures[version] = {}
        for plane in PLANES:
            piece = cut(frame, volume, affine, plane)
            label = camel(name, version, plane.name)
            figures[version][plane.name] = studio.picture(label, paint(piece.pixels), piece.box)
    return figures


def planes_of(frame: Frame) -> dict[str, Any]:
    """Sizes and letters of the planes of a frame."""
    return {
        plane.name: {
            "size_mm": [round(x, 3) for x in frame.window(plane).size],
            "letters": [plane.left, plane.right, plane.top, plane.bottom],
        }
        for plane in PLANES
    }


def _through(frame: Frame, world: NDArray[np.float64]) -> Frame:
    """The frame with its cuts through a point of the world in mm."""
    voxel = np.linalg.inv(frame.affine) @ [*world, 1]
    return replace(frame, centre=np.rint(voxel[:3]) * frame.voxel_sizes)

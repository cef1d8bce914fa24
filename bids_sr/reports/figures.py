"""Pictures of a series before and after super-resolution: arrays in, small lossless files out.

One pixel of a picture is one voxel: nothing acquired is ever interpolated. The page stretches the pixels to
millimetres, so that anisotropic voxels keep their true shape and a voxel stays visible as a voxel.
`reports.planes` states which cuts are shown.
"""

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from bids_sr.bids.outputs import write_atomically
from bids_sr.reports.colours import (
    DIFFERENCE_RANGES,
    FA_RANGE,
    MD_RANGE,
    direction_colours,
    grey_range,
    to_diverging,
    to_grey,
)
from bids_sr.reports.distributions import (
    RANGES,
    agreement_statistics,
    bland_altman_density,
    scatter_density,
    tissue_histograms,
)
from bids_sr.reports.planes import (
    PLANES,
    Frame,
    Plane,
    Window,
    cut,
    make_frame,
    most_detailed,
    sample_plane,
)

_LINE_COLOURS = ("#ffd23f", "#ff5d8f")
_LINE_WIDTH = 0.9  # mm
WHOLE = (0.0, 0.0, 1.0, 1.0)
Box = tuple[float, float, float, float]
Take = Callable[[NDArray[Any]], NDArray[Any]]
Painter = Callable[[Take], NDArray[np.uint8]]
_DENSITY_COLOUR = (58, 125, 196)


@dataclass(frozen=True)
class Panel:
    """One version of the scan (acquired, cubic or super-resolved) on its own voxel grid.

    Attributes
    ----------
    affine : ndarray, (4, 4)
        Voxel index to world coordinates in mm (RAS+).
    b0 : ndarray, (x, y, z)
        Mean b0 signal.
    mask : ndarray of bool, (x, y, z)
        The brain.
    dwi : ndarray, (x, y, z), optional
        One diffusion-weighted volume, the same one in each panel.
    fa, md : ndarray, (x, y, z), optional
        Fractional anisotropy, and mean diffusivity in mm2/s.
    v1 : ndarray, (x, y, z, 3), optional
        First eigenvector in the frame of the b-vectors (FSL's convention), as `dwi.tensor.fit_tensor` gives it.
    """

    affine: NDArray[np.float64]
    b0: NDArray[np.float32]
    mask: NDArray[np.bool_]
    dwi: NDArray[np.float32] | None = None
    fa: NDArray[np.float32] | None = None
    md: NDArray[np.float32] | None = None
    v1: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Anatomy:
    """The T1w image in the dMRI's world, at its own resolution: data (x, y, z), affine (4, 4) to world in mm (RAS+)."""

    data: NDArray[np.float32]
    affine: NDArray[np.float64]


class AveragedMaps(Protocol):
    """Tensor maps on the ACQUIRED grid, such as `dwi.tensor.TensorMaps`: FA and MD (mm2/s), each (x, y, z)."""

    @property
    def fa(self) -> NDArray[np.float32]:
        """Fractional anisotropy, (x, y, z)."""
        ...

    @property
    def md(self) -> NDArray[np.float32]:
        """Mean diffusivity in mm2/s, (x, y, z)."""
        ...


def save_series_figures(
    figures_dir: Path,
    stem: str,
    *,
    acquired: Panel,
    sr: Panel,
    cubic: Panel | None = None,
    dwi_volume: int | None = None,
    dwi_b: float | None = None,
    t1w: Anatomy | None = None,
    averaged: Mapping[str, AveragedMaps] | None = None,
    tissues: NDArray[np.uint8] | None = None,
    bvals: NDArray[np.float64] | None = None,
    bvecs: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Write every picture of one series and describe them for the record (`record["figures"]`).

    Parameters
    ----------
    figures_dir : Path
        The subject's figures folder; made where it does not exist.
    stem : str
        Beginning of each file name, such as `sub-01_ses-1_dir-AP_res-1p25`.
    acquired, sr, cubic : Panel
        The scan as acquired, super-resolved and interpolated; their grids share their axes.
    dwi_volume, dwi_b : int, float, optional
        Which volume `Panel.dwi` is (from 0) and its b-value in s/mm2.
    t1w : Anatomy, optional
        Shown only inside the brain mask, so that no face is in a report.
    averaged : mapping of str to AveragedMaps, optional
        "sr" and "cubic": the restored tensor maps averaged back onto the acquired grid.
    tissues : ndarray of uint8, (x, y, z), optional
        Tissue classes on the acquired grid: 1 CSF, 2 GM, 3 WM.
    bvals, bvecs : ndarray, (n,) in s/mm2 and (n, 3), optional
        The gradient table, drawn by the page.

    Returns
    -------
    dict
        JSON-ready description; `picture_files` lists the files named in it.
    """
    figures_dir.mkdir(parents=True, exist_ok=True)
    frame = make_frame(acquired.affine, acquired.mask)
    zooms = {plane.name: _zoom_window(frame, acquired, plane) for plane in PLANES}
    studio = Studio(figures_dir, stem, frame, zooms)
    panels = {
        name: panel for name, panel in (("acquired", acquired), ("cubic", cubic), ("sr", sr)) if panel is not None
    }
    figures = {"planes": _describe_planes(frame, zooms), **_contrast_pictures(studio, panels, dwi_volume, dwi_b)}
    figures["mask"] = studio.outlines("mask", {plane.name: _mask_outline(frame, acquired, plane) for plane in PLANES})
    if t1w is not None:
        figures["registration"] = _registration_pictures(studio, acquired, t1w)
    if averaged and acquired.fa is not None and acquired.md is not None:
        figures |= _comparison_pictures(studio, acquired, averaged, tissues)
    if bvals is not None and bvecs is not None:
        figures["gradients"] = _gradient_table(bvals, bvecs)
    return figures


def picture_files(figures: Mapping[str, Any]) -> list[str]:
    """Names of all files that a `figures` description points to, relative to the figures folder."""
    if isinstance(figures.get("file"), str):
        return [figures["file"]]
    return [name for value in figures.values() if isinstance(value, Mapping) for name in picture_files(value)]


@dataclass(frozen=True)
class Studio:
    """Where pictures go and what they share."""

    figures_dir: Path
    stem: str
    frame: Frame
    zooms: Mapping[str, Window]

    def write(self, name: str, extension: str, content: bytes) -> str:
        """Write one file whole or not at all, and give its name."""
        target = self.figures_dir / f"{self.stem}_desc-{name}.{extension}"
        with write_atomically(target) as temporary:
            temporary.write_bytes(content)
        return target.name

    def picture(self, name: str, pixels: NDArray[np.uint8], box: Box = WHOLE) -> dict[str, Any]:
        """Write pixels that fill a box of their window."""
        return {"file": self.write(name, "webp", _webp(pixels)), "box": [round(x, 6) for x in box]}

    def views(self, name: str, paint: Painter, grid: Panel) -> dict[str, Any]:
        """Paint every plane, whole and at its detailed region, from volumes on the grid of a panel."""
        pictures = {}
        for plane in PLANES:
            for suffix, window in (("", None), ("_zoom", self.zooms[plane.name])):

                def take(volume: NDArray[Any], plane: Plane = plane, window: Window | None = window) -> NDArray[Any]:
                    return cut(self.frame, volume, grid.affine, plane, window).pixels

                box = cut(self.frame, grid.mask, grid.affine, plane, window).box
                pictures[plane.name + suffix] = self.picture(camel(name, plane.name + suffix), paint(take), box)
        return pictures

    def outlines(self, name: str, drawings: Mapping[str, str]) -> dict[str, Any]:
        """Write one vector drawing per plane; each fills its window."""
        return {
            plane: {"file": self.write(camel(name, plane), "svg", drawing.encode()), "box": list(WHOLE)}
            for plane, drawing in drawings.items()
        }


def _contrast_pictures(
    studio: Studio, panels: Mapping[str, Panel], dwi_volume: int | None, dwi_b: float | None
) -> dict[str, Any]:
    """Each contrast that every panel has, in the same window of values for all."""
    figures: dict[str, Any] = {}
    for contrast, painter_of in _painters(panels["acquired"]).items():
        if all(_has(panel, contrast) for panel in panels.values()):
            figures[contrast] = {
                method: studio.views(camel(contrast, method), painter_of(panel), panel)
                for method, panel in panels.items()
            }
    if "dwi" in figures:
        figures["dwi"] |= {"volume": dwi_volume, "b": None if dwi_b is None else float(dwi_b)}
    signals = {"b0": panels["acquired"].b0, "dwi": panels["acquired"].dwi}
    windows = {key: grey_range(v, panels["acquired"].mask) for key, v in signals.items() if v is not None}
    figures["windows"] = {key: list(w) for key, w in (windows | {"fa": FA_RANGE, "md": MD_RANGE}).items()}
    return figures


def _painters(acquired: Panel) -> dict[str, Callable[[Panel], Painter]]:
    """How each contrast of a panel becomes colours; windows come from the acquired data alone."""
    b0_range = grey_range(acquired.b0, acquired.mask)
    dwi_range = b0_range if acquired.dwi is None else grey_range(acquired.dwi, acquired.mask)
    return {
        "b0": lambda panel: lambda take: to_grey(take(panel.b0), b0_range),
        "dwi": lambda panel: lambda take: to_grey(take(_given(panel.dwi)), dwi_range),
        "fa": lambda panel: lambda take: to_grey(take(_given(panel.fa)), FA_RANGE),
        "md": lambda panel: lambda take: to_grey(take(_given(panel.md)), MD_RANGE),
        "colour_fa": lambda panel: (
            lambda take: direction_colours(take(_given(panel.fa)), take(_given(panel.v1)), panel.affine)
        ),
    }


def _has(panel: Panel, contrast: str) -> bool:
    needed = ("fa", "v1") if contrast == "colour_fa" else (contrast,)
    return all(getattr(panel, name) is not None for name in needed)


def _given(values: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The values of a contrast that `_has` found."""
    if values is None:
        raise ValueError("this panel lacks the contrast asked for")
    return values


def _zoom_window(frame: Frame, acquired: Panel, plane: Plane) -> Window:
    """The region of a plane where FA (else the signal) changes most."""
    values = next(v for v in (acquired.fa, acquired.dwi, acquired.b0) if v is not None)
    return most_detailed(frame, values, acquired.mask, acquired.affine, plane)


def _describe_planes(frame: Frame, zooms: Mapping[str, Window]) -> dict[str, Any]:
    """Size in mm, edge letters, world position and enlarged region of each plane."""
    centre = frame.world(frame.centre)
    return {
        plane.name: {
            "size_mm": [round(x, 3) for x in frame.window(plane).size],
            "zoom_mm": [round(x, 3) for x in zooms[plane.name].size],
            "zoom_box": [
                round(x, 6) for x in frame.window(plane).box_of(zooms[plane.name].low, zooms[plane.name].high)
            ],
            "letters": [plane.left, plane.right, plane.top, plane.bottom],
            "centre_mm": [round(float(x), 2) for x in centre],
        }
        for plane in PLANES
    }


def _registration_pictures(studio: Studio, acquired: Panel, t1w: Anatomy) -> dict[str, Any]:
    """The b0 and the brain of the T1w in the same cuts, and the T1w's tissue borders as lines."""
    step = max(0.8, float(np.linalg.norm(t1w.affine[:3, :3], axis=0).min()))
    slices, inside = {}, {}
    for plane in PLANES:
        slices[plane.name] = sample_plane(studio.frame, plane, t1w.data, t1w.affine, step, order=1)
        brain = acquired.mask.astype(np.float32)
        inside[plane.name] = sample_plane(studio.frame, plane, brain, acquired.affine, step, order=0) > 0.5
    values = np.concatenate([slices[name][inside[name]] for name in slices])
    if values.size == 0:
        return {}
    window = grey_range(values, np.ones(values.shape, dtype=bool))
    b0_range = grey_range(acquired.b0, acquired.mask)
    grey = {name: np.where(inside[name], to_grey(slices[name], window), 0).astype(np.uint8) for name in slices}
    levels = _tissue_borders(values)
    figures: dict[str, Any] = {"b0": {}, "t1w": {}}
    lines = {}
    for plane in PLANES:
        name = plane.name
        b0 = cut(studio.frame, acquired.b0, acquired.affine, plane)
        figures["b0"][name] = studio.picture(camel("registration_b0", name), to_grey(b0.pixels, b0_range), b0.box)
        figures["t1w"][name] = studio.picture(camel("registration_t1w", name), grey[name])
        lines[name] = _contours(slices[name], inside[name], levels, step, studio.frame.window(plane))
    return figures | {"contours": studio.outlines("registration_contours", lines)}


def _tissue_borders(values: NDArray[np.float32]) -> list[float]:
    """Two intensities that split T1w values, (n,), into three classes: one-dimensional k-means (Lloyd 1982)."""
    centres = np.percentile(values, [10, 50, 85]).astype(np.float64)
    for _ in range(30):
        classes = np.abs(values[:, None] - centres).argmin(axis=1)
        centres = np.array([values[classes == c].mean() if (classes == c).any() else centres[c] for c in range(3)])
    return [float((low + high) / 2) for low, high in itertools.pairwise(centres)]


def _contours(
    values: NDArray[np.float32], inside: NDArray[np.bool_], levels: Sequence[float], step: float, window: Window
) -> str:
    """Iso-lines of a sampled plane inside the brain, lightly smoothed (1 mm) so that they follow anatomy, not noise."""
    smooth = gaussian_filter(values, 1.0 / step)
    return _line_drawing(np.ma.masked_array(smooth, ~inside), levels, window.size)


def _mask_outline(frame: Frame, panel: Panel, plane: Plane) -> str:
    """The border of the mask in a plane."""
    step = float(np.linalg.norm(panel.affine[:3, :3], axis=0).min()) / 2
    brain = sample_plane(frame, plane, panel.mask.astype(np.float32), panel.affine, step, order=0)
    return _line_drawing(brain, [0.5], frame.window(plane).size)


def _line_drawing(values: NDArray[Any], levels: Sequence[float], size: tuple[float, float]) -> str:
    """An SVG of iso-lines; its user unit is a pixel of `values`, (rows, columns), and it stretches to what holds it."""
    rows, columns = values.shape
    paths: list[str] = []
    if min(rows, columns) > 1:
        generator = contour_generator(z=values)
        for level, colour in zip(levels, _LINE_COLOURS, strict=False):
            points = [_path(np.asarray(line)) for line in generator.lines(level) if len(line) > 3]
            paths.append(f'<path stroke="{colour}" d="{"".join(points)}"/>')
    width = _LINE_WIDTH * columns / size[0]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" '
        f'width="{4 * size[0]:.0f}" height="{4 * size[1]:.0f}">'
        f'<g fill="none" stroke-width="{width:.2f}" stroke-linejoin="round">{"".join(paths)}</g></svg>'
    )


def _path(line: NDArray[np.float64]) -> str:
    """Points, (n, 2), of pixel centres as SVG path data with a tenth of a pixel."""
    return "M" + "L".join(f"{x + 0.5:.1f} {y + 0.5:.1f}" for x, y in line)


def _comparison_pictures(
    studio: Studio, acquired: Panel, averaged: Mapping[str, AveragedMaps], tissues: NDArray[np.uint8] | None
) -> dict[str, Any]:
    """Differences, agreement and distributions on the acquired grid."""
    before = {"fa": _given(acquired.fa), "md": _given(acquired.md)}
    after = {method: {"fa": maps.fa, "md": maps.md} for method, maps in averaged.items()}
    figures: dict[str, Any] = {"difference": {}, "agreement": {}}
    for key, values in before.items():
        window = DIFFERENCE_RANGES[key]
        figures["difference"][key] = {"range": list(window)}
        figures["agreement"][key] = {}
        for method, maps in after.items():
            difference = np.where(acquired.mask, maps[key] - values, 0.0)
            figures["difference"][key][method] = studio.views(
                camel("difference", key, method),
                lambda take, d=difference, w=window: to_diverging(take(d), w),  # type: ignore[misc]
                acquired,
            )
            pair = values[acquired.mask], maps[key][acquired.mask]
            figures["agreement"][key][method] = _agreement(studio, key, method, *pair)
    if tissues is not None:
        maps_by_key = {
            key: {"acquired": before[key], **{method: maps[key] for method, maps in after.items()}} for key in before
        }
        figures["distributions"] = tissue_histograms(maps_by_key, tissues)
    return figures


def _agreement(
    studio: Studio, key: str, method: str, before: NDArray[np.float32], after: NDArray[np.float32]
) -> dict[str, Any]:
    """Scatter and Bland-Altman of one map and method."""
    densities = {
        "scatter": scatter_density(key, before, after),
        "bland_altman": bland_altman_density(key, before, after),
    }
    pictures = {
        name: {"file": studio.write(camel(name, key, method), "webp", _webp(_density_colours(density)))}
        for name, density in densities.items()
    }
    return {
        **pictures,
        "statistics": agreement_statistics(before, after),
        "range": list(RANGES[key]),
        "difference_range": list(DIFFERENCE_RANGES[key]),
    }


def _density_colours(density: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Counts, (rows, columns), as one colour whose opacity is their logarithm: readable on a light and a dark page."""
    opacity = np.log1p(density) / max(np.log1p(density.max()), 1e-12)
    colour = np.broadcast_to(np.array(_DENSITY_COLOUR, dtype=np.uint8), (*density.shape, 3))
    return np.dstack([colour, np.rint(255 * opacity).astype(np.uint8)])


def _gradient_table(bvals: NDArray[np.float64], bvecs: NDArray[np.float64]) -> dict[str, Any]:
    """The gradients as plain numbers; a vector that is not a number (allowed for a b0) becomes zero."""
    vectors = np.nan_to_num(np.asarray(bvecs, dtype=np.float64))
    return {
        "bvals": [round(float(b), 1) for b in bvals],
        "bvecs": [[round(float(x), 4) for x in vector] for vector in vectors],
    }


def _webp(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless WebP of pixels, (rows, columns) grey or (rows, columns, 3 or 4)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", lossless=True, quality=60, method=4, exact=True)
    return buffer.getvalue()


def camel(*words: str) -> str:
    """Words as one alphanumeric label: `colour_fa`, `sr`, `axial` is colourFaSrAxial."""
    first, *rest = "_".join(words).split("_")
    return first + "".join(word.capitalize() for word in rest)

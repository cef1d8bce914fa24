"""How restorations fare over the scale, as one drawing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_sr.evaluation.tables import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The light theme of the reports: ink, captions, lines.
_INK, _SOFT, _LINE = "#1b2227", "#56616a", "#dde2de"
#: Interpolators keep the colours that they have in the reports; networks take the others, told apart by markers too.
_FIXED = {"cubic": "#b9770e", "trilinear": "#6c767e"}
_COLOURS = ("#1273b5", "#2d7d4f", "#b3261e", "#7b4fa6", "#0f8f8f", "#c2547f", "#5a6b1f", "#3b3f8f")
_MARKERS = "osD^vPX*<>"

_PANELS = (("psnr_mask", "PSNR in the brain (dB)"), ("fa_error", "mean absolute error of FA"))


@dataclass(frozen=True)
class Point:
    """One model at one scale: where on the axis, mean over the subjects, their spread (not a number of one subject)."""

    scale: str
    position: float
    mean: float
    spread: float


def save_figure(found: Sequence[Group], files: Sequence[Path]) -> None:
    """Draw PSNR and FA error over the scale, a line per model with the subjects' spread, and write it.

    Parameters
    ----------
    found : sequence of Group
    files : sequence of Path
        Each in the format that its extension names (.svg, .png). The same figures give the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = {"text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _SOFT, "ytick.color": _SOFT}
    settings: Any = {"svg.hashsalt": "bids_sr", "font.size": 9, "axes.edgecolor": _LINE, **colours}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(9, 4), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 2), _PANELS, strict=True):
            _draw(axes, found, name, label)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
        for file in files:
            figure.savefig(file, dpi=160, metadata={"Date": None} if file.suffix == ".svg" else None)


def positions(found: Sequence[Group]) -> dict[str, float]:
    """Where each scale lies on the axis, from left to right: isotropic ones at their value, the others beyond."""
    scales = sorted({group.scale for group in found}, key=lambda scale: ("x" in scale, _size(scale), scale))
    isotropic = {scale: float(scale) for scale in scales if "x" not in scale}
    end = max(isotropic.values(), default=0.0)
    others = [scale for scale in scales if "x" in scale]
    return isotropic | {scale: end + 0.6 * (index + 1) for index, scale in enumerate(others)}


def points(found: Sequence[Group], model: str, figure: str) -> list[Point]:
    """A model's points from left to right; what is not finite is left out."""
    places = positions(found)
    made = [
        Point(group.scale, places[group.scale], group.mean(figure), group.spread(figure))
        for group in found
        if group.model == model
    ]
    return sorted((point for point in made if math.isfinite(point.mean)), key=lambda point: point.position)


def _size(scale: str) -> float:
    """By how much a scale multiplies the volume of a voxel."""
    factors = [float(factor) for factor in scale.split("x")]
    return math.prod(factors) if len(factors) > 1 else factors[0] ** 3


def _styles(models: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each model with its colour and marker."""
    n_networks = 0
    for index, model in enumerate(models):
        colour = _FIXED.get(model) or _COLOURS[n_networks % len(_COLOURS)]
        n_networks += model not in _FIXED
        yield model, colour, _MARKERS[index % len(_MARKERS)]


def _draw(axes: Axes, found: Sequence[Group], figure: str, label: str) -> None:
    """One panel; only isotropic scales are joined by a line, for only they stand in an order."""
    places = positions(found)
    for model, colour, marker in _styles(list(dict.fromkeys(group.model for group in found))):
        made = points(found, model, figure)
        joined = [point for point in made if "x" not in point.scale]
        axes.plot([p.position for p in joined], [p.mean for p in joined], color=colour, linewidth=1.6)
        axes.errorbar(
            [p.position for p in made], [p.mean for p in made], [p.spread for p in made],
            fmt=marker, color=colour, markersize=5, elinewidth=1, capsize=2, label=model,
        )  # fmt: skip
    axes.set_xticks(list(places.values()), list(places))
    axes.set_xlim(min(places.values()) - 0.3, max(places.values()) + 0.3)
    axes.set(xlabel="size of the degraded voxels in acquired voxels", ylabel=label)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

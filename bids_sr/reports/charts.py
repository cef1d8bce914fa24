"""Small drawings as numbers: the page turns them into inline SVG in the colours of its theme."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METHODS = ("acquired", "cubic", "sr")
NAMES = {"acquired": "acquired", "cubic": "cubic", "sr": "super-resolved", "orig": "acquired", "truth": "truth"}
SHORT_NAMES = NAMES | {"sr": "SR"}
# How each quantity is written for people: unit, factor from the stored value, decimals.
MAPS: dict[str, tuple[str, float, int]] = {
    "FA": ("", 1.0, 3),
    "MD": ("10⁻³ mm²/s", 1e3, 3),
    "AD": ("10⁻³ mm²/s", 1e3, 3),
    "RD": ("10⁻³ mm²/s", 1e3, 3),
    "V1": ("°", 1.0, 1),
    "PSNR": ("dB", 1.0, 2),
}
# What the self-check's figures are, and which way is closer.
CHECK_MEASURES = {
    "PSNR": "of the weighted volumes, larger is closer",
    "SSIM": "of the weighted volumes, larger is closer",
    "FA": "mean absolute error",
    "MD": "mean absolute error",
    "V1": "median angle where FA exceeds 0.3",
}
_PLAIN = ("", 1.0, 3)


@dataclass(frozen=True)
class Line:
    """A polyline of a chart: whose it is, and its SVG path data in a box of 100 x 100."""

    method: str
    path: str


@dataclass(frozen=True)
class Direction:
    """A gradient direction on a disc of radius 1 and the number of its shell, from 0 for b0."""

    x: float
    y: float
    shell: int


def histogram_lines(shares: Mapping[str, Sequence[float]]) -> list[Line]:
    """Step lines of each method's shares, as high as the tallest bin of any."""
    top = max((max(values, default=0.0) for values in shares.values()), default=0.0) or 1.0
    return [Line(method, _steps(shares[method], top)) for method in METHODS if method in shares]


def directions(bvals: Sequence[float], bvecs: Sequence[Sequence[float]], threshold: float) -> list[Direction]:
    """Weighted gradients on a disc: folded to one half of the sphere, Lambert's equal-area projection, shells by b.

    Snyder 1987, Map Projections - A Working Manual, eq. 24-2; a direction and its opposite weight diffusion alike.
    """
    shells = shell_values(bvals, threshold)
    found = []
    for b, vector in zip(bvals, bvecs, strict=True):
        length = math.sqrt(sum(x * x for x in vector))
        if b > threshold and length > 0:
            x, y, z = (component / length * (-1 if vector[2] < 0 else 1) for component in vector)
            stretch = 1 / math.sqrt(1 + z)
            nearest = min(range(len(shells)), key=lambda i, b=b: abs(shells[i] - b))  # type: ignore[misc]
            found.append(Direction(round(x * stretch, 4), round(y * stretch, 4), nearest + 1))
    return found


def shell_values(bvals: Sequence[float], threshold: float) -> list[float]:
    """Mean b-value in s/mm2 of each shell: sorted weighted b-values, split where they jump by more than 100."""
    groups: list[list[float]] = []
    for b in sorted(b for b in bvals if b > threshold):
        if groups and b - groups[-1][-1] <= 100:
            groups[-1].append(b)
        else:
            groups.append([b])
    return [round(sum(group) / len(group)) for group in groups]


def number(value: Any, key: str = "") -> str:
    """A value of a table as text: in the map's unit, a true minus sign, a dash where there is no number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return "–"
    _, factor, decimals = MAPS.get(key, _PLAIN)
    return f"{value * factor:.{decimals}f}".replace("-", "−")


def signed(value: Any, key: str = "") -> str:
    """A difference as text, with its sign."""
    text = number(value, key)
    is_zero = not text.strip("0.−–")
    return text if is_zero or text.startswith("−") else f"+{text}"


def position(value: float, low: float, high: float) -> float:
    """Where a value lies in a chart of 100 units, kept inside it."""
    return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)


def _steps(shares: Sequence[float], top: float) -> str:
    """Path of a step line from left to right."""
    width = 100 / len(shares)
    heights = [100 - 96 * share / top for share in shares]
    points = [f"{i * width:.2f} {y:.2f}L{(i + 1) * width:.2f} {y:.2f}" for i, y in enumerate(heights)]
    return "M0 100L" + "L".join(points) + "L100 100"

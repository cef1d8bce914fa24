"""What restorations came to, as tables: of every volume, every scan and every subject, and a summary over subjects."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bids_sr.evaluation.benchmark import TensorFigures, VolumeFigures
from bids_sr.evaluation.perception import PerceptualFigures
from bids_sr.evaluation.process import Cost

#: Figures of volumes that a scan's are the means of.
_AVERAGED = ("mse", "mae", "nrmse", "psnr_mask", "ssim_mask", "psnr_volume", "ssim_volume")
#: All figures of a scan, in the order of the tables.
FIGURES = (
    *_AVERAGED, "psnr_b0", "fa_error", "md_error", "v1_angle", "seconds", "seconds_per_volume", "peak_gb", "gpu_gb",
)  # fmt: skip
#: Figures that there are where they were asked for.
PERCEPTUAL_FIGURES = ("vgg", "fid")
_CONDITIONS = ("model", "weights", "scale", "true_scale", "within_range", "profile", "noise")

#: Columns of the summary: heading, figure, factor, decimals.
_SIGNAL_COLUMNS = (
    ("PSNR (dB)", "psnr_mask", 1.0, 2),
    ("SSIM", "ssim_mask", 1.0, 3),
    ("NRMSE", "nrmse", 1.0, 4),
    ("MAE", "mae", 1.0, 4),
    ("MSE (1e-4)", "mse", 1e4, 3),
    ("PSNR b0 (dB)", "psnr_b0", 1.0, 2),
    ("PSNR whole (dB)", "psnr_volume", 1.0, 2),
    ("SSIM whole", "ssim_volume", 1.0, 3),
)
_PERCEPTUAL_COLUMNS = (("VGG distance", "vgg", 1.0, 4), ("Frechet distance", "fid", 1.0, 3))
_TENSOR_COLUMNS = (
    ("FA error", "fa_error", 1.0, 4),
    ("MD error (1e-4 mm2/s)", "md_error", 1e4, 3),
    ("V1 (deg)", "v1_angle", 1.0, 2),
    ("seconds per volume", "seconds_per_volume", 1.0, 2),
    ("memory (GB)", "peak_gb", 1.0, 2),
    ("GPU memory (GB)", "gpu_gb", 1.0, 2),
)


@dataclass(frozen=True)
class Result:
    """What the restoration of one series by one model came to.

    Attributes
    ----------
    subject, series : str
        Such as ``sub-01`` and ``sub-01_dir-AP``.
    model, weights : str
        The model's name in the tables, and the SHA-256 of its weights, empty where there are none.
    scale : str
        As it was asked for, ``2`` or ``1x1x2``.
    true_scale : tuple of float, (3,)
        What the whole numbers of voxels made of it.
    within_range : bool
        Whether the model was made for it.
    profile : str
        Of the degradation.
    noise : float
        Added to the degraded signals, in units of the b0's median in the brain.
    t1w : bool
        Whether the model was given a T1w.
    volumes : tuple of VolumeFigures
    tensor : TensorFigures
    cost : Cost
    device : str
        Where the model ran.
    threads : int
        Processor threads that it had.
    perception : PerceptualFigures, optional
        Only where it was asked for.
    """

    subject: str
    series: str
    model: str
    weights: str
    scale: str
    true_scale: tuple[float, float, float]
    within_range: bool
    profile: str
    noise: float
    t1w: bool
    volumes: tuple[VolumeFigures, ...]
    tensor: TensorFigures
    cost: Cost
    device: str
    threads: int
    perception: PerceptualFigures | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as plain values, which `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Result":
        """The result that `to_json` gave.

        Raises
        ------
        KeyError, TypeError
            If it is something else.
        """
        x, y, z = content["true_scale"]
        parts = {
            "true_scale": (x, y, z),
            "volumes": tuple(VolumeFigures(**volume) for volume in content["volumes"]),
            "tensor": TensorFigures(**content["tensor"]),
            "cost": Cost(**content["cost"]),
            "perception": PerceptualFigures(**content["perception"]) if content.get("perception") else None,
        }
        return cls(**{**content, **parts})

    @property
    def figures(self) -> dict[str, float]:
        """The figures of the scan, see `FIGURES`: those of signals are means over the weighted volumes."""
        cost = dataclasses.asdict(self.cost) | {"seconds_per_volume": self.cost.seconds / len(self.volumes)}
        perception = dataclasses.asdict(self.perception) if self.perception else {}
        return signal_means(self.volumes) | dataclasses.asdict(self.tensor) | perception | cost

    @property
    def conditions(self) -> dict[str, Any]:
        """What the figures belong to, apart from the scan."""
        values = {name: getattr(self, name) for name in _CONDITIONS}
        return values | {"true_scale": "x".join(f"{factor:.4g}" for factor in self.true_scale)}


@dataclass(frozen=True)
class Group:
    """The subjects' figures of one model at one scale.

    Attributes
    ----------
    scale, model : str
    within_range : bool
        Whether the model was made for the scale.
    subjects : mapping of str to mapping
        Subject to its figures, which are means over its series.
    with_t1w : tuple of str
        Subjects whose T1w the model was given, with each of their series.
    """

    scale: str
    model: str
    within_range: bool
    subjects: Mapping[str, Mapping[str, float]]
    with_t1w: tuple[str, ...] = ()

    def mean(self, figure: str) -> float:
        """Mean over the subjects."""
        return float(np.mean(self._values(figure)))

    def spread(self, figure: str) -> float:
        """Standard deviation over the subjects, of a sample; not a number of a single one."""
        values = self._values(figure)
        return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else float("nan")

    def _values(self, figure: str) -> list[float]:
        """The figure of every subject."""
        return [figures[figure] for figures in self.subjects.values()]


def signal_means(volumes: Sequence[VolumeFigures]) -> dict[str, float]:
    """Means over the weighted volumes, and as ``psnr_b0`` that of the PSNR over the b0 volumes."""
    weighted = [volume for volume in volumes if volume.weighted]
    means = {name: float(np.mean([getattr(volume, name) for volume in weighted])) for name in _AVERAGED}
    return means | {"psnr_b0": float(np.mean([volume.psnr_mask for volume in volumes if not volume.weighted]))}


def volume_rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """A row per restored volume."""
    return [
        {"subject": r.subject, "series": r.series, **r.conditions, **dataclasses.asdict(volume)}
        for r in results
        for volume in r.volumes
    ]


def figure_names(results: Sequence[Result]) -> tuple[str, ...]:
    """The figures that all results have."""
    asked = all(result.perception is not None for result in results)
    return (*FIGURES, *PERCEPTUAL_FIGURES) if asked else FIGURES


def scan_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row per restored series."""
    return [
        {"subject": r.subject, "series": r.series, **r.conditions, "n_volumes": len(r.volumes)}
        | {name: r.figures[name] for name in figure_names(results)}
        | {"t1w": r.t1w, "device": r.device, "threads": r.threads}
        for r in results
    ]


def subject_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row per subject, scale and model: means over the subject's series."""
    rows = []
    for (scale, model), members in _grouped(results).items():
        about = {key: value for key, value in members[0].conditions.items() if key != "true_scale"}
        for subject, figures in _subject_means(members).items():
            given = [member.t1w for member in members if member.subject == subject]
            counts = {"n_series": len(given), "n_t1w": sum(given)}
            rows.append({"subject": subject, **about, "scale": scale, "model": model, **counts, **figures})
    return rows


def groups(results: Sequence[Result]) -> list[Group]:
    """The subjects' figures of every scale and model, in the order in which they first appear."""
    return [
        Group(scale, model, all(member.within_range for member in members), _subject_means(members), _given(members))
        for (scale, model), members in _grouped(results).items()
    ]


def _given(results: Sequence[Result]) -> tuple[str, ...]:
    """Subjects of whom every series was restored with the T1w."""
    without = {result.subject for result in results if not result.t1w}
    return tuple(dict.fromkeys(result.subject for result in results if result.subject not in without))


def _grouped(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """Results by scale and model."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.scale, result.model), []).append(result)
    return found


def _subject_means(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Each subject's figures, averaged over its series."""
    by_subject: dict[str, list[dict[str, float]]] = {}
    for result in results:
        by_subject.setdefault(result.subject, []).append(result.figures)
    return {
        subject: {name: float(np.mean([figures[name] for figures in scans])) for name in figure_names(results)}
        for subject, scans in by_subject.items()
    }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as comma-separated values, the keys as the heading; n/a where there is no number."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> str:
    """A value as text; seven digits tell more than float32 knows."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.7g}" if value == value else "n/a"


def mean_and_spread(mean: float, spread: float, digits: int) -> str:
    """``31.42 ± 0.05``; the mean alone where there is no spread, a dash where there is neither."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" if np.isnan(spread) else f"{mean:.{digits}f} ± {spread:.{digits}f}"


def headline(result: Result) -> str:
    """The figures of a scan that say most, in one line."""
    figures = result.figures
    return (
        f"PSNR {figures['psnr_mask']:.2f} dB, SSIM {figures['ssim_mask']:.3f}, FA error {figures['fa_error']:.4f}, "
        f"{figures['seconds']:.1f} s, {figures['peak_gb']:.2f} GB"
    )


def summary(results: Sequence[Result], introduction: str) -> str:
    """Markdown: an introduction, the errors of signals, the errors of the tensor with the costs, the definitions."""
    found = groups(results)
    columns = _TENSOR_COLUMNS if any(group.mean("gpu_gb") > 0 for group in found) else _TENSOR_COLUMNS[:-1]
    parts = [
        introduction,
        "## Signals",
        _markdown(found, _SIGNAL_COLUMNS),
        "## Tensor and cost",
        _markdown(found, columns),
    ]
    definitions = DEFINITIONS
    if found and PERCEPTUAL_FIGURES[0] in figure_names(results):
        parts += ["## As VGG19 sees it", _markdown(found, _PERCEPTUAL_COLUMNS)]
        definitions += PERCEPTUAL_DEFINITIONS
    if not all(group.within_range for group in found):
        parts.append("\\* a scale that the model was not made for.")
    return "\n\n".join([*parts, "## Definitions", definitions]) + "\n"


def _markdown(found: Sequence[Group], columns: Sequence[tuple[str, str, float, int]]) -> str:
    """A table with a row for each scale and model."""
    heading = ["scale", "model", "subjects", "with T1w", *(column[0] for column in columns)]
    rows = [
        [
            group.scale + ("" if group.within_range else "\\*"),
            group.model,
            str(len(group.subjects)),
            str(len(group.with_t1w)),
            *(mean_and_spread(f * group.mean(name), f * group.spread(name), digits) for _, name, f, digits in columns),
        ]
        for group in found
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))


def dump(result: Result, key: str) -> str:
    """A finished result as JSON, with the key of what it was made from."""
    return json.dumps({"key": key, "result": result.to_json()}, indent=1) + "\n"


def load(text: str, key: str) -> Result | None:
    """The result that `dump` wrote; None where it cannot be read, or was made from something else."""
    try:
        content = json.loads(text)
        return Result.from_json(content["result"]) if content["key"] == key else None
    except (ValueError, KeyError, TypeError):
        return None


DEFINITIONS = """\
Values are means over the subjects ± their standard deviation. A subject's value is the mean over its series; a series'
value of a signal figure is the mean over its diffusion-weighted volumes. All figures but the two marked "whole" are
measured inside the brain mask of the acquired scan.

- with T1w: of how many of the subjects the model was given the T1w, with each series; subjects.csv tells of which.
- PSNR: 10 log10(R² / MSE) of a volume, R being the range of the acquired volume in the mask; PSNR b0: of the b0s.
- SSIM: scikit-image's, window 7³, dynamic range R, averaged over the mask.
- NRMSE: root of the mean squared error over the root mean square of the acquired volume.
- MAE, MSE: mean absolute and mean squared error, signals in units of the median of the acquired mean b0.
- PSNR and SSIM whole: the protocol of published networks; the empty surroundings count as restored perfectly. They are
  of S/S0 (each series by its own mean b0, at least 5 % of its median; at most 1.5), zero outside the mask, over the
  whole field of view; peak and dynamic range are the largest acquired value in the mask.
- FA and MD error: mean absolute difference of the tensor's maps.
- V1: median angle between the principal directions where the acquired FA exceeds 0.3.
- seconds: of restoring a volume, without starting Python and loading the model.
- memory: most resident memory (VmHWM) of a fresh process that does nothing else, Python and libraries included.\
"""
PERCEPTUAL_DEFINITIONS = """
- VGG distance: mean squared difference of the features of VGG19's last convolution, of 8 slices of each weighted volume
  across each axis, spread over the box of the brain; black is zero, white the largest acquired value in the mask.
- Frechet distance: FID with these features, averaged over each slice, in the place of Inception's; between all acquired
  and all restored slices of a series. Compare only values from the same number of volumes.\
"""

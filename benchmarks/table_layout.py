"""The tables as Markdown: which model stands for a method at which scale, and how its figures are laid out."""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bids_sr.evaluation.tables import Group, mean_and_spread
from bids_sr.models.registry import AT_TARGET, list_models

LIGHT_PRESETS = Path(__file__).parent / "presets"
#: In the order of the paper's columns.
SCALES = (2.0, 3.0, 4.0, 2.4)

#: Figures by their names, of one model, seed and scale; what learns nothing has seed 0 alone.
Results = Mapping[tuple[str, int, float], Mapping[str, float]]


@dataclass(frozen=True)
class Method:
    """A row of a table.

    Attributes
    ----------
    label : str
        What the row is called.
    models : mapping of float to str
        For each scale, the name of the model that is asked; with `AT_TARGET` perhaps.
    published : str
        Section of `published.toml`; empty where the paper has no such row.
    """

    label: str
    models: Mapping[float, str]
    published: str = ""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the presets that must have been trained, each once: not of what is ready, as interpolation is."""
        names = (name.removesuffix(AT_TARGET) for name in self.models.values())
        return tuple(dict.fromkeys(name for name in names if name not in list_models()))


@dataclass(frozen=True)
class Cost:
    """Parameters of a network, and the seconds of a training of it; None where it was not trained for the table."""

    parameters: int
    seconds: float | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    title : str
    methods : tuple of Method
        The rows.
    profile : str
        Degradation of the test scans.
    paper_order : tuple of str
        Labels in the order that the paper found, best first; empty where it is not known.
    full_size : bool
        Whether the networks are the package's own, as published, and not the light ones beside this file.
    """

    title: str
    methods: tuple[Method, ...]
    profile: str = "gaussian"
    paper_order: tuple[str, ...] = ()
    full_size: bool = False

    @property
    def presets(self) -> Path:
        """Folder of the presets of its networks."""
        return Path(str(files("bids_sr"))) / "data" / "presets" if self.full_size else LIGHT_PRESETS

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the presets that the rows need, each once."""
        return tuple(dict.fromkeys(name for method in self.methods for name in method.trained))


def any_scale(label: str, name: str, published: str = "") -> Method:
    """A method with one model for all scales."""
    return Method(label, dict.fromkeys(SCALES, name), published)


def two_scales(label: str, stem: str, ending: str = "", published: str = "") -> Method:
    """A method with a network for 2x and one for 3x; the latter serves 2.4x and 4x too.

    As in the paper, what it gives at 3x is then resampled; with `AT_TARGET` it is asked for the voxels wanted.
    """
    models = {2.0: f"{stem}_2x", 3.0: f"{stem}_3x", 4.0: f"{stem}_3x{ending}", 2.4: f"{stem}_3x{ending}"}
    return Method(label, models, published)


def methods_compared(csr_dmri: str) -> tuple[Method, ...]:
    """The rows of the paper's Table 1, and the fixed networks asked for the scale itself."""
    return (
        any_scale("Bicubic", "cubic", "bicubic"),
        two_scales("DCSRN", "dcsrn", published="dcsrn"),
        two_scales("DCSRN, asked for the scale itself", "dcsrn", AT_TARGET),
        two_scales("ResCNN3D", "rescnn3d", published="rescnn3d"),
        two_scales("ResCNN3D, asked for the scale itself", "rescnn3d", AT_TARGET),
        any_scale("ArSSR", "arssr", "arssr"),
        any_scale("CSR-dMRI", csr_dmri, "csr_dmri"),
    )


def ablations(baseline: Sequence[Method], csr_dmri: str) -> tuple[Method, ...]:
    """The rows of the paper's Table 2, with the implicit decoder in M2 and M3."""
    return (
        any_scale("Bicubic", "cubic", "bicubic"),
        *baseline,
        any_scale("M1: INR", "m1", "m1"),
        any_scale("M2: INR and T1w", "m2", "m2"),
        any_scale("M3: INR and frequency loss", "m3", "m3"),
        any_scale("CSR-dMRI", csr_dmri, "csr_dmri"),
    )


_ORDER = ("CSR-dMRI", "ArSSR", "ResCNN3D", "DCSRN", "Bicubic")
_BASELINES = (
    two_scales("Baseline", "baseline", published="baseline"),
    two_scales("Baseline, asked for the scale itself", "baseline", AT_TARGET),
)
_BY_ITS_MARKS = (
    any_scale("M2 by its marks: T1w without INR", "m2_literal"),
    any_scale("M3 by its marks: frequency loss without INR", "m3_literal"),
)
_LITERAL = (
    any_scale("Bicubic", "cubic", "bicubic"),
    any_scale("CSR-dMRI to the letter", "csr_dmri_literal", "csr_dmri"),
    any_scale("CSR-dMRI in our geometry", "csr_dmri"),
)
_FAMILIES = (
    any_scale("Cubic interpolation", "cubic"),
    any_scale("SRCNN3D 9-1-5", "srcnn3d_915"),
    any_scale("SRCNN3D 3-3-3", "srcnn3d_333"),
    any_scale("VDSR3D", "vdsr3d"),
    two_scales("ResCNN3D", "rescnn3d"),
    two_scales("DCSRN", "dcsrn"),
    any_scale("mDCSRN", "mdcsrn"),
    any_scale("U-Net3D", "unet3d"),
    any_scale("U-Net3D, adversarial, weight 0.01", "unet3d_adversarial"),
    any_scale("U-Net3D, adversarial, weight 0.2", "unet3d_adversarial_strong"),
    any_scale("U-Net3D, tensor loss", "unet3d_tensor"),
    any_scale("Swin3D, transformer", "swin3d"),
    any_scale("DDPM3D, diffusion", "ddpm3d"),
    any_scale("ArSSR", "arssr"),
    any_scale("CSR-dMRI", "csr_dmri"),
    any_scale("smore, fitted", "smore"),
    any_scale("inr, fitted", "inr"),
    any_scale("light, other budget", "light"),
    any_scale("default, other budget", "default"),
)
#: By their names on the command line.
TABLES = {
    "1": Table("Table 1: methods", methods_compared("csr_dmri"), paper_order=_ORDER),
    "2": Table("Table 2: ablations", ablations(_BASELINES, "csr_dmri")),
    "literal": Table("To the letter, with light widths", _LITERAL, "bicubic"),
    "families": Table("The table of families", _FAMILIES),
    "paper1": Table("Table 1, full size", methods_compared("csr_dmri_paper"), "bicubic", _ORDER, full_size=True),
    "paper2": Table(
        "Table 2, full size",
        ablations((any_scale("Baseline", "baseline", "baseline"), *_BY_ITS_MARKS), "csr_dmri_paper"),
        "bicubic",
        full_size=True,
    ),
}


def read_published() -> dict[str, dict[float, tuple[float, float]]]:
    """The paper's PSNR (dB) and SSIM by method and scale; methods whose figures are not known are absent."""
    content = tomllib.loads((Path(__file__).parent / "published.toml").read_text(encoding="utf-8"))
    return {name: {float(scale): tuple(pair) for scale, pair in rows.items()} for name, rows in content.items()}


def over_seeds(method: Method, scale: float, results: Results) -> Group:
    """The figures of a method at a scale, a "subject" being a seed."""
    wanted = method.models[scale], scale
    seeds = {f"seed {key[1]}": figures for key, figures in sorted(results.items()) if (key[0], key[2]) == wanted}
    return Group(f"{scale:g}", method.label, True, seeds)


def groups(table: Table, results: Results) -> list[Group]:
    """The figures of every method and scale that was evaluated."""
    found = (over_seeds(method, scale, results) for scale in sorted(SCALES) for method in table.methods)
    return [group for group in found if group.subjects]


def shown(group: Group, figure: str, digits: int, factor: float = 1.0) -> str:
    """`31.42 ± 0.05` over the seeds, multiplied by `factor`; a dash where there is nothing."""
    if not group.subjects:
        return "–"
    return mean_and_spread(factor * group.mean(figure), factor * group.spread(figure), digits)


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, ["---"] * len(heading), *rows))


def signal_table(table: Table, results: Results, protocol: str) -> str:
    """PSNR and SSIM of each method at each scale, by one protocol: `mask` or `volume`."""
    return _by_method(table, results, lambda group: signal_cell(group, protocol))


def signal_cell(group: Group, protocol: str) -> str:
    """PSNR and SSIM by a protocol."""
    return f"{shown(group, f'psnr_{protocol}', 2)} / {shown(group, f'ssim_{protocol}', 3)}"


def figure_table(table: Table, results: Results, figure: str, digits: int, factor: float = 1.0) -> str:
    """One figure of each method at each scale, multiplied by `factor`."""
    return _by_method(table, results, lambda group: shown(group, figure, digits, factor))


def _by_method(table: Table, results: Results, cell: Callable[[Group], str]) -> str:
    """A table with a row for each method and a column for each scale."""
    rows = [[m.label, *(cell(over_seeds(m, scale, results)) for scale in SCALES)] for m in table.methods]
    return markdown(["Method", *(f"{scale:g}x" for scale in SCALES)], rows)


def overview_table(table: Table, results: Results, costs: Mapping[str, Cost]) -> str:
    """What decides between the methods, a row for each: sizes, PSNR and SSIM in the brain, and the rest at one scale.

    Parameters
    ----------
    table : Table
    results : Results
    costs : mapping of str to Cost
        By the names of models; of those that are not there, and have no parameters, a dash is shown.
    """
    scales = [f"{scale:g}x" for scale in SCALES]
    heading = ["Method", "Parameters", "Training (s)", *(f"PSNR / SSIM {scale}" for scale in scales)]
    heading += [f"{title} {scales[0]}" for title, *_ in _AT_ONE_SCALE]
    return markdown(heading, [_overview(method, results, costs) for method in table.methods])


#: Of the first scale: heading, figure, digits, factor.
_AT_ONE_SCALE = (
    ("FA error", "fa_error", 4, 1.0),
    ("MD error (1e-4 mm²/s)", "md_error", 3, 1e4),
    ("Seconds per volume", "seconds_per_volume", 1, 1.0),
    ("Memory (GB)", "peak_gb", 1, 1.0),
)


def _overview(method: Method, results: Results, costs: Mapping[str, Cost]) -> list[str]:
    """The row of a method."""
    names = dict.fromkeys(name.removesuffix(AT_TARGET) for name in method.models.values())
    known = [costs[name] for name in names if name in costs]
    parameters = [f"{cost.parameters:,}" for cost in known]
    seconds = [f"{cost.seconds:.0f}" for cost in known if cost.seconds is not None]
    groups_of = [over_seeds(method, scale, results) for scale in SCALES]
    signals = [signal_cell(group, "mask") for group in groups_of]
    others = [shown(groups_of[0], figure, digits, factor) for _, figure, digits, factor in _AT_ONE_SCALE]
    return [method.label, " + ".join(parameters) or "–", " + ".join(seconds) or "–", *signals, *others]


def published_table(table: Table, results: Results) -> str:
    """PSNR and SSIM of whole volumes, mean over the seeds, with what the paper prints beside them."""
    published = read_published()
    rows = [[method.label, *_beside(method, results, published.get(method.published, {}))] for method in table.methods]
    heading = (f"{scale:g}x {whose}" for scale in SCALES for whose in ("ours", "HCP, published"))
    return markdown(["Method", *heading], rows)


def _beside(method: Method, results: Results, published: Mapping[float, tuple[float, float]]) -> Iterator[str]:
    """For each scale, our figures and the paper's."""
    for scale in SCALES:
        group = over_seeds(method, scale, results)
        ours = (group.mean("psnr_volume"), group.mean("ssim_volume")) if group.subjects else None
        for pair in (ours, published.get(scale)):
            yield f"{pair[0]:.2f} / {pair[1]:.3f}" if pair else "–"


def order_found(table: Table, results: Results) -> str:
    """For each scale, the paper's rows by our mean PSNR in the mask, and whether that is the order it found."""
    lines = []
    for scale in SCALES:
        compared = (over_seeds(method, scale, results) for method in table.methods if method.published)
        ranked = sorted((g for g in compared if g.subjects), key=lambda group: -group.mean("psnr_mask"))
        order = [group.model for group in ranked]
        expected = [label for label in table.paper_order if label in order]
        verdict = f" ({'the' if order == expected else 'not the'} paper's order)" if expected else ""
        lines.append(f"- {scale:g}x: {' > '.join(order)}{verdict}")
    return "\n".join(lines)

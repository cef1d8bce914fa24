"""The subject's report: one self-contained HTML page from the records and pictures in its figures folder."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup, escape

from bids_sr.bids.citation import cited_keys, methods_text, references
from bids_sr.bids.outputs import write_text
from bids_sr.reports.charts import (
    CHECK_MEASURES,
    MAPS,
    METHODS,
    NAMES,
    SHORT_NAMES,
    directions,
    histogram_lines,
    number,
    position,
    shell_values,
    signed,
)

PLANE_NAMES = ("sagittal", "coronal", "axial")
CONTRASTS = {
    "b0": ("Mean b0", "the signal without diffusion weighting"),
    "dwi": ("One diffusion-weighted volume", "the signal with diffusion weighting"),
    "fa": ("FA", "fractional anisotropy"),
    "md": ("MD", "mean diffusivity"),
    "colour_fa": ("Colour FA", "main direction of diffusion"),
}
_TYPES = {".webp": "image/webp", ".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


def write_subject_report(
    subject_label: str, records: Sequence[Mapping[str, Any]], output_html: Path, figures_dir: Path
) -> None:
    """Write the page of one subject, whole or not at all.

    Parameters
    ----------
    subject_label : str
        Shown in the title, with or without `sub-`.
    records : sequence of mappings
        One record per series; its "figures" is what `reports.figures.save_series_figures` returned.
    output_html : Path
        The page; its folder is made where it does not exist.
    figures_dir : Path
        Where the pictures named in the records lie; they are written into the page. A picture that is missing leaves a
        note in its place.
    """
    write_text(output_html, render_subject_report(subject_label, records, figures_dir))


def render_subject_report(subject_label: str, records: Sequence[Mapping[str, Any]], figures_dir: Path) -> str:
    """Text of the page that `write_subject_report` writes."""
    text = methods_text(records)
    keys = cited_keys(text)
    return (
        page_environment()
        .get_template("subject.html.jinja")
        .render(
            label=subject_label.removeprefix("sub-"),
            verdict=verdict(records),
            versions=sorted({str(record["version"]) for record in records if record.get("version")}),
            started=min((str(record["started"]) for record in records if record.get("started")), default=""),
            series=[series_view(record, figures_dir, i) for i, record in enumerate(records, start=1)],
            methods=[cited(paragraph, keys) for paragraph in text.split("\n\n") if not paragraph.startswith("#")],
            references=references(keys),
        )
    )


def verdict(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the reader should know first: "level" (good, warning, bad), "headline" and "detail"."""
    failed = [record for record in records if record.get("status") != "done"]
    n_warnings = sum(len(record.get("warnings", ())) for record in records)
    done = len(records) - len(failed)
    warned = f"{_count(n_warnings, 'warning')} to read before using the result." if n_warnings else ""
    if not records:
        return {
            "level": "bad",
            "headline": "Nothing was processed",
            "detail": "No series of this subject has a record.",
        }
    if failed:
        headline = f"{len(failed)} of {_count(len(records), 'series', 'series')} failed"
        return {"level": "bad", "headline": headline, "detail": f"{done} finished. {warned}".strip()}
    headline = f"{_count(done, 'series', 'series')} super-resolved"
    level = "warning" if n_warnings else "good"
    detail = warned or "No warnings. The pictures still deserve a look."
    return {"level": level, "headline": headline, "detail": f"{_checks_in_words(records)} {detail}".strip()}


def _checks_in_words(records: Sequence[Mapping[str, Any]]) -> str:
    """On how many series the self-check says that the restoration helped; nothing where it was not done."""
    levels = [level for record in records if (level := (record.get("self_check") or {}).get("level"))]
    words = {"yes": "helped", "partly": "helped in part", "no": "did not help"}
    if len(records) == 1 and levels:
        return f"By the self-check it {words.get(levels[0], levels[0])} on this scan."
    counts = [f"{word} on {levels.count(level)}" for level, word in words.items() if level in levels]
    return f"By the self-check it {', '.join(counts)} of {len(levels)}." if counts else ""


def series_view(record: Mapping[str, Any], figures_dir: Path, index: int) -> dict[str, Any]:
    """Everything the template shows of one series; what the record lacks is None or empty."""
    figures = record.get("figures") or {}
    view = {
        "id": f"series-{index}",
        "record": record,
        "label": record.get("label") or record.get("stem") or f"series {index}",
        "failed": record.get("status") != "done",
        "error": record.get("error"),
        "warnings": list(record.get("warnings", ())),
        "grids": record.get("grids"),
        "facts": _facts(record),
        "provenance": _provenance(record),
        "signal": _viewers(figures, ("b0", "dwi"), figures_dir),
        "tensor": _viewers(figures, ("fa", "md", "colour_fa"), figures_dir),
        "difference": _difference_viewers(figures, figures_dir),
        "registration": _registration(record, figures, figures_dir),
        "mask": _mask(record, figures, figures_dir),
        "distributions": _distributions(figures.get("distributions") or {}),
        "agreement": _agreement(figures.get("agreement") or {}, figures_dir),
        "self_check": _self_check(record.get("self_check") or {}, figures_dir),
        "departure": _departure(record.get("departure") or {}, figures, figures_dir),
        "t1w_effect": _t1w_effect(record.get("t1w_effect") or {}, figures_dir),
        "uncertainty": _uncertainty(record.get("uncertainty") or {}, figures_dir),
        "tables": _tables(record),
        "gradients": _gradients(record, figures.get("gradients")),
        "outputs": list(record.get("outputs", ())),
    }
    return view | {"sections": _sections(view)}


#: Headings of a series' sections by the ends of their ids, in their order, and what of the view each of them shows.
_SECTIONS = {
    "run": ("What was run", "facts"),
    "registration": ("T1w on the b0", "registration"),
    "mask": ("Brain mask", "mask"),
    "signal": ("Signal", "signal"),
    "tensor": ("Tensor maps", "tensor"),
    "self-check": ("Self-check", "self_check"),
    "departure": ("Agreement with the acquired scan", "departure"),
    "t1w-effect": ("What the T1w changed", "t1w_effect"),
    "uncertainty": ("Uncertainty", "uncertainty"),
    "acquired": ("Comparison by tissue", "tables"),
    "truth": ("Against the truth", "tables"),
    "difference": ("Difference maps", "difference"),
    "distributions": ("Distributions", "distributions"),
    "agreement": ("Scatter and Bland-Altman", "agreement"),
    "gradients": ("Gradient scheme", "gradients"),
    "outputs": ("Outputs", "outputs"),
}


def _sections(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Ends of the ids and short headings of the sections that a series has."""
    against = {table["against"] for table in view["tables"]}
    return [
        (slug, title) for slug, (title, key) in _SECTIONS.items() if view[key] and (key != "tables" or slug in against)
    ]


def cited(paragraph: str, keys: Sequence[str]) -> Markup:
    """A paragraph of the methods text with its `[@key; @key]` as links to the numbered references."""

    def links(match: re.Match[str]) -> str:
        found = re.findall(r"@([\w-]+)", match.group())
        numbers = [f'<a href="#ref-{key}">{keys.index(key) + 1}</a>' for key in found]
        return f'<sup class="cite">{",".join(numbers)}</sup>'

    # Escaped first: what the run wrote about itself can then hold no markup, and the keys are plain words.
    return Markup(re.sub(r"\s?\[@[^\]]+\]", links, str(escape(paragraph))))  # noqa: S704


def data_uri(file: Path) -> str | None:
    """The file as a `data:` address, None where it cannot be read."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    return f"data:{_TYPES[file.suffix]};base64,{base64.b64encode(content).decode()}"


def page_environment() -> Environment:
    """Templates of this package; all text that comes from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("bids_sr.reports"),
        autoescape=True,
        # A record of an older or a broken run may lack anything; the page then says less.
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "number": number,
        "signed": signed,
        "position": position,
        "names": NAMES,
        "short": SHORT_NAMES,
        "maps": MAPS,
        "check_measures": CHECK_MEASURES,
        "grey": grey_level,
    }
    return environment


def _count(number_of: int, singular: str, plural: str | None = None) -> str:
    return f"{number_of} {singular if number_of == 1 else plural or singular + 's'}"


def _viewers(figures: Mapping[str, Any], contrasts: Iterable[str], figures_dir: Path) -> list[dict[str, Any]]:
    """One before/after viewer per contrast that was drawn."""
    return [
        {
            "contrast": contrast,
            "title": CONTRASTS[contrast][0],
            "meaning": CONTRASTS[contrast][1],
            "volume": figures[contrast].get("volume"),
            "b": figures[contrast].get("b"),
            "window": (figures.get("windows") or {}).get(contrast),
            **_layers(
                figures, {m: figures[contrast][m] for m in METHODS if m in figures[contrast]}, figures_dir, contrast
            ),
        }
        for contrast in contrasts
        if contrast in figures
    ]


def _difference_viewers(figures: Mapping[str, Any], figures_dir: Path) -> list[dict[str, Any]]:
    """Maps of restored minus acquired, one viewer for FA and one for MD."""
    viewers = []
    for key, entry in (figures.get("difference") or {}).items():
        methods = {method: entry[method] for method in METHODS if method in entry}
        title = f"{key.upper()} difference"
        viewers.append(
            {
                "contrast": f"difference_{key}",
                "title": title,
                "meaning": "restored and averaged back, minus acquired",
                "volume": None,
                "b": None,
                "window": entry["range"],
                **_layers(figures, methods, figures_dir, title),
            }
        )
    return viewers


def _layers(
    figures: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]], figures_dir: Path, contrast: str
) -> dict[str, Any]:
    """The stages of a viewer, whole planes first and then their enlarged regions, with one layer per method."""
    stages = []
    for suffix, size_key in (("", "size_mm"), ("_zoom", "zoom_mm")):
        for plane in PLANE_NAMES:
            about = (figures.get("planes") or {}).get(plane)
            if about is None or not all(plane + suffix in views for views in methods.values()):
                continue
            name = f"{'enlarged region of the ' if suffix else ''}{plane} slice"
            stages.append(
                {
                    "plane": plane,
                    "zoomed": bool(suffix),
                    "size": about[size_key],
                    "letters": about["letters"],
                    "zoom_box": None if suffix else about["zoom_box"],
                    "layers": [
                        _layer(method, views[plane + suffix], figures_dir, f"{NAMES[method]}, {contrast}, {name}")
                        for method, views in methods.items()
                    ],
                }
            )
    return {"stages": stages, "methods": list(methods)}


def _layer(method: str, picture: Mapping[str, Any], figures_dir: Path, alt: str) -> dict[str, Any]:
    alt = alt.replace("colour_fa", "colour FA").replace(" fa,", " FA,").replace(" md,", " MD,")
    return {
        "method": method,
        "box": picture["box"],
        "uri": data_uri(figures_dir / picture["file"]),
        "alt": alt[:1].upper() + alt[1:],
    }


def _registration(record: Mapping[str, Any], figures: Mapping[str, Any], figures_dir: Path) -> dict[str, Any] | None:
    """The b0 and T1w layers of each plane, with the T1w's borders, and how far the T1w was moved."""
    drawn, numbers = figures.get("registration") or {}, record.get("registration")
    if not drawn and not numbers:
        return None
    stages = [
        {
            "plane": plane,
            "size": figures["planes"][plane]["size_mm"],
            "letters": figures["planes"][plane]["letters"],
            "layers": [
                _layer("b0", drawn["b0"][plane], figures_dir, f"mean b0, {plane} slice"),
                _layer("T1w", drawn["t1w"][plane], figures_dir, f"T1w inside the brain mask, {plane} slice"),
            ],
            "lines": _layer("", drawn["contours"][plane], figures_dir, f"tissue borders of the T1w, {plane} slice"),
        }
        for plane in PLANE_NAMES
        if drawn and plane in drawn["b0"]
    ]
    return {"numbers": numbers, "stages": stages}


def _mask(record: Mapping[str, Any], figures: Mapping[str, Any], figures_dir: Path) -> dict[str, Any] | None:
    """The outline of the brain mask on the acquired b0, and where the mask came from."""
    outlines, b0 = figures.get("mask") or {}, (figures.get("b0") or {}).get("acquired") or {}
    planes = [plane for plane in PLANE_NAMES if plane in outlines and plane in b0]
    if not planes:
        return None
    return {
        "stages": [
            {
                "plane": plane,
                "size": figures["planes"][plane]["size_mm"],
                "letters": figures["planes"][plane]["letters"],
                "layer": _layer("b0", b0[plane], figures_dir, f"mean b0, {plane} slice"),
                "lines": _layer("", outlines[plane], figures_dir, f"outline of the brain mask, {plane} slice"),
            }
            for plane in planes
        ]
    }


def _distributions(histograms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One small chart per map and tissue."""
    return [
        {"map": key.upper(), "tissue": tissue, "range": entry["range"], "lines": histogram_lines(shares)}
        for key, entry in histograms.items()
        for tissue, shares in entry.items()
        if tissue != "range"
    ]


def _agreement(entries: Mapping[str, Mapping[str, Any]], figures_dir: Path) -> list[dict[str, Any]]:
    """Scatter and Bland-Altman of each map and method."""
    return [
        {
            "map": key.upper(),
            "method": method,
            "statistics": entry["statistics"],
            "scatter": data_uri(figures_dir / entry["scatter"]["file"]),
            "bland_altman": data_uri(figures_dir / entry["bland_altman"]["file"]),
            "range": entry["range"],
            "difference_range": entry["difference_range"],
        }
        for key, methods in entries.items()
        for method in METHODS
        if (entry := methods.get(method)) is not None
    ]


#: How the self-check's verdict is marked, by its level.
_CHECK_MARKS = {"yes": "good", "partly": "warning", "no": "bad"}
#: What its pictures show.
_CHECK_TITLES = {"dwi": "One diffusion-weighted volume", "fa": "FA"}


def _self_check(check: Mapping[str, Any], figures_dir: Path) -> dict[str, Any] | None:
    """The self-check: its verdict or why there is none, its pictures, and its table as measures by tissues."""
    if not check:
        return None
    measures: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in check.get("rows", ()):
        measures.setdefault(str(row["measure"]), {})[str(row["tissue"])] = row
    tissues = {row["tissue"]: row["n_voxels"] for row in check.get("rows", ())}
    return {
        "check": check,
        "mark": _CHECK_MARKS.get(check.get("level", ""), ""),
        "table": {"tissues": tissues, "measures": measures},
        "pictures": _check_pictures(check.get("figures") or {}, figures_dir),
    }


def _check_pictures(figures: Mapping[str, Any], figures_dir: Path) -> list[dict[str, Any]]:
    """One row of pictures per contrast: the versions side by side, then where one of them is closer."""
    plane = figures.get("plane") or {}
    return [
        {
            "contrast": contrast,
            "title": title,
            "about": figures[contrast],
            "plane": plane,
            "size": plane["size_mm"],
            "letters": plane["letters"],
            "layers": [
                _layer(version, figures[contrast][version], figures_dir, f"{NAMES.get(version, version)}, {title}")
                for version in (*METHODS, "gain")
            ],
        }
        for contrast, title in _CHECK_TITLES.items()
        if contrast in figures
    ]


#: What the pictures of the guards show, by their names in the record.
_WORST_TAGS = {"acquired": "acquired", "sr": "super-resolved, sampled again", "departure": "departure"}
_MOST_TAGS = {"without": "without the T1w", "sr": "with the T1w", "change": "change of the signal"}


def _departure(part: Mapping[str, Any], figures: Mapping[str, Any], figures_dir: Path) -> dict[str, Any] | None:
    """Where the result departs from the scan, or why that is not told: its maps, and cuts through the worst region."""
    if not part:
        return None
    drawn = part.get("figures") or {}
    worst = drawn.get("worst") or {}
    methods = [method for method in ("cubic", "sr") if method in part]
    return {
        "part": part,
        "methods": methods,
        "shells": list(zip(*(part[method]["shells"] for method in methods), strict=True)),
        "maps": _departure_maps(drawn.get("maps") or {}, figures, figures_dir),
        "worst": worst,
        "cells": _cells(worst, _WORST_TAGS, figures_dir),
    }


def _departure_maps(maps: Mapping[str, Any], figures: Mapping[str, Any], figures_dir: Path) -> list[dict[str, Any]]:
    """One viewer of the departures; none where nothing was drawn."""
    viewer = {
        "contrast": "departure",
        "title": "Departure from the acquired scan",
        "meaning": "regional averages, in each voxel of the shell that departs most",
        "volume": None,
        "b": None,
        "window": maps.get("range"),
        **_layers(figures, {m: maps[m] for m in METHODS if m in maps}, figures_dir, "departure"),
    }
    return [viewer] if maps and viewer["stages"] else []


def _t1w_effect(part: Mapping[str, Any], figures_dir: Path) -> dict[str, Any] | None:
    """What the T1w changed, or why that is not told: its map, and cuts through the place that changed most."""
    if not part:
        return None
    drawn = part.get("figures") or {}
    most, maps = drawn.get("most") or {}, drawn.get("maps") or {}
    planes = most.get("planes") or {}
    change = maps.get("sr") or {}
    return {
        "part": part,
        "most": most,
        "map": [
            {
                **about,
                "tag": plane,
                "layer": _layer("sr", change[plane], figures_dir, f"change by the T1w, {plane} slice"),
            }
            for plane, about in planes.items()
            if plane in change
        ],
        "range": maps.get("range"),
        "cells": _cells(most, _MOST_TAGS, figures_dir),
    }


_UNCERTAINTY_TAGS = {"dwi": "weighted volumes, mean", "fa": "FA", "md": "MD"}


def _uncertainty(part: Mapping[str, Any], figures_dir: Path) -> dict[str, Any] | None:
    """How uncertain the result is; None where that was not asked for."""
    if not part:
        return None
    drawn = part.get("figures") or {}
    return {"part": part, "ranges": drawn.get("ranges"), "cells": _cells(drawn, _UNCERTAINTY_TAGS, figures_dir)}


def _cells(drawn: Mapping[str, Any], tags: Mapping[str, str], figures_dir: Path) -> list[dict[str, Any]]:
    """Cuts through a place, plane by plane: one picture per version, with its tag."""
    return [
        {**about, "tag": tag, "layer": _layer(version, drawn[version][plane], figures_dir, f"{tag}, {plane} slice")}
        for plane, about in (drawn.get("planes") or {}).items()
        for version, tag in tags.items()
    ]


def _tables(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparison with the acquired maps, and with the truth where it is known."""
    kinds = {"tensor_table": "acquired", "truth_table": "truth"}
    return [
        {"against": against, "groups": table_groups(rows), "means": _methods_of(rows)}
        for key, against in kinds.items()
        if (rows := record.get(key))
    ]


def _methods_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods of a table, the reference first."""
    present = {row["method"] for row in rows}
    return [method for method in ("truth", "orig", "cubic", "sr") if method in present]


def table_groups(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a tensor table as one group per map, one line per tissue, with the methods side by side.

    Each line has "tissue", "n_voxels", method to row, and "better": per figure (mae, correlation, v1_angle) the method
    that comes out ahead, or none where either is missing or both are equal to three digits.
    """
    groups: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for row in rows:
        groups.setdefault(str(row["map"]), {}).setdefault(str(row["tissue"]), {})[str(row["method"])] = row
    return [
        {
            "map": key,
            "lines": [
                {
                    "tissue": tissue,
                    "n_voxels": next(iter(methods.values())).get("n_voxels"),
                    "methods": methods,
                    "better": {
                        "mae": _better(methods, "mae", -1),
                        "correlation": _better(methods, "correlation", 1),
                        "v1_angle": _better(methods, "v1_angle", -1),
                    },
                }
                for tissue, methods in tissues.items()
            ],
        }
        for key, tissues in groups.items()
    ]


def _better(methods: Mapping[str, Mapping[str, Any]], figure: str, sign: int) -> str:
    """Which of cubic and sr has the larger `sign` x figure; empty where that cannot be said."""
    values = [methods.get(method, {}).get(figure) for method in ("cubic", "sr")]
    if any(number(value) == "–" for value in values):
        return ""
    cubic, restored = (float(f"{value:.3g}") * sign for value in values)  # type: ignore[str-format]
    return "" if cubic == restored else ("sr" if restored > cubic else "cubic")


def _gradients(record: Mapping[str, Any], table: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The gradient scheme: its summary, its directions on a disc and the table itself."""
    summary = record.get("gradients")
    if not summary and not table:
        return None
    threshold = float((record.get("options") or {}).get("b0_threshold", 50.0))
    bvals, bvecs = (table["bvals"], table["bvecs"]) if table else ([], [])
    return {
        "summary": summary,
        "shells": shell_values(bvals, threshold),
        "directions": directions(bvals, bvecs, threshold),
        "rows": list(zip(bvals, bvecs, strict=True)),
    }


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run, in a few short lines."""
    model, inputs, mask = (record.get(key) or {} for key in ("model", "inputs", "mask"))
    gradients, seconds = record.get("gradients") or {}, record.get("seconds") or {}
    shells = ", ".join(f"{shell['n']} at b = {shell['b']:.0f}" for shell in gradients.get("shells", ()))
    facts = [
        ("T1w", _t1w_fact(inputs, model, record.get("t1w") or {}) if inputs else None),
        ("Model", f"{model['name']}: {model.get('description', '')}".rstrip(": ") if model else None),
        ("Parameters", f"{model['parameters']:,}" if model.get("parameters") else None),
        ("Fit to this series", _fit_fact(record.get("fit") or {})),
        ("Device", model.get("device")),
        ("Time", duration(seconds["total"]) if "total" in seconds else None),
        ("Volumes", f"{gradients['n_volumes']}: {gradients['n_b0']} b0, {shells}".rstrip(", ") if gradients else None),
        ("Self-check", _CHECK_FACTS.get((record.get("self_check") or {}).get("level", ""))),
        ("Departure", _departure_fact(record.get("departure") or {})),
        ("Effect of the T1w", _effect_fact(record.get("t1w_effect") or {})),
        ("Brain mask", f"{_MASKS.get(mask['source'], mask['source'])}, {mask['volume_ml']:.0f} ml" if mask else None),
    ]
    return [(name, str(value)) for name, value in facts if value]


_CHECK_FACTS = {
    "yes": "super-resolution helped on this scan",
    "partly": "super-resolution helped on this scan only in part",
    "no": "super-resolution did not help on this scan",
}


def _fit_fact(fit: Mapping[str, Any]) -> str | None:
    """What a model that learns from the scan has learned, and how long that took."""
    if not fit:
        return None
    return (
        f"{fit['sentence']} {fit['steps']:,} steps, {duration(fit['seconds'])}." if fit["learned"] else fit["sentence"]
    )


def _departure_fact(part: Mapping[str, Any]) -> str | None:
    """How much of the brain departs from the acquired scan."""
    if not part.get("done"):
        return None
    if not part["sr"]["voxels"]:
        return None
    compared = f" (cubic {part['cubic']['share']:.1%})" if "cubic" in part else ""
    return f"from the acquired scan beyond its noise in {part['sr']['share']:.1%} of the brain{compared}"


def _effect_fact(part: Mapping[str, Any]) -> str | None:
    """How much the T1w changed."""
    if not part.get("done"):
        return None
    brain = part["tissues"]["brain"]
    tensor = f", FA by {brain['fa']:.3f}" if "fa" in brain else ""
    return f"it changed the signal by {brain['mean']:.2f} times the noise{tensor}"


_MASKS = {"given": "given with the data", "median_otsu": "made from the b0 (median Otsu)"}


def _t1w_fact(inputs: Mapping[str, Any], model: Mapping[str, Any], t1w: Mapping[str, Any]) -> str:
    """Which T1w there is, and whether it took part; `t1w` is what the record tells of a model that uses it."""
    if not inputs.get("t1w"):
        return "none; the model was given zeros in its place" if model.get("uses_t1w") else "none"
    if not model.get("uses_t1w", True):
        use = "; shown for orientation, this model does not use it"
    elif t1w and not t1w["used"]:
        use = f"; the model was given zeros in its place: {t1w['reason']}"
    else:
        use = "; it guided the model" if t1w else ""
    return f"{inputs.get('t1w_note') or 'given'}{use}"


def _provenance(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is needed to run it again."""
    inputs = [(f"Input {name}", uri) for name, uri in (record.get("inputs") or {}).items() if name != "t1w_note"]
    seconds = [f"{name.replace('_', ' ')} {duration(s)}" for name, s in (record.get("seconds") or {}).items()]
    options = ", ".join(f"{name} = {value}" for name, value in (record.get("options") or {}).items())
    items = [
        *inputs,
        ("Weights (SHA-256)", (record.get("model") or {}).get("weights_sha256")),
        ("Started", record.get("started")),
        ("Time spent", ", ".join(seconds)),
        ("Version", record.get("version")),
        ("Command", record.get("command_line")),
        ("Options", options),
        ("Fingerprint", record.get("fingerprint")),
    ]
    return [(name, str(value)) for name, value in items if value]


def grey_level(value: float) -> str:
    """A signal in scanner units, to about four digits and never with an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.4g}'):g}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 5 s`, `1 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

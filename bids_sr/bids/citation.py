"""The methods text of a run: only what was done, with the references it needs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids_sr.bids.outputs import write_text

SOFTWARE = {
    "nipype": "Nipype",
    "pybids": "PyBIDS",
    "nibabel": "NiBabel",
    "dipy": "DIPY",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "scipy": "SciPy",
}
_CITATION_KEYS = {"torch": "pytorch"}
_ENTRY = re.compile(r"@(?P<kind>\w+)\{(?P<key>[\w-]+),\n(?P<fields>.*?)\n\}", re.DOTALL)
_FIELD = re.compile(r"^\s*(\w+) = \{(.*)\},?$", re.MULTILINE)
_ACCENTS = {r"\'e": "é", r"\^o": "ô", r"\u{a}": "ă", r"\"u": "ü", r"\`e": "è"}


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography: its key, its fields as plain text, its BibTeX source and where it resolves."""

    key: str
    fields: Mapping[str, str]
    bibtex: str

    @property
    def url(self) -> str:
        """The address that leads to the work."""
        return f"https://doi.org/{self.fields['doi']}" if "doi" in self.fields else self.fields["url"]

    @property
    def text(self) -> str:
        """Authors (year). Title. Where."""
        where = self.fields.get("journal") or self.fields.get("booktitle") or self.fields.get("publisher", "")
        if "eprint" in self.fields:
            where += f" {self.fields['eprint']}" if where == "arXiv" else f", arXiv {self.fields['eprint']}"
        numbers = ":".join(self.fields[name] for name in ("volume", "pages") if name in self.fields)
        place = " ".join(part for part in (where, numbers) if part).replace("--", "–")
        authors, year, title = (self.fields[name] for name in ("author", "year", "title"))
        return f"{_short_authors(authors)} ({year}). {title}. {place}."


def software_versions() -> dict[str, str]:
    """Installed versions of what a run stands on, for the record's "software"; without what is absent."""
    found = {}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def methods_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Describe what was done to the series that finished.

    Parameters
    ----------
    records : sequence of mappings
        One record per series. What a record lacks is not mentioned; versions are those in its "software".

    Returns
    -------
    str
        Markdown: a heading and paragraphs, with `[@key]` citations of data/references.bib.
    """
    done = [record for record in records if record.get("status") == "done"]
    if not done:
        return "# Methods\n\nNo series was finished, so there is nothing to describe."
    about = (_overview, _preprocessing, _super_resolution, _tensor, _self_check, _guards, _uncertainty)
    parts = [write(done) for write in about]
    return "\n\n".join(["# Methods", *(part for part in parts if part)])


def cited_keys(text: str) -> list[str]:
    """Keys that a text cites, in the order of their first mention."""
    groups = re.findall(r"\[(@[^\]]+)\]", text)
    return list(dict.fromkeys(key for group in groups for key in re.findall(r"@([\w-]+)", group)))


def references(keys: Iterable[str]) -> list[Reference]:
    """Entries of the bibliography in the order of the keys; KeyError for one that it does not hold."""
    known = bibliography()
    return [known[key] for key in keys]


@cache
def bibliography() -> dict[str, Reference]:
    """Every entry of data/references.bib by its key."""
    source = files("bids_sr").joinpath("data", "references.bib").read_text(encoding="utf-8")
    return {
        entry["key"]: Reference(
            entry["key"],
            {name: _plain(value) for name, value in _FIELD.findall(entry["fields"])},
            entry.group(),
        )
        for entry in _ENTRY.finditer(source)
    }


def write_citation(output_dir: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write CITATION.md and CITATION.bib at the root of the output dataset, each whole or not at all.

    Parameters
    ----------
    output_dir : Path
        Root of the output dataset.
    records : sequence of mappings
        One record per series, of every subject that the text shall cover.
    """
    text = methods_text(records)
    cited = references(cited_keys(text))
    listed = "\n".join(f"- **{entry.key}**: {entry.text} <{entry.url}>" for entry in cited)
    write_text(output_dir / "CITATION.md", f"{text}\n\n# References\n\n{listed}\n" if cited else f"{text}\n")
    write_text(output_dir / "CITATION.bib", "\n\n".join(entry.bibtex for entry in cited) + "\n")


def _overview(records: Sequence[Mapping[str, Any]]) -> str:
    versions = _join({str(record["version"]) for record in records if record.get("version")})
    n_series = f"{len(records)} diffusion MRI series" if len(records) > 1 else "One diffusion MRI series"
    verb = "were" if len(records) > 1 else "was"
    software: dict[str, set[str]] = {}
    for record in records:
        for name, number in (record.get("software") or {}).items():
            software.setdefault(name, set()).add(str(number))
    built = [
        f"{SOFTWARE[name]} {_join(software[name])} [@{_CITATION_KEYS.get(name, name)}]"
        for name in SOFTWARE
        if name in software
    ]
    standing = f" It stands on {_join(built)}." if built else " It stands on Nipype [@nipype] and PyBIDS [@pybids]."
    return (
        f"{n_series} {verb} super-resolved with bids_sr {versions}".rstrip()
        + f", a BIDS App [@bidsapps] that reads and writes the Brain Imaging Data Structure [@bids].{standing}"
    )


def _preprocessing(records: Sequence[Mapping[str, Any]]) -> str:
    thresholds = {float(record.get("options", {}).get("b0_threshold", 50.0)) for record in records}
    limits = _join({f"{threshold:g}" for threshold in thresholds})
    sentences = [
        "The gradient table was checked and used as given.",
        f"Volumes with b ≤ {limits} s/mm² were averaged into a mean b0 image.",
    ]
    sources = {(record.get("mask") or {}).get("source") for record in records}
    if "given" in sources:
        sentences.append("The brain mask that came with the data was used.")
    if "median_otsu" in sources:
        some = "Where none was given, the" if "given" in sources else "The"
        sentences.append(f"{some} brain mask was made from the mean b0 by DIPY's median Otsu method [@dipy; @otsu].")
    if any(record.get("registration") for record in records):
        sentences.append(
            "The T1-weighted image was registered rigidly to the mean b0 by maximizing their mutual information inside "
            "the brain [@maes], and kept at its own resolution: only its affine was changed."
        )
    if any(not (record.get("inputs") or {}).get("t1w") for record in records):
        which = "Some series had" if any((r.get("inputs") or {}).get("t1w") for r in records) else "There was"
        sentences.append(f"{which} no T1-weighted image.")
    return " ".join(sentences)


def _super_resolution(records: Sequence[Mapping[str, Any]]) -> str:
    models = _distinct(record.get("model") for record in records)
    sentences = [_model_sentence(model) + _t1w_sentence(model, records) for model in models]
    changes = list(dict.fromkeys(_grid_change(record["grids"]) for record in records if record.get("grids")))
    if changes:
        sentences.append(f"Voxels of {_join(changes)}.")
    sentences.append(
        "Every volume was restored on its own; the axes, the number of volumes, the b-values and the b-vectors are "
        "those of the input. Outside the brain mask the output is the input interpolated with cubic B-splines [@unser]."
    )
    return " ".join(sentences)


#: How signals are put to a model, by the card's word for it.
_NORMALIZATIONS = {
    "shell": "Each volume was divided by the median of its shell's mean volume in the brain.",
    "b0": "Diffusion-weighted volumes were divided by the mean b0, b0 volumes by its 99th percentile in the brain.",
}
#: What a model is, by the card's architecture.
_ARCHITECTURES = {
    "csr_dmri": "a residual dense encoder [@rdn] with an implicit decoder that answers at any point [@liif], after "
    "CSR-dMRI [@csrdmri]",
    "rdn": "a residual dense network [@rdn] on the interpolated volume",
    "dcsrn": "DCSRN, a densely connected network on the interpolated volume",
    "rescnn3d": "ResCNN3D, a residual network on the interpolated volume",
    "srcnn3d": "SRCNN in three dimensions, three convolutions that correct the interpolated volume",
    "vdsr3d": "VDSR in three dimensions, a deep network that corrects the interpolated volume",
    "mdcsrn": "mDCSRN, densely connected blocks that correct the interpolated volume",
    "unet3d": "a three-dimensional U-Net that corrects the interpolated volume",
    "swin3d": "SwinIR [@swinir] in three dimensions, convolutions and attention in shifted windows that correct the "
    "interpolated volume",
    "ddpm3d": "a denoising diffusion model [@ddpm] of what the interpolated volume lacks, sampled by DDIM [@ddim]",
    "smore": "a residual network on slices that was fitted to each series by itself, after SMORE [@smore]: it learned "
    "within the slices what thick slices lack; other axes were interpolated by cubic B-splines",
    "inr": "a field over space (an implicit neural representation) that was fitted to each series by itself, through "
    "the point-spread function of its voxels",
}


def _model_sentence(model: Mapping[str, Any]) -> str:
    if model.get("name") in ("cubic", "trilinear"):
        how = "with cubic B-splines [@unser]" if model["name"] == "cubic" else "trilinearly"
        return f"Volumes were interpolated {how}; no network was used."
    size = f", {model['parameters']:,} parameters" if model.get("parameters") else ""
    weights = f", weights SHA-256 {model['weights_sha256'][:12]}" if model.get("weights_sha256") else ""
    device = f" on {model['device']}" if model.get("device") else ""
    kind = _ARCHITECTURES.get(model.get("architecture", ""))
    return (
        f"{_NORMALIZATIONS.get(model.get('normalization', ''), '')} All were restored by the model "
        f"'{model.get('name')}'{size}{weights}, run with PyTorch [@pytorch]{device}{f': {kind}' if kind else ''}."
    ).lstrip()


def _t1w_sentence(model: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Whether the T1w guided a network, with a space before it; nothing where that is not known."""
    if model.get("name") in ("cubic", "trilinear") or "uses_t1w" not in model:
        return ""
    if not model["uses_t1w"]:
        return " It does not use the T1-weighted image."
    used = [bool((record.get("t1w") or {}).get("used")) for record in records if record.get("model") == model]
    if all(used):
        return " It was guided by the T1-weighted image."
    if any(used):
        share = f"{sum(used)} of {len(used)} series"
        return f" It was guided by the T1-weighted image in {share} and given zeros in its place in the others."
    return " It is made to be guided by the T1-weighted image, but was given zeros in its place."


def _tensor(records: Sequence[Mapping[str, Any]]) -> str:
    if not any(record.get("tensor_table") for record in records):
        return ""
    text = (
        "The diffusion tensor [@basser] was fitted by weighted least squares [@wls] with DIPY [@dipy], before and "
        "after. The maps after super-resolution, and after cubic B-spline interpolation for comparison, were averaged "
        "back onto the acquired grid and compared with the acquired maps per tissue class."
    )
    figures = [record.get("figures") or {} for record in records]
    if any("colour_fa" in entry for entry in figures):
        text += " Directions are shown in colour after Pajevic and Pierpaoli [@pajevic]."
    if any(entry.get("agreement") for entry in figures):
        text += " Agreement is given as bias with 95 % limits after Bland and Altman [@blandaltman]."
    if any(record.get("truth_table") for record in records):
        text += " The dataset carries a known truth; errors against it are given too."
    return text


def _self_check(records: Sequence[Mapping[str, Any]]) -> str:
    """How the restoration was tried on the scans themselves; nothing where it was not."""
    checks = [check for record in records if (check := record.get("self_check") or {}).get("done")]
    if not checks:
        return ""
    text = (
        "To see whether super-resolution helps on the scans at hand, volumes of each were degraded by the scale asked "
        "for, through a Gaussian point-spread function as wide at half its maximum as the larger voxels, restored onto "
        "the acquired grid by the same model and by cubic B-splines [@unser], and compared with what was acquired."
    )
    helped = [sum(check.get("level") == level for check in checks) for level in ("yes", "partly", "no")]
    words = ("it helped", "it helped in part", "it did not help")
    counts = [f"{word} on {n}" for word, n in zip(words, helped, strict=True) if n]
    return f"{text} Over the whole brain, of {len(checks)} series, {_join(counts)}."


def _guards(records: Sequence[Mapping[str, Any]]) -> str:
    """How the results were compared with what supports them; nothing where they were not."""
    texts = {
        "departure": "The restored series were sampled again with the acquired voxels, and the mean of each shell was "
        "compared with the acquired one in units of its standard error by the noise, which was estimated from what a "
        "smooth function of the gradient direction leaves of the acquired signals.",
        "t1w_effect": "To see what the T1-weighted image changed, a part of the volumes was restored without it too.",
    }
    done = [part for part in texts if any((record.get(part) or {}).get("done") for record in records)]
    return " ".join(texts[part] for part in done)


def _uncertainty(records: Sequence[Mapping[str, Any]]) -> str:
    """Where the standard deviations come from; nothing where there are none."""
    if not any(record.get("uncertainty") for record in records):
        return ""
    learned = any((record.get("uncertainty") or {}).get("calibration") for record in records)
    origin = ", which it had learned from its errors on real scans" if learned else ""
    return (
        f"The model also gave a standard deviation of each restored intensity{origin}. These were carried to FA and MD "
        "by drawing tensors from the covariance of the fit."
    )


def _grid_change(grids: Mapping[str, Mapping[str, Any]]) -> str:
    before, after = (" × ".join(f"{size:g}" for size in _rounded(grids[name])) for name in ("acquired", "target"))
    return f"{before} mm became {after} mm"


def _rounded(grid: Mapping[str, Any]) -> list[float]:
    return [round(float(size), 3) for size in grid["voxel_sizes"]]


def _distinct(values: Iterable[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """Mappings that differ, in order, without empty ones."""
    found: list[Mapping[str, Any]] = []
    for value in values:
        if value and value not in found:
            found.append(value)
    return found


def _join(words: Iterable[str]) -> str:
    """Words as an enumeration; those of a set in alphabetical order."""
    listed = sorted(words) if isinstance(words, set) else list(words)
    return " and ".join([", ".join(listed[:-1]), listed[-1]]) if len(listed) > 1 else "".join(listed)


def _short_authors(authors: str) -> str:
    """Up to six surnames with initials; more than six become three and `et al.`."""
    names = [name for name in authors.split(" and ") if name != "others"]
    short = [f"{last} {''.join(word[0] for word in first.split())}".strip() for last, _, first in map(_parts, names)]
    cut = len(names) > 6 or "others" in authors.split(" and ")
    return ", ".join(short[:3]) + " et al." if cut else ", ".join(short)


def _parts(name: str) -> tuple[str, str, str]:
    return name.partition(", ")


def _plain(value: str) -> str:
    """BibTeX text without its braces and accents' commands."""
    for command, letter in _ACCENTS.items():
        value = value.replace(command, letter)
    return re.sub(r"[{}]", "", value)

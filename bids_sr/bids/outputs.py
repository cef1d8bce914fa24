"""Names, metadata and writing of the output dataset's files."""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_sr import __version__
from bids_sr.bids.inputs import DwiSeries, join_entities, parse_entities, read_description, sort_entities
from bids_sr.config import NAME, Config

if TYPE_CHECKING:
    import nibabel as nib

    from bids_sr.models.registry import ModelCard

BIDS_VERSION = "1.10.0"
#: Name of the source dataset in BIDS URIs.
SOURCE = "raw"

# zlib's window and format: gzip. It goes with run-length matching (Z_RLE): on an interpolated float32 series, 108 MB/s
# and 0.740 of the size on one core, against 48 MB/s and 0.745 for ordinary level 1, 21 MB/s and 0.729 for level 6.
_GZIP = 31

# Entities that a suffix does not allow in a file name (BIDS schema 1.11).
_REFUSED_ENTITIES = {
    "T1w": ("dir",),
    "FA": ("part",),
    "ADC": ("part",),
    "colFA": ("part",),
    "S0map": ("part",),
}

# Metadata of the acquired series that hold for the restored one too: the timing and the hardware, not the sampling.
_KEPT_METADATA = (
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "EchoTime",
    "RepetitionTime",
    "FlipAngle",
    "PhaseEncodingDirection",
    "MultibandAccelerationFactor",
    "PartialFourier",
    "ParallelReductionFactorInPlane",
)

DESCRIPTIONS = {
    "sr": "Restored by super-resolution on the grid asked for, and what is derived from that.",
    "orig": "On the acquired grid, from the acquired data.",
    "cubic": "Interpolated by cubic B-splines on the grid asked for: the baseline to compare with.",
    "brain": "Brain mask.",
    "preproc": "T1w image whose header places it in the world of the diffusion series; its voxels are unchanged.",
    "tensor": "Diffusion tensor maps before and after, summarized by tissue.",
    "selfcheck": "The acquired scan degraded, restored and compared with itself, by tissue.",
    "departure": "Where the restored series departs from the acquired one beyond the noise, on the acquired grid.",
    "uncertainty": "How uncertain the restored series, FA and MD are: standard deviations.",
    "t1weffect": "What the T1w image changed in the restored series, on the acquired grid.",
}

_DESCRIPTIONS_SIDECAR = '{"Description": "What the desc entity of file names stands for."}\n'

# `figures` without a slash: with one, bids-validator-deno 3.0 refuses the folder itself. Gradient files because BIDS
# allows them for raw series only. Maps because their suffix is not in the standard yet (BEP016).
BIDSIGNORE = "*.html\nfigures\nlog\n*_dwimap.*\n*_stats.*\ngroup_*\n*.bval\n*.bvec\nCITATION.md\nCITATION.bib\n"

COLUMNS = {
    "map": "Tensor map: FA (fractional anisotropy), MD, AD or RD (mean, axial or radial diffusivity in mm2/s).",
    "tissue": "Tissue class: WM, GM, CSF, or brain for the whole mask.",
    "method": "orig: acquired data on the acquired grid. sr, cubic: restored or interpolated, averaged back onto it.",
    "n_voxels": "Voxels of the acquired grid in this class.",
    "mean": "Mean over the class.",
    "sd": "Standard deviation over the class.",
    "median": "Median over the class.",
    "bias": "Mean difference from the acquired map.",
    "mae": "Mean absolute difference from the acquired map.",
    "correlation": "Pearson correlation with the acquired map.",
    "v1_angle": "Median angle between the principal directions of this and the acquired tensor, in degrees.",
}

SELF_CHECK_COLUMNS = {
    "measure": "PSNR (dB) and SSIM: means over the weighted volumes checked, larger is closer. FA, MD: mean absolute "
    "error, of MD in mm2/s. V1: median angle between principal directions in degrees where FA exceeds 0.3.",
    "tissue": "Tissue class: WM, GM, CSF, or brain for the whole mask.",
    "n_voxels": "Voxels of the acquired grid in this class.",
    "cubic": "Of the degraded scan interpolated by cubic B-splines, against the acquired scan.",
    "sr": "Of the degraded scan restored by the model, against the acquired scan.",
    "closer": "Which of the two is closer to the acquired scan; equal where they agree to three digits.",
}


@dataclass(frozen=True)
class OutputLayout:
    """Where the files of the output dataset are.

    Attributes
    ----------
    output_dir : Path
        Root of the output dataset.
    """

    output_dir: Path

    def path(
        self,
        series: DwiSeries,
        suffix: str,
        *,
        extension: str,
        desc: str | None = None,
        res: str | None = None,
        space: str | None = None,
        model: str | None = None,
        param: str | None = None,
        datatype: str = "dwi",
    ) -> Path:
        """Path of a file made from a series.

        The entities of the source are kept, apart from those that BIDS refuses for the suffix.

        Parameters
        ----------
        series : DwiSeries
            What it is made from.
        suffix, extension : str
            Such as ``dwi`` and ``.nii.gz``.
        desc, res, space, model, param : str, optional
            Entities of the new file; `space` and `res` of the source are kept where none is given.
        datatype : str
            Folder: ``dwi`` or ``anat``.
        """
        entities = {key: value for key, value in series.entities.items() if key != "desc"}
        new = {"space": space, "res": res, "model": model, "param": param, "desc": desc}
        entities |= {key: value for key, value in new.items() if value is not None}
        name = join_entities(sort_entities(allowed_entities(entities, suffix)))
        return self.folder(series) / datatype / f"{name}_{suffix}{extension}"

    def folder(self, series: DwiSeries) -> Path:
        """Folder of the series' subject, or of its session where there is one."""
        subject = self.output_dir / f"sub-{series.entities['sub']}"
        return subject / f"ses-{series.entities['ses']}" if "ses" in series.entities else subject

    def figures(self, series: DwiSeries) -> Path:
        """Folder of the subject's pictures and records."""
        return self.output_dir / f"sub-{series.entities['sub']}" / "figures"

    def report(self, subject: str) -> Path:
        """Path of a subject's report."""
        return self.output_dir / f"sub-{subject}.html"

    @property
    def logs(self) -> Path:
        """Folder of logs, crash files and records of runs."""
        return self.output_dir / "logs"


def resolution_label(voxel_sizes: Sequence[float] | NDArray[np.floating[Any]]) -> str:
    """Label of a voxel size in mm, (3,), for the `res` entity: ``1p25``, or ``1p5x1p5x2`` where the axes differ.

    BIDS allows letters and digits only. Sizes are rounded to a thousandth of a mm.
    """
    labels = [f"{size:.3f}".rstrip("0").rstrip(".").replace(".", "p") for size in voxel_sizes]
    return labels[0] if len(set(labels)) == 1 else "x".join(labels)


def dataset_links(config: Config) -> dict[str, Path]:
    """Name in BIDS URIs of every dataset that a run reads or writes; the empty name is the output itself."""
    return {"": config.output_dir, SOURCE: config.bids_dir} | dict(config.derivatives)


def bids_uri(links: Mapping[str, Path], path: Path) -> str:
    """BIDS URI of a file, ``bids::sub-01/...`` in the output dataset or ``bids:raw:sub-01/...`` in another.

    Parameters
    ----------
    links : mapping
        Folder of each dataset by its name, from `dataset_links`.
    path : Path
        A file in one of them.

    Raises
    ------
    ValueError
        Where the file is in none of the datasets.
    """
    holding = {name: root for name, root in links.items() if path.is_relative_to(root)}
    if not holding:
        raise ValueError(f"{path} is in none of the datasets {', '.join(str(root) for root in links.values())}")
    # A dataset may lie inside another (raw/derivatives/...), the innermost one is meant.
    name = max(holding, key=lambda name: len(holding[name].parts))
    return f"bids:{name}:{path.relative_to(holding[name]).as_posix()}"


def sidecar_of(
    path: Path,
    series: DwiSeries,
    *,
    description: str,
    sources: Sequence[str],
    voxel_sizes: Sequence[float] | NDArray[np.floating[Any]] | None = None,
    spatial_reference: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Metadata that BIDS asks for beside a derivative image.

    Parameters
    ----------
    path : Path
        The image; its name tells which fields are needed.
    series : DwiSeries
        What it is made from.
    description : str
        What the image shows, for people.
    sources : sequence of str
        BIDS URIs of the files it is made from.
    voxel_sizes : array_like, (3,), optional
        Voxel size in mm, needed where the name has a `res` entity.
    spatial_reference : str, optional
        BIDS URI of the image that defines the space, where the name has a `space` entity; by default what the source
        says, or the source itself.
    extra : mapping, optional
        Further fields.
    """
    entities = parse_entities(path)
    suffix = path.name.partition(".")[0].rpartition("_")[2]
    fields: dict[str, Any] = {"Description": description, "Sources": list(sources)}
    if suffix == "mask":
        fields |= {"Type": "Brain", "SpatialReference": spatial_reference or _reference(series, sources)}
    else:
        fields["SkullStripped"] = bool(suffix == "dwi" and series.sidecar.get("SkullStripped", False))
    if "space" in entities:
        fields["SpatialReference"] = spatial_reference or _reference(series, sources)
    if "res" in entities and voxel_sizes is not None:
        fields["Resolution"] = " x ".join(f"{size:.4g}" for size in voxel_sizes) + " mm voxels"
    if suffix == "dwi":
        fields |= {key: series.sidecar[key] for key in _KEPT_METADATA if key in series.sidecar}
    return fields | dict(extra or {})


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A path to write to in the same folder; becomes `path` if all goes well, and is removed otherwise.

    The folder is made if needed. The temporary file is hidden and has the same extension, because writers go by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem, dot, extension = path.name.partition(".")
    temporary = path.with_name(f".{stem}-{uuid.uuid4().hex[:12]}{dot}{extension}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file for people to read, whole or not at all; it knows no number that is not finite."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=_plain, allow_nan=False) + "\n")


def save_image(
    path: Path,
    data: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    header_from: nib.Nifti1Header | None = None,
    sidecar: Mapping[str, Any] | None = None,
) -> None:
    """Write a compressed NIfTI-1 image and its sidecar; the same data give the same bytes.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``.
    data : ndarray, (x, y, z) or (x, y, z, n)
        Boolean and uint8 data are stored as uint8, all others as float32. A memory-mapped array is read volume by
        volume.
    affine : ndarray, (4, 4)
        Voxel index to world in mm; stored as both qform and sform.
    header_from : nibabel header, optional
        Its form codes and, for a series, its repetition time are kept.
    sidecar : mapping, optional
        Written beside the image as ``.json``.
    """
    dtype = np.dtype(np.uint8 if data.dtype in (np.bool_, np.uint8) else np.float32)
    header = image_header(data.shape, dtype, affine, header_from)
    volumes = np.moveaxis(data, -1, 0) if data.ndim == 4 else [data]
    with write_atomically(path) as temporary, temporary.open("wb") as stream:
        # zlib's gzip header has neither file name nor time, which would make equal images differ.
        gzip = zlib.compressobj(level=1, wbits=_GZIP, strategy=zlib.Z_RLE)
        stream.write(gzip.compress(header.binaryblock + bytes(4)))
        for volume in volumes:
            stream.write(gzip.compress(np.asarray(volume, dtype=dtype.newbyteorder("<")).tobytes(order="F")))
        stream.write(gzip.flush())
    if sidecar is not None:
        write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), sidecar)


def save_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] = COLUMNS) -> None:
    """Write rows as a TSV file, with the dictionary of their columns beside it as ``.json``.

    Parameters
    ----------
    path : Path
        Ends in ``.tsv``.
    rows : sequence of mapping
        Values by column; absent, None and not finite ones are written as ``n/a``.
    columns : mapping
        Description of each column that may occur, in order.
    """
    present = [name for name in columns if any(name in row for row in rows)] or list(columns)
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(present)
    table.writerows([table_cell(row.get(name)) for name in present] for row in rows)
    write_text(path, text.getvalue())
    write_json(path.with_suffix(".json"), {name: {"Description": columns[name]} for name in present})


def write_dataset_files(config: Config, model_card: ModelCard | None = None) -> None:
    """Write what belongs to the output dataset as a whole: its description, README, descriptions.tsv, .bidsignore.

    Files that already have the right content are left alone, so parallel jobs do not get into each other's way.
    """
    rows = "".join(f"desc-{name}\t{text}\n" for name, text in DESCRIPTIONS.items())
    description = json.dumps(dataset_description(config, model_card), indent=2, ensure_ascii=False) + "\n"
    write_if_changed(config.output_dir / "dataset_description.json", description)
    write_if_changed(config.output_dir / "README", _readme(config, model_card))
    write_if_changed(config.output_dir / "descriptions.tsv", f"desc_id\tdescription\n{rows}")
    write_if_changed(config.output_dir / "descriptions.json", _DESCRIPTIONS_SIDECAR)
    write_if_changed(config.output_dir / ".bidsignore", BIDSIGNORE)


def dataset_description(config: Config, model_card: ModelCard | None = None) -> dict[str, Any]:
    """Content of the output's ``dataset_description.json``."""
    source = read_description(config.bids_dir, required=False)
    source_name = str(source.get("Name") or config.bids_dir.name)
    given = source.get("Authors") or f"The authors of {source_name}"
    authors = [str(author) for author in (given if isinstance(given, list) else [given])]
    generator: dict[str, Any] = {
        "Name": NAME,
        "Version": __version__,
        "Description": _generator_text(config, model_card),
    }
    container = _container(os.environ)
    if container:
        generator["Container"] = container
    return {
        "Name": f"{NAME}: super-resolved diffusion MRI of {source_name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": str(source.get("License") or "That of the source dataset"),
        "Authors": list(dict.fromkeys([*authors, f"The {NAME} developers"])),
        "GeneratedBy": [generator],
        "SourceDatasets": [_source_dataset(config.bids_dir, source)],
        "DatasetLinks": {name: path.as_uri() for name, path in dataset_links(config).items() if name},
    }


def allowed_entities(entities: Mapping[str, str], suffix: str) -> dict[str, str]:
    """Entities that a suffix may carry; the direction, which tells two series apart, moves into `acq`."""
    refused = _REFUSED_ENTITIES.get(suffix, ())
    allowed = {key: value for key, value in entities.items() if key not in refused}
    if "dir" in refused and "dir" in entities:
        allowed["acq"] = f"{entities.get('acq', '')}dir{entities['dir']}"
    return allowed


def _reference(series: DwiSeries, sources: Sequence[str]) -> Any:
    """What defines the space of a series: what its sidecar says, or the series itself."""
    return _seen_from_here(series.sidecar.get("SpatialReference")) or (sources[0] if sources else "orig")


def _seen_from_here(reference: Any) -> Any:
    """URIs in a sidecar of the source, or in an object there, that name its own dataset, as they are named in ours."""
    if isinstance(reference, dict):
        return {key: _seen_from_here(value) for key, value in reference.items()}
    if isinstance(reference, str) and reference.startswith("bids::"):
        return f"bids:{SOURCE}:{reference.removeprefix('bids::')}"
    return reference


def image_header(
    shape: tuple[int, ...], dtype: np.dtype[Any], affine: NDArray[np.float64], source: nib.Nifti1Header | None
) -> nib.Nifti1Header:
    """Header of a single-file NIfTI-1 image, little endian on every machine."""
    import nibabel as nib

    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *([_repetition_time(source)] * (len(shape) - 3))])
    header.set_xyzt_units("mm", "sec")
    qform_code, sform_code = _form_codes(source)
    header.set_qform(affine, qform_code)
    header.set_sform(affine, sform_code)
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header


def _repetition_time(source: nib.Nifti1Header | None) -> float:
    """Seconds per volume; 1 where the source does not tell."""
    zooms = tuple(source.get_zooms()) if source is not None else ()
    unit = source.get_xyzt_units()[1] if source is not None else "sec"
    seconds = float(zooms[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0) if len(zooms) > 3 else 0.0
    return seconds or 1.0


def _form_codes(source: nib.Nifti1Header | None) -> tuple[int, int]:
    """Codes of qform and sform: the source's where set, each standing in for the other, else 1 (scanner)."""
    qform, sform = (int(source["qform_code"]), int(source["sform_code"])) if source is not None else (0, 0)
    return qform or sform or 1, sform or qform or 1


def table_cell(value: Any) -> str:
    """A value as a cell of a BIDS table: six digits; ``n/a`` for None and what is not finite."""
    if value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value)):
        return "n/a"
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)


def _plain(value: Any) -> Any:
    """A value of numpy or a path as JSON knows it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def write_if_changed(path: Path, text: str) -> None:
    """Write a text file unless it already has this content."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _generator_text(config: Config, model_card: ModelCard | None) -> str:
    """What made the dataset: model, weights, and the grid asked for."""
    parts = ["Super-resolution of diffusion MRI"]
    if model_card is not None:
        weights = f" (weights SHA-256 {model_card.weights_sha256})" if model_card.weights_sha256 else ""
        parts.append(f"model {model_card.name}{weights}")
    if config.output_resolution is not None:
        parts.append("voxels of " + " x ".join(f"{size:g}" for size in config.output_resolution) + " mm")
    if config.scale is not None:
        parts.append("scale " + " x ".join(f"{factor:g}" for factor in config.scale))
    return ", ".join([*parts, f"b0 up to {config.b0_threshold:g} s/mm2"]) + "."


def _container(environment: Mapping[str, str]) -> dict[str, str]:
    """The container image that runs this, as far as the environment tells."""
    tag = environment.get("BIDS_SR_CONTAINER_TAG")
    image = environment.get("APPTAINER_CONTAINER") or environment.get("SINGULARITY_CONTAINER")
    if image:
        return {"Type": "apptainer", "Tag": tag or Path(image).name}
    return {"Type": "docker", "Tag": tag} if tag else {}


def _source_dataset(root: Path, description: Mapping[str, Any]) -> dict[str, str]:
    """Where the input comes from: its DOI where it has one, else its folder."""
    doi = description.get("DatasetDOI")
    return {"DOI": str(doi)} if doi else {"URL": root.as_uri()}


def _readme(config: Config, model_card: ModelCard | None) -> str:
    """README of the output dataset."""
    descriptions = "\n".join(f"- `desc-{name}`: {text}" for name, text in DESCRIPTIONS.items())
    return (
        f"# Super-resolved diffusion MRI\n\nMade by {NAME} {__version__}. {_generator_text(config, model_card)}\n\n"
        "Open `sub-*.html` first: it shows each series before and after, with its warnings. "
        "CITATION.md holds the methods text. The group level gathers all series in `group_tensor.tsv`, whose columns "
        "`group_tensor.json` explains, and in the page `group_tensor.html`, which marks those that deserve a look.\n\n"
        f"{descriptions}\n\n"
        "`_dwi` are restored series with unchanged b-values and b-vectors. `_FA`, `_ADC` and `_colFA` are fractional "
        "anisotropy, mean diffusivity (mm2/s) and direction-coded colour FA of a diffusion tensor fit; "
        "`model-tensor_param-*_dwimap` is the tensor itself, its eigenvalues (`evals`) and eigenvectors (`evecs`), "
        "where it was asked for.\n"
    )

"""Hands restored series over to QSIRecon, under the names by which it finds its input."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_sr.bids.inputs import DwiSeries, read_description
from bids_sr.bids.outputs import (
    OutputLayout,
    bids_uri,
    dataset_description,
    dataset_links,
    resolution_label,
    save_image,
    write_atomically,
    write_if_changed,
    write_json,
)
from bids_sr.config import NAME, Config
from bids_sr.dwi.b0 import mean_b0
from bids_sr.dwi.gradients import read_bvals
from bids_sr.errors import NotForQsireconError

if TYPE_CHECKING:
    from bids_sr.models.registry import ModelCard

LAYOUT = "qsirecon"
#: The spaces in which QSIRecon looks for series; files without one of them are never seen.
SPACES = ("ACPC", "T1w")

# What QSIPrep's names hold and BIDS does not know.
_BIDSIGNORE = "*.bval\n*.bvec\n*.b\n*_dwiref.*\n*_xfm.*\n*.h5\n*.mat\n"
_README = (
    "# Restored series for QSIRecon\n\nThe restored series of the dataset around this folder under the names that "
    "QSIRecon looks for, with the anatomical files of the preprocessed dataset that they come from. Images may be hard "
    "links to those of that dataset.\n\n    qsirecon THIS_FOLDER OUTPUT_DIR participant --input-type qsiprep "
    "--recon-spec SPEC\n"
)


def check_layout(series: DwiSeries, config: Config) -> None:
    """Refuse to hand over what QSIRecon would never see.

    Raises
    ------
    NotForQsireconError
        If the series is not in one of `SPACES`.
    """
    if config.output_layout == LAYOUT and series.entities.get("space") not in SPACES:
        raise NotForQsireconError(dwi=series.dwi, spaces=" or ".join(SPACES))


def handover_folder(config: Config) -> Path:
    """The dataset for QSIRecon: one for each grid asked for, because QSIRecon takes all series that it finds."""
    if config.output_resolution is not None:
        grid = f"res-{resolution_label(config.output_resolution)}"
    else:
        grid = f"scale-{resolution_label(config.scale or (1.0,))}"
    return config.output_dir / "derivatives" / f"for_qsirecon_{grid}"


def hand_over(series: DwiSeries, config: Config, resolution: str) -> None:
    """Put a finished series, its mask, its mean b0 and the anatomical files of its source into the dataset.

    What is there already is left alone. Restored images are linked where the disk allows it, and copied elsewhere;
    files of the input are always copied, so that nothing that is done here can reach them.

    Parameters
    ----------
    series : DwiSeries
        In one of `SPACES`.
    config : Config
    resolution : str
        The `res` entity of what was restored.
    """
    ours, theirs = OutputLayout(config.output_dir), OutputLayout(handover_folder(config))
    restored = {
        end: ours.path(series, "dwi", extension=end, desc="sr", res=resolution) for end in (".nii.gz", ".bval", ".bvec")
    }
    given = {end: theirs.path(series, "dwi", extension=end, desc="preproc") for end in (*restored, ".b")}
    is_new = [_place(restored[end], given[end], link=end == ".nii.gz") for end in restored]
    _hand_over_sidecar(restored[".nii.gz"], given[".nii.gz"], config)
    mask = ours.path(series, "mask", extension=".nii.gz", desc="brain", res=resolution)
    given_mask = theirs.path(series, "mask", extension=".nii.gz", desc="brain")
    _place(mask, given_mask, link=True)
    _hand_over_sidecar(mask, given_mask, config)
    # MRtrix's gradients are in the world, which is the same; QSIPrep writes them beside its own.
    table = series.dwi.with_name(series.dwi.name.partition(".")[0] + ".b")
    if table.is_file():
        _place(table, given[".b"])
    reference = theirs.path(series, "dwiref", extension=".nii.gz")
    if any(is_new) or not reference.is_file():
        _write_reference(restored[".nii.gz"], restored[".bval"], reference, config)
    for file in _anatomical_files(series):
        _place(file, theirs.output_dir / file.relative_to(series.dataset_root))


def write_handover_files(config: Config, card: ModelCard | None = None) -> None:
    """Write what belongs to the dataset as a whole."""
    folder = handover_folder(config)
    before = read_description(config.bids_dir, required=False).get("GeneratedBy", [])
    description = dataset_description(config, card)
    description["Name"] += ", for QSIRecon"
    description["GeneratedBy"] = [*description["GeneratedBy"], *(before if isinstance(before, list) else [])]
    description["DatasetLinks"] = {name: path.as_uri() for name, path in _links(config).items() if name}
    write_if_changed(folder / "dataset_description.json", json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    write_if_changed(folder / "README", _README)
    write_if_changed(folder / ".bidsignore", _BIDSIGNORE)


def _links(config: Config) -> dict[str, Path]:
    """Datasets that the sidecars name; the empty name is the dataset for QSIRecon itself."""
    links = {name: path for name, path in dataset_links(config).items() if name}
    return {"": handover_folder(config), NAME: config.output_dir, **links}


def _place(source: Path, target: Path, *, link: bool = False) -> bool:
    """Put a file under another name, unless it is there; tell whether that was needed."""
    if target.is_file() and (target.samefile(source) or filecmp.cmp(source, target)):
        return False
    with write_atomically(target) as temporary:
        try:
            if not link:
                raise OSError
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
    return True


def _hand_over_sidecar(source: Path, target: Path, config: Config) -> None:
    """The sidecar of an image, whose source is now the image in the dataset around."""
    sidecar = json.loads(_sidecar(source).read_text(encoding="utf-8"))
    kept = {key: _from_outside(value) for key, value in sidecar.items() if key != "Resolution"}
    write_json(_sidecar(target), {**kept, "Sources": [bids_uri(_links(config), source)]})


def _from_outside(value: Any) -> Any:
    """A value of a sidecar whose URIs of its own dataset name that dataset."""
    return value.replace("bids::", f"bids:{NAME}:") if isinstance(value, str) else value


def _sidecar(image: Path) -> Path:
    """The JSON file beside an image."""
    return image.with_name(image.name.removesuffix(".nii.gz") + ".json")


def _write_reference(dwi: Path, bval: Path, reference: Path, config: Config) -> None:
    """The mean b0 of a restored series."""
    import nibabel as nib

    # The file stays open, so that a compressed one is read in one go.
    image = nib.load(dwi, keep_file_open=True)
    b0 = mean_b0(image.dataobj, read_bvals(bval), config.b0_threshold)
    before = json.loads(_sidecar(dwi).read_text(encoding="utf-8"))
    sidecar: Mapping[str, Any] = {
        "Description": "Mean of the volumes without diffusion weighting of the restored series.",
        "Sources": [bids_uri(_links(config), dwi)],
        "SkullStripped": before.get("SkullStripped", False),
        "SpatialReference": _from_outside(before.get("SpatialReference", "orig")),
    }
    save_image(reference, b0, image.affine, header_from=image.header, sidecar=sidecar)


def _anatomical_files(series: DwiSeries) -> list[Path]:
    """What the source dataset holds of the anatomy of the subject and the session."""
    subject = series.dataset_root / f"sub-{series.entities['sub']}"
    folders = [subject / "anat"]
    if "ses" in series.entities:
        folders.append(subject / f"ses-{series.entities['ses']}" / "anat")
    return [file for folder in folders for file in sorted(folder.glob("sub-*")) if file.is_file()]

"""Finds the diffusion series of a BIDS dataset and, for each, the files that belong to it."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_sr.bids.database import make_once
from bids_sr.bids.ignored import IgnoredFiles
from bids_sr.config import Config
from bids_sr.dwi.gradients import read_bvals
from bids_sr.errors import (
    AmbiguousFileError,
    BadFilterError,
    EmptyFileError,
    InputError,
    InvalidNameError,
    MisplacedFileError,
    MissingGradientsError,
    NoAccessError,
    NoDwiError,
    NoSuchSessionError,
    NoSuchSubjectError,
    NotAFileError,
    NotBidsError,
    PointerFileError,
    SameOutputError,
    StaleDatabaseError,
    UnavailableFileError,
    UnreadableSidecarError,
    UnusableT1wError,
)

if TYPE_CHECKING:
    from bids import BIDSLayout

logger = logging.getLogger(__name__)

# Order of entities in a file name, from the BIDS schema.
# fmt: off
ENTITY_ORDER = (
    "sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain",
    "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split",
    "recording", "chunk", "atlas", "seg", "scale", "res", "den", "model", "param", "label", "desc",
)
# fmt: on

IMAGE_EXTENSIONS = (".nii", ".nii.gz")
# Spaces of preprocessed diffusion data whose T1w images carry no `space-` in older QSIPrep versions.
_ANATOMICAL_SPACES = ("T1w", "ACPC")
_NOT_INDEXED = re.compile(
    # Subjects lie in the dataset's own folder: a copy of one further down (backup/sub-01) is none of its.
    r"^/(?!sub-)[^/]+/|^/(code|derivatives|sourcedata|stimuli|models|logs?)$|/\.|"
    r"/(beh|eeg|fmap|func|ieeg|meg|micr|motion|mrs|nirs|"
    # Links that lead back into the dataset would never end; no file that counts lies deeper than the fourth level.
    r"perf|pet|figures|log)(/|$)|^(/[^/]+){5}"
)


# What stands in a file whose content was not fetched: an unlocked file of git-annex, and a file of Git LFS.
_POINTERS = {b"/annex/objects/": "git-annex", b"version https://git-lfs": "Git LFS"}


@dataclass(frozen=True)
class DwiSeries:
    """One diffusion series and the files that belong to it.

    Attributes
    ----------
    dwi, bval, bvec : Path
        Image, b-values and b-vectors; the latter two may be inherited.
    sidecar : mapping
        Metadata merged from all JSON files that apply.
    entities : mapping
        Entities of the file name in BIDS order, with `desc` if there is one.
    t1w : Path or None
        The T1w image chosen.
    t1w_note : str
        Why that one, ``same session``, ``session 2 of the same subject`` or ``of the subject, without a session``, with
        details after a semicolon; empty without a T1w image.
    t1w_is_aligned : bool
        Whether the T1w image already is in the world of the series (a derivative in the same space).
    mask : Path or None
        A brain mask given with the series.
    dataset_root : Path
        Folder of the dataset.
    dataset_name : str
        Its name.
    is_derivative : bool
        Whether the dataset holds preprocessed data.

    """

    dwi: Path
    bval: Path
    bvec: Path
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    entities: Mapping[str, str] = field(default_factory=dict)
    t1w: Path | None = None
    t1w_note: str = ""
    t1w_is_aligned: bool = False
    mask: Path | None = None
    dataset_root: Path = Path()
    dataset_name: str = ""
    is_derivative: bool = False

    @property
    def stem(self) -> str:
        """Name that all outputs start with, such as ``sub-01_ses-1_dir-AP``."""
        return join_entities(_without_desc(self.entities))

    @property
    def label(self) -> str:
        """Name for people, such as ``sub-01 ses-1 dir-AP``."""
        return self.stem.replace("_", " ")


@dataclass(frozen=True)
class _Image:
    """An image of a dataset: its file, the entities of its name, the name of the dataset (empty for BIDS_DIR)."""

    path: Path
    entities: Mapping[str, str]
    dataset: str = ""

    def has(self, entity: str, *values: str | None) -> bool:
        """Whether an entity has one of the values; None is its absence."""
        return self.entities.get(entity) in values


def find_series(config: Config) -> list[DwiSeries]:
    """Every usable series that the run asks for; what makes others unusable is logged, one line each.

    Raises
    ------
    InputError
        Where the dataset, a subject or a session is not there, or no series is usable.

    """
    series, problems = scan_series(config)
    if problems and not series:
        raise problems[0]
    for problem in problems:
        logger.error("%s", problem)
    return series


def scan_series(config: Config) -> tuple[list[DwiSeries], list[InputError]]:
    """Every usable series that the run asks for, and one error for each unusable one.

    Raises
    ------
    InputError
        Where the dataset, a subject or a session is not there, or there is no series at all.

    """
    _check_folder(config.bids_dir)
    description = read_description(config.bids_dir, required=config.validate)
    subjects = _chosen_subjects(config)
    is_derivative = _is_derivative(description)
    layouts = {"": _layout(config.bids_dir, subjects, config.bids_database_dir)}
    layouts |= {name: _layout(path, subjects, None) for name, path in config.derivatives.items()}
    dwi_images = _dwi_images(layouts[""], config, subjects, is_derivative)
    t1w_images = _t1w_images(layouts, config, subjects) if config.use_t1w else []
    masks = _query(layouts, {"suffix": "mask", "desc": "brain", "datatype": "dwi", "subject": subjects}, "mask")

    found: dict[str, DwiSeries] = {}
    with_series = {image.entities.get("sub") for image in dwi_images}
    problems: list[InputError] = [
        _no_dwi(config, [label], is_derivative) for label in config.participants if label not in with_series
    ]
    for image in dwi_images:
        try:
            series = _series(image, config, description, t1w_images, masks)
            # The results of series that differ in their resolution alone would have the same names.
            name = join_entities({key: value for key, value in series.entities.items() if key not in ("desc", "res")})
            if name in found:
                raise SameOutputError(series=name, files=f"{found[name].dwi.name} and {image.path.name}")
            found[name] = series
        except InputError as problem:
            problems.append(problem)
    return list(found.values()), problems


def series_names(config: Config) -> dict[str, bool]:
    """Stem of every series that the run asks for, whether or not its files can be used, or are here at all.

    Returns
    -------
    dict
        Stem to whether it is certain that a run restores it: not where its b-values are not here, so that it may be a
        reference of b0 volumes to other series of the subject.

    Raises
    ------
    InputError
        Where the dataset, a subject or a session is not there, or there is no series at all.

    """
    _check_folder(config.bids_dir)
    description = read_description(config.bids_dir, required=config.validate)
    subjects = _chosen_subjects(config)
    layout = _layout(config.bids_dir, subjects, config.bids_database_dir)
    images = _dwi_images(layout, config, subjects, _is_derivative(description))
    chosen = [image for image in images if image.entities.get("sub") in subjects]
    n_images = Counter(image.entities["sub"] for image in chosen)
    return {
        join_entities(_without_desc(image.entities)): n_images[image.entities["sub"]] == 1
        or _is_reference(image.path, config) is not None
        for image in chosen
    }


def parse_entities(path: Path) -> dict[str, str]:
    """Entities of a BIDS file name, in BIDS order."""
    pairs = (part.partition("-") for part in path.name.partition(".")[0].split("_"))
    return sort_entities({key: value for key, dash, value in pairs if dash})


def sort_entities(entities: Mapping[str, str]) -> dict[str, str]:
    """Entities in BIDS order; unknown ones at the end."""
    order = {name: position for position, name in enumerate(ENTITY_ORDER)}
    return dict(sorted(entities.items(), key=lambda item: order.get(item[0], len(order))))


def join_entities(entities: Mapping[str, str]) -> str:
    """Entities as they stand in a file name."""
    return "_".join(f"{key}-{value}" for key, value in entities.items())


def read_description(root: Path, *, required: bool = True) -> dict[str, Any]:
    """Content of ``dataset_description.json``.

    Raises
    ------
    NotBidsError
        Where the file is `required` and missing, or is not a JSON object.

    """
    path = root / "dataset_description.json"
    if not path.is_file():
        if required:
            raise NotBidsError(path=root, reason="it has no dataset_description.json")
        return {}
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = f"dataset_description.json cannot be read ({_one_line(error)})"
        raise NotBidsError(path=root, reason=reason) from error
    if not isinstance(description, dict):
        raise NotBidsError(path=root, reason="dataset_description.json is not a JSON object")
    return description


def _is_derivative(description: Mapping[str, Any]) -> bool:
    """Whether a dataset holds preprocessed data; before there was a DatasetType, derivatives told their pipeline."""
    kind = description.get("DatasetType")
    return kind == "derivative" or (kind is None and "PipelineDescription" in description)


def subject_labels(root: Path) -> list[str]:
    """Labels of the subjects in a dataset, in natural order."""
    folders = (path.name for path in root.glob("sub-*") if path.is_dir())
    return sorted((name.removeprefix("sub-") for name in folders), key=_natural)


# Which files there are


def _chosen_subjects(config: Config) -> list[str]:
    """Subjects to run."""
    available = subject_labels(config.bids_dir)
    missing = [label for label in config.participants if label not in available]
    if missing:
        raise NoSuchSubjectError(
            missing=", sub-".join(missing), bids_dir=config.bids_dir, available=_listing(available)
        )
    chosen = list(dict.fromkeys(config.participants)) or available
    for folder in (config.bids_dir / f"sub-{label}" for label in chosen):
        _check_folder(folder)
        for inner in (*folder.glob("ses-*"), *folder.glob("dwi"), *folder.glob("ses-*/dwi")):
            if inner.is_dir():
                _check_folder(inner)
    return chosen


def _check_folder(path: Path) -> None:
    """Refuse a folder that is not there, or that may not be read and would look empty."""
    try:
        with os.scandir(path):
            pass
    except PermissionError as error:
        raise NoAccessError(path=path, reason=error.strerror) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotBidsError(path=path, reason=(error.strerror or "no folder").lower()) from error


def _layout(root: Path, subjects: Sequence[str], database: Path | None) -> BIDSLayout:
    """Index of a dataset, of the subjects asked for alone unless it is kept for later runs.

    Metadata are not indexed: that takes most of the time, and few series need theirs.
    """
    from bids import BIDSLayout, BIDSLayoutIndexer

    ignored = [_NOT_INDEXED]
    if database is None:
        ignored.append(re.compile(rf"^/sub-(?!({'|'.join(map(re.escape, subjects))})(/|_|$))"))
    indexer = BIDSLayoutIndexer(validate=False, ignore=ignored, index_metadata=False)
    index = partial(BIDSLayout, root, validate=False, config=["bids", "derivatives"], indexer=indexer)
    try:
        if database is not None:
            make_once(database, lambda folder: index(database_path=folder).session.close())
        return index(database_path=database)
    except Exception as error:
        # pybids and its database library raise many kinds here, none of which tells the user which option to change.
        if database is None:
            raise NotBidsError(path=root, reason=f"pybids cannot index it ({_one_line(error)})") from error
        raise StaleDatabaseError(path=database, bids_dir=root, reason=_one_line(error)) from error


def _dwi_images(layout: BIDSLayout, config: Config, subjects: Sequence[str], is_derivative: bool) -> list[_Image]:
    """Diffusion images to run; preprocessed ones of a derivative dataset."""
    filters = config.filters.get("dwi", {})
    query: dict[str, Any] = {"suffix": "dwi", "datatype": "dwi", "subject": subjects}
    if is_derivative:
        query["desc"] = "preproc"
    images = _query({"": layout}, query | dict(filters), "dwi")
    _check_database(images, config)
    _warn_of_unknown(layout, config, subjects)
    images = _usable(images, config, filters)
    _check_sessions(images, config)
    chosen = [image for image in images if not config.sessions or image.has("ses", *config.sessions)]
    if not chosen:
        raise _no_dwi(config, subjects, is_derivative)
    return _without_references(chosen, config)


def _without_references(images: Sequence[_Image], config: Config) -> list[_Image]:
    """Images less those of b0 volumes alone: acquired with the phase reversed, they serve to correct distortions.

    Those of a subject that has no other stay, to be refused with the reason.
    """
    references = {image.path for image in images if _is_reference(image.path, config)}
    with_others = {image.entities.get("sub") for image in images if image.path not in references}
    left_out = [image for image in images if image.path in references and image.entities.get("sub") in with_others]
    for image in left_out:
        logger.info("%s: all its volumes are b0, as of a reference; left out.", image.path.name)
    return [image for image in images if image not in left_out]


def _is_reference(path: Path, config: Config) -> bool | None:
    """Whether all volumes of an image have one b-value, that of a b0; several small ones may be in another unit.

    None where the b-values are not here, as in a dataset whose content was dropped.
    """
    try:
        file = _gradient_file(path, config.bids_dir, ".bval")
        check_content(file)
        bvals = read_bvals(file)
    except (UnavailableFileError, PointerFileError, NoAccessError):
        return None
    except InputError:
        return False
    return bool(np.ptp(bvals) == 0 and bvals[0] <= config.b0_threshold)


def _usable(images: Sequence[_Image], config: Config, filters: Mapping[str, Any]) -> list[_Image]:
    """Images of magnitudes that the dataset counts as its own.

    Phase and complex parts carry no signal that a magnitude model could restore. What ``.bidsignore`` lists is used
    where names are not checked: for the validator, series with names of their own have to be listed there.
    """
    if "part" not in filters:
        images = [image for image in images if image.has("part", None, "mag")]
    if not config.validate:
        return list(images)
    ignored = IgnoredFiles.of(config.bids_dir)
    return [image for image in images if image.dataset or image.path.relative_to(config.bids_dir) not in ignored]


def _check_database(images: Sequence[_Image], config: Config) -> None:
    """A database kept from an earlier run must be of this dataset, and its files still there."""
    for path in (image.path for image in images):
        if not path.is_relative_to(config.bids_dir) or not (path.exists() or path.is_symlink()):
            raise StaleDatabaseError(path=config.bids_database_dir, bids_dir=config.bids_dir, reason=f"it lists {path}")


def _warn_of_unknown(layout: BIDSLayout, config: Config, subjects: Sequence[str]) -> None:
    """Tell of series on disk that a database kept from an earlier run does not know, because they came after it."""
    if config.bids_database_dir is None:
        return
    known = {Path(file) for file in layout.get(suffix="dwi", return_type="filename")}
    folders = [config.bids_dir / f"sub-{label}" for label in subjects]
    there = [
        file
        for folder in folders
        for place in ("dwi", "ses-*/dwi")
        for extension in IMAGE_EXTENSIONS
        for file in folder.glob(f"{place}/{folder.name}_*dwi{extension}")
    ]
    unknown = [file for file in there if file not in known and _suffix(file) == "dwi"]
    if unknown:
        logger.warning(
            "--bids-database-dir: %s does not know %s, which came after it was made (%d images in all). Remove that "
            "folder so that it is made again.",
            config.bids_database_dir,
            unknown[0],
            len(unknown),
        )


def _check_sessions(images: Sequence[_Image], config: Config) -> None:
    """Every session asked for must have a series."""
    available = sorted({image.entities["ses"] for image in images if "ses" in image.entities}, key=_natural)
    missing = [label for label in config.sessions if label not in available]
    if missing and images:
        raise NoSuchSessionError(
            missing=", ses-".join(missing), bids_dir=config.bids_dir, available=_listing(available)
        )


def _no_dwi(config: Config, subjects: Sequence[str], is_derivative: bool) -> NoDwiError:
    """The error that tells what was searched."""
    filters = config.filters.get("dwi")
    hint = (
        "In a derivative dataset, files named *_desc-preproc_dwi are used; a filter can name another desc."
        if is_derivative
        else "Files named sub-*_dwi.nii.gz in the subjects' dwi folders are used."
    )
    if config.bids_database_dir is not None:
        hint += f" They were looked for in {config.bids_database_dir} (--bids-database-dir); "
        hint += "remove that folder if the dataset has changed since, so that it is made again."
    asked = _listing([f"sub-{label}" for label in subjects])
    return NoDwiError(
        bids_dir=config.bids_dir,
        subjects=asked if subjects else "any subject: it has no sub-* folder",
        filters=f" with the filter {json.dumps(filters)}" if filters else "",
        hint=hint,
    )


def _t1w_images(layouts: Mapping[str, BIDSLayout], config: Config, subjects: Sequence[str]) -> list[_Image]:
    """T1w images of the dataset and of the derivatives; products of them (brain extracted, ...) only by a filter."""
    filters = config.filters.get("t1w", {})
    images = _query(layouts, {"suffix": "T1w", "datatype": "anat", "subject": subjects} | dict(filters), "t1w")
    images = [image for image in images if "desc" in filters or image.has("desc", None, "preproc")]
    return _usable(images, config, filters)


def _query(layouts: Mapping[str, BIDSLayout], query: Mapping[str, Any], name: str) -> list[_Image]:
    """Images of several datasets that fit a query, in natural order of their paths."""
    from bids.layout import Query

    special = {None: Query.NONE, "*": Query.ANY}
    wanted = {key: _translated(value, special) for key, value in query.items()}
    wanted.setdefault("extension", list(IMAGE_EXTENSIONS))
    found = []
    # pybids refuses the entity where no file of the dataset has it.
    may_lack_desc = Query.NONE in _as_list(wanted.get("desc"))
    for dataset, layout in layouts.items():
        known = {key: value for key, value in wanted.items() if key != "desc" or not may_lack_desc}
        try:
            paths = [Path(item.path) for item in layout.get(**known)]
        except (ValueError, TypeError, KeyError) as error:
            # What follows tells programmers how to switch the check off.
            reason = _one_line(error).partition(" If you're sure")[0]
            raise BadFilterError(query=name, reason=reason) from error
        found += [_Image(path, parse_entities(path), dataset) for path in paths]
    if may_lack_desc and Query.ANY not in _as_list(wanted["desc"]):
        labels = [None if value is Query.NONE else str(value) for value in _as_list(wanted["desc"])]
        found = [image for image in found if image.has("desc", *labels)]
    return sorted(found, key=lambda image: _natural(str(image.path)))


def _as_list(value: Any) -> list[Any]:
    """The values of a filter, which may be one or several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _translated(value: Any, special: Mapping[Any, Any]) -> Any:
    """A value of a filter file as pybids understands it."""
    if isinstance(value, (list, tuple)):
        return [_translated(item, special) for item in value]
    return special.get(value, value)


# What belongs to a series


def _series(
    image: _Image,
    config: Config,
    description: Mapping[str, Any],
    t1w_images: Sequence[_Image],
    masks: Sequence[_Image],
) -> DwiSeries:
    """The series of an image, with everything that belongs to it."""
    root = config.bids_dir
    is_derivative = _is_derivative(description)
    _check_image(image.path, root, validate=config.validate and not is_derivative)
    t1w = _choose_t1w(image, t1w_images, root, is_derivative=is_derivative)
    bval, bvec = (_gradient_file(image.path, root, extension) for extension in (".bval", ".bvec"))
    mask = _mask(image, masks)
    for path in (image.path, bval, bvec, mask):
        if path is not None:
            check_content(path)
    if t1w is not None:
        _check_t1w(t1w.path)
    return DwiSeries(
        dwi=image.path,
        bval=bval,
        bvec=bvec,
        sidecar=_inherited_metadata(image.path, root),
        entities=image.entities,
        t1w=t1w.path if t1w else None,
        t1w_note=_t1w_note(image, t1w, t1w_images) if t1w else "",
        t1w_is_aligned=t1w is not None and is_derivative and _is_aligned(image, t1w),
        mask=mask,
        dataset_root=root,
        dataset_name=str(description.get("Name") or root.name),
        is_derivative=is_derivative,
    )


def _check_t1w(path: Path) -> None:
    """The T1w is there; a run can do without it, or with another."""
    try:
        check_content(path)
    except InputError as error:
        raise UnusableT1wError(problem=error) from error


def _check_image(path: Path, root: Path, *, validate: bool) -> None:
    """The file is there and, if that matters, named as BIDS asks."""
    from bids_validator import BIDSValidator  # type: ignore[import-untyped]

    check_content(path)
    folder = path.relative_to(root).parts[0]
    if parse_entities(path).get("sub") != folder.removeprefix("sub-"):
        raise MisplacedFileError(path=path, folder=folder)
    if validate and not BIDSValidator().is_bids(f"/{path.relative_to(root).as_posix()}"):
        raise InvalidNameError(path=path)


def check_content(path: Path) -> None:
    """Refuse a file of the dataset that is not there, may not be read, or holds nothing.

    Raises
    ------
    UnavailableFileError
        If it is a link to nothing.
    PointerFileError
        If its content was not fetched.
    NotAFileError, EmptyFileError, NoAccessError
        If it is a folder, has no bytes, or may not be read.
    """
    try:
        if not path.exists():
            raise UnavailableFileError(path=path)
        if not path.is_file():
            raise NotAFileError(path=path)
        with path.open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise NoAccessError(path=path, reason=error.strerror or _one_line(error)) from error
    if not start:
        raise EmptyFileError(path=path)
    for sign, tool in _POINTERS.items():
        if start.startswith(sign):
            raise PointerFileError(path=path, tool=tool)


def _applicable(image: Path, root: Path, extension: str) -> Iterator[list[Path]]:
    """Files of an extension that apply to an image by the inheritance principle, one list per folder, nearest first.

    A file applies if it has the same suffix and no entity that the image lacks; within a folder, the more entities it
    shares the nearer it is (https://bids-specification.readthedocs.io/en/stable/common-principles.html).
    """
    entities = parse_entities(image).items()
    suffix = _suffix(image)
    folder = image.parent
    while True:
        candidates = [path for path in folder.glob(f"*{suffix}{extension}") if _suffix(path) == suffix]
        fitting = [path for path in candidates if parse_entities(path).items() <= entities]
        yield sorted(fitting, key=lambda path: (-len(parse_entities(path)), path.name))
        if folder in (root, folder.parent):
            return
        folder = folder.parent


def _gradient_file(image: Path, root: Path, extension: str) -> Path:
    """The nearest b-value or b-vector file that applies to an image."""
    for files in _applicable(image, root, extension):
        if len(files) > 1 and len(parse_entities(files[0])) == len(parse_entities(files[1])):
            raise AmbiguousFileError(dwi=image, files=f"{files[0].name} and {files[1].name}")
        if files:
            return files[0]
    raise MissingGradientsError(dwi=image, kind=extension)


def _inherited_metadata(image: Path, root: Path) -> dict[str, Any]:
    """Metadata of an image: all JSON files that apply, nearer ones overriding."""
    nearest_first = [path for files in _applicable(image, root, ".json") for path in files]
    metadata: dict[str, Any] = {}
    for path in reversed(nearest_first):
        check_content(path)
        metadata |= _read_sidecar(path)
    return metadata


def _read_sidecar(path: Path) -> dict[str, Any]:
    """Content of a JSON sidecar."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_nothing)
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableSidecarError(path=path, reason=_one_line(error)) from error
    if not isinstance(content, dict):
        raise UnreadableSidecarError(path=path, reason="not an object")
    return {key: value for key, value in content.items() if value is not None}


def _nothing(constant: str) -> None:
    """NaN and Infinity, which Python writes into JSON and JSON does not know, tell nothing."""


def _mask(image: _Image, masks: Iterable[_Image]) -> Path | None:
    """The brain mask with the same entities, so also of the same space; the dataset's own comes first."""
    same = [mask for mask in masks if _without_desc(mask.entities) == _without_desc(image.entities)]
    return min(same, key=lambda mask: bool(mask.dataset)).path if same else None


# Which T1w image


def _choose_t1w(image: _Image, candidates: Sequence[_Image], root: Path, *, is_derivative: bool) -> _Image | None:
    """The T1w image of the same session or else the nearest one, preprocessed ones and first runs preferred."""
    same_subject = [t1w for t1w in candidates if t1w.has("sub", image.entities["sub"]) and _in_usable_space(image, t1w)]
    if not same_subject:
        return None
    distance = _session_distances(image, same_subject, root)

    def rank(t1w: _Image) -> tuple[Any, ...]:
        return (
            distance[t1w.entities.get("ses")],
            not (is_derivative and _is_aligned(image, t1w)),
            not t1w.has("space", image.entities.get("space")),
            not t1w.has("desc", "preproc"),
            "ce" in t1w.entities,
            len(t1w.entities),
            _natural(t1w.path.name),
        )

    return min(same_subject, key=rank)


def _in_usable_space(image: _Image, t1w: _Image) -> bool:
    """Whether a T1w image is in its own world or in that of the series, not in a template's."""
    return t1w.has("space", None, image.entities.get("space"))


def _is_aligned(image: _Image, t1w: _Image) -> bool:
    """Whether a T1w image of the same derivative dataset is in the space of the series."""
    space = image.entities.get("space")
    same = t1w.has("space", space) or (t1w.has("space", None) and space in _ANATOMICAL_SPACES)
    return space is not None and same and not t1w.dataset


def _session_distances(image: _Image, candidates: Sequence[_Image], root: Path) -> dict[str | None, float]:
    """How far each session is from the series' own, by date, number or order; an image of no session is near to all."""
    own = image.entities.get("ses")
    sessions = {candidate.entities["ses"] for candidate in candidates if "ses" in candidate.entities}
    ordered = sorted(sessions | ({own} if own else set()), key=_natural)
    dates = _session_dates(root / f"sub-{image.entities['sub']}")
    positions = {label: float(index) for index, label in enumerate(ordered)}
    if all(label.isdigit() for label in ordered):
        positions = {label: float(label) for label in ordered}
    if all(label in dates for label in ordered):
        positions = {label: dates[label].timestamp() for label in ordered}
    return {None: 0.0} | {label: abs(positions[label] - positions.get(own or "", 0.0)) for label in ordered}


def _session_dates(subject_folder: Path) -> dict[str, datetime]:
    """Acquisition times of a subject's sessions where ``sub-*_sessions.tsv`` gives them."""
    table = subject_folder / f"{subject_folder.name}_sessions.tsv"
    dates = {}
    try:
        lines = table.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return {}
    for row in csv.DictReader(lines, delimiter="\t"):
        try:
            dates[row["session_id"].removeprefix("ses-")] = datetime.fromisoformat(row["acq_time"])
        except (KeyError, ValueError, TypeError, AttributeError):
            continue
    return dates


def _t1w_note(image: _Image, t1w: _Image, candidates: Sequence[_Image]) -> str:
    """Why this T1w image was chosen, for the log and the report."""
    session, own = t1w.entities.get("ses"), image.entities.get("ses")
    elsewhere = "of the subject, without a session" if session is None else f"session {session} of the same subject"
    notes = ["same session" if session == own else elsewhere]
    if t1w.dataset:
        notes.append(f"from the derivatives {t1w.dataset}")
    rivals = [
        other
        for other in candidates
        if other.dataset == t1w.dataset
        and all(other.entities.get(key) == t1w.entities.get(key) for key in ("sub", "ses", "space", "desc"))
    ]
    if len(rivals) > 1:
        notes.append(f"one of {len(rivals)} images")
    return "; ".join(notes)


# Small things


def _suffix(path: Path) -> str:
    """Suffix of a BIDS file name."""
    return path.name.partition(".")[0].rpartition("_")[2]


def _without_desc(entities: Mapping[str, str]) -> dict[str, str]:
    """Entities that tell which series a file belongs to."""
    return {key: value for key, value in entities.items() if key != "desc"}


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sorting key under which 2 comes before 10."""
    parts = re.split(r"(\d+)", text)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _listing(labels: Sequence[str], limit: int = 20) -> str:
    """Labels for a message, shortened where there are many."""
    shown = ", ".join(labels[:limit]) or "none"
    return f"{shown} and {len(labels) - limit} more" if len(labels) > limit else shown


def _one_line(error: BaseException) -> str:
    """Message of a foreign error on one line."""
    return " ".join(str(error).split()) or type(error).__name__

# ruff: noqa: E501 (tables: a case is a line)
"""Whatever is wrong with what it is given, the program refuses in one line that says what and where, and what to do."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_sr.cli.app import main
from tests.made_models import save_tiny_model
from tests.robustness.damage import (
    Made,
    cut,
    flip_bytes,
    into_folder,
    into_link,
    unpacked,
)

POINTER = "/annex/objects/MD5E-s1234--0123456789abcdef0123456789abcdef.nii.gz\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"
SCALE = ("--scale", "2")


@dataclass(frozen=True)
class Case:
    """Something wrong, and what the program must say.

    Attributes
    ----------
    name : str
    says : str
        Regular expression of the message.
    harm : callable
        Done to the dataset before the run.
    options : tuple of str
        After the dataset, the output folder and ``participant``.
    code : int
        Exit status.
    shown_dry : bool
        Whether ``--dry-run`` tells it too; it reads headers and gradients, not voxels, and writes nothing.
    stops : bool
        Whether nothing of the dataset is left to restore.
    """

    name: str
    says: str
    harm: Callable[[Made], Any] = lambda made: None
    options: tuple[str, ...] = SCALE
    code: int = 2
    shown_dry: bool = True
    stops: bool = True
    words: tuple[str, ...] = ("raw", "out", "participant")


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def poke(file: str, value: float, *volumes: int) -> Callable[[Made], Any]:
    """Volumes of the series set to one value."""

    def harm(made: Made) -> None:
        data = np.ones((10, 9, 8, 7), np.float32)
        data[..., list(volumes)] = value
        made.write(getattr(made, file), data)

    return harm


def at(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    """A table with some of its numbers replaced."""

    def change(table: np.ndarray) -> np.ndarray:
        table[index] = value
        return table

    return change


def text(file: str, content: str | bytes) -> Callable[[Made], Any]:
    """A file of the dataset with other content."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda made: getattr(made, file).write_bytes(data)


def beside(name: str, content: str | bytes) -> Callable[[Made], Any]:
    """A file beside the dataset, for an option to name."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda made: (made.root.parent / name).write_bytes(data)


def gone(file: str) -> Callable[[Made], Any]:
    return lambda made: getattr(made, file).unlink()


def sform(rows: Any) -> Callable[[Made], Any]:
    """The sform of the series written as it is."""
    names = ("srow_x", "srow_y", "srow_z")
    return lambda made: made.edit_header(
        made.series, sform_code=1, **dict(zip(names, np.array(rows, float), strict=True))
    )


def qform_alone(**fields: Any) -> Callable[[Made], Any]:
    return lambda made: made.edit_header(made.series, sform_code=0, qform_code=1, **fields)


def ambiguous_gradients(made: Made) -> None:
    """Two inherited files with as many entities each."""
    shutil.rmtree(made.root / "sub-01")
    made.dwi("sub-02_acq-a_dir-AP", gradients=False)
    made.gradients("acq-a_dwi")
    made.gradients("dir-AP_dwi")


IMAGES = [
    Case("no image", "No diffusion series", gone("series")),
    Case("empty image", r"sub-01_dwi.nii.gz is empty \(0 bytes\)", text("series", b"")),
    Case("no NIfTI", "sub-01_dwi.nii.gz cannot be read as a NIfTI image", text("series", b"not an image at all")),
    Case("cut gzip", "sub-01_dwi.nii.gz cannot be read", lambda made: cut(made.series), shown_dry=False),
    Case("changed gzip", "sub-01_dwi.nii.gz cannot be read", lambda made: flip_bytes(made.series), shown_dry=False),
    Case("cut in its header", "sub-01_dwi.nii.gz cannot be read", lambda made: cut(made.series, 0.1)),
    Case("cut without gzip", r"bytes of \d+\. Is the file complete", lambda made: cut(unpacked(made.series), 0.5)),
    Case("folder for an image", "No diffusion series|is not a file", lambda made: into_folder(made.series)),
    Case("broken link", "link to a file that is not there.*datalad get", lambda made: into_link(made.series, "gone")),
    Case("link to itself", "sub-01_dwi.nii.gz (is a link|cannot be)", lambda made: into_link(made.series, made.series.name)),
    Case("git-annex pointer", "pointer of git-annex.*datalad get", text("series", POINTER)),
    Case("Git LFS pointer", "pointer of Git LFS.*git lfs pull", text("series", LFS)),
    Case("two dimensions", r"four dimensions.*shape \(10, 9\)", lambda made: made.write(made.series, array(10, 9))),
    Case("three dimensions", "four dimensions", lambda made: made.write(made.series, array(10, 9, 8))),
    Case("five dimensions", "four dimensions", lambda made: made.write(made.series, array(10, 9, 8, 1, 7))),
    Case("no voxels", "its shape is", lambda made: made.edit_header(made.series, dim=[4, 0, 9, 8, 7, 1, 1, 1])),
    Case("negative axis", "cannot be read", lambda made: made.edit_header(made.series, dim=[4, -9, 9, 8, 7, 1, 1, 1])),
    Case("more axes than there are", "cannot be read", lambda made: made.edit_header(made.series, dim=[9, 9, 9, 8, 7, 1, 1, 1])),
    Case("unknown data type", "cannot be read", lambda made: made.edit_header(made.series, datatype=77)),
    Case("complex", "complex numbers; real numbers are needed", lambda made: made.write(made.series, array(10, 9, 8, 7, dtype=np.complex64))),
    Case("colours", "its voxels are colours", lambda made: made.write(made.series, np.zeros((10, 9, 8, 7), [(c, "u1") for c in "RGB"]))),
    Case("infinite intercept", "cannot be read", lambda made: made.edit_header(made.series, scl_slope=1, scl_inter=np.inf)),
    Case("a volume of zeros", r"volume 3 \(counted from 0\) holds nothing but zeros", poke("series", 0, 3), shown_dry=False),
    Case("a b0 of zeros", r"volume 0 .* nothing but zeros", poke("series", 0, 0), shown_dry=False),
    Case("a volume of NaN", "volume 6 .* no number that is finite", poke("series", np.nan, 6), shown_dry=False),
    Case("a volume of infinity", "volume 2 .* no number that is finite", poke("series", np.inf, 2), shown_dry=False),
    Case("all zeros", "volume 0 .* nothing but zeros", poke("series", 0, *range(7)), shown_dry=False),
    Case("nothing but one value", "all its voxels are equal, no brain", gone("brain"), (*SCALE, "--no-t1w"), shown_dry=False),
]  # fmt: skip

PLACES = [
    Case("singular sform", "the sform in its header is singular", sform([[2, 2, 0, 0], [2, 2, 0, 0], [0, 0, 2, 0]])),
    Case("nearly singular sform", "the sform .* is singular", sform([[2, 2, 0, 0], [2, 2.0001, 0, 0], [0, 0, 2, 0]])),
    Case("sform of zeros", "voxels of 0 x 0 x 0 mm", sform(np.zeros((3, 4)))),
    Case("sform of NaN", "the sform .* not finite", sform(np.full((3, 4), np.nan))),
    Case("sform with infinity", "the sform .* not finite", sform([[2, 0, 0, np.inf], [0, 2, 0, 0], [0, 0, 2, 0]])),
    Case("qform of no rotation", "cannot be read", qform_alone(quatern_b=1.0, quatern_c=1.0, quatern_d=1.0)),
    Case("voxel size 0", "voxels of 0 x 2 x 2 mm", qform_alone(pixdim=[1, 0, 2, 2, 1, 0, 0, 0])),
    Case("voxel size NaN", "not finite", qform_alone(pixdim=[1, np.nan, 2, 2, 1, 0, 0, 0])),
    Case("voxel size 0.01 mm", "0.01 x 0.01 x 0.01 mm; from 0.02 to 20 mm", lambda made: made.write(made.series, affine=np.diag([0.01, 0.01, 0.01, 1]))),
    Case("voxel size 30 mm", "30 x 30 x 30 mm; from 0.02 to 20 mm", lambda made: made.write(made.series, affine=np.diag([30, 30, 30, 1.0]))),
    Case("metres", "is it in another unit than mm", lambda made: made.write(made.series, affine=np.diag([0.002, 0.002, 0.002, 1]), xyzt_units=1)),
    Case("micrometres", "is it in another unit than mm", lambda made: made.write(made.series, affine=np.diag([2000, 2000, 2000, 1.0]), xyzt_units=3)),
]  # fmt: skip

GRADIENTS = [
    Case("no b-values", r"no \.bval file applies", gone("bval")),
    Case("no b-vectors", r"no \.bvec file applies", gone("bvec")),
    Case("empty b-values", r"sub-01_dwi.bval is empty \(0 bytes\)", text("bval", "")),
    Case("blank b-values", "sub-01_dwi.bval cannot be read as an FSL gradient file: it is empty", text("bval", " \n\n")),
    Case("words for b-values", "sub-01_dwi.bval cannot be read .* 'zero'", text("bval", "zero 1000\n")),
    Case("binary b-values", "sub-01_dwi.bval cannot be read .* not text", text("bval", b"\xff\xfe\x00\x80")),
    Case("annex pointer for b-values", "sub-01_dwi.bval holds a pointer of git-annex", text("bval", POINTER)),
    Case("broken link for b-vectors", "sub-01_dwi.bvec is a link", lambda made: into_link(made.bvec, "gone")),
    Case("folder for b-values", "sub-01_dwi.bval is not a file", lambda made: into_folder(made.bval)),
    Case("two rows of b-values", "sub-01_dwi.bval .* 2 rows of 7 where one is expected", lambda made: made.table(made.bval, lambda b: np.vstack([b, b]))),
    Case("b-values in the b-vector file", "sub-01_dwi.bvec .* 1 rows of 7 where three", lambda made: shutil.copy(made.bval, made.bvec)),
    Case("b-vectors in the b-value file", "sub-01_dwi.bval .* 3 rows of 7 where one", lambda made: shutil.copy(made.bvec, made.bval)),
    Case("ragged b-vectors", "sub-01_dwi.bvec .* rows differ in length", text("bvec", "1 0 0\n0 1\n0 0 1\n")),
    Case("four rows of b-vectors", "sub-01_dwi.bvec .* 4 rows of 7 where three", lambda made: made.table(made.bvec, lambda v: np.vstack([v, v[:1]]))),
    Case("a b-value too few", "6 b-values and 7 b-vectors for 7 volumes", lambda made: made.table(made.bval, lambda b: b[:, :-1])),
    Case("a b-vector too many", "7 b-values and 8 b-vectors for 7 volumes", lambda made: made.table(made.bvec, lambda v: np.hstack([v, v[:, :1]]))),
    Case("a volume too few", "7 b-values and 7 b-vectors for 6 volumes", lambda made: made.write(made.series, array(10, 9, 8, 6))),
    Case("NaN b-value", r"b-value of volume 2 \(counted from 0\) is nan", lambda made: made.table(made.bval, at((0, 2), np.nan))),
    Case("infinite b-value", "b-value of volume 2 .* is inf", lambda made: made.table(made.bval, at((0, 2), np.inf))),
    Case("negative b-value", "b-value of volume 1 .* is -1000", lambda made: made.table(made.bval, at((0, 1), -1000))),
    Case("b-values in ms/um2", r"Multiply b-values in ms/um2 by 1000", lambda made: made.table(made.bval, lambda b: b / 1000)),
    Case("b-values in s/m2", "divide those in s/m2 by 1000000", lambda made: made.table(made.bval, lambda b: b * 1e6)),
    Case("only b0", "no b-value is larger than 50 s/mm2, the largest is 0", lambda made: made.table(made.bval, lambda b: 0 * b)),
    Case("no b0", "no volume has a b-value up to 50 s/mm2, the lowest is 1000", lambda made: made.table(made.bval, at((0, 0), 1000))),
    Case("one direction", "determine 1 of the 6 elements", lambda made: made.table(made.bvec, lambda v: np.repeat([[1.0], [0], [0]], 7, axis=1))),
    Case("directions in a plane", "determine 3 of the 6 elements", lambda made: made.table(made.bvec, lambda v: np.vstack([np.cos(np.arange(7)), np.sin(np.arange(7)), np.zeros(7)]))),
    Case("zero b-vector", "b-vector of volume 4 .* has length 0 instead of 1", lambda made: made.table(made.bvec, at((slice(None), 4), 0))),
    Case("NaN b-vector", "b-vector of volume 4 .* has length nan", lambda made: made.table(made.bvec, at((0, 4), np.nan))),
    Case("short b-vector", "b-vector of volume 5 .* has length 0.5", lambda made: made.table(made.bvec, lambda v: v * np.where(np.arange(7) == 5, 0.5, 1))),
    Case("two gradient files as near", "both apply to it", ambiguous_gradients),
]  # fmt: skip

MASKS = [
    Case("empty mask", "the mask given is empty", lambda made: made.write(made.brain, np.zeros((10, 9, 8), np.uint8))),
    Case("mask of NaN", "the mask given is empty", lambda made: made.write(made.brain, np.full((10, 9, 8), np.nan, np.float32))),
    Case("mask of another shape", r"shape \(9, 9, 8\) and the series \(10, 9, 8\)", lambda made: made.write(made.brain, array(9, 9, 8, dtype=np.uint8))),
    Case("mask elsewhere", "or their affines differ", lambda made: made.write(made.brain, affine=np.diag([2, 2, 2.5, 1]))),
    Case("mask of a flipped axis", "or their affines differ", lambda made: made.write(made.brain, affine=np.diag([-2, 2, 2, 1.0]))),
    Case("mask of two volumes", "a brain mask has three dimensions", lambda made: made.write(made.brain, array(10, 9, 8, 2, dtype=np.uint8))),
    Case("cut mask", "brain_mask.nii.gz cannot be read", lambda made: flip_bytes(made.brain)),
    Case("empty file for a mask", r"brain_mask.nii.gz is empty \(0 bytes\)", text("brain", b"")),
]  # fmt: skip

ANATOMY = [
    Case("T1w of two volumes", "a T1w image has three dimensions", lambda made: made.write(made.anatomy, array(12, 12, 12, 2))),
    Case("T1w of one slice without a third axis", "a T1w image has three", lambda made: made.write(made.anatomy, array(12, 12))),
    Case("T1w pointer", "sub-01_T1w.nii.gz holds a pointer of git-annex", text("anatomy", POINTER)),
    Case("T1w broken link", "sub-01_T1w.nii.gz is a link", lambda made: into_link(made.anatomy, "gone")),
    Case("T1w without bytes", r"sub-01_T1w.nii.gz is empty \(0 bytes\)", text("anatomy", b"")),
    Case("T1w that is no image", "sub-01_T1w.nii.gz cannot be read", text("anatomy", b"no image")),
    Case("cut T1w", "sub-01_T1w.nii.gz cannot be read", lambda made: (made.mixed(), flip_bytes(made.anatomy)), shown_dry=False),
    Case("T1w of zeros", "T1w", lambda made: (made.mixed(), made.write(made.anatomy, np.zeros((12, 12, 12), np.int16))), shown_dry=False),
    Case("T1w of NaN", "T1w", lambda made: (made.mixed(), made.write(made.anatomy, np.full((12, 12, 12), np.nan, np.float32))), shown_dry=False),
    Case("T1w of colours", "its voxels are colours", lambda made: made.write(made.anatomy, np.zeros((12, 12, 12), [(c, "u1") for c in "RGB"]))),
    Case("T1w without voxel size", "voxels of 0 x 0 x 0 mm", lambda made: made.write(made.anatomy, srow_x=np.zeros(4), srow_y=np.zeros(4), srow_z=np.zeros(4))),
]  # fmt: skip

DATASETS = [
    Case("no dataset", "BIDS_DIR: .* does not exist", lambda made: shutil.rmtree(made.root)),
    Case("file for a dataset", "is a file; a folder is needed", lambda made: (shutil.rmtree(made.root), made.root.write_text("x"))),
    Case("no description", "has no dataset_description.json", lambda made: (made.root / "dataset_description.json").unlink()),
    Case("broken description", "dataset_description.json cannot be read", lambda made: made.text("dataset_description.json", "{")),
    Case("list for a description", "not a JSON object", lambda made: made.text("dataset_description.json", "[1]")),
    Case("description nested too deep", "dataset_description.json cannot be read", lambda made: made.text("dataset_description.json", "[" * 100_000)),
    Case("no subjects", "No diffusion series", lambda made: shutil.rmtree(made.root / "sub-01")),
    Case("absent subject", "no sub-09 in .* There are: 01", options=(*SCALE, "--participant-label", "09")),
    Case("absent session", "no ses-2 .* There are: none", options=(*SCALE, "--session-label", "2")),
    Case("name that is not BIDS", "is not a BIDS file name", lambda made: [f.rename(f.with_name(f.name.replace("sub-01_dwi", "sub-01_kind-new_dwi"))) for f in made.series.parent.glob("sub-01_dwi*")]),
    Case("entity given twice", "is not a BIDS file name", lambda made: [f.rename(f.with_name(f.name.replace("sub-01_dwi", "sub-01_acq-a_acq-b_dwi"))) for f in made.series.parent.glob("sub-01_dwi*")]),
    Case("one series in two files", "would have the same names", lambda made: (shutil.copy(made.series, made.series.with_suffix(".bak")), unpacked(made.series), made.series.with_suffix(".bak").rename(made.series)), stops=False),
    Case("broken sidecar", "sub-01_dwi.json is not valid JSON", text("sidecar", "{")),
    Case("empty sidecar", r"sub-01_dwi.json is empty", text("sidecar", "")),
    Case("list for a sidecar", "sub-01_dwi.json is not valid JSON: not an object", text("sidecar", "[]")),
    Case("sidecar not in UTF-8", "sub-01_dwi.json is not valid JSON", text("sidecar", b'{"a": "\xe9"}')),
    Case("sidecar nested too deep", "sub-01_dwi.json is not valid JSON", text("sidecar", "[" * 100_000)),
    Case("sidecar pointer", "sub-01_dwi.json holds a pointer", text("sidecar", POINTER)),
]  # fmt: skip

FOLDERS = [
    Case("output is the input", "The output folder is the input", words=("raw", "raw", "participant")),
    Case("output among the raw data", "is inside the input", words=("raw", "raw/out", "participant")),
    Case("output in the input by a link", "is inside the input", lambda made: (made.root.parent / "link").symlink_to(made.root / "sub-01"), words=("raw", "link", "participant")),
    Case("input inside the output", "is inside the output folder", words=("raw", ".", "participant")),
    Case("work inside the input", "The work folder .* is inside the input", options=(*SCALE, "-w", "raw/work")),
    Case("work holds the output", "holds the dataset or the results", options=(*SCALE, "-w", ".")),
    Case("work is the output", "holds the dataset or the results", options=(*SCALE, "-w", "out")),
    Case("file for an output", "OUTPUT_DIR: .* cannot be written to", beside("out", ""), shown_dry=False),
    Case("file for a work folder", "--work-dir: .* cannot be written to", beside("w", ""), (*SCALE, "-w", "w"), shown_dry=False),
    Case("derivatives that are not there", "--derivatives x: .* does not exist", options=(*SCALE, "--derivatives", "x=nowhere")),
    Case("derivatives without a name", "is not NAME=PATH", options=(*SCALE, "--derivatives", "nowhere")),
    Case("derivatives that are no dataset", "", beside("note", "x"), (*SCALE, "--derivatives", "x=note")),
    Case("file for a database", "--bids-database-dir", beside("note", "x"), (*SCALE, "--bids-database-dir", "note")),
]  # fmt: skip

GRIDS = [
    Case("no grid", "--output-resolution: give the voxel size", options=()),
    Case("resolution 0", "voxel sizes in mm are larger than zero", options=("--output-resolution", "0")),
    Case("negative resolution", "voxel sizes in mm are larger than zero", options=("--output-resolution=-1",)),
    Case("resolution NaN", "voxel sizes in mm are larger than zero", options=("--output-resolution", "nan")),
    Case("resolution of words", "invalid float value", options=("--output-resolution", "fine")),
    Case("two resolutions", "one number or three", options=("--output-resolution", "1", "1")),
    Case("coarser than acquired", "3 x 3 x 3 mm asked for and 2 x 2 x 2 mm acquired", options=("--output-resolution", "3")),
    Case("coarser along one axis", "Super-resolution cannot make voxels larger", options=("--output-resolution", "1", "1", "2.5")),
    Case("finer than the model restores", r"20.00 times finer .* at most 4 times", options=("--output-resolution", "0.1", "--model", "light")),
    Case("more memory than there is", "needs .* GB of memory and 2.0 GB are available", options=("--output-resolution", "0.01", "--mem", "2"), code=137),
    Case("absurdly fine", "no voxel smaller than 0.01 mm", options=("--output-resolution", "1e-9")),
    Case("finer than numbers can be", "no voxel smaller than 0.01 mm", options=("--output-resolution", "1e-300")),
    Case("scale below one", "factors from 1 to 4", options=("--scale", "0.5")),
    Case("scale above four", "factors from 1 to 4", options=("--scale", "4.5")),
    Case("scale NaN", "factors from 1 to 4", options=("--scale", "nan")),
    Case("scale and resolution", "not allowed with", options=(*SCALE, "--output-resolution", "1")),
]  # fmt: skip


def pickled(made: Made) -> None:
    """A pickle under the name of weights, with a card that vouches for it."""
    tiny_model(made)
    weights = made.root.parent / "models" / "tiny.safetensors"
    weights.write_bytes(pickle.dumps({"weight": os.getcwd}))
    vouch(weights)


def vouch(weights: Path) -> None:
    """The checksum of a card set to that of its weights."""
    card = weights.with_suffix(".json")
    content = json.loads(card.read_text()) | {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    card.write_text(json.dumps(content))


def tiny_model(made: Made) -> None:
    save_tiny_model(made.root.parent / "models", ("volume",))


def change_card(**fields: Any) -> Callable[[Made], None]:
    def harm(made: Made) -> None:
        tiny_model(made)
        card = made.root.parent / "models" / "tiny.json"
        card.write_text(json.dumps(json.loads(card.read_text()) | fields))

    return harm


def changed_weights(made: Made) -> None:
    tiny_model(made)
    flip_bytes(made.root.parent / "models" / "tiny.safetensors")


def lost_weights(made: Made) -> None:
    tiny_model(made)
    (made.root.parent / "models" / "tiny.safetensors").unlink()


def cut_weights(made: Made) -> None:
    tiny_model(made)
    weights = made.root.parent / "models" / "tiny.safetensors"
    cut(weights)
    vouch(weights)


TINY = (*SCALE, "--model", "models/tiny.json")
MODELS = [
    Case("unknown model", "no model named best. Known: .*default", options=(*SCALE, "--model", "best")),
    Case("model without weights", "has no weights; train it", options=(*SCALE, "--model", "csr_dmri_paper")),
    Case("card that is not there", "no model named models/tiny.json", options=TINY),
    Case("card that is not JSON", "not a usable model card", beside("card.json", "{"), (*SCALE, "--model", "card.json")),
    Case("card that is a list", "not a usable model card", beside("card.json", "[]"), (*SCALE, "--model", "card.json")),
    Case("card of something else", "not a usable model card", beside("card.json", '{"a": 1}'), (*SCALE, "--model", "card.json")),
    Case("card that is not text", "not a usable model card", beside("card.json", b"\xff\xfe"), (*SCALE, "--model", "card.json")),
    Case("weights that are gone", "weights cannot be used: no such file", lost_weights, TINY),
    Case("weights that were changed", "its SHA-256 is not the one in the model card", changed_weights, TINY),
    Case("weights that are cut", "tiny.safetensors: weights cannot be used", cut_weights, TINY),
    Case("pickle in disguise", "tiny.safetensors: weights cannot be used", pickled, TINY),
    Case("card of another network", "they are of another network than the card's", change_card(inputs=["volume", "b0"]), TINY),
    Case("unknown architecture", "not a network that can be trained", change_card(architecture="transformer"), TINY),
    Case("unknown arguments", "not a usable model card", change_card(arguments={"depth": 3}), TINY),
    Case("unknown inputs", "not a usable model card", change_card(inputs=["volume", "flair"]), TINY),
    Case("card whose numbers are words", "not a usable model card", change_card(scale_range=["a", "b"]), TINY),
    Case("uncertainty of a certain model", "does not tell how uncertain it is", tiny_model, (*TINY, "--uncertainty")),
]  # fmt: skip

FILES = [
    Case("filter that is not there", "does not exist", options=(*SCALE, "--bids-filter-file", "f.json")),
    Case("broken filter", "not valid JSON", beside("f.json", "{"), (*SCALE, "--bids-filter-file", "f.json")),
    Case("filter of another form", "must have the form", beside("f.json", '{"dwi": 1}'), (*SCALE, "--bids-filter-file", "f.json")),
    Case("filter nested too deep", "f.json", beside("f.json", "[" * 100_000), (*SCALE, "--bids-filter-file", "f.json")),
    Case("filter on an unknown entity", "the filter for dwi cannot be used", beside("f.json", '{"dwi": {"sesion": "1"}}'), (*SCALE, "--bids-filter-file", "f.json")),
    Case("filter by a table", "the value of run must be text, a number", beside("f.json", '{"dwi": {"run": {"a": 1}}}'), (*SCALE, "--bids-filter-file", "f.json")),
    Case("filter that fits nothing", "No diffusion series .* with the filter", beside("f.json", '{"dwi": {"direction": "AP"}}'), (*SCALE, "--bids-filter-file", "f.json")),
    Case("plugin file that is not there", "--use-plugin: .* does not exist", options=(*SCALE, "--use-plugin", "p.yml")),
    Case("broken plugin file", "not valid YAML", beside("p.yml", "{a: ["), (*SCALE, "--use-plugin", "p.yml")),
    Case("plugin file without a plugin", "must have the key plugin", beside("p.yml", "a: 1"), (*SCALE, "--use-plugin", "p.yml")),
    Case("plugin file that makes objects", "not valid YAML", beside("p.yml", "plugin: !!python/object/apply:os.getcwd []"), (*SCALE, "--use-plugin", "p.yml")),
    Case("plugin arguments that are a list", "plugin_args", beside("p.yml", "plugin: Linear\nplugin_args: [1]"), (*SCALE, "--use-plugin", "p.yml")),
    Case("unknown plugin", "nipype has no plugin Quick", beside("p.yml", "plugin: Quick"), (*SCALE, "--use-plugin", "p.yml"), shown_dry=False),
    Case("configuration that is not there", "--config-file: .* does not exist", options=("--config-file", "c.toml")),
    Case("broken configuration", "not valid TOML", beside("c.toml", "a = ["), (*SCALE, "--config-file", "c.toml")),
    Case("configuration that is not text", "c.toml is not valid text", beside("c.toml", b"\xff\xfe\x00"), (*SCALE, "--config-file", "c.toml")),
    Case("unknown option in a configuration", "colour: no such option", beside("c.toml", "colour = 1"), (*SCALE, "--config-file", "c.toml")),
    Case("wrong type in a configuration", "nprocs: 'two' is not usable here", beside("c.toml", 'nprocs = "two"'), (*SCALE, "--config-file", "c.toml")),
    Case("wrong table in a configuration", "filters: .* is not usable here", beside("c.toml", "filters = 1"), (*SCALE, "--config-file", "c.toml")),
]  # fmt: skip

NUMBERS = [
    Case("unknown device", "'tpu' is not one of auto, cpu, cuda, cuda:N", options=(*SCALE, "--device", "tpu")),
    Case("no such GPU", "--device cuda:99: ", options=(*SCALE, "--device", "cuda:99")),
    Case("no memory", "is not an amount of memory", options=(*SCALE, "--mem", "0")),
    Case("no processors", "at least one is needed", options=(*SCALE, "--nprocs", "0")),
    Case("more threads than processors", "more than the 1 of the run", options=(*SCALE, "--omp-nthreads", "2")),
    Case("negative seed", "a whole number, zero or larger", options=(*SCALE, "--random-seed=-1")),
    Case("negative b0 threshold", "a b-value in s/mm2, zero or larger", options=(*SCALE, "--b0-threshold=-5")),
    Case("b0 threshold NaN", "a b-value in s/mm2, zero or larger", options=(*SCALE, "--b0-threshold", "nan")),
    Case("b0 threshold above all", "lower --b0-threshold", options=(*SCALE, "--b0-threshold", "2000")),
    Case("label with a path", "is not a BIDS label", options=(*SCALE, "--participant-label", "../01")),
    Case("unknown option", "unrecognized arguments: --faster", options=(*SCALE, "--faster")),
    Case("unknown level", "'session' is not an analysis level", words=("raw", "out", "session")),
    Case("no level", "the following arguments are required", options=(), words=("raw", "out")),
    Case("group before anything", "holds no records of series", options=(), words=("raw", "out", "group"), shown_dry=False),
    Case("reports before anything", "holds no records", options=("--reports-only",), shown_dry=False),
    Case("methods before anything", "holds no records", options=("--boilerplate-only",), shown_dry=False),
]  # fmt: skip

CASES = [*IMAGES, *PLACES, *GRADIENTS, *MASKS, *ANATOMY, *DATASETS, *FOLDERS, *GRIDS, *MODELS, *FILES, *NUMBERS]
DEFAULTS = {"--model": "cubic", "--device": "cpu", "--nprocs": "1", "-w": "work"}


def command(case: Case, *more: str) -> list[str]:
    """The words of a case, with defaults where it says nothing."""
    given = [*case.options, *more]
    defaults = [word for name, value in DEFAULTS.items() if name not in given for word in (name, value)]
    return [*case.words, *given, *defaults, "--sloppy", "--no-self-check"]


def contents(folder: Path) -> dict[str, bytes | str]:
    """All files of a folder."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {
        name: str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for name, path in files.items()
        if path.is_symlink() or path.is_file()
    }


def test_there_are_enough_cases_of_different_names():
    assert len({case.name for case in CASES}) == len(CASES) >= 120


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_refuses_in_one_line(case, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    case.harm(made := Made(tmp_path / "raw"))
    before = contents(made.root)
    for more in [["--dry-run"], []] if case.shown_dry else [[]]:
        code = main(command(case, *more))
        printed = capfd.readouterr()
        logged = [record.getMessage() for record in caplog.records if record.name == "bids_sr"]
        said = printed.out + printed.err + "\n".join(logged)
        caplog.clear()
        assert code == case.code, said
        lines = [line for line in said.splitlines() if re.search(case.says, line)]
        assert lines, said
        assert "Traceback" not in said
        assert "this is a bug" not in said
        assert "Warning: " not in said
        assert "[Errno" not in said
        assert not (more and (tmp_path / "out").is_dir()), "a dry run wrote something"
    assert contents(made.root) == before
    assert not (case.stops and list(tmp_path.glob("out/sub-*/dwi/*.nii.gz")))

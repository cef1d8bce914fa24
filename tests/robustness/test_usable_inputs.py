"""What is unusual and yet means the same gives the same result; what is doubtful is used, and told."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from tests.robustness.damage import Made, unpacked

pytestmark = pytest.mark.integration


def stored_as(dtype: Any, slope: float | None = None, inter: float = 0.0) -> Callable[[Made], Any]:
    """The same series as numbers of another kind, scaled where a slope is given."""

    def change(made: Made) -> None:
        image = nib.load(made.series)
        data = np.asarray(image.dataobj, dtype=np.float64)
        raw = data if slope is None else np.rint((data - inter) / slope)
        header = nib.Nifti1Header(endianness=">" if np.dtype(dtype).byteorder == ">" else "<")
        new = nib.Nifti1Image(raw.astype(dtype), image.affine, header, dtype=dtype)
        new.header.set_xyzt_units("mm", "sec")
        new.to_filename(made.series)
        if slope is not None:
            made.edit_header(made.series, scl_slope=slope, scl_inter=inter)

    return change


def unscaled(slope: float) -> Callable[[Made], Any]:
    return lambda made: made.edit_header(made.series, scl_slope=slope, scl_inter=0)


def second_version(made: Made) -> None:
    """NIfTI-2, whose header is longer."""
    image = nib.load(made.series)
    new = nib.Nifti2Image(np.asarray(image.dataobj), image.affine)
    made.series.write_bytes(gzip.compress(new.to_bytes()))


def qform_alone(made: Made) -> None:
    image = nib.load(made.series)
    image.set_qform(image.affine, code=1)
    image.set_sform(None, code=0)
    made.series.write_bytes(gzip.compress(image.to_bytes()))


def forms_that_disagree(made: Made) -> None:
    image = nib.load(made.series)
    shifted = image.affine.copy()
    shifted[0, 3] += 12
    image.set_qform(shifted, code=1)
    made.series.write_bytes(gzip.compress(image.to_bytes()))


def no_forms(made: Made) -> None:
    for file in (made.series, made.brain):
        made.edit_header(file, sform_code=0, qform_code=0)


def bvecs(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Made], Any]:
    return lambda made: made.table(made.bvec, change)


def without_direction_of_b0(table: np.ndarray) -> np.ndarray:
    table[:, 0] = np.nan
    return table


def spelled(file: str, change: Callable[[str], str]) -> Callable[[Made], Any]:
    def write(made: Made) -> None:
        path = getattr(made, file)
        path.write_text(change(path.read_text()), encoding="utf-8")

    return write


def mask_of(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Made], Any]:
    return lambda made: made.write(made.brain, change(np.asarray(nib.load(made.brain).dataobj)))


def sidecar_with_nan(made: Made) -> None:
    made.sidecar.write_text('{"EchoTime": 0.09, "RepetitionTime": NaN, "TotalReadoutTime": null}')


def both(*changes: Callable[[Made], Any]) -> Callable[[Made], Any]:
    """Several changes that have nothing to do with each other, to save runs."""
    return lambda made: [change(made) for change in changes]


COMMAS = spelled("bval", lambda text: text.replace(" ", ", "))
COLUMN = spelled("bval", lambda text: "\ufeff" + text.replace(" ", "\r\n"))

# What is changed, how far signals may then be from those of the plain scan (of its largest), what is warned of.
SAME: dict[str, tuple[Callable[[Made], Any], float, str]] = {
    "plain": (lambda made: None, 0, ""),
    "bigendianTransposed": (both(stored_as(">f4"), bvecs(np.transpose)), 0, ""),
    "float64B0nan": (both(stored_as("<f8"), bvecs(without_direction_of_b0)), 1e-6, ""),
    "scaledShort": (both(stored_as("<i2", 0.05, 300.0), bvecs(lambda table: table * 0.95)), 1e-4, ""),
    "scaledBigCommas": (both(stored_as(">u2", 0.05), COMMAS), 1e-4, ""),
    "slopeNanColumn": (both(unscaled(np.nan), COLUMN), 0, ""),
    "slopeZeroMask255": (both(unscaled(0.0), mask_of(lambda mask: mask * np.uint8(255))), 0, ""),
    "slopeInfMaskShares": (both(unscaled(np.inf), mask_of(lambda mask: mask * np.float32(0.9))), 0, ""),
    "plainniiSidecar": (both(sidecar_with_nan, lambda made: unpacked(made.series)), 0, ""),
    "nifti2": (second_version, 0, ""),
    "qform": (qform_alone, 1e-5, ""),
    "forms": (forms_that_disagree, 0, "sform and qform of .* disagree by up to 12 mm; the sform was used"),
    "noforms": (no_forms, 1e-5, "does not tell the orientation .* Check left and right"),
    "fullmask": (mask_of(np.ones_like), 1e-6, "covers the whole field of view"),
}  # fmt: skip


def subject(root: Path, label: str, change: Callable[[Made], Any]) -> None:
    """One subject of the dataset, made alone and then given its name."""
    made = Made(root.parent / "one")
    made.mixed()
    change(made)
    shutil.rmtree(made.root / "sub-01" / "anat")
    for file in sorted(made.root.glob("sub-01/dwi/*")):
        target = root / f"sub-{label}" / "dwi" / file.name.replace("sub-01", f"sub-{label}")
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    root.joinpath("dataset_description.json").write_bytes((made.root / "dataset_description.json").read_bytes())
    shutil.rmtree(made.root)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Output folder of one run over all of them."""
    folder = tmp_path_factory.mktemp("usable")
    for label, (change, _, _) in SAME.items():
        subject(folder / "raw", label, change)
    words = [str(folder / "raw"), str(folder / "out"), "participant", "--scale", "2", "--model", "cubic"]
    more = ["--device", "cpu", "--nprocs", "1", "-w", str(folder / "work"), "--no-self-check"]
    assert main([*words, *more]) == 0
    return folder / "out"


def load(results, label, name):
    (file,) = (results / f"sub-{label}" / "dwi").glob(f"*_{name}.nii.gz")
    return nib.load(file)


def warnings(results, label):
    (file,) = (results / f"sub-{label}" / "figures").glob("*_desc-record.json")
    return json.loads(file.read_text())["warnings"]


@pytest.mark.parametrize("label", SAME)
def test_the_result_is_the_same(results, label):
    plain, found = (load(results, one, "desc-sr_dwi") for one in ("plain", label))
    expected, values = (np.asarray(image.dataobj) for image in (plain, found))
    np.testing.assert_allclose(values, expected, rtol=0, atol=SAME[label][1] * expected.max())
    if label != "noforms":
        np.testing.assert_allclose(found.affine, plain.affine, atol=1e-4)
    if label != "fullmask":
        fa = [np.asarray(load(results, one, "desc-sr_FA").dataobj) for one in ("plain", label)]
        np.testing.assert_allclose(fa[1], fa[0], atol=1e-3)


@pytest.mark.parametrize("label", SAME)
def test_what_is_doubtful_is_told_and_nothing_else(results, label):
    usual, told = warnings(results, "plain"), warnings(results, label)
    assert all("T1w" in line or "ml" in line for line in usual)
    new = [line for line in told if not any(word in line for word in ("T1w", " ml,"))]
    assert bool(new) == bool(SAME[label][2])
    assert all(re.search(SAME[label][2], line) for line in new)


def test_a_header_that_tells_nothing_runs_to_the_left(results):
    assert nib.aff2axcodes(load(results, "noforms", "desc-sr_dwi").affine) == ("L", "A", "S")


def test_sidecars_stay_json(results):
    files = sorted(results.glob("sub-*/dwi/*.json"))
    assert files
    for file in files:
        assert "NaN" not in file.read_text()


@pytest.mark.parametrize("axis", [0, 2])
def test_a_single_slice(tmp_path, axis):
    """An axis of one voxel is restored along the other two, or refused in one line."""
    made = Made(tmp_path / "raw")
    made.mixed()
    image = nib.load(made.series)
    data = np.take(np.asarray(image.dataobj), [4], axis=axis)
    made.write(made.series, np.ascontiguousarray(data))
    made.write(made.brain, np.ascontiguousarray(np.take(np.asarray(nib.load(made.brain).dataobj), [4], axis=axis)))
    words = [str(made.root), str(tmp_path / "out"), "participant", "--scale", "2", "--model", "cubic", "--no-t1w"]
    assert main([*words, "--device", "cpu", "--nprocs", "1", "-w", str(tmp_path / "work")]) == 0

"""The numbers that a reader sees are those of the files: all of them computed again, by other means.

The grid asked for has voxels half as wide, so a restored map on the acquired grid is the mean of eight voxels.
"""

import json
import re
from html import unescape

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from tests.tiny import make_tiny

pytestmark = pytest.mark.integration
TISSUES = {"WM": 3, "GM": 2, "CSF": 1}
METHODS = {"orig": "fit_acquired", "cubic": "fit_cubic", "sr": "fit_sr"}
THOUSANDTHS = {"FA": 1, "MD": 1000, "AD": 1000, "RD": 1000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dataset, output and work of a run; trilinear interpolation stands for a model that differs from the spline."""
    folder = tmp_path_factory.mktemp("numbers")
    words = [str(make_tiny(folder / "raw")), str(folder / "out"), "participant", "-w", str(folder / "work")]
    assert (
        main([*words, "--scale", "2", "--model", "trilinear", "--device", "cpu", "--nprocs", "1", "--save-cubic"]) == 0
    )
    return folder


@pytest.fixture(scope="module")
def record(folder):
    return json.loads((folder / "out/sub-01/figures/sub-01_res-3_desc-record.json").read_text())


@pytest.fixture(scope="module")
def page(folder):
    """Text of the report, without pictures."""
    text = (folder / "out/sub-01.html").read_text()
    return re.sub(r"<(style|script|svg)\\b.*?</\\1>", "", text, flags=re.DOTALL)


def one(folder, pattern):
    """Voxels of the only file of that name."""
    (file,) = folder.glob(pattern)
    return np.asarray(nib.load(file).dataobj).astype(np.float64)


def saved(folder, name):
    return one(folder, f"out/sub-01/dwi/sub-01_{name}.nii.gz")


def truth(folder, name):
    return one(folder, f"raw/derivatives/truth/sub-01/dwi/sub-01_res-3_desc-{name}.nii.gz")


def blocks(fine):
    """Mean of each two by two by two voxels."""
    x, y, z = np.array(fine.shape[:3]) // 2
    return fine.reshape(x, 2, y, 2, z, 2, *fine.shape[3:]).mean(axis=(1, 3, 5))


def maps_of(folder, method):
    """FA and MD as published, AD and RD as fitted, on the acquired grid."""
    stem = "desc-orig" if method == "orig" else f"res-3_desc-{method}"
    fitted = {name: one(folder, f"work/**/tensor/{METHODS[method]}/{name.lower()}.nii") for name in ("AD", "RD")}
    found = {"FA": saved(folder, f"{stem}_FA"), "MD": saved(folder, f"{stem}_ADC")} | fitted
    return found if method == "orig" else {name: blocks(data) for name, data in found.items()}


def described(values, reference=None):
    """Mean, SD and so on, in the words of the table."""
    found = {"n_voxels": len(values), "mean": values.mean(), "sd": np.sqrt(np.mean((values - values.mean()) ** 2))}
    found["median"] = np.sort(values)[[(len(values) - 1) // 2, len(values) // 2]].mean()
    if reference is not None:
        found |= {
            "bias": (values - reference).sum() / len(values),
            "mae": np.abs(values - reference).sum() / len(values),
        }
        found["correlation"] = np.corrcoef(values, reference)[0, 1]
    return found


@pytest.fixture(scope="module")
def expected(folder):
    """The comparison with the acquired maps, by map, tissue and method."""
    tissues, mask = one(folder, "work/**/compare/tissues.nii"), saved(folder, "desc-brain_mask") > 0
    regions = {name: mask & (tissues == label) for name, label in TISSUES.items()} | {"brain": mask}
    maps = {method: maps_of(folder, method) for method in METHODS}
    return {
        (name, tissue, method): described(
            maps[method][name][region], None if method == "orig" else maps["orig"][name][region]
        )
        for name in THOUSANDTHS
        for tissue, region in regions.items()
        for method in METHODS
    }


def assert_rows(rows, expected):
    """The rows are those expected, in every number that is not an angle."""
    assert {(row["map"], row["tissue"], row["method"]) for row in rows} >= set(expected)
    for row in rows:
        for name, value in expected.get((row["map"], row["tissue"], row["method"]), {}).items():
            assert row[name] == pytest.approx(value, rel=2e-5, abs=2e-7), (row, name)


def test_the_record_holds_what_the_maps_say(record, expected):
    assert len(record["tensor_table"]) == len(expected)
    assert_rows(record["tensor_table"], expected)


def test_the_published_table_is_that_of_the_record(folder, record):
    text = (folder / "out/sub-01/dwi/sub-01_res-3_desc-tensor_stats.tsv").read_text().splitlines()
    heading, *rows = [line.split("\t") for line in text]
    assert len(rows) == len(record["tensor_table"])
    for row, told in zip(rows, record["tensor_table"], strict=True):
        for name, cell in zip(heading, row, strict=True):
            value = told[name]
            assert cell == "n/a" if value is None else cell == value or float(cell) == pytest.approx(value, rel=1e-5)


def test_angles_are_those_between_the_directions(folder, record):
    (region,) = (one(folder, "work/**/compare/tissues.nii") == TISSUES["WM"],)
    region &= saved(folder, "desc-brain_mask") > 0
    acquired = one(folder, "work/**/tensor/fit_acquired/v1.nii")[region]
    for method in ("cubic", "sr"):
        fine = one(folder, f"work/**/tensor/{METHODS[method]}/v1.nii")
        # A direction has no sign, so what is averaged is its dyad.
        dyads = blocks(fine[..., :, None] * fine[..., None, :])[region]
        cosines = np.abs((np.linalg.eigh(dyads)[1][..., -1] * acquired).sum(axis=-1)).clip(0, 1)
        (told,) = [row["v1_angle"] for row in record["tensor_table"] if row["v1_angle"] and row["method"] == method]
        assert told == pytest.approx(np.median(np.degrees(np.arccos(cosines))), abs=0.02)


def test_the_comparison_with_the_truth_is_that_of_the_published_maps(folder, record):
    mask = (saved(folder, "res-3_desc-brain_mask") > 0) & (truth(folder, "brain_mask") > 0)
    tissues = truth(folder, "truth_dseg")
    regions = {name: mask & (tissues == label) for name, label in TISSUES.items()} | {"brain": mask}
    maps = {"FA": "FA", "MD": "ADC"}
    expected = {}
    for name, suffix in maps.items():
        right = truth(folder, f"truth_{suffix}")
        for tissue, region in regions.items():
            for method in ("cubic", "sr"):
                values = saved(folder, f"res-3_desc-{method}_{suffix}")[region]
                expected[name, tissue, method] = described(values, right[region])
    assert_rows(record["truth_table"], expected)


def cells(row):
    """Texts of the cells of a row of a table."""
    found = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).replace("−", "-").split()) for cell in found]


def test_the_report_shows_these_numbers(page, expected):
    table = page[page.index("Comparison by tissue</h3>") :]
    table, n_shown = table[: table.index("</table>")], 0
    for body in table.split("<tbody>")[1:]:
        (name, *_), *rows = [cells(row) for row in re.findall(r"<tr.*?</tr>", body, flags=re.DOTALL)]
        name = name.split()[0]
        for tissue, voxels, *shown in rows:
            own = {method: expected[name, tissue, method] for method in METHODS}
            assert int(voxels.replace(",", "")) == own["orig"]["n_voxels"]
            wanted = [(own[method][key], THOUSANDTHS[name]) for method in METHODS for key in ("mean", "sd")]
            wanted += [(own[m][key], THOUSANDTHS[name]) for key in ("bias", "mae") for m in ("cubic", "sr")]
            wanted += [(own[method]["correlation"], 1) for method in ("cubic", "sr")]
            numbers = [float(number) for cell in shown[:9] for number in cell.split(" ± ")]
            np.testing.assert_allclose(numbers, [value * factor for value, factor in wanted], atol=5.1e-4)
            n_shown += len(numbers)
    assert n_shown == 4 * 4 * 12


def test_grids_volumes_mask_and_motion_are_those_of_the_files(folder, record, page):
    images = [
        nib.load(next(folder.glob(name))) for name in ("raw/sub-01/dwi/*_dwi.nii.gz", "out/*/dwi/*desc-sr_dwi.nii.gz")
    ]
    for grid, image in zip(("acquired", "target"), images, strict=True):
        assert record["grids"][grid]["shape"] == list(image.shape[:3])
        np.testing.assert_allclose(record["grids"][grid]["voxel_sizes"], image.header.get_zooms()[:3], atol=1e-4)
        assert " × ".join(map(str, image.shape[:3])) in page
    bvals = np.loadtxt(next(folder.glob("raw/sub-01/dwi/*.bval")))
    assert record["gradients"] == {"n_volumes": 8, "n_b0": 1, "shells": [{"b": 1000, "n": int((bvals > 50).sum())}]}
    mask = saved(folder, "desc-brain_mask") > 0
    millilitres = mask.sum() * np.prod(images[0].header.get_zooms()[:3]) / 1000
    assert record["mask"]["volume_ml"] == pytest.approx(millilitres, abs=0.051)
    assert f"{millilitres:.0f} ml" in page
    affines = [
        nib.load(next(folder.glob(name))).affine for name in ("raw/*/anat/*_T1w.nii.gz", "out/*/anat/*_T1w.nii.gz")
    ]
    motion = affines[1] @ np.linalg.inv(affines[0])
    degrees = np.degrees(np.arccos((np.trace(motion[:3, :3]) - 1) / 2))
    assert record["registration"]["rotation_degrees"] == pytest.approx(degrees, abs=1e-3)
    assert f"{degrees:.2f}°" in page


def test_the_departure_is_counted_in_the_saved_map(folder, record, page):
    departure = saved(folder, "desc-departure_dwimap")
    departure = departure if departure.ndim == 4 else departure[..., None]
    told = record["departure"]["sr"]
    # The map shows averages over a region; they and the voxels are the same where a voxel is larger than the region.
    assert told["share"] == told["region_share"]
    mask = saved(folder, "desc-brain_mask") > 0
    assert told["voxels"] == mask.sum()
    share = float(np.mean(np.abs(departure[mask]).max(axis=-1) > told["limit"]))
    assert told["share"] == pytest.approx(share, abs=1e-6)
    assert f"{100 * share:.1f}%" in page

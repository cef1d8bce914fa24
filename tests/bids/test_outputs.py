"""What is written is whole, valid BIDS, and the same bytes for the same data."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.bids.inputs import DwiSeries, find_series
from bids_sr.bids.outputs import (
    OutputLayout,
    bids_uri,
    dataset_description,
    dataset_links,
    resolution_label,
    save_image,
    save_table,
    sidecar_of,
    write_atomically,
    write_dataset_files,
    write_json,
)
from bids_sr.config import Config
from bids_sr.models.registry import ModelCard
from tests.skeleton import BVALS, Skeleton, qsiprep

CARD = ModelCard("light", "A small model.", "csr_dmri", weights_sha256="ab" * 32)
OBLIQUE = np.array([[1.5, 0.3, 0, -20], [-0.3, 1.5, 0.1, 5], [0, -0.1, 2.5, 7], [0, 0, 0, 1]])


def series_of(**entities):
    return DwiSeries(dwi=Path("/raw/a_dwi.nii.gz"), bval=Path("b"), bvec=Path("c"), entities=entities)


def read_bytes(path):
    return gzip.decompress(path.read_bytes())


# Names


@pytest.mark.parametrize(
    ("sizes", "label"),
    [
        ([1.25] * 3, "1p25"),
        ([1, 1, 1], "1"),
        ([1.5, 1.5, 2.0], "1p5x1p5x2"),
        ([2 / 1.7] * 3, "1p176"),
        ([10, 10, 10], "10"),
    ],
)
def test_resolution_labels(sizes, label):
    assert resolution_label(sizes) == label


@given(st.lists(st.floats(0.1, 20), min_size=3, max_size=3))
def test_resolution_labels_are_alphanumeric(sizes):
    assert resolution_label(sizes).isalnum()


def test_paths_keep_the_entities_of_the_source():
    layout = OutputLayout(Path("/out"))
    series = series_of(sub="01", ses="1", dir="AP", run="2", space="ACPC", desc="preproc")
    path = layout.path(series, "dwi", extension=".nii.gz", desc="sr", res="1p25")
    assert path == Path("/out/sub-01/ses-1/dwi/sub-01_ses-1_dir-AP_run-2_space-ACPC_res-1p25_desc-sr_dwi.nii.gz")
    assert layout.path(series, "mask", extension=".nii.gz", desc="brain").name.endswith(
        "_space-ACPC_desc-brain_mask.nii.gz"
    )


def test_t1w_of_two_directions_have_two_names():
    layout = OutputLayout(Path("/out"))
    names = {
        layout.path(
            series_of(sub="1", dir=d), "T1w", extension=".json", desc="preproc", space="dwi", datatype="anat"
        ).name
        for d in ("AP", "PA")
    }
    assert names == {f"sub-1_acq-dir{d}_space-dwi_desc-preproc_T1w.json" for d in ("AP", "PA")}


def test_folders_of_a_subject():
    layout = OutputLayout(Path("/out"))
    series = series_of(sub="01", ses="1")
    assert layout.folder(series) == Path("/out/sub-01/ses-1")
    assert layout.figures(series) == Path("/out/sub-01/figures")
    assert layout.report("01") == Path("/out/sub-01.html")
    assert layout.logs == Path("/out/logs")


# URIs


def test_uris_name_the_innermost_dataset():
    links = {"": Path("/raw/derivatives/out"), "raw": Path("/raw"), "prior": Path("/prior")}
    assert bids_uri(links, Path("/raw/derivatives/out/sub-1/a.json")) == "bids::sub-1/a.json"
    assert bids_uri(links, Path("/raw/sub-1/a.json")) == "bids:raw:sub-1/a.json"
    assert bids_uri(links, Path("/prior/sub-1/a.json")) == "bids:prior:sub-1/a.json"
    with pytest.raises(ValueError, match="none of the datasets"):
        bids_uri(links, Path("/elsewhere/a.json"))


# Writing


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "deep" / "file.nii.gz"
    with write_atomically(path) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [item.name for item in path.parent.iterdir()] == ["file.nii.gz"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2), (1, 1, 1, 1), (5, 4, 3, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool, ">f4"])
def test_images_come_back_as_they_were(tmp_path, shape, dtype):
    data = (np.random.default_rng(0).random(shape) * 3).astype(dtype)
    path = tmp_path / "a.nii.gz"
    save_image(path, data, OBLIQUE)
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data.astype(image.get_data_dtype()))
    assert image.get_data_dtype() == (np.uint8 if data.dtype in (np.uint8, np.bool_) else np.float32)
    assert image.shape == shape
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    assert image.header.get_xyzt_units() == ("mm", "sec")


def test_qform_and_sform_agree_for_rigid_axes(tmp_path):
    axes = np.linalg.qr(OBLIQUE[:3, :3])[0] * [1.5, 2, 2.5]
    affine = nib.affines.from_matvec(axes, [1, 2, 3])
    save_image(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.float32), affine)
    header = nib.load(tmp_path / "a.nii.gz").header
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-5)
    assert (header["qform_code"], header["sform_code"]) == (1, 1)


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 0), (1, 1)), ((1, 0), (1, 1)), ((0, 2), (2, 2)), ((1, 4), (1, 4))]
)
def test_form_codes_and_repetition_time_are_the_source_s(tmp_path, codes, expected):
    source = nib.Nifti1Header()
    source.set_data_shape((2, 2, 2, 3))
    source.set_zooms((1, 1, 1, 4300))
    source.set_xyzt_units("mm", "msec")
    source["qform_code"], source["sform_code"] = codes
    save_image(tmp_path / "a.nii.gz", np.zeros((2, 2, 2, 3), np.float32), OBLIQUE, header_from=source)
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (header["qform_code"], header["sform_code"]) == expected
    assert header.get_zooms()[3] == pytest.approx(4.3)


def test_the_same_data_give_the_same_bytes(tmp_path):
    data = np.random.default_rng(1).random((6, 5, 4, 3)).astype(np.float32)
    for name in ("a", "b"):
        save_image(tmp_path / f"{name}.nii.gz", data, OBLIQUE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_mapped_and_strided_arrays_give_the_same_image(tmp_path):
    data = np.random.default_rng(1).random((6, 5, 4, 3)).astype(np.float32)
    mapped = np.memmap(tmp_path / "data", np.float32, "w+", shape=data.shape, order="F")
    mapped[:] = data
    for name, array in {"a": data, "b": mapped, "c": np.asfortranarray(data)}.items():
        save_image(tmp_path / f"{name}.nii.gz", array, OBLIQUE)
    assert len({read_bytes(tmp_path / f"{name}.nii.gz") for name in "abc"}) == 1


def test_sidecar_is_beside_the_image(tmp_path):
    save_image(
        tmp_path / "a.nii.gz", np.zeros((2, 2, 2)), np.eye(4), sidecar={"Size": np.float32(2), "Path": Path("/x")}
    )
    assert json.loads((tmp_path / "a.json").read_text()) == {"Size": 2.0, "Path": "/x"}


def test_json_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="set"):
        write_json(tmp_path / "a.json", {"a": {1}})
    assert not list(tmp_path.iterdir())


def test_tables_mark_what_is_missing(tmp_path):
    path = tmp_path / "a_stats.tsv"
    save_table(
        path, [{"map": "FA", "mean": 0.123456789, "bias": None}, {"map": "MD", "mean": float("nan"), "bias": 7e-4}]
    )
    assert path.read_text() == "map\tmean\tbias\nFA\t0.123457\tn/a\nMD\tn/a\t0.0007\n"
    assert list(json.loads(path.with_suffix(".json").read_text())) == ["map", "mean", "bias"]


# The dataset


def make_config(root, out, **options):
    return Config(root, out, out.parent / "work", output_resolution=(1.25, 1.25, 1.25), **options)


def test_description_names_model_weights_and_sources(tmp_path):
    raw = Skeleton(tmp_path / "raw", name="Mine")
    config = make_config(raw.root, tmp_path / "out", derivatives={"prior": tmp_path / "prior"})
    description = dataset_description(config, CARD)
    assert description["Authors"] == ["A", "B", "The bids_sr developers"]
    assert "light" in description["GeneratedBy"][0]["Description"]
    assert CARD.weights_sha256 in description["GeneratedBy"][0]["Description"]
    assert set(description["DatasetLinks"]) == {"raw", "prior"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Jane Doe", ["Jane Doe"]),
        (["A", "B", "A"], ["A", "B"]),
        ([], ["The authors of Skeleton"]),
        (["The bids_sr developers"], []),
    ],
)
def test_authors_are_names(tmp_path, given, expected):
    raw = Skeleton(tmp_path / "raw")
    raw.json("dataset_description.json", {"Name": "Skeleton", "BIDSVersion": "1.10.0", "Authors": given})
    made = dataset_description(Config(raw.root, tmp_path / "out", tmp_path / "work"))
    assert made["Authors"] == [*expected, "The bids_sr developers"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("bids::anat/sub-01_T1w.nii.gz", "bids:raw:anat/sub-01_T1w.nii.gz"),
        ("https://templateflow.org", "https://templateflow.org"),
        ({"Left": "bids::a.nii.gz", "Right": "b.nii.gz"}, {"Left": "bids:raw:a.nii.gz", "Right": "b.nii.gz"}),
        (None, "bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"),
    ],
)
def test_the_reference_of_the_source_is_looked_for_in_the_source(given, expected):
    """In its sidecar, an URI without a name is in its dataset; in ours, it would be in ours."""
    series = replace(series_of(sub="01", space="T1w"), sidecar={"SpatialReference": given} if given else {})
    sources = ["bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"]
    for name in ("sub-01_space-T1w_desc-sr_dwi.nii.gz", "sub-01_space-T1w_desc-brain_mask.nii.gz"):
        made = sidecar_of(Path("/out") / name, series, description="x", sources=sources)
        assert made["SpatialReference"] == expected
    assert "raw" in dataset_links(Config(Path("/a"), Path("/b"), Path("/c")))


@pytest.mark.parametrize(
    ("environment", "container"),
    [
        ({"BIDS_SR_CONTAINER_TAG": "lab/bids_sr:0.1"}, {"Type": "docker", "Tag": "lab/bids_sr:0.1"}),
        ({"APPTAINER_CONTAINER": "/images/sr.sif"}, {"Type": "apptainer", "Tag": "sr.sif"}),
    ],
)
def test_container_is_told(tmp_path, monkeypatch, environment, container):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    raw = Skeleton(tmp_path / "raw")
    assert dataset_description(make_config(raw.root, tmp_path / "out"))["GeneratedBy"][0]["Container"] == container


def test_dataset_files_are_written_once(tmp_path):
    config = make_config(Skeleton(tmp_path / "raw").root, tmp_path / "out")
    write_dataset_files(config, CARD)
    before = {path: path.stat().st_mtime_ns for path in config.output_dir.iterdir()}
    write_dataset_files(config, CARD)
    assert {path: path.stat().st_mtime_ns for path in config.output_dir.iterdir()} == before
    write_dataset_files(replace(config, b0_threshold=100.0), CARD)
    assert {path: path.stat().st_mtime_ns for path in config.output_dir.iterdir()} != before


def write_results(config, series):
    """Every file that a run leaves for a series."""
    layout, links = OutputLayout(config.output_dir), dataset_links(config)
    affine, fine = np.diag([2, 2, 2, 1.0]), np.diag([1.25, 1.25, 1.25, 1.0])
    dwi_uri = bids_uri(links, series.dwi)

    def save(suffix, shape, grid, dtype=np.float32, **names):
        path = layout.path(series, suffix, extension=".nii.gz", **names)
        sidecar = sidecar_of(path, series, description="Test.", sources=[dwi_uri], voxel_sizes=[1.25] * 3)
        save_image(path, np.ones(shape, dtype), grid, sidecar=sidecar)
        return path

    for res, desc, grid in ((None, "orig", affine), ("1p25", "sr", fine)):
        for suffix in ("FA", "ADC"):
            save(suffix, (6, 6, 4), grid, res=res, desc=desc)
        save("colFA", (6, 6, 4, 3), grid, np.uint8, res=res, desc=desc)
        save("mask", (6, 6, 4), grid, bool, res=res, desc="brain")
    save("T1w", (6, 6, 4), affine, space="dwi", desc="preproc", datatype="anat")
    for desc in ("sr", "cubic"):
        dwi = save("dwi", (9, 9, 6, len(BVALS)), fine, res="1p25", desc=desc)
        for source, extension in ((series.bval, ".bval"), (series.bvec, ".bvec")):
            dwi.with_name(dwi.name.replace(".nii.gz", extension)).write_bytes(source.read_bytes())
    table = layout.path(series, "stats", extension=".tsv", desc="tensor")
    save_table(table, [{"map": "FA", "tissue": "WM", "method": "orig", "mean": 0.4}])
    write_json(layout.figures(series) / f"{series.stem}_res-1p25_desc-record.json", {"schema": 1})
    (layout.figures(series) / f"{series.stem}_desc-b0.webp").write_bytes(b"RIFF")
    layout.report(series.entities["sub"]).write_text("<html></html>")
    layout.logs.mkdir(exist_ok=True)
    (layout.logs / "run.toml").write_text(config.to_toml())
    for name in ("CITATION.md", "CITATION.bib"):
        (config.output_dir / name).write_text("text")
    write_dataset_files(config, CARD)


VALIDATOR = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
needs_validator = pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")


def validate(folder):
    command = [VALIDATOR, str(folder), "--format", "json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return [
        (issue["code"], issue.get("subCode"), issue.get("location"))
        for issue in json.loads(result.stdout)["issues"]["issues"]
    ]


def raw_dataset(root):
    raw = Skeleton(root)
    for stem in (
        "sub-01_ses-1_acq-a_dir-AP_run-1",
        "sub-01_ses-1_acq-a_dir-PA_run-1",
        "sub-02",
        "sub-03_rec-norm_part-mag",
    ):
        raw.dwi(stem)
    raw.t1w("sub-01_ses-1")
    return raw


@needs_validator
@pytest.mark.parametrize("make", [raw_dataset, qsiprep, lambda root: qsiprep(root, session="1", space="T1w")])
def test_the_validator_is_silent_about_the_results(tmp_path, make):
    config = make_config(make(tmp_path / "raw").root, tmp_path / "out")
    for series in find_series(config):
        write_results(config, series)
    assert validate(config.output_dir) == []


@needs_validator
def test_the_skeleton_is_a_valid_dataset(tmp_path):
    assert not [issue for issue in validate(raw_dataset(tmp_path / "raw").root) if "RECOMMENDED" not in issue[0]]

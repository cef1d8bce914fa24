"""Models that learn from the scan itself run through the app: fitted once, told in the record, kept for a rerun."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from bids_sr.degradation import degrade
from bids_sr.geometry import Grid
from bids_sr.models.registry import read_card

pytestmark = pytest.mark.integration
SMALL = {
    "smore": {"seconds": 0.02, "features": 4, "blocks": 1, "patch": 8, "batch": 2},
    "inr": {"seconds": 0.1, "components": 2, "hidden": 8, "patch": 6},
}


@pytest.fixture(scope="module")
def thick(dataset, tmp_path_factory):
    """The small dataset with slices twice as thick."""
    folder = tmp_path_factory.mktemp("thick") / "raw"
    shutil.copytree(dataset, folder, ignore=shutil.ignore_patterns("derivatives", "sourcedata"))
    for file in folder.glob("sub-*/dwi/*_dwi.nii.gz"):
        image = nib.load(file)
        low, grid = degrade(image.get_fdata(dtype=np.float32), Grid.of(image), np.array([1, 2.0, 1]))
        nib.Nifti1Image(low, grid.affine).to_filename(file)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs the app with a model on a dataset; gives its record, the file of its series, and its work folder."""

    def with_model(data, name, *options, again=None):
        folder = again or tmp_path_factory.mktemp("run")
        card = read_card(name)
        small = dataclasses.replace(card, name="small", arguments=card.arguments | SMALL[name])
        file = folder / "small.json"
        file.write_text(json.dumps(dataclasses.asdict(small)))
        words = [str(data), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1", "--sloppy"]
        assert main([*words, "--model", str(file), "--device", "cpu", *options]) == 0
        (record,) = (folder / "out").rglob("*record.json")
        (series,) = (folder / "out").rglob("*desc-sr_dwi.nii.gz")
        return json.loads(record.read_text()), series, folder

    return with_model


@pytest.fixture(scope="module")
def smore(run, thick):
    return run(thick, "smore", "--scale", "1", "1.6", "1")


def test_thick_slices_are_learned_from_and_the_report_says_so(smore, capfd):
    record, _, folder = smore
    assert record["fit"]["learned"]
    assert record["fit"]["steps"] >= 1
    report = next((folder / "out").glob("sub-*.html")).read_text()
    assert "learned from the detail within the slices" in report
    assert "after SMORE" in (folder / "out" / "CITATION.md").read_text()


def test_the_self_check_fits_the_degraded_scan_for_itself(smore):
    record, _, folder = smore
    assert record["self_check"]["done"]
    assert len(list((folder / "work").rglob("fits/*.safetensors"))) == 2


def test_a_rerun_gives_the_same_bytes_from_what_was_learned(smore, run, thick, monkeypatch):
    _, series, folder = smore
    before = series.read_bytes()
    shutil.rmtree(folder / "out")
    for name in ("restore", "self_check"):
        for node in (folder / "work").rglob(name):
            shutil.rmtree(node)
    monkeypatch.setattr("bids_sr.inference.fitting._learn", lambda *_: pytest.fail("it was fitted again"))
    _, again, _ = run(thick, "smore", "--scale", "1", "1.6", "1", again=folder)
    assert again.read_bytes() == before


def test_cubes_are_interpolated_and_this_is_a_warning(run, dataset, capfd):
    record, _, _ = run(dataset, "smore", "--scale", "1.3", "--no-self-check")
    told = [warning for warning in record["warnings"] if "no thick slices to learn from" in warning]
    assert len(told) == 1
    assert told[0] in capfd.readouterr().err
    assert not record["fit"]["learned"]


def test_a_field_is_guided_by_the_t1w_and_its_effect_is_told(run, dataset):
    record, series, _ = run(dataset, "inr", "--scale", "1.5")
    assert record["t1w"]["used"]
    assert "guided by the T1w" in record["fit"]["sentence"]
    assert record["t1w_effect"]["done"]
    assert record["self_check"]["done"]
    assert np.isfinite(nib.load(series).get_fdata()).all()


@pytest.mark.parametrize("name", SMALL)
def test_a_dry_run_counts_the_fit(dataset, tmp_path, name, capsys):
    words = [str(dataset), str(tmp_path / "out"), "participant", "--scale", "1.5", "--dry-run", "--model", name]
    assert main([*words, "--device", "cpu", "--nprocs", "1"]) == 0
    assert name in capsys.readouterr().out

"""The whole app on a small made dataset, from the command line to valid derivatives and a report."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from bids_sr.demo.dataset import make_dataset
from tests.browser import Browser, needs_browser

pytestmark = pytest.mark.integration
TENSOR_PARTS = ("tensor", "evals", "evecs")
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def contents(folder):
    """Checksum of every file."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """One subject, two sessions, with truth."""
    folder = tmp_path_factory.mktemp("data") / "raw"
    make_dataset(folder, small=True, n_sessions=2)
    return folder


def run(dataset, out, work, *options, session="1", nprocs="1"):
    words = [str(dataset), str(out), "participant", "--session-label", session, "-w", str(work), "--nprocs", nprocs]
    return main([*words, "--device", "cpu", "--sloppy", *options])


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """Output, exit status and log of a first run, and what the dataset held before."""
    folder = tmp_path_factory.mktemp("run")
    before = contents(dataset)
    code = run(
        dataset, folder / "out", folder / "work", "--output-resolution", "1.5", "--model", "cubic", "--save-cubic",
        "--save-tensor",
    )  # fmt: skip
    return folder, code, before


def test_it_ends_well_and_leaves_the_input_alone(finished, dataset):
    _, code, before = finished
    assert code == 0
    assert contents(dataset) == before


@pytest.mark.parametrize(
    "name",
    [
        "anat/sub-01_ses-1_space-dwi_desc-preproc_T1w.nii.gz",
        *(f"dwi/sub-01_ses-1_res-1p5_desc-sr_dwi{end}" for end in (".nii.gz", ".json", ".bval", ".bvec")),
        *(f"dwi/sub-01_ses-1_res-1p5_desc-cubic_dwi{end}" for end in (".nii.gz", ".json", ".bval", ".bvec")),
        "dwi/sub-01_ses-1_desc-brain_mask.nii.gz",
        "dwi/sub-01_ses-1_res-1p5_desc-brain_mask.nii.gz",
        *(f"dwi/sub-01_ses-1_desc-orig_{suffix}.nii.gz" for suffix in ("FA", "ADC", "colFA")),
        *(f"dwi/sub-01_ses-1_res-1p5_desc-sr_{suffix}.nii.gz" for suffix in ("FA", "ADC", "colFA")),
        *(f"dwi/sub-01_ses-1_desc-departure_dwimap{end}" for end in (".nii.gz", ".json")),
        *(f"dwi/sub-01_ses-1_model-tensor_param-{param}_desc-orig_dwimap.nii.gz" for param in TENSOR_PARTS),
        *(f"dwi/sub-01_ses-1_res-1p5_model-tensor_param-{param}_desc-sr_dwimap.nii.gz" for param in TENSOR_PARTS),
        "dwi/sub-01_ses-1_res-1p5_desc-tensor_stats.tsv",
        "dwi/sub-01_ses-1_res-1p5_desc-tensor_stats.json",
    ],
)  # fmt: skip
def test_every_output_is_there(finished, name):
    folder, _, _ = finished
    assert (folder / "out" / "sub-01" / "ses-1" / name).is_file()


def test_the_validator_is_silent(finished):
    if not VALIDATOR.exists():
        pytest.skip("bids-validator-deno is not installed")
    folder, _, _ = finished
    found = subprocess.run([VALIDATOR, "--json", folder / "out"], capture_output=True, text=True, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [(issue["code"], issue.get("location")) for issue in issues] == []


def test_gradients_are_the_same_bytes(finished, dataset):
    folder, _, _ = finished
    for end in (".bval", ".bvec"):
        raw = dataset / "sub-01" / "ses-1" / "dwi" / f"sub-01_ses-1_dwi{end}"
        made = folder / "out" / "sub-01" / "ses-1" / "dwi" / f"sub-01_ses-1_res-1p5_desc-sr_dwi{end}"
        assert made.read_bytes() == raw.read_bytes()


def test_the_grid_is_the_one_asked_for_around_the_same_centre(finished, dataset):
    folder, _, _ = finished
    raw = nib.load(dataset / "sub-01" / "ses-1" / "dwi" / "sub-01_ses-1_dwi.nii.gz")
    made = nib.load(folder / "out" / "sub-01" / "ses-1" / "dwi" / "sub-01_ses-1_res-1p5_desc-sr_dwi.nii.gz")
    assert made.shape == (48, 56, 44, raw.shape[3])
    assert made.get_data_dtype() == np.float32
    np.testing.assert_allclose(made.header.get_zooms()[:3], 1.5)
    centres = [image.affine @ [*(np.array(image.shape[:3]) - 1) / 2, 1] for image in (raw, made)]
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-4)
    assert nib.aff2axcodes(raw.affine) == nib.aff2axcodes(made.affine)
    assert made.header["qform_code"] > 0
    assert made.header["sform_code"] > 0


def test_the_report_and_the_record_tell_what_was_done(finished):
    folder, _, _ = finished
    record = json.loads((folder / "out/sub-01/figures/sub-01_ses-1_res-1p5_desc-record.json").read_text())
    assert record["status"] == "done"
    assert {"tensor_table", "truth_table", "figures", "registration", "mask", "gradients", "seconds"} <= set(record)
    assert record["departure"]["done"]
    assert "t1w_effect" not in record
    assert {row["method"] for row in record["truth_table"]} == {"truth", "cubic", "sr"}
    assert all((folder / "out" / name).is_file() for name in record["outputs"])
    report = (folder / "out" / "sub-01.html").read_text()
    assert "sub-01" in report
    assert 'src="http' not in report
    assert (folder / "out" / "CITATION.md").read_text().startswith("# Methods")


@needs_browser
def test_a_browser_opens_the_report_without_a_network_or_a_complaint(finished, tmp_path):
    folder, _, _ = finished
    browser = Browser(tmp_path)
    try:
        browser.open(folder / "out" / "sub-01.html", width=390, phone=True, dark=True)
        assert browser.complaints == []
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert browser.run("[...document.images].every((image) => image.alt && image.naturalWidth > 0)")
        assert browser.run("document.querySelectorAll('.missing').length") == 0
    finally:
        browser.close()


def test_logs_hold_the_options_and_no_crash(finished):
    folder, _, _ = finished
    names = sorted(path.suffix for path in (folder / "out" / "logs").iterdir())
    assert names == [".log", ".toml"]
    log = next((folder / "out" / "logs").glob("*.log")).read_text(encoding="utf-8")
    assert re.search(r"sub-01 ses-1: super_resolution\.restore took \d+\.\d s$", log, re.MULTILINE)


def test_a_second_run_does_nothing(finished, dataset, capsys):
    folder, _, _ = finished
    before = {name: digest for name, digest in contents(folder / "out").items() if not name.startswith("logs")}
    times = {file: file.stat().st_mtime_ns for file in (folder / "out" / "sub-01").rglob("*") if file.is_file()}
    code = run(
        dataset, folder / "out", folder / "work", "--output-resolution", "1.5", "--model", "cubic", "--save-cubic",
        "--save-tensor",
    )  # fmt: skip
    assert code == 0
    assert before == {name: digest for name, digest in contents(folder / "out").items() if not name.startswith("logs")}
    assert times == {file: file.stat().st_mtime_ns for file in times}


def test_outputs_that_were_deleted_are_made_again_from_the_work_that_was_kept(finished, dataset):
    folder, _, _ = finished
    lost = [next((folder / "out" / "sub-01").rglob(name)) for name in ("*_desc-sr_FA.nii.gz", "*departureSr*.webp")]
    lost.append(folder / "out/sub-01/figures/sub-01_ses-1_res-1p5_desc-record.json")
    before = [file.read_bytes() for file in lost[:2]]
    for file in lost:
        file.unlink()
    options = ("--output-resolution", "1.5", "--model", "cubic", "--save-cubic")
    assert run(dataset, folder / "out", folder / "work", *options) == 0
    assert [file.read_bytes() for file in lost[:2]] == before
    assert json.loads(lost[2].read_text())["status"] == "done"


def test_reports_and_methods_alone(finished, dataset):
    folder, _, _ = finished
    report = folder / "out" / "sub-01.html"
    before = report.read_bytes()
    report.unlink()
    options = ("--output-resolution", "1.5", "--reports-only")
    assert run(dataset, folder / "out", folder / "work", *options) == 0
    assert report.read_bytes() == before
    (folder / "out" / "CITATION.md").unlink()
    assert run(dataset, folder / "out", folder / "work", "--output-resolution", "1.5", "--boilerplate-only") == 0
    assert (folder / "out" / "CITATION.md").is_file()


def test_the_group_level_gathers_what_was_run(finished, dataset):
    folder, _, _ = finished
    out = folder / "out"
    assert main([str(dataset), str(out), "group", "--session-label", "1"]) == 0
    heading, row = (line.split("\t") for line in (out / "group_tensor.tsv").read_text().splitlines())
    gathered = dict(zip(heading, row, strict=True))
    table = (out / "sub-01/ses-1/dwi/sub-01_ses-1_res-1p5_desc-tensor_stats.tsv").read_text().splitlines()
    own = [dict(zip(table[0].split("\t"), line.split("\t"), strict=True)) for line in table[1:]]
    assert len(own) == 48
    assert all(
        gathered["_".join((line["map"], line["tissue"], line["method"], "mean"))] == line["mean"] for line in own
    )
    assert (gathered["participant_id"], gathered["session_id"], gathered["model"]) == ("sub-01", "ses-1", "cubic")
    assert 'href="sub-01.html"' in (out / "group_tensor.html").read_text()
    test_the_validator_is_silent(finished)


def test_reports_of_nothing_are_the_users_error(dataset, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert run(dataset, tmp_path / "out", tmp_path / "work", "--scale", "2", "--reports-only") == 2
    assert "no records" in capsys.readouterr().err


def test_a_series_that_fails_does_not_stop_the_other(dataset, tmp_path, capfd):
    broken = tmp_path / "raw"
    shutil.copytree(dataset, broken)
    image = broken / "sub-01" / "ses-2" / "dwi" / "sub-01_ses-2_dwi.nii.gz"
    image.write_bytes(image.read_bytes()[:20000])
    options = ("--scale", "1.3", "--model", "cubic", "--no-t1w", "--clean-workdir")
    code = main(
        [str(broken), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), "--nprocs", "2", *options]
    )
    assert code == 2
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "out/sub-01/figures").glob("*record.json"))]
    assert [record["status"] for record in records] == ["done", "failed"]
    assert "ses-2_dwi.nii.gz" in records[1]["error"]["message"]
    assert records[1]["error"]["crash_file"] is None
    assert "Traceback" not in capfd.readouterr().err
    assert (tmp_path / "out" / "sub-01.html").is_file()
    # What failed may be mended and continued, so the work stays.
    assert any((tmp_path / "work").rglob("*.pklz"))


def test_the_trained_model_runs_and_cleans_up(dataset, tmp_path):
    options = ("--scale", "1.4", "1.4", "1.2", "--model", "light", "--clean-workdir", "--write-graph")
    assert run(dataset, tmp_path / "out", tmp_path / "work", *options) == 0
    made = nib.load(next((tmp_path / "out").rglob("*desc-sr_dwi.nii.gz")))
    data = made.get_fdata(dtype=np.float32)
    assert np.isfinite(data).all()
    assert data.min() >= 0
    sidecar = json.loads(next((tmp_path / "out").rglob("*desc-sr_dwi.json")).read_text())
    assert len(sidecar["ModelWeightsSHA256"]) == 64
    assert list((tmp_path / "out" / "logs").glob("*_graph.dot"))
    assert not any(path.is_file() for path in (tmp_path / "work").rglob("*"))


def test_a_terminated_run_says_so_and_leaves_no_process(dataset, tmp_path):
    words = [str(dataset), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), "--nprocs", "2"]
    command = [sys.executable, "-m", "bids_sr", *words, "--scale", "2", "--model", "light"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if "finding the brain" in line:
            break
    workers = [
        pid for pid in (path.name for path in Path("/proc").iterdir()) if pid.isdigit() and _parent(pid) == process.pid
    ]
    assert workers
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "Interrupted" in rest
    assert "Traceback" not in rest
    deadline = time.monotonic() + 20
    while (left := [pid for pid in workers if _parent(pid) is not None]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def _parent(pid):
    """Parent of a process; None where it is gone, or ended and not yet collected."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(parent)

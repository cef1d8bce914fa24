"""A dataset of QSIPrep goes the same way, and on to QSIRecon: masks, T1w and gradients are the right ones."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr import super_resolve
from bids_sr.cli.app import main
from tests.integration.made_qsiprep import SESSIONS, SPACE, TRANSFORMS, margin

pytestmark = pytest.mark.integration
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def record_of(qsiprep_output, session):
    (file,) = (qsiprep_output / "sub-01" / "figures").glob(f"sub-01_ses-{session}_*record.json")
    return json.loads(file.read_text())


def restored(qsiprep_output, session, end=".nii.gz"):
    (file,) = (qsiprep_output / "sub-01" / f"ses-{session}" / "dwi").glob(f"*_space-{SPACE}_res-2_desc-sr_dwi{end}")
    return file


@pytest.mark.parametrize("session", SESSIONS)
def test_the_space_stays_in_the_names_and_gradients_are_those_of_the_session(qsiprep_output, qsiprep, session):
    source = qsiprep / "sub-01" / f"ses-{session}" / "dwi" / f"sub-01_ses-{session}_space-{SPACE}_desc-preproc_dwi"
    for end in (".bval", ".bvec"):
        assert restored(qsiprep_output, session, end).read_bytes() == Path(f"{source}{end}").read_bytes()


@pytest.mark.parametrize("session", SESSIONS)
def test_the_mask_of_the_session_is_used_and_the_t1w_is_not_registered_again(qsiprep_output, session):
    record = record_of(qsiprep_output, session)
    assert record["mask"]["source"] == "given"
    assert "registration" not in record
    assert record["t1w"] == {"used": True, "reason": ""}
    assert record["inputs"]["t1w"].endswith(f"sub-01/anat/sub-01_space-{SPACE}_desc-preproc_T1w.nii.gz")
    (file,) = (qsiprep_output / "sub-01" / f"ses-{session}" / "dwi").glob(f"*_space-{SPACE}_desc-brain_mask.nii.gz")
    mask = np.asarray(nib.load(file).dataobj)
    assert mask.sum() == np.prod(np.array(mask.shape) - 2 * margin(session))


def test_images_in_memory_give_the_same_voxels(qsiprep_output, qsiprep, guided_card):
    start = qsiprep / "sub-01" / "ses-1" / "dwi" / f"sub-01_ses-1_space-{SPACE}_desc-"
    result = super_resolve(
        nib.load(f"{start}preproc_dwi.nii.gz"),
        np.loadtxt(f"{start}preproc_dwi.bval"),
        np.loadtxt(f"{start}preproc_dwi.bvec"),
        mask=nib.load(f"{start}brain_mask.nii.gz"),
        t1w=qsiprep / "sub-01" / "anat" / f"sub-01_space-{SPACE}_desc-preproc_T1w.nii.gz",
        t1w_is_aligned=True,
        scale=1.5,
        model=guided_card,
        device="cpu",
    )
    image = nib.load(restored(qsiprep_output, "1"))
    np.testing.assert_array_equal(np.asarray(result.dwi.dataobj), np.asarray(image.dataobj))
    np.testing.assert_array_equal(result.dwi.affine, image.affine)
    assert result.dwi.header == image.header
    assert result.t1w_used


# The contract of QSIRecon, as its `interfaces/ingress.py` and `utils/bids.py` have it.


def as_qsirecon_finds_it(folder):
    """For each series in a space that QSIRecon knows: the files that it looks for, by cutting the series' name."""
    found = []
    for dwi in sorted(folder.glob("sub-*/**/dwi/*_dwi.nii*")):
        stem = dwi.name.removesuffix(".nii.gz")
        if "_space-ACPC_" not in stem and "_space-T1w_" not in stem:
            continue
        ends = {
            "bval": f"{stem}.bval",
            "bvec": f"{stem}.bvec",
            "b": f"{stem}.b",
            "mask": f"{stem[:-11]}brain_mask.nii*",
            "dwiref": f"{stem[:-16]}dwiref.nii*",
        }
        found.append({"dwi": dwi} | {name: list(dwi.parent.glob(end)) for name, end in ends.items()})
    return found


def test_qsirecon_finds_each_series_once_with_all_that_belongs_to_it(handed_over):
    series = as_qsirecon_finds_it(handed_over)
    assert [files["dwi"].name for files in series] == [
        f"sub-01_ses-{session}_space-ACPC_desc-preproc_dwi.nii.gz" for session in SESSIONS
    ]
    for files in series:
        assert all(len(files[name]) == 1 for name in ("bval", "bvec", "b", "mask", "dwiref"))


def test_what_is_handed_over_lies_on_the_new_grid(handed_over, qsiprep_output):
    for session, files in zip(SESSIONS, as_qsirecon_finds_it(handed_over), strict=True):
        ours = nib.load(restored(qsiprep_output, session))
        assert files["dwi"].read_bytes() == restored(qsiprep_output, session).read_bytes()
        for image in (nib.load(files["mask"][0]), nib.load(files["dwiref"][0])):
            assert image.shape == ours.shape[:3]
            np.testing.assert_array_equal(image.affine, ours.affine)
        b0 = np.asarray(ours.dataobj)[..., np.loadtxt(files["bval"][0]) < 50].mean(axis=-1)
        np.testing.assert_allclose(np.asarray(nib.load(files["dwiref"][0]).dataobj), b0, rtol=1e-6)


def test_gradients_and_anatomy_are_those_of_qsiprep(handed_over, qsiprep):
    for session, files in zip(SESSIONS, as_qsirecon_finds_it(handed_over), strict=True):
        source = qsiprep / "sub-01" / f"ses-{session}" / "dwi" / files["dwi"].name
        for end in ("bval", "bvec", "b"):
            assert files[end][0].read_bytes() == source.with_name(files[end][0].name).read_bytes()
    given = {file.relative_to(qsiprep): file.read_bytes() for file in qsiprep.glob("**/anat/*")}
    assert {handed_over.joinpath("sub-01", "anat", name).is_file() for name in TRANSFORMS} == {True}
    assert {file.relative_to(handed_over): file.read_bytes() for file in handed_over.glob("**/anat/*")} == given


def test_the_dataset_says_what_it_is_and_its_sources_exist(handed_over, qsiprep_output, qsiprep):
    description = json.loads((handed_over / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert [generator["Name"] for generator in description["GeneratedBy"]] == ["bids_sr", "QSIPrep"]
    roots = {"bids_sr": qsiprep_output, "raw": qsiprep, "": handed_over}
    assert {name: uri for name, uri in description["DatasetLinks"].items()} == {
        name: root.as_uri() for name, root in roots.items() if name
    }
    sidecars = [*handed_over.glob("**/dwi/*_dwi.json"), *handed_over.glob("**/dwi/*_dwiref.json")]
    assert len(sidecars) == 4
    for sidecar in sidecars:
        content = json.loads(sidecar.read_text())
        assert "Resolution" not in content
        for uri in [*content["Sources"], content["SpatialReference"]]:
            _, name, path = uri.split(":", 2)
            assert (roots[name] / path).is_file(), uri


def test_the_validator_is_silent_about_both(handed_over, qsiprep_output):
    if not VALIDATOR.exists():
        pytest.skip("bids-validator-deno is not installed")
    found = subprocess.run([VALIDATOR, "--json", qsiprep_output], capture_output=True, text=True, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [(issue["code"], issue.get("location")) for issue in issues] == []
    found = subprocess.run([VALIDATOR, "--json", handed_over], capture_output=True, text=True, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    # What was copied of QSIPrep lacks sidecars; what was made here does not.
    assert [(i["code"], i.get("location")) for i in issues if "/anat/" not in i.get("location", "")] == []


def test_a_second_time_changes_nothing_and_links_save_the_disk(handed_over, run_qsiprep, qsiprep_output):
    times = {file: file.stat().st_mtime_ns for file in handed_over.rglob("*.nii.gz")}
    assert run_qsiprep("--output-layout", "qsirecon") == 0
    assert times == {file: file.stat().st_mtime_ns for file in times}
    (linked,) = (handed_over / "sub-01" / "ses-1" / "dwi").glob("*_desc-preproc_dwi.nii.gz")
    assert linked.samefile(restored(qsiprep_output, "1"))


def test_where_nothing_can_be_linked_it_is_copied(handed_over, qsiprep_output, monkeypatch):
    from bids_sr.bids import handover

    def refuse(*_):
        raise OSError("links are not supported")

    monkeypatch.setattr(handover.os, "link", refuse)
    (linked,) = (handed_over / "sub-01" / "ses-2" / "dwi").glob("*_desc-preproc_dwi.nii.gz")
    linked.unlink()
    handover._place(restored(qsiprep_output, "2"), linked, link=True)
    assert not linked.samefile(restored(qsiprep_output, "2"))
    assert linked.read_bytes() == restored(qsiprep_output, "2").read_bytes()


def test_what_qsirecon_would_not_see_is_refused(dataset, tmp_path, caplog):
    words = [str(dataset), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), "--scale", "1.5"]
    assert main([*words, "--model", "cubic", "--device", "cpu", "--output-layout", "qsirecon"]) == 2
    assert "sub-01_dwi.nii.gz is not in space ACPC or T1w" in caplog.text
    assert not (tmp_path / "out" / "derivatives").exists()


def test_two_processes_give_the_same_bytes_as_one(qsiprep_output, handed_over, qsiprep, guided_card, tmp_path):
    words = [str(qsiprep), str(tmp_path / "two"), "participant", "-w", str(tmp_path / "work"), "--nprocs", "2"]
    words += [
        "--mem",
        "16G",
        "--omp-nthreads",
        "1",
        "--session-label",
        "2",
        "--no-self-check",
        "--output-layout",
        "qsirecon",
    ]
    assert main([*words, "--scale", "1.5", "--model", guided_card, "--device", "cpu"]) == 0
    script = Path(__file__).parents[2] / ".ci" / "same_derivatives.py"
    same = [sys.executable, script, tmp_path / "two", qsiprep_output, "--only", "ses-2"]
    found = subprocess.run(same, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr

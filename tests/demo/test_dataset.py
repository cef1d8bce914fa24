"""The made dataset is valid, whole or absent, the same for a seed, and its truth fits its scan."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes
from scipy import ndimage

from bids_sr.cli.demo import main
from bids_sr.demo import dataset
from bids_sr.demo.dataset import ROTATION_DEGREES, SMALL, TRANSLATION_MM, make_dataset
from bids_sr.dwi.gradients import check_gradients, read_gradients
from bids_sr.dwi.tensor import fit_tensor
from bids_sr.errors import DemoOutputError
from bids_sr.geometry import Grid, overlap_average

TRUTH = "derivatives/truth/sub-01/dwi/sub-01_res-1p5_desc-"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "small"
    make_dataset(out, small=True)
    return out


def load(path):
    image = nib.load(path)
    return np.asarray(image.dataobj, dtype=np.float32), image


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("part", [".", "derivatives/truth"])
@pytest.mark.parametrize("n_sessions", [1, 2])
def test_the_validator_has_nothing_to_say(made, tmp_path, part, n_sessions):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("bids-validator-deno is not installed beside Python")
    if n_sessions > 1:
        make_dataset(tmp_path / "two", small=True, n_sessions=n_sessions)
    root = made if n_sessions == 1 else tmp_path / "two"
    run = subprocess.run([validator, "--format", "json", root / part], capture_output=True, text=True, check=False)
    issues = json.loads(run.stdout)["issues"]["issues"]
    assert [(issue["code"], issue.get("subCode"), issue.get("location")) for issue in issues] == []
    assert run.returncode == 0


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(made, tmp_path):
    make_dataset(tmp_path / "again", small=True)
    assert contents(tmp_path / "again") == contents(made)
    make_dataset(tmp_path / "other", small=True, seed=1)
    assert (tmp_path / "other/sub-01/dwi/sub-01_dwi.nii.gz").read_bytes() != (
        made / "sub-01/dwi/sub-01_dwi.nii.gz"
    ).read_bytes()


def test_images_are_stored_as_scanners_are_converted(made):
    for name in ("dwi/sub-01_dwi.nii.gz", "anat/sub-01_T1w.nii.gz"):
        image = nib.load(made / "sub-01" / name)
        assert image.get_data_dtype() == np.int16
        assert image.header.get_xyzt_units() == ("mm", "sec")
        for affine, code in (image.get_qform(coded=True), image.get_sform(coded=True)):
            assert code == 1
            np.testing.assert_allclose(affine, image.affine, atol=1e-4)
    assert aff2axcodes(nib.load(made / "sub-01/dwi/sub-01_dwi.nii.gz").affine) == ("L", "A", "S")


def test_the_app_accepts_the_gradients(made):
    start = made / "sub-01/dwi/sub-01_dwi"
    gradients = read_gradients(Path(f"{start}.bval"), Path(f"{start}.bvec"))
    check_gradients(gradients, nib.load(f"{start}.nii.gz").shape[3], 50.0, "sub-01_dwi.nii.gz")
    for extension in ("bval", "bvec"):
        assert Path(f"{start}.{extension}").read_bytes() == (made / f"{TRUTH}truth_dwi.{extension}").read_bytes()


def test_the_truth_averages_to_the_scan(made):
    truth, truth_image = load(made / f"{TRUTH}truth_dwi.nii.gz")
    scan, scan_image = load(made / "sub-01/dwi/sub-01_dwi.nii.gz")
    mask, _ = load(made / f"{TRUTH}brain_mask.nii.gz")
    coarse = Grid.of(scan_image)
    inside = ndimage.binary_erosion(overlap_average(mask, Grid.of(truth_image), coarse) > 0.99)
    expected = overlap_average(truth, Grid.of(truth_image), coarse)
    difference = (scan - expected)[inside]
    assert abs(np.median(difference)) < 3  # Rice's distribution lifts weak signals a little
    assert difference.std() < 40  # noise of 20, and the wider point-spread function at edges


def test_white_matter_stays_anisotropic_at_the_acquired_resolution(made):
    scan, image = load(made / "sub-01/dwi/sub-01_dwi.nii.gz")
    tissue, fine = load(made / f"{TRUTH}truth_dseg.nii.gz")
    start = made / "sub-01/dwi/sub-01_dwi"
    white = overlap_average((tissue == 3).astype(np.float32), Grid.of(fine), Grid.of(image)) > 0.95
    maps = fit_tensor(scan, read_gradients(Path(f"{start}.bval"), Path(f"{start}.bvec")), 50.0, white)
    assert 0.4 < np.median(maps.fa[white]) < 0.8


def test_the_motion_in_the_sidecar_brings_the_t1w_into_place(made):
    motion = np.array(json.loads((made / f"{TRUTH}truth_dwi.json").read_text())["T1wToDwi"])
    t1w = nib.load(made / "sub-01/anat/sub-01_T1w.nii.gz")
    np.testing.assert_allclose(motion @ t1w.affine, SMALL.t1w_grid.affine, atol=1e-4)
    np.testing.assert_allclose(np.trace(motion[:3, :3]), 1 + 2 * np.cos(np.deg2rad(ROTATION_DEGREES)))
    np.testing.assert_allclose(np.linalg.norm(motion[:3, 3]), TRANSLATION_MM)


def test_sessions_see_the_same_head_with_other_noise_and_motion(tmp_path):
    make_dataset(tmp_path / "two", small=True, n_sessions=2)
    first, second = ((tmp_path / f"two/sub-01/ses-{n}/dwi/sub-01_ses-{n}_dwi.nii.gz") for n in (1, 2))
    one, other = load(first)[0], load(second)[0]
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one.mean(), other.mean(), rtol=0.01)
    t1ws = [nib.load(tmp_path / f"two/sub-01/ses-{n}/anat/sub-01_ses-{n}_T1w.nii.gz").affine for n in (1, 2)]
    assert not np.allclose(*t1ws)
    truths = (
        tmp_path / f"two/derivatives/truth/sub-01/ses-{n}/dwi/sub-01_ses-{n}_res-1p5_desc-truth_FA.nii.gz"
        for n in (1, 2)
    )
    np.testing.assert_array_equal(*(load(path)[0] for path in truths))


def test_less_noise_is_less_noise(tmp_path, made):
    make_dataset(tmp_path / "quiet", small=True, snr=1000.0)
    quiet, loud = (
        load(folder / "sub-01/dwi/sub-01_dwi.nii.gz")[0][:2, :2, :2].std() for folder in (tmp_path / "quiet", made)
    )
    assert quiet < 0.1 * loud


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(tmp_path, made):
    empty = tmp_path / "empty"
    empty.mkdir()
    make_dataset(empty, small=True)
    before = contents(empty)
    with pytest.raises(DemoOutputError, match="not an empty folder"):
        make_dataset(empty, small=True, seed=3)
    assert contents(empty) == before == contents(made)


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(dataset, "_write_truth", fail)
    assert main([str(tmp_path / "out"), "--small"]) == 2
    assert list(tmp_path.iterdir()) == []

"""Datasets are read as scans to train on; what cannot be read is told in one line."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bids_sr import companions
from bids_sr.demo.dataset import make_dataset
from bids_sr.dwi.registration import Registration
from bids_sr.errors import InputError, NoSuchSubjectError, NotBidsError, TrainingDataError
from bids_sr.training.reading import ReadingOptions, read_scans


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "raw"
    make_dataset(folder, small=True)
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    return shutil.copytree(made, tmp_path / "raw")


@pytest.fixture(autouse=True)
def quick_registration(monkeypatch):
    """The T1w of the made head was moved by so little that leaving it there is good enough to test what follows."""
    found = Registration(np.eye(4), 0.3, 0.2, -0.3, 0.0, 0.0, "scanner")
    monkeypatch.setattr(companions, "register_rigid", lambda *_: found)
    return lambda agreement: monkeypatch.setattr(
        companions, "register_rigid", lambda *_: dataclasses.replace(found, agreement=agreement)
    )


def read(*datasets, **options):
    """The scans, and what was told."""
    told = []
    return list(read_scans(datasets, ReadingOptions(**options), told.append)), told


def dwi_of(dataset):
    return next((dataset / "sub-01").rglob("*_dwi.nii.gz"))


def rewrite(file, change):
    """Change the voxels of an image."""
    image = nib.load(file)
    data = np.asarray(image.dataobj, dtype=np.float32).copy()
    nib.Nifti1Image(change(data), image.affine).to_filename(file)


def test_a_series_is_read_with_its_t1w(made):
    (scan,), told = read(made)
    image = nib.load(dwi_of(made))
    assert scan.name == "sub-01"
    assert scan.data.shape[0] == image.shape[3]
    np.testing.assert_allclose(scan.voxel_sizes, 3.0, rtol=1e-5)
    assert scan.t1w_parts == (3, 3, 3)
    assert scan.t1w[scan.mask.repeat(3, 0).repeat(3, 1).repeat(3, 2)].mean() > 0.2
    assert not scan.simulated
    assert told == [f"sub-01: {image.shape[3]} volumes, {scan.mask.sum()} voxels of brain, T1w (agreement 0.200)"]


@pytest.mark.parametrize(("agreement", "used"), [(0.05, False), (0.15, True)])
def test_a_t1w_that_agrees_too_little_is_left_out_and_said(made, quick_registration, agreement, used):
    quick_registration(agreement)
    (scan,), (line,) = read(made)
    assert (scan.t1w is not None) == used
    assert f"{agreement:.3f}" in line
    assert ("without its T1w" in line) != used


def test_without_t1w_none_is_looked_for(made):
    (scan,), (line,) = read(made, use_t1w=False)
    assert scan.t1w is None
    assert line.endswith("no T1w")


def test_shells_are_chosen_and_the_b0_kept(dataset):
    bval = dwi_of(dataset).with_name(dwi_of(dataset).name.replace(".nii.gz", ".bval"))
    bvals = np.loadtxt(bval)
    bvals[-6:] = 2510
    np.savetxt(bval, bvals[None], fmt="%g")
    (everything,), _ = read(dataset, use_t1w=False)
    (scan,), _ = read(dataset, use_t1w=False, bvals=(2500,))
    assert len(scan.data) == (bvals < 50).sum() + 6
    assert len(scan.levels) == 2
    np.testing.assert_allclose(scan.levels, everything.levels[[0, 2]], rtol=1e-6)
    with pytest.raises(TrainingDataError, match=r"no volume has b = 3000.*0, 1000, 2510"):
        read(dataset, use_t1w=False, bvals=(1000, 3000))


def test_a_given_mask_wins(dataset):
    mask = np.zeros(nib.load(dwi_of(dataset)).shape[:3], np.uint8)
    mask[8:14, 9:15, 8:12] = 1
    derivative = dataset.parent / "masks"
    file = derivative / "sub-01" / "dwi" / "sub-01_desc-brain_mask.nii.gz"
    file.parent.mkdir(parents=True)
    description = {"Name": "masks", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
    (derivative / "dataset_description.json").write_text(json.dumps(description))
    nib.Nifti1Image(mask, nib.load(dwi_of(dataset)).affine).to_filename(file)
    (scan,), _ = read(dataset, use_t1w=False, derivatives={"masks": derivative})
    assert scan.mask.sum() == mask.sum()
    nib.Nifti1Image(mask[1:], nib.load(dwi_of(dataset)).affine).to_filename(file)
    with pytest.raises(InputError, match="mask"):
        read(dataset, use_t1w=False, derivatives={"masks": derivative})


def test_of_several_datasets_each_names_its_scans(made, dataset):
    other = dataset.rename(dataset.with_name("other"))
    shutil.copytree(other / "sub-01", other / "sub-02")
    for file in list((other / "sub-02").rglob("sub-01*")):
        file.rename(file.with_name(file.name.replace("sub-01", "sub-02")))
    scans, _ = read(made, other, use_t1w=False)
    assert [scan.name for scan in scans] == ["raw/sub-01", "other/sub-01", "other/sub-02"]
    scans, _ = read(made, other, use_t1w=False, participants=("sub-02",))
    assert [scan.name for scan in scans] == ["other/sub-02"]


def test_what_is_not_there_is_said(made, tmp_path):
    with pytest.raises(NoSuchSubjectError, match="nobody"):
        read(made, participants=("nobody",))
    with pytest.raises(NotBidsError):
        read(tmp_path)
    with pytest.raises(InputError):
        read(tmp_path / "nowhere")


def test_a_few_voxels_that_are_not_finite_are_cleaned_and_said(dataset):
    def spoil(data):
        data[10, 10, 10, 3:5] = np.nan
        return data

    rewrite(dwi_of(dataset), spoil)
    (scan,), told = read(dataset, use_t1w=False)
    assert np.isfinite(scan.data).all()
    assert told[0] == "sub-01: 2 values in 2 volumes are not finite and count as zero"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: np.where(np.arange(data.shape[3]) == 4, np.nan, data).astype(np.float32), "volume 4"),
        (lambda data: data[..., 0], "4"),
        (lambda data: data[..., :-1], "b-values"),
    ],
    ids=["a volume of NaN", "one volume", "a volume missing"],
)
def test_a_series_that_cannot_be_used_is_one_line(dataset, change, message):
    rewrite(dwi_of(dataset), change)
    with pytest.raises(InputError, match=message) as caught:
        read(dataset)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_damaged_series_among_others_is_left_out_and_said(dataset):
    shutil.copytree(dataset / "sub-01", dataset / "sub-02")
    for file in list((dataset / "sub-02").rglob("sub-01*")):
        file.rename(file.with_name(file.name.replace("sub-01", "sub-02")))
    content = dwi_of(dataset).read_bytes()
    dwi_of(dataset).write_bytes(content[: len(content) // 2])
    scans, told = read(dataset, use_t1w=False)
    assert [scan.name for scan in scans] == ["sub-02"]
    assert told[0].startswith("sub-01: left out: ")

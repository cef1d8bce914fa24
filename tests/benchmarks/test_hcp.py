"""From a download as the Human Connectome Project lays it out to a pack for training."""

import shutil
from itertools import chain

import nibabel as nib
import numpy as np
import pytest

from benchmarks.hcp import main, split
from bids_sr.bids.inputs import find_series
from bids_sr.cli.train import main as train_main
from bids_sr.config import Config
from bids_sr.demo.dataset import make_dataset
from bids_sr.errors import TrainingDataError
from bids_sr.training.packing import load_pack


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small made scan: image, gradients, mask and T1w as single files; its last three volumes are a shell of 3000."""
    folder = tmp_path_factory.mktemp("made")
    make_dataset(folder / "raw", small=True)
    dwi = next((folder / "raw").rglob("*_dwi.nii.gz"))
    image = nib.Nifti1Image.from_filename(dwi)
    mask = (np.asarray(image.dataobj)[..., 0] > 0).astype(np.uint8)
    bvals = np.loadtxt(dwi.with_name(dwi.name.replace(".nii.gz", ".bval")))
    bvals[bvals < 50] = 5
    bvals[-3:] = 2995
    shutil.copy(dwi, folder / "data.nii.gz")
    shutil.copy(dwi.with_name(dwi.name.replace(".nii.gz", ".bvec")), folder / "bvecs")
    np.savetxt(folder / "bvals", bvals[None], fmt="%g")
    nib.Nifti1Image(mask, image.affine).to_filename(folder / "nodif_brain_mask.nii.gz")
    shutil.copy(next((folder / "raw").rglob("*_T1w.nii.gz")), folder / "T1w_acpc_dc_restore_brain.nii.gz")
    return folder


@pytest.fixture
def download(made, tmp_path):
    """Three complete subjects and one without a T1w."""
    for label in ("100307", "100408", "101107", "999999"):
        target = tmp_path / "HCP" / label / "T1w" / "Diffusion"
        target.mkdir(parents=True)
        for name in ("data.nii.gz", "bvals", "bvecs", "nodif_brain_mask.nii.gz"):
            shutil.copy(made / name, target)
        if label != "999999":
            shutil.copy(made / "T1w_acpc_dc_restore_brain.nii.gz", target.parent)
    return tmp_path / "HCP"


def convert(download, *words):
    dataset = download.parent / "bids"
    return main(["convert", str(download), str(dataset), *words]), dataset


def test_complete_subjects_become_series_with_their_mask_and_an_aligned_t1w(download, capsys):
    code, dataset = convert(download)
    assert code == 0
    assert "999999: left out" in capsys.readouterr().err
    found = find_series(Config(dataset, dataset, dataset))
    assert [series.entities["sub"] for series in found] == ["100307", "100408", "101107"]
    for series in found:
        assert series.mask is not None
        assert series.t1w is not None
        assert series.t1w_is_aligned
        assert series.dwi.resolve() == download / series.entities["sub"] / "T1w" / "Diffusion" / "data.nii.gz"


def test_a_second_run_adds_subjects_and_leaves_the_others_alone(download):
    convert(download)
    shutil.copytree(download / "100307", download / "100206")
    code, dataset = convert(download, "--link", "hard")
    assert code == 0
    assert (dataset / "sub-100307/dwi/sub-100307_space-ACPC_desc-preproc_dwi.nii.gz").is_symlink()
    assert not (dataset / "sub-100206/dwi/sub-100206_space-ACPC_desc-preproc_dwi.nii.gz").is_symlink()


def test_one_shell_alone_is_written_anew_and_the_download_is_left_as_it_was(download, made):
    code, dataset = convert(download, "--b-value", "3000")
    assert code == 0
    series = find_series(Config(dataset, dataset, dataset))[0]
    bvals = np.loadtxt(made / "bvals")
    kept = (bvals < 50) | (bvals > 2900)
    source = np.asarray(nib.Nifti1Image.from_filename(made / "data.nii.gz").dataobj)
    np.testing.assert_array_equal(np.asarray(nib.Nifti1Image.from_filename(series.dwi).dataobj), source[..., kept])
    np.testing.assert_array_equal(np.loadtxt(series.bval), bvals[kept])
    np.testing.assert_allclose(np.loadtxt(series.bvec), np.loadtxt(made / "bvecs")[:, kept], atol=1e-6)
    np.testing.assert_array_equal(np.loadtxt(download / "100307/T1w/Diffusion/bvals"), bvals)


def test_the_lists_lead_to_packs_of_those_subjects(download):
    _, dataset = convert(download, "--b-value", "1000")
    lists = download.parent / "lists"
    assert main(["split", str(dataset), str(lists)]) == 0
    parts = {part: (lists / f"{part}.txt").read_text().split() for part in ("train", "validation", "test")}
    assert sorted(chain(*parts.values())) == ["100307", "100408", "101107"]
    pack = download.parent / "train.safetensors"
    assert train_main(["pack", str(dataset), str(pack), "--participant-label", *parts["train"]]) == 0
    (scan,) = load_pack(pack)
    assert parts["train"][0] in scan.name


@pytest.mark.parametrize(("n", "sizes"), [(100, (70, 10, 20)), (3, (1, 1, 1)), (10, (7, 1, 2))])
def test_the_parts_are_disjoint_whole_and_of_the_stated_sizes(n, sizes):
    labels = [f"{number:06d}" for number in range(n)]
    parts = split(labels, seed=3)
    assert tuple(map(len, parts.values())) == sizes
    assert sorted(chain(*parts.values())) == labels
    assert parts == split(labels[::-1], seed=3)
    assert n == 3 or parts != split(labels, seed=4)


def test_a_limit_draws_from_all_subjects():
    labels = [f"{number:04d}" for number in range(1000)]
    chosen = sorted(chain(*split(labels, 0, limit=100).values()))
    assert len(chosen) == 100
    assert chosen[-1] > "0900"


def test_mistakes_get_one_line(download, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["convert", str(tmp_path / "empty"), str(tmp_path / "out")]) == 2
    assert main(["convert", str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    assert convert(download, "--b-value", "2000")[0] == 2
    messages = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("benchmarks.hcp: ") for line in messages) == 3
    assert not (download.parent / "bids" / "sub-100307").exists()
    with pytest.raises(TrainingDataError):
        split(["01", "02"], 0)

"""A dataset that QSIPrep preprocessed goes the same way: its mask and T1w are taken, its space stays in the names."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from bids_sr.demo.dataset import make_dataset

pytestmark = pytest.mark.integration


def as_qsiprep(raw: Path, folder: Path) -> None:
    """The small made dataset under the names of QSIPrep's derivatives, with a mask of its own."""
    dwi, anat = folder / "sub-01" / "dwi", folder / "sub-01" / "anat"
    dwi.mkdir(parents=True)
    anat.mkdir()
    generator = [{"Name": "QSIPrep", "Version": "1.0.0"}]
    description = {"Name": "Made", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": generator}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    for ending in (".nii.gz", ".bval", ".bvec"):
        shutil.copyfile(
            raw / "sub-01" / "dwi" / f"sub-01_dwi{ending}", dwi / f"sub-01_space-ACPC_desc-preproc_dwi{ending}"
        )
    shutil.copyfile(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz", anat / "sub-01_space-ACPC_desc-preproc_T1w.nii.gz")
    image = nib.load(dwi / "sub-01_space-ACPC_desc-preproc_dwi.nii.gz")
    mask = np.zeros(image.shape[:3], np.uint8)
    mask[5:-5, 5:-5, 5:-5] = 1
    nib.Nifti1Image(mask, image.affine).to_filename(dwi / "sub-01_space-ACPC_desc-brain_mask.nii.gz")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preprocessed")
    make_dataset(folder / "raw", small=True)
    as_qsiprep(folder / "raw", folder / "qsiprep")
    words = [str(folder / "qsiprep"), str(folder / "out"), "participant", "-w", str(folder / "work"), "--nprocs", "1"]
    assert main([*words, "--scale", "1.5", "--model", "cubic", "--device", "cpu"]) == 0
    return folder / "out"


def test_the_space_stays_in_the_names(output):
    assert list((output / "sub-01" / "dwi").glob("sub-01_space-ACPC_res-*_desc-sr_dwi.nii.gz"))


def test_the_given_mask_is_used_and_the_t1w_is_not_registered_again(output):
    record = json.loads(next((output / "sub-01" / "figures").glob("*record.json")).read_text())
    assert record["mask"]["source"] == "given"
    assert "registration" not in record
    mask = np.asarray(nib.load(next(output.rglob("*ACPC_desc-brain_mask.nii.gz"))).dataobj)
    assert mask.sum() == np.prod(np.array(mask.shape) - 10)
    assert record["inputs"]["t1w"].endswith("sub-01_space-ACPC_desc-preproc_T1w.nii.gz")

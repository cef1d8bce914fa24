"""The examples of the page on pipelines run as they stand: notebook, nipype and command give the same voxels."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main

pytestmark = pytest.mark.integration
PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(dataset, tmp_path_factory):
    """A folder in which the examples find their dataset."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "bids").symlink_to(dataset)
    return folder


def execute(example, folder):
    """Run an example in a folder; its names."""
    names = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102
    return names


@pytest.fixture(scope="module")
def notebook(place):
    return execute(EXAMPLES[0], place)["result"]


@pytest.fixture(scope="module")
def workflow(place):
    execute(EXAMPLES[1], place)
    return place / "sink"


def test_there_are_two_examples():
    assert len(EXAMPLES) == 2
    assert "super_resolve(" in EXAMPLES[0]
    assert "init_super_resolution_wf(" in EXAMPLES[1]


def test_the_notebook_has_the_series_its_mask_and_the_t1w(notebook, place):
    acquired = nib.load(place / "bids" / "sub-01" / "dwi" / "sub-01_dwi.nii.gz")
    assert notebook.dwi.shape == (36, 42, 33, acquired.shape[3])
    np.testing.assert_allclose(notebook.dwi.header.get_zooms()[:3], 2)
    assert notebook.dwi.get_data_dtype() == np.float32
    assert notebook.mask.shape == notebook.dwi.shape[:3]
    assert notebook.acquired_mask.shape == acquired.shape[:3]
    assert notebook.model.name == "default"
    assert notebook.t1w_used
    np.testing.assert_array_equal(notebook.bvecs.T, np.loadtxt(place / "bids/sub-01/dwi/sub-01_dwi.bvec"))
    t1w = nib.load(place / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    np.testing.assert_array_equal(np.asarray(notebook.t1w.dataobj), np.asarray(t1w.dataobj))
    assert not np.allclose(notebook.t1w.affine, t1w.affine, atol=0.5)


def test_the_notebook_wrote_what_it_has(notebook, place):
    np.testing.assert_array_equal(
        np.asarray(nib.load(place / "restored.nii.gz").dataobj), np.asarray(notebook.dwi.dataobj)
    )


def test_a_workflow_around_the_graph_gives_the_same_voxels(notebook, workflow):
    (dwi,) = workflow.rglob("restored.nii")
    (mask,) = workflow.rglob("target_mask.nii")
    np.testing.assert_array_equal(np.asarray(nib.load(dwi).dataobj), np.asarray(notebook.dwi.dataobj))
    np.testing.assert_array_equal(np.asarray(nib.load(mask).dataobj), np.asarray(notebook.mask.dataobj))
    np.testing.assert_array_equal(nib.load(dwi).affine, notebook.dwi.affine)


def test_the_command_says_the_same_of_what_is_wrong(dataset, tmp_path, caplog):
    """A magnification that the model was not made for, refused in the same words."""
    from bids_sr import super_resolve
    from bids_sr.errors import ScaleTooLargeError

    start = dataset / "sub-01" / "dwi" / "sub-01_dwi"
    with pytest.raises(ScaleTooLargeError) as refused:
        super_resolve(f"{start}.nii.gz", f"{start}.bval", f"{start}.bvec", voxel_size=0.3)
    words = [str(dataset), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")]
    assert main([*words, "--output-resolution", "0.3", "--device", "cpu"]) == 2
    assert str(refused.value) in caplog.text

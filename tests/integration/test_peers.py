"""MRtrix, DIPY's commands and FSL-style files read a restored series as it is meant, whichever way its axes point."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_sr import super_resolve
from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.tensor import fit_tensor, world_rotation
from tests.packaging.tools import tool

pytestmark = pytest.mark.integration
AXES = ("LAS", "RAS")
mrtrix = [
    pytest.mark.mrtrix,
    pytest.mark.skipif(shutil.which("mrconvert") is None, reason="MRtrix (mrconvert) is not installed"),
]


@dataclass(frozen=True)
class Files:
    """A restored series on disk."""

    dwi: Path
    mask: Path
    bval: Path
    bvec: Path

    @property
    def inside(self):
        return np.asarray(nib.load(self.mask).dataobj) > 0

    def run(self, *words):
        """Run a command in the series' folder, with one thread."""
        done = subprocess.run([str(word) for word in words], cwd=self.dwi.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def mrtrix(self, name, *words, gradients=None):
        """Run a command of MRtrix on the series, with the FSL files or another table of gradients."""
        table = ["-fslgrad", self.bvec, self.bval] if gradients is None else ["-grad", gradients]
        self.run(*name.split(), "-quiet", "-force", "-nthreads", "1", *table, *words)


@pytest.fixture(scope="module")
def restored(dataset, tmp_path_factory):
    """The made scan restored on the grid of its truth, and the same scan stored with its x axis the other way round.

    FSL's b-vectors are the same for both: of an image whose axes have a positive determinant, FSL flips x.
    """
    start = dataset / "sub-01" / "dwi" / "sub-01_dwi"
    acquired = nib.load(f"{start}.nii.gz")
    assert nib.aff2axcodes(acquired.affine) == tuple("LAS")
    images = {"LAS": acquired, "RAS": acquired.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))}
    made = {}
    for axes, image in images.items():
        folder = tmp_path_factory.mktemp(axes)
        result = super_resolve(image, f"{start}.bval", f"{start}.bvec", scale=2, model="cubic", device="cpu")
        assert nib.aff2axcodes(result.dwi.affine) == tuple(axes)
        files = Files(*(folder / name for name in ("dwi.nii.gz", "mask.nii.gz", "dwi.bval", "dwi.bvec")))
        result.dwi.to_filename(files.dwi)
        result.mask.to_filename(files.mask)
        shutil.copyfile(f"{start}.bval", files.bval)
        shutil.copyfile(f"{start}.bvec", files.bvec)
        made[axes] = files
    return made


@pytest.fixture(scope="module")
def truth(dataset):
    """Where the noise-free fibres point in the world, and the voxels where that is certain."""
    (file,) = (dataset / "derivatives" / "truth").rglob("*_desc-truth_dwi.nii.gz")
    gradients = read_gradients(*(Path(str(file).replace(".nii.gz", end)) for end in (".bval", ".bvec")))
    image = nib.load(file)
    mask = np.asarray(nib.load(next(file.parent.glob("*_desc-brain_mask.nii.gz"))).dataobj) > 0
    maps = fit_tensor(np.asarray(image.dataobj), gradients, 50, mask)
    return nib.Nifti1Image(maps.v1 @ world_rotation(image.affine).T, image.affine), maps.fa > 0.6


def ours(files, method="OLS"):
    """Our own fit."""
    image = nib.load(files.dwi)
    gradients = read_gradients(files.bval, files.bvec)
    return fit_tensor(np.asarray(image.dataobj), gradients, 50, files.inside, method)


def angles(one, other):
    """Degrees between directions, whose signs mean nothing."""
    cosine = np.abs(np.sum(one * other, axis=-1)) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, 0, 1)))


def on_truth(v1, truth):
    """Directions of an image at the truth's voxels, which are the same but for the order of their axes."""
    directions, certain = truth
    turned = v1.as_reoriented(nib.io_orientation(np.linalg.inv(directions.affine) @ v1.affine))
    np.testing.assert_allclose(turned.affine, directions.affine, atol=1e-4)
    return np.asarray(turned.dataobj)[certain], np.asarray(directions.dataobj)[certain]


@pytest.fixture(scope="module")
def of_mrtrix(restored):
    """MRtrix's tensor of each: fractional anisotropy, and the principal direction in the world."""
    for files in restored.values():
        files.mrtrix("dwi2tensor", "-ols", "-iter", "0", "-mask", files.mask, files.dwi, "tensor.nii")
        metrics = ["-fa", "fa.nii", "-vector", "v1.nii", "-modulate", "none"]
        files.run("tensor2metric", "-quiet", "-force", "tensor.nii", *metrics)
    return {
        axes: {name: nib.load(files.dwi.parent / f"{name}.nii") for name in ("fa", "v1")}
        for axes, files in restored.items()
    }


class TestMrtrix:
    pytestmark = mrtrix

    @pytest.mark.parametrize("axes", AXES)
    def test_its_anisotropy_is_ours(self, restored, of_mrtrix, axes):
        fa = np.asarray(of_mrtrix[axes]["fa"].dataobj)
        inside = restored[axes].inside
        assert np.median(np.abs(ours(restored[axes]).fa - fa)[inside]) < 1e-5

    @pytest.mark.parametrize("axes", AXES)
    def test_its_directions_are_the_true_ones_in_the_world(self, of_mrtrix, truth, axes):
        found, true = on_truth(of_mrtrix[axes]["v1"], truth)
        assert np.median(angles(found, true)) < 8
        for axis in range(3):
            # A flip of the axis would show where the fibres are oblique to it.
            oblique = (np.abs(true[:, axis]) > 0.3) & (np.abs(true[:, axis]) < 0.95)
            flipped = found * np.where(np.arange(3) == axis, -1, 1)
            assert oblique.sum() > 20
            assert np.median(angles(found, true)[oblique]) < 8
            assert np.median(angles(flipped, true)[oblique]) > 30

    @pytest.mark.parametrize("axes", AXES)
    def test_our_directions_are_the_true_ones_too(self, restored, truth, axes):
        affine = nib.load(restored[axes].dwi).affine
        v1 = nib.Nifti1Image(ours(restored[axes]).v1 @ world_rotation(affine).T, affine)
        assert np.median(angles(*on_truth(v1, truth))) < 8

    def test_a_response_fibre_orientations_and_a_hundred_streamlines(self, restored):
        files = restored["LAS"]
        files.mrtrix("dwi2response fa", files.dwi, "response.txt", "-mask", files.mask, "-number", "100", "-lmax", "2")
        response = np.loadtxt(files.dwi.parent / "response.txt")
        assert response.shape == (2,)
        assert response[0] > -response[1] > 0
        files.mrtrix("dwi2fod", "csd", files.dwi, "response.txt", "fod.mif", "-mask", files.mask, "-lmax", "2")
        streamlines = ["-seed_image", files.mask, "-mask", files.mask, "-select", "100", "-cutoff", "0.05"]
        files.run("tckgen", "-quiet", "-force", "-nthreads", "1", *streamlines, "fod.mif", "tracks.tck")
        tracks = nib.streamlines.load(files.dwi.parent / "tracks.tck")
        assert len(tracks.streamlines) == 100
        voxels = nib.affines.apply_affine(np.linalg.inv(nib.load(files.dwi).affine), tracks.streamlines.get_data())
        assert np.all((voxels > -1) & (voxels < files.inside.shape))

    def test_the_table_that_goes_to_qsirecon_points_the_same_way(self, handed_over, truth, tmp_path):
        (dwi,) = (handed_over / "sub-01" / "ses-1" / "dwi").glob("*_desc-preproc_dwi.nii.gz")
        (mask,) = dwi.parent.glob("*_desc-brain_mask.nii.gz")
        start = str(dwi).removesuffix(".nii.gz")
        files = Files(tmp_path / "dwi.nii.gz", mask, Path(f"{start}.bval"), Path(f"{start}.bvec"))
        files.mrtrix("dwi2tensor", "-mask", mask, dwi, "tensor.nii", gradients=f"{start}.b")
        files.run("tensor2metric", "-quiet", "tensor.nii", "-vector", "v1.nii", "-modulate", "none")
        directions, certain = truth
        v1 = nib.load(tmp_path / "v1.nii")
        # Another grid than the truth's: the nearest voxel will do for a median.
        world = nib.affines.apply_affine(directions.affine, np.argwhere(certain))
        voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(v1.affine), world)).astype(int)
        found = np.asarray(v1.dataobj)[tuple(voxels.T)]
        known = np.isfinite(found).all(axis=1) & found.any(axis=1)
        assert known.mean() > 0.5
        assert np.median(angles(found[known], np.asarray(directions.dataobj)[certain][known])) < 12


def test_the_command_of_dipy_finds_the_same_anisotropy(restored, tmp_path):
    files = restored["LAS"]
    saved = ["--save_metrics", "fa", "md", "--out_dir", tmp_path, "--out_fa", "fa.nii.gz", "--out_md", "md.nii.gz"]
    files.run(tool("dipy_fit_dti"), files.dwi, files.bval, files.bvec, files.mask, *saved)
    maps = ours(files, "WLS")
    for name in ("fa", "md"):
        theirs = np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj)[files.inside]
        found = getattr(maps, name)[files.inside]
        assert np.median(np.abs(found - theirs)) < 1e-3 * np.median(theirs)

"""However a scan is stored, its result is the same at the same place of the head."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_sr.cli.app import main
from bids_sr.dwi.gradients import read_gradients
from bids_sr.dwi.tensor import fit_tensor
from tests.made_models import save_tiny_model
from tests.robustness.variants import AXES, WORLDS, bvecs_along, canonical, write_variants

pytestmark = pytest.mark.integration
SR = "sub-{0}/dwi/sub-{0}_res-1p5_desc-sr_{1}.nii.gz"


@pytest.fixture(scope="module")
def variants(dataset, tmp_path_factory):
    """A dataset of all variants."""
    folder = tmp_path_factory.mktemp("variants") / "raw"
    write_variants(dataset, folder)
    return folder


@pytest.fixture(scope="module", params=["cubic", "a network"])
def results(variants, tmp_path_factory, request):
    """Output folder of one run over all variants; a network of random weights is not equal under any turn or flip."""
    folder = tmp_path_factory.mktemp("orientation")
    model = request.param if request.param == "cubic" else save_tiny_model(folder, ("volume", "b0"), guided=True)
    words = [str(variants), str(folder / "out"), "participant", "--output-resolution", "1.5", "--model", model]
    more = ["--device", "cpu", "--nprocs", "1", "-w", str(folder / "work"), "--no-t1w", "--no-self-check"]
    assert main([*words, *more]) == 0
    return folder / "out"


def voxels(results, name, what):
    return canonical(nib.load(results / SR.format(name, what)))


def rotation_of(world):
    """The rotation nearest to a matrix."""
    u, _, vt = np.linalg.svd(world)
    return u @ vt


def directions(results, name):
    """V1 along the world's axes, by the definition of the b-vectors' frame; and FA."""
    file = results / SR.format(name, "dwi")
    image = nib.load(file)
    start = str(file).removesuffix(".nii.gz")
    gradients = read_gradients(
        *(file.with_name(f"{file.name.removesuffix('.nii.gz')}{end}") for end in (".bval", ".bvec"))
    )
    mask = np.asarray(nib.load(start.replace("desc-sr_dwi", "desc-brain_mask") + ".nii.gz").dataobj) > 0
    maps = fit_tensor(np.asarray(image.dataobj), gradients, 50.0, mask)
    axes = rotation_of(image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0))
    if np.linalg.det(axes) > 0:
        axes = axes * [-1, 1, 1]
    v1 = nib.Nifti1Image((maps.v1 @ axes.T).astype(np.float32), image.affine)
    return canonical(v1)[0], canonical(nib.Nifti1Image(maps.fa, image.affine))[0]


@pytest.mark.parametrize("name", [*AXES[1:], *WORLDS])
def test_values_are_the_same_at_the_same_place(results, name):
    (expected, affine), (found, found_affine) = (voxels(results, one, "dwi") for one in ("RAS", name))
    world = np.eye(4)
    world[:3, :3] = WORLDS.get(name, np.eye(3))
    np.testing.assert_allclose(found_affine, world @ affine, atol=1e-3)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", [*AXES[1:], *WORLDS])
@pytest.mark.parametrize("what", ["FA", "ADC"])
def test_maps_are_the_same_at_the_same_place(results, name, what):
    (expected, _), (found, _) = (voxels(results, one, what) for one in ("RAS", name))
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", [*AXES[1:], *WORLDS])
def test_directions_are_the_same_lines_in_the_world(results, name):
    (expected, fa), (found, _) = (directions(results, one) for one in ("RAS", name))
    turned = expected @ rotation_of(WORLDS.get(name, np.eye(3))).T
    certain = fa > 0.3
    assert certain.sum() > 1000
    cosine = np.abs(np.sum(turned[certain] * found[certain], axis=-1))
    assert np.degrees(np.arccos(np.clip(cosine, 0, 1))).max() < 0.5


@pytest.mark.parametrize("name", AXES[1:])
def test_colours_are_those_of_the_world(results, name):
    (expected, _), (found, _) = (voxels(results, one, "colFA") for one in ("RAS", name))
    assert np.abs(found - expected).max() <= 2


def test_the_grid_is_stored_along_the_axes_of_the_input(results):
    for name in AXES:
        assert "".join(nib.aff2axcodes(nib.load(results / SR.format(name, "dwi")).affine)) == name


def test_a_shear_is_told_and_a_turn_is_not(results):
    def warnings(name):
        (file,) = (results / f"sub-{name}" / "figures").glob("*_desc-record.json")
        return " ".join(json.loads(file.read_text())["warnings"])

    assert "degrees from right angles" in warnings("sheared")
    assert "right angles" not in warnings("oblique") + warnings("PSL")


def test_signs_of_b_vectors_follow_the_axes():
    """The rule of the variants itself: L to R flips the handedness, so the written x stays."""
    ras, las = np.eye(4), np.diag([-1.0, 1, 1, 1])
    vectors = np.array([[0.6, 0.8, 0.0]])
    np.testing.assert_allclose(bvecs_along(vectors, las, ras), vectors)
    np.testing.assert_allclose(bvecs_along(vectors, las, np.diag([-1.0, -1, 1, 1])), [[-0.6, -0.8, 0]])

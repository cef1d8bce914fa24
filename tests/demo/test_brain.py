"""The ICBM152 head looks like a brain: tissues fill it, fibres lead where anatomy has them."""

import sys

import numpy as np
import pytest

from bids_sr.demo.acquisition import acquire, fsl_bvecs, gradient_scheme, noise_free_series
from bids_sr.demo.brain import brain_tissues, distance_outside, draw_bending, icbm152_phantom, load_icbm152, sample_head
from bids_sr.demo.dataset import centred_grid
from bids_sr.dwi.gradients import Gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.tensor import fit_tensor, world_rotation
from bids_sr.errors import MissingExtraError
from bids_sr.geometry import Grid

# Half the truth's resolution, which is enough for anatomy and eight times as fast.
CENTRE = (0.0, -17.0, 9.0)
GRID = centred_grid((72, 86, 68), (-2.5, 2.5, 2.5), CENTRE)
T1W_GRID = centred_grid((60, 72, 56), (3.0, 3.0, 3.0), CENTRE)


@pytest.fixture(scope="module")
def maps():
    pytest.importorskip("nilearn", reason="the ICBM152 maps come with nilearn")
    return load_icbm152()


@pytest.fixture(scope="module")
def phantom(maps):
    return icbm152_phantom(maps, GRID, T1W_GRID, np.random.default_rng(0))


@pytest.fixture(scope="module")
def fitted(phantom):
    """Tensor maps of the noise-free head, and principal directions in the world."""
    bvals, directions = gradient_scheme(1, 12, 1000.0)
    series = noise_free_series(phantom, bvals, directions)
    maps = fit_tensor(series, Gradients(bvals, fsl_bvecs(directions, GRID.affine)), 50.0, phantom.mask)
    return maps, maps.v1 @ world_rotation(GRID.affine).T


def region(x, y, z):
    """Voxels of the box between these world coordinates in mm."""
    index = np.moveaxis(np.indices(GRID.shape), 0, -1)
    world = index @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]
    low, high = np.array([x, y, z]).T
    return ((world > low) & (world < high)).all(axis=-1)


def test_without_nilearn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bids_sr\[demo\]'"):
        load_icbm152()


def test_tissues_fill_the_brain(maps):
    head = sample_head(
        maps, np.zeros(maps.grid.shape, np.float32), draw_bending(maps.grid, np.random.default_rng(0)), GRID
    )
    csf, gm, wm = brain_tissues(maps, head)
    inside = head.brain > 0.99
    np.testing.assert_allclose((csf + gm + wm)[inside], head.brain[inside], atol=1e-4)
    for share in (csf, gm, wm):
        assert share.min() >= 0
        assert share.max() <= 1 + 1e-5


def test_tissues_have_the_volumes_of_a_brain(phantom):
    litres = {label: (phantom.tissue == label).sum() * 2.5**3 * 1e-6 for label in (1, 2, 3)}
    assert 1.4 < phantom.mask.sum() * 2.5**3 * 1e-6 < 2.1
    assert 0.4 < litres[3] < 0.8
    assert 0.7 < litres[2] < 1.2
    assert 0.05 < litres[1] < 0.3


def test_the_distance_is_zero_in_folds_and_grows_outside():
    brain = np.zeros((60, 60, 60), bool)
    brain[14:46, 14:46, 14:46] = True
    brain[28:32, 28:32, 20:46] = False  # a fold 4 mm wide
    distance = distance_outside(brain, Grid(brain.shape, np.eye(4)))
    assert distance[brain].max() < 3
    assert np.median(distance[brain]) == 0
    assert distance[30, 30, 30] == 0
    np.testing.assert_allclose(distance[30, 30, 56], 56 - 45, atol=2)


def test_white_matter_is_as_anisotropic_as_in_people(phantom, fitted):
    fa = fitted[0].fa
    assert 0.35 < fa[phantom.tissue == 3].mean() < 0.55
    assert fa[phantom.tissue == 2].mean() < 0.2


@pytest.mark.parametrize(
    ("name", "box", "axis"),
    [
        ("corpus callosum, body", ((-6, 6), (-20, 15), (15, 32)), 0),
        ("corpus callosum, splenium", ((-6, 6), (-45, -34), (5, 25)), 0),
        ("internal capsule, left", ((-28, -18), (-22, -8), (2, 14)), 2),
        ("internal capsule, right", ((18, 28), (-22, -8), (2, 14)), 2),
        ("occipital association fibres", ((28, 40), (-70, -50), (-2, 8)), 1),
    ],
)
def test_fibres_lead_where_anatomy_has_them(phantom, fitted, name, box, axis):
    maps, world_v1 = fitted
    voxels = region(*box) & (phantom.tissue == 3) & (maps.fa > 0.3)
    assert voxels.sum() > 8, name
    mean = np.abs(world_v1[voxels]).mean(axis=0)
    assert np.argmax(mean) == axis, (name, mean)


def test_the_b0_is_brightest_in_fluid_and_the_t1w_in_white_matter(phantom):
    b0 = phantom.signal(0.0, np.zeros(3))
    fluid, grey, white = (b0[phantom.tissue == label].mean() for label in (1, 2, 3))
    assert fluid > grey > white
    outside = b0[~phantom.mask]
    assert np.percentile(outside, 60) < 0.1 * white
    assert phantom.t1w.min() >= 0


def test_the_brain_can_be_told_from_the_head(phantom):
    b0 = phantom.signal(0.0, np.zeros(3))[..., None]
    acquired, grid = acquire(b0, GRID, 1.0, 25.0, np.random.default_rng(0))
    found = brain_mask(acquired[..., 0], grid.affine)
    assert 2 * (found & phantom.mask).sum() / (found.sum() + phantom.mask.sum()) > 0.9


def test_another_seed_gives_another_brain(maps, phantom):
    head = sample_head(
        maps, np.zeros(maps.grid.shape, np.float32), draw_bending(maps.grid, np.random.default_rng(1)), GRID
    )
    other = head.brain > 0.5
    overlap = 2 * (other & phantom.mask).sum() / (other.sum() + phantom.mask.sum())
    assert 0.9 < overlap < 0.999

"""The small head has the volumes, bundles and tensors that its formula says, whatever the storage of the series."""

import numpy as np
import pytest

from bids_sr.demo.acquisition import acquire, fsl_bvecs, gradient_scheme, noise_free_series
from bids_sr.demo.analytic import (
    COLUMN,
    COMMISSURE,
    HALF_AXES,
    VENTRICLE_HALF_AXES,
    analytic_phantom,
    bundle_shares,
    inside_ellipsoid,
    tissue_shares,
)
from bids_sr.demo.dataset import SMALL
from bids_sr.demo.phantom import BUNDLE_FA, MEAN_DIFFUSIVITY
from bids_sr.dwi.gradients import Gradients
from bids_sr.dwi.mask import brain_mask
from bids_sr.dwi.tensor import fit_tensor, world_rotation
from bids_sr.geometry import Grid


def centred(shape, linear):
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def centres(grid):
    return np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


# Storage as scanners write it, with positive determinant, and oblique with permuted axes.
TILT = np.deg2rad(12)
OBLIQUE = np.array([[0, np.cos(TILT), -np.sin(TILT)], [-1, 0, 0], [0, np.sin(TILT), np.cos(TILT)]])
STORAGES = {
    "LAS": centred((48, 56, 44), np.diag([-1.5, 1.5, 1.5])),
    "RAS": centred((48, 56, 44), np.diag([1.5, 1.5, 1.5])),
    "oblique": centred((56, 48, 48), 1.5 * OBLIQUE),
}


@pytest.fixture(scope="module", params=list(STORAGES))
def fitted(request):
    """The phantom in one storage, its tensor maps, and its principal directions in the world."""
    grid = STORAGES[request.param]
    phantom = analytic_phantom(grid, SMALL.t1w_grid)
    bvals, directions = gradient_scheme(2, 14, 1000.0)
    series = noise_free_series(phantom, bvals, directions)
    maps = fit_tensor(series, Gradients(bvals, fsl_bvecs(directions, grid.affine)), 50.0, phantom.mask)
    return phantom, maps, maps.v1 @ world_rotation(grid.affine).T


def pure(phantom, bundle):
    """Voxels that nothing but one bundle fills."""
    points = centres(phantom.grid).astype(np.float32)
    return (tissue_shares(points, 1.5).wm > 0.9999) & (bundle_shares(points, 1.5)[bundle] > 0.9999)


@pytest.mark.parametrize(("bundle", "direction"), [(0, COMMISSURE), (1, COLUMN)])
def test_the_fit_finds_each_bundle_where_the_world_has_it(fitted, bundle, direction):
    phantom, maps, world_v1 = fitted
    voxels = pure(phantom, bundle)
    assert voxels.sum() > 50
    angles = np.degrees(np.arccos(np.clip(np.abs(world_v1[voxels] @ direction), 0, 1)))
    assert angles.max() < 0.1
    np.testing.assert_allclose(maps.fa[voxels], BUNDLE_FA, atol=2e-3)
    np.testing.assert_allclose(maps.md[voxels], MEAN_DIFFUSIVITY["wm"], rtol=2e-3)


def test_crossing_bundles_lower_the_anisotropy(fitted):
    phantom, maps, _ = fitted
    points = centres(phantom.grid).astype(np.float32)
    slab, columns, _ = bundle_shares(points, 1.5)
    crossing = (slab > 0.49) & (columns > 0.49) & (phantom.tissue == 3)
    assert crossing.any()
    assert maps.fa[crossing].max() < 0.75 * BUNDLE_FA


def test_free_water_in_the_ventricles_diffuses_freely(fitted):
    phantom, maps, _ = fitted
    ventricle = np.linalg.norm((centres(phantom.grid) - [6.5, -2, 0]) / VENTRICLE_HALF_AXES, axis=-1) < 0.5
    np.testing.assert_allclose(maps.md[ventricle], MEAN_DIFFUSIVITY["csf"], rtol=5e-3)
    assert maps.fa[ventricle].max() < 0.01


def test_an_ellipsoid_has_its_volume():
    half_axes = (9.0, 14.0, 6.0)
    inside = inside_ellipsoid(centres(centred((32, 40, 24), np.eye(3))).astype(np.float32), half_axes, 1.0)
    np.testing.assert_allclose(inside.sum(), 4 / 3 * np.pi * np.prod(half_axes), rtol=0.01)


def test_the_brain_fills_its_ellipsoid_and_shares_fill_the_voxels(fitted):
    phantom = fitted[0]
    np.testing.assert_allclose(phantom.mask.sum() * 1.5**3, 4 / 3 * np.pi * np.prod(HALF_AXES["csf"]), rtol=0.02)
    shares = tissue_shares(centres(phantom.grid).astype(np.float32), 1.5)
    total = shares.brain + shares.skull + shares.scalp
    assert total.max() <= 1 + 1e-5
    for share in vars(shares).values():
        assert share.min() >= -1e-6
    np.testing.assert_allclose(total[phantom.mask & (shares.brain > 0.999)], 1, atol=1e-3)


def test_the_brain_can_be_told_from_the_scalp():
    phantom = analytic_phantom(SMALL.truth_grid, SMALL.t1w_grid)
    b0 = phantom.signal(0.0, np.zeros(3))[..., None]
    acquired, grid = acquire(b0, phantom.grid, 2.0, 25.0, np.random.default_rng(0))
    found = brain_mask(acquired[..., 0], grid.affine)
    truth = inside_ellipsoid(centres(grid).astype(np.float32), HALF_AXES["csf"], 3.0) > 0.5
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_the_t1w_shows_white_over_grey_over_fluid():
    phantom = analytic_phantom(SMALL.truth_grid, SMALL.t1w_grid)
    shares = tissue_shares(centres(SMALL.t1w_grid).astype(np.float32), 1.75)
    white, grey, fluid = (phantom.t1w[share > 0.99].mean() for share in (shares.wm, shares.gm, shares.csf))
    assert white > grey > fluid > 0

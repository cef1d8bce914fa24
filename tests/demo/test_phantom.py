"""One compartment decays as its tensor says; several add up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bids_sr.demo.phantom import (
    B0_SIGNAL,
    MEAN_DIFFUSIVITY,
    Phantom,
    diffusivities,
    isotropic,
    oriented,
    tissue_labels,
    unit_vectors,
)
from bids_sr.geometry import Grid

SHAPE = (2, 3, 2)


def phantom_of(*compartments):
    grid = Grid(SHAPE, np.eye(4))
    nothing = np.zeros(SHAPE)
    return Phantom(grid, compartments, nothing > 0, nothing.astype(np.uint8), nothing.astype(np.float32), grid)


@given(st.floats(1e-4, 3e-3), st.floats(0, 0.99))
def test_diffusivities_have_the_mean_and_anisotropy_asked_for(mean, fa):
    axial, radial = diffusivities(mean, fa)
    np.testing.assert_allclose((axial + 2 * radial) / 3, mean)
    np.testing.assert_allclose((axial - radial) / np.hypot(axial, np.sqrt(2) * radial), fa, atol=1e-9)


@given(st.floats(0, 5000))
def test_fluid_decays_alike_in_all_directions(bval):
    phantom = phantom_of(isotropic("csf", np.full(SHAPE, 0.5, np.float32)))
    expected = 0.5 * B0_SIGNAL["csf"] * np.exp(-bval * MEAN_DIFFUSIVITY["csf"])
    for direction in np.eye(3):
        np.testing.assert_allclose(phantom.signal(bval, direction), expected, rtol=1e-5)


def test_a_bundle_decays_fastest_along_itself():
    along = np.array([1.0, 2.0, 2.0], np.float32) / 3
    across = np.array([2.0, -2.0, 1.0], np.float32) / 3
    bundle = oriented("wm", np.ones(SHAPE, np.float32), np.broadcast_to(5 * along, (*SHAPE, 3)), 0.7)
    axial, radial = diffusivities(MEAN_DIFFUSIVITY["wm"], 0.7)
    for direction, diffusivity in ((along, axial), (-along, axial), (across, radial)):
        signal = phantom_of(bundle).signal(1000, direction)
        np.testing.assert_allclose(signal, B0_SIGNAL["wm"] * np.exp(-1000 * diffusivity), rtol=1e-5)


def test_compartments_add_up_and_empty_voxels_stay_dark():
    share = np.zeros(SHAPE, np.float32)
    share[0, 0, 0] = 0.3
    signal = phantom_of(isotropic("csf", share), isotropic("gm", share)).signal(0, np.zeros(3))
    np.testing.assert_allclose(signal[0, 0, 0], 0.3 * (B0_SIGNAL["csf"] + B0_SIGNAL["gm"]), rtol=1e-6)
    assert np.count_nonzero(signal) == 1


def test_brightening_multiplies_each_voxel():
    factor = np.linspace(0.5, 1.5, 12, dtype=np.float32).reshape(SHAPE)
    fluid = isotropic("csf", np.ones(SHAPE, np.float32))
    signal = phantom_of(fluid.brightened(factor)).signal(0, np.zeros(3))
    np.testing.assert_allclose(signal, B0_SIGNAL["csf"] * factor, rtol=1e-6)


def test_unit_vectors_of_nothing_point_along_x():
    vectors = unit_vectors(np.array([[0, 0, 0], [0, -3, 4]], np.float32))
    np.testing.assert_allclose(vectors, [[1, 0, 0], [0, -0.6, 0.8]])


def test_the_largest_share_names_the_tissue():
    csf, gm, wm = np.array([0.8, 0.1, 0.2, 0.9]), np.array([0.1, 0.6, 0.2, 0]), np.array([0.1, 0.3, 0.6, 0.1])
    mask = np.array([True, True, True, False])
    np.testing.assert_array_equal(tissue_labels(csf, gm, wm, mask), [1, 2, 3, 0])

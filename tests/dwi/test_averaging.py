"""Averages over larger voxels keep what is constant and forget the sign of directions."""

import numpy as np
import pytest

from bids_sr.dwi.averaging import average_maps
from bids_sr.dwi.tensor import TensorMaps
from bids_sr.geometry import Grid

COARSE = Grid((4, 3, 5), np.diag([-2.0, 2.0, 3.0, 1.0]))


def maps_of(shape, fa, v1):
    scalar = np.full(shape, fa, np.float32)
    return TensorMaps(
        scalar, scalar / 100, scalar / 50, scalar / 200, np.broadcast_to(v1, (*shape, 3)).astype(np.float32)
    )


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.5])
def test_constant_maps_stay_constant(scale):
    fine = COARSE.scaled(np.full(3, scale))
    direction = np.array([0.6, 0.8, 0.0])
    averaged = average_maps(maps_of(fine.shape, 0.5, direction), fine, COARSE, np.ones(fine.shape, bool))
    np.testing.assert_allclose(averaged.fa, 0.5, rtol=1e-5)
    np.testing.assert_allclose(averaged.md, 0.005, rtol=1e-5)
    np.testing.assert_allclose(np.abs(averaged.v1 @ direction), 1, rtol=1e-5)


def test_opposite_directions_are_the_same_direction():
    fine = COARSE.scaled(np.full(3, 2.0))
    maps = maps_of(fine.shape, 0.5, [0.0, 0.0, 1.0])
    maps.v1[::2] *= -1
    averaged = average_maps(maps, fine, COARSE, np.ones(fine.shape, bool))
    np.testing.assert_allclose(np.abs(averaged.v1[..., 2]), 1, rtol=1e-5)


def test_voxels_outside_the_mask_have_no_part():
    fine = COARSE.scaled(np.full(3, 2.0))
    mask = np.zeros(fine.shape, bool)
    mask[0, 0, 0] = True
    maps = maps_of(fine.shape, 0.1, [1.0, 0.0, 0.0])
    maps.fa[0, 0, 0] = 0.9
    averaged = average_maps(maps, fine, COARSE, mask)
    assert averaged.fa[0, 0, 0] == pytest.approx(0.9)
    assert np.count_nonzero(averaged.fa) == 1
    assert np.count_nonzero(averaged.v1) == 1

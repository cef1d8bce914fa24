"""Currents follow the laws that make them stand for bundles."""

import numpy as np
import pytest

from bids_sr.demo.fibres import current_flow


def bar():
    conductivity = np.ones((20, 5, 4))
    injected = np.zeros_like(conductivity)
    injected[0], injected[-1] = 1, -1
    return conductivity, injected


def test_a_bar_carries_the_current_straight():
    flow = current_flow(*bar(), tolerance=1e-9)
    np.testing.assert_allclose(flow[1:-1, ..., 0], 1, atol=1e-6)
    np.testing.assert_allclose(flow[..., 1:], 0, atol=1e-6)


def test_nothing_flows_where_nothing_conducts_and_all_squeezes_through_the_bridge():
    conductivity, injected = bar()
    conductivity[10] = 0
    conductivity[10, 2, 1] = 1
    flow = current_flow(conductivity, injected, tolerance=1e-9)
    # At the bridge both faces of the voxel carry the whole current, that of 5 x 4 injected units.
    np.testing.assert_allclose(flow[10, 2, 1, 0], 20, rtol=1e-5)
    np.testing.assert_allclose(np.delete(flow[10].reshape(20, 3), 2 * 4 + 1, axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turning_the_volume_turns_the_flow(axis):
    generator = np.random.default_rng(axis)
    conductivity = generator.uniform(0.1, 1, (7, 6, 5))
    injected = generator.standard_normal((7, 6, 5))
    flow = current_flow(conductivity, injected, tolerance=1e-10)
    turned = current_flow(np.moveaxis(conductivity, axis, 0), np.moveaxis(injected, axis, 0), tolerance=1e-10)
    order = [axis, *(a for a in range(3) if a != axis)]
    np.testing.assert_allclose(turned, np.moveaxis(flow, axis, 0)[..., order], atol=1e-6)


def test_unbalanced_currents_leave_evenly():
    flow = current_flow(np.ones((9, 1, 1)), np.eye(9)[4].reshape(9, 1, 1), tolerance=1e-12)
    np.testing.assert_allclose(flow[:, 0, 0, 0], -flow[::-1, 0, 0, 0], atol=1e-9)
    assert (flow[5:, 0, 0, 0] > 0).all()

"""What a scan shows within its slices makes its thick slices thin; what it does not show is interpolated."""

import numpy as np
import pytest
import torch

from bids_sr.inference.fitting import FitLog
from bids_sr.models.base import Lattice, Signal
from bids_sr.models.interpolation import CubicSpline
from bids_sr.models.smore import SliceNetwork, Smore, ThickAxis, lesson_phases, make_lesson, slice_operations
from tests.models.thick_slices import error, made_scan, restored

torch.set_num_threads(1)
SMALL = {"features": 12, "blocks": 2, "patch": 24, "batch": 8}
NOW = {**SMALL, "seconds": 0.05}
THIN = Signal(("volume",))


@pytest.fixture(scope="module")
def scan():
    return made_scan()


def test_it_comes_closer_to_thin_slices_than_interpolation(scan):
    log = FitLog()
    found = restored(scan, Smore(**SMALL, seconds=2.4), Signal(), log)
    assert error(scan, found) < 0.87 * error(scan, restored(scan, CubicSpline(), THIN))
    assert log.record["learned"]
    assert "3 mm look with 1 mm" in log.record["sentence"]


def test_it_begins_as_interpolation(scan):
    """The last layer begins at zero, and the first step is taken after the first loss."""
    network = SliceNetwork(3, 4, 1)
    slices = torch.rand(2, 3, 8, 9)
    torch.testing.assert_close(network(slices), slices[:, 0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_thick_axis_may_be_any(axis):
    scale = np.roll([3.0, 1.0, 1.0], axis)
    scan = made_scan(tuple(scale))
    found = restored(scan, Smore(**NOW), Signal())
    # After a step or two it still interpolates, so an exchange of axes would be seen.
    assert error(scan, found) < 1.1 * error(scan, restored(scan, CubicSpline(), THIN))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(scan):
    results = [restored(scan, Smore(**NOW), Signal(), FitLog(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_a_scan_of_cubes_is_interpolated_and_this_is_told():
    scan, log = made_scan((2.0, 2.0, 2.0)), FitLog()
    found = restored(scan, Smore(**NOW), Signal(), log)
    np.testing.assert_allclose(found, restored(scan, CubicSpline(), THIN), rtol=1e-5)
    assert not log.record["learned"]
    assert log.record["sentence"].startswith("This scan has no thick slices to learn from (voxels of 2 x 2 x 2 mm")
    assert "\n" not in log.record["sentence"]


@pytest.mark.parametrize(
    ("sizes", "wanted", "expected"),
    [
        ((1, 1, 3), (1, 1, 1), (2, (0, 1), 3, 1, True)),
        ((1, 1, 3), (0.5, 0.5, 0.5), (2, (0, 1), 3, 1, False)),
        ((1, 1, 4), (1, 1, 2), (2, (0, 1), 4, 2, True)),
        ((4, 2, 2), (1, 1, 1), (0, (1, 2), 4, 2, False)),
        ((3, 1, 3), (1, 1, 1), (0, (1,), 3, 1, True)),
        ((2, 2, 2.1), (1, 1, 1), None),
        ((1, 1, 3), (0.5, 0.5, 3), None),
    ],
)
def test_what_is_restored_and_from_what(sizes, wanted, expected):
    found = ThickAxis.of(np.array(sizes, float), np.array(wanted, float))
    assert found == (None if expected is None else ThickAxis(*expected))


def test_voxels_finer_than_the_teachers_are_interpolated_from_theirs():
    thick = ThickAxis.of(np.array([1.0, 1, 3]), np.array([0.5, 0.5, 0.5]))
    nodes, shape = thick.nodes((8, 9, 4), Lattice((-0.25, -0.25, -5 / 12), (0.5, 0.5, 1 / 6)))
    assert shape == (8, 9, 12)
    assert nodes.cell == pytest.approx((1, 1, 1 / 3))
    assert nodes.origin == pytest.approx((0, 0, -1 / 3))


@pytest.mark.parametrize(("thickness", "spacing"), [(3.0, 1.0), (2.5, 1.0), (4.0, 2.0), (2.857, 1.4286)])
def test_a_lesson_keeps_ramps_where_they_are(thickness, spacing):
    """Neither the thick slices nor the thin ones are displaced."""
    thick = ThickAxis(2, (0, 1), thickness, spacing, True)
    ramp = torch.arange(40, dtype=torch.float32)
    first = (spacing / thickness - 1) / 2
    for phase in lesson_phases(1.0, thick, first):
        lesson = make_lesson(40, 1.0, thick, first, float(phase), "gaussian")
        inner = slice(8, -8)
        for weights in (lesson.given, lesson.truth):
            np.testing.assert_allclose((weights @ ramp)[inner], lesson.centres[inner], atol=0.02 * thickness)
        if spacing == 1.0:
            np.testing.assert_allclose(lesson.centres, np.rint(lesson.centres), atol=1e-6)
            np.testing.assert_allclose(lesson.truth.sum(1), 1, atol=1e-5)
            assert lesson.truth.max() > 0.99, "as fine as the axis itself: nothing is averaged"


def test_the_budget_decides_how_many_steps_there_are(scan):
    logs = [FitLog(), FitLog()]
    for log, seconds in zip(logs, (0.05, 0.1), strict=True):
        restored(scan, Smore(**SMALL, seconds=seconds), Signal(), log)
    few, many = (log.record["steps"] for log in logs)
    assert few >= 1
    assert many in (2 * few, 2 * few + 1)
    pixels = SMALL["batch"] * SMALL["patch"] ** 2
    expected = 0.1 * 2.5e10 / (3 * (5e7 + pixels * slice_operations(3, SMALL["features"], SMALL["blocks"])))
    assert many == int(expected)


def test_the_operations_of_the_network_are_its_weights():
    network = SliceNetwork(3, 8, 2)
    assert slice_operations(3, 8, 2) == sum(p.numel() for p in network.parameters() if p.dim() > 1)


def test_arguments_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="positive"):
        Smore(features=0)

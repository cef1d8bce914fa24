"""A restoration in its own process: the same result, its own memory, and a line where it is killed."""

import numpy as np
import pytest
import torch

from bids_sr.dwi.t1w import T1wImage, t1w_channel
from bids_sr.errors import RestorationKilledError, UnknownModelError
from bids_sr.evaluation.benchmark import degrade_reference
from bids_sr.evaluation.process import Order, hand_over, peak_memory_gb, restore_apart
from bids_sr.inference.upsampler import restore_volumes
from bids_sr.models.base import Signal
from bids_sr.models.interpolation import CubicSpline
from bids_sr.models.registry import load_model
from tests.evaluation.made import killed, reference, silent
from tests.made_models import save_tiny_model

REFERENCE = reference(6)
DEGRADED = degrade_reference(REFERENCE, (2.0, 2.0, 1.0))


def order(model: str = "cubic") -> Order:
    return Order(model, REFERENCE.gradients.bvals, DEGRADED.grid, REFERENCE.grid, 50.0, "cpu", 1)


def test_the_result_is_that_of_the_core_and_the_memory_its_own(tmp_path):
    ballast = np.ones(2**26)  # half a GB in this process
    hand_over(DEGRADED, None, tmp_path)
    restored, cost = restore_apart(order(), tmp_path, silent, "made")
    expected = restore_volumes(
        DEGRADED.data, REFERENCE.gradients.bvals, DEGRADED.grid, REFERENCE.grid, DEGRADED.mask, CubicSpline(),
        signal=Signal(("volume",)), b0_threshold=50.0, device=torch.device("cpu"),
    )  # fmt: skip
    np.testing.assert_allclose(restored, np.stack(list(expected), axis=-1), rtol=1e-6)
    assert peak_memory_gb() > ballast.nbytes / 1024**3
    assert 0.05 < cost.peak_gb < peak_memory_gb() - 0.3
    assert 0 < cost.seconds < 10
    assert cost.gpu_gb == 0


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "t1w as input"])
def test_the_t1w_reaches_the_model_that_uses_it(tmp_path, guided):
    inputs = ("volume",) if guided else ("volume", "t1w")
    model = save_tiny_model(tmp_path, inputs, guided=guided)
    fine = REFERENCE.grid.scaled(np.full(3, 2.0))
    t1w = T1wImage(np.random.default_rng(0).random(fine.shape).astype(np.float32), fine)
    hand_over(DEGRADED, t1w, tmp_path)
    restored, _ = restore_apart(order(model), tmp_path, silent, "made")
    network, card = load_model(model, torch.device("cpu"))
    shown = {"guide": t1w, "t1w": t1w_channel(t1w.voxels, t1w.grid, DEGRADED.grid, DEGRADED.mask)}
    expected, without = (
        np.stack(list(restore_volumes(
            DEGRADED.data, REFERENCE.gradients.bvals, DEGRADED.grid, REFERENCE.grid, DEGRADED.mask, network,
            signal=card.signal, b0_threshold=50.0, device=torch.device("cpu"), **given,
        )), axis=-1)
        for given in (shown, {})
    )  # fmt: skip
    np.testing.assert_allclose(restored, expected, rtol=1e-4, atol=1e-3)
    assert np.abs(restored - without).max() > 1


def test_a_process_that_is_killed_is_told_in_one_line(tmp_path):
    hand_over(DEGRADED, None, tmp_path)
    with pytest.raises(RestorationKilledError, match="made") as caught:
        restore_apart(order(), tmp_path, killed, "made")
    assert caught.value.exit_code == 137


def test_errors_of_the_restoration_arrive(tmp_path):
    hand_over(DEGRADED, None, tmp_path)
    with pytest.raises(UnknownModelError, match="nobody"):
        restore_apart(order("nobody"), tmp_path, silent, "made")


def test_the_peak_is_read_where_the_kernel_tells_it(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 9999 kB\nVmHWM:\t 2097152 kB\n")
    assert peak_memory_gb(status) == 2
    assert np.isnan(peak_memory_gb(tmp_path / "none"))

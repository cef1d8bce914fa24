"""A made series in a box, results of made restorations, and ways of passing volumes on."""

import os
import signal

import numpy as np

from bids_sr.dwi.gradients import Gradients
from bids_sr.evaluation.benchmark import Reference, TensorFigures, VolumeFigures
from bids_sr.evaluation.process import Cost
from bids_sr.evaluation.tables import Result
from bids_sr.geometry import Grid
from tests.dwi.made_series import one_shell, signals

SHAPE = (16, 14, 12)
#: Along x: axial 1.7e-3, radial 0.3e-3 mm2/s.
TENSOR = np.diag([1.7e-3, 0.3e-3, 0.3e-3])
FA = 0.7990  # of TENSOR: sqrt(3/2) |D - MD| / |D|
MD = 2.3e-3 / 3


def reference(n_directions: int = 12) -> Reference:
    """A series of one tensor everywhere, whose b0 rises from 500 to 1500 along z; the brain is a box inside."""
    gradients: Gradients = one_shell(n_directions)
    brightness = np.broadcast_to(np.linspace(500, 1500, SHAPE[2]), SHAPE)
    data = brightness[..., None] * signals(TENSOR[None], gradients, s0=1.0)[0]
    mask = np.zeros(SHAPE, bool)
    mask[2:14, 2:12, 2:10] = True
    return Reference(data.astype(np.float32), gradients, Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])), mask, 50.0)


def volume(index: int, *, weighted: bool = True, **figures: float) -> VolumeFigures:
    """A volume with the figures given, the others being 1."""
    names = ("mse", "mae", "nrmse", "psnr_mask", "ssim_mask", "psnr_volume", "ssim_volume")
    return VolumeFigures(index, 1000.0 * weighted, weighted, **{name: 1.0 for name in names} | figures)


def result(
    subject: str = "sub-01", series: str = "", scale: str = "2", model: str = "light", **changes: object
) -> Result:
    """A result of one b0 and two weighted volumes with a PSNR of 30, 20 and 24 dB."""
    volumes = (volume(0, weighted=False, psnr_mask=30.0), volume(1, psnr_mask=20.0), volume(2, psnr_mask=24.0))
    fields = {
        "subject": subject, "series": series or subject, "model": model, "weights": "ab" * 32, "scale": scale,
        "true_scale": (2.0, 2.0, 2.0), "within_range": True, "profile": "gaussian", "noise": 0.0, "t1w": False,
        "volumes": volumes, "tensor": TensorFigures(0.05, 1e-4, 7.0), "cost": Cost(6.0, 0.5, 0.0),
        "device": "cpu", "threads": 1,
    }  # fmt: skip
    return Result(**fields | changes)


def silent(volumes, total):
    """Passes volumes on."""
    return iter(volumes)


def killed(volumes, total):
    """Ends the process as the kernel does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)

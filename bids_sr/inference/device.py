"""Which processor a model runs on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bids_sr.errors import DeviceError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """The device of a name: ``auto`` takes the first GPU if there is one, anything else gives just what was asked for.

    Raises
    ------
    DeviceError
        If the name is unknown or the GPU is not there; there is no silent fall-back.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(device=name, reason="not one of auto, cpu, cuda, cuda:N")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(device=name, reason="no CUDA device is visible to this process")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(device=name, reason=f"only {torch.cuda.device_count()} CUDA devices are visible")
    return device

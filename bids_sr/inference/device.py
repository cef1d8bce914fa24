"""Which processor a model runs on, and how it is used."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from bids_sr.errors import DeviceError

if TYPE_CHECKING:
    import torch


#: `mallopt` of glibc: how many blocks are mapped on their own, and how many free bytes at the end are kept.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
_KEPT = 2**31 - 1


def use_processors(threads: int) -> None:
    """Let the models of this process compute with so many threads, in memory that stays with the process.

    The C library of Linux gives large arrays back to the system when they are freed, and the system clears every page
    that it gives out anew: a quarter of the time of restoring a whole brain. What is kept is used again; up to 2 GB
    of it stay when the work is done. Other C libraries are left as they are.
    """
    import torch

    torch.set_num_threads(threads)
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


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

"""A GPU that was asked for and is not there is an error, never a silent fall-back."""

import platform
import subprocess
import sys

import pytest
import torch

from bids_sr.errors import DeviceError
from bids_sr.inference.device import resolve_device


def test_auto_and_cpu():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cuda:x", "mps", ""])
def test_what_is_not_there_is_refused(name):
    with pytest.raises(DeviceError):
        resolve_device(name)


def test_the_gpus_of_another_machine_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("auto") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="only 2"):
        resolve_device("cuda:2")


#: Prints how many pages the system gave out while arrays of 64 MB came and went.
PAGES = """
import resource
import numpy as np
from bids_sr.inference.device import use_processors
use_processors(1)
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_freed_memory_is_used_again():
    result = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1000

"""Which limit each part of the restoration meets: that of the processor's arithmetic, or that of its memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Of the array that is copied to measure the memory, in values of 4 bytes: more than caches hold.
COPIED = 2**27
ROUNDS = 3
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "bids_sr", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A part of the restoration.

    Attributes
    ----------
    name : str
    intensity : float
        Operations per byte that is read from memory or written to it.
    rate : float
        Operations per second.
    """

    name: str
    intensity: float
    rate: float


class BytesMoved(TorchDispatchMode):
    """Counts what PyTorch's operations read and write, as if no cache kept anything from one operation to the next.

    Attributes
    ----------
    total : int
        In bytes; each tensor counts once for each operation that it is given to or comes from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; one that only looks at a tensor in another way moves nothing."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def memory_bandwidth() -> float:
    """Bytes per second that are read and written while an array is copied, by as many threads as PyTorch uses."""
    source, copy = torch.ones(COPIED), torch.zeros(COPIED)
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        copy.copy_(source)
        seconds.append(time.perf_counter() - began)
    return 2 * 4 * COPIED / min(seconds)


def draw(works: Sequence[Work], peak: float, bandwidth: float, file: Path) -> None:
    """Write the roofline (Williams et al. 2009): what can be reached at an intensity, and what is.

    Parameters
    ----------
    works : sequence of Work
    peak : float
        Operations per second that the processor can do at all.
    bandwidth : float
        Bytes per second of its memory.
    file : Path
        In the format that its extension names.
    """
    with rc_context(SETTINGS):
        figure = Figure(figsize=(7, 3.8), layout="constrained")
        axes = figure.subplots()
        reach = np.geomspace(peak / bandwidth / 8, max(work.intensity for work in works) * 4, 200)
        axes.plot(reach, np.minimum(peak, bandwidth * reach) / 1e9, color="#1b2227", linewidth=1.4)
        axes.annotate("multiply-adds in registers", (reach[-1], peak / 1e9), (0, 5), **_BESIDE, ha="right")
        axes.annotate("memory", (reach[20], bandwidth * reach[20] / 1e9), (6, -8), **_BESIDE)
        for work in works:
            share = work.rate / min(peak, bandwidth * work.intensity)
            axes.plot(work.intensity, work.rate / 1e9, "o", color="#1273b5", markersize=6)
            label = f"{work.name}, {100 * share:.0f} %"
            axes.annotate(label, (work.intensity, work.rate / 1e9), (0, -14), **_BESIDE, ha="center")
        axes.set(xscale="log", yscale="log", xlabel="operations per byte of memory", ylabel="GFLOP/s")
        axes.set_ylim(top=1.5 * peak / 1e9)
        axes.xaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


_BESIDE: dict[str, Any] = {"textcoords": "offset points", "color": "#56616a"}

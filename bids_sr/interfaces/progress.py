"""Progress of a long stage on standard error: a bar on a terminal, a line every few volumes in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LINES = 8


def show_progress(items: Iterable[Item], total: int, label: str, unit: str = "volume") -> Iterator[Item]:
    """Pass `items` on and tell how many of the `total` are done.

    Parameters
    ----------
    items : iterable
        Handed on unchanged.
    total : int
        How many there will be.
    label : str
        What is counted, for example ``sub-01: volumes restored``.
    unit : str
        One of them, for the bar.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=label, unit=unit, file=sys.stderr, leave=False)
    else:
        yield from _lines(items, total, label)


def _lines(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """One line for about every eighth part of the work."""
    step = max(1, total // LINES)
    start = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if count % step == 0 or count == total:
            left = (time.monotonic() - start) / count * (total - count)
            print(f"{label}: {count} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)

"""How many operations per second a processor can do at all: the yardstick of `benchmarks.speed`."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).with_name("peak.c")
ROUNDS = 30_000_000
#: Widths of a vector register in bytes, and multiply-adds in flight; the fastest of them is the peak.
WIDTHS, ACCUMULATORS = (32, 64), (12, 24)


class Peak:
    """A loop of multiply-adds, compiled for this processor.

    Raises
    ------
    FileNotFoundError
        If there is no C compiler, `cc`.
    """

    def __init__(self) -> None:
        self._loops = [(self._compiled(width, n), width / 4 * n * 2 * ROUNDS) for width in WIDTHS for n in ACCUMULATORS]

    @staticmethod
    def _compiled(width: int, accumulators: int) -> Callable[[int], float]:
        """The loop for registers of `width` bytes."""
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "peak.so"
            options = [f"-DVECTOR_BYTES={width}", f"-DACCUMULATORS={accumulators}"]
            flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", *options]
            subprocess.run(["cc", *flags, str(SOURCE), "-o", str(library)], check=True)
            loop = ctypes.CDLL(str(library)).multiply_add
        loop.argtypes, loop.restype = [ctypes.c_int64], ctypes.c_float
        return loop

    def measured(self, threads: int) -> float:
        """Operations per second of `threads` threads together, two for a multiply-add."""
        with ThreadPoolExecutor(threads) as pool:
            return max(self._once(pool, loop, operations, threads) for loop, operations in self._loops)

    @staticmethod
    def _once(pool: ThreadPoolExecutor, loop: Callable[[int], float], operations: float, threads: int) -> float:
        """Operations per second of one of the loops; ctypes lets go of the interpreter while it runs."""
        began = time.perf_counter()
        list(pool.map(loop, [ROUNDS] * threads))
        return threads * operations / (time.perf_counter() - began)

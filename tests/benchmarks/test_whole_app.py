"""The stages of a run are read from its log."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.whole_app import MostHeld, held_gb, rows, stages, told_gb

LOG = """2026-01-01 00:00:00,000 INFO bids_sr: sub-01: restoring the series
2026-01-01 00:00:12,500 INFO bids_sr_file: sub-01: super_resolution.restore took 12.5 s
2026-01-01 00:00:13,000 INFO nipype.workflow: a: b took 3 s or so
"""


def test_stages_are_read(tmp_path):
    (tmp_path / "20260101.log").write_text(LOG)
    (tmp_path / "20260101.toml").write_text("a: b took 1.0 s")
    assert list(stages(tmp_path)) == [("super_resolution.restore", 12.5)]


def test_nothing_of_the_run_is_left_out():
    *named, others, whole = rows([("a", 60.0), ("b", 0.2), ("c", 0.3), ("d", 30.0)], 100.0)
    assert [row[0] for row in named] == ["a", "d"]
    assert float(others[1]) == pytest.approx(0.5)
    assert whole[1] == "100.0"


def test_the_memory_that_a_dry_run_tells_is_that_of_its_largest_series():
    table = "series  memory\nsub-01  2.5 GB\nsub-02  12.5 GB\nModel light; processors: 2, memory: 23.0 GB. No GPU."
    assert told_gb(table) == 12.5


#: Holds 60 MB in one process and 100 MB in one that this starts, and maps a file of 200 MB, until its input ends.
HOLDING = """
import mmap, subprocess, sys
from pathlib import Path
hold = "import sys; held = bytearray(b'1') * 100_000_000; print(flush=True); sys.stdin.read()"
with Path(sys.argv[1]).open("r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
    held, sums = bytearray(b"1") * 60_000_000, sum(mapped[::4096])
    child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(flush=True)
    sys.stdin.read()
    child.communicate()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what a process holds")
def test_memory_is_what_processes_hold_and_not_what_they_map(tmp_path):
    file = tmp_path / "mapped"
    file.write_bytes(bytes(200_000_000))
    command = [sys.executable, "-c", HOLDING, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        most = MostHeld(run)
        run.stdout.readline()
        found = sorted(held_gb(run.pid))
        time.sleep(0.5)
        run.communicate()
    assert [size * 1024**3 / 1e6 for size in found] == pytest.approx([60, 100], abs=20)
    assert (most.one, most.together) == pytest.approx((found[1], sum(found)), abs=0.01)

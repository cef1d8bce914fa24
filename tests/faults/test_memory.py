"""Where memory runs out, the status is 137, so that schedulers try again with more, and the text says memory."""

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.faults.runs import assert_gone, assert_same, assert_whole, finish, processes_of, run, start, wait_for

pytestmark = pytest.mark.faults


def test_a_worker_that_is_killed_ends_in_137_and_the_rest_is_finished_later(place, reference):
    process = start(place.words(nprocs=2))
    wait_for(process, "registering the T1w")
    workers = [pid for pid in processes_of(process.pid) if pid != process.pid and "spawn_main" in command(pid)]
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    finished = finish(process)
    assert finished.code == 137, finished.text
    assert "memory" in finished.text
    assert "Traceback" not in finished.text
    assert_gone(process.pid)
    assert_whole(place.out, reference.out)
    assert run(place.words(nprocs=2)).code == 0
    assert_same(place.out, reference.out)


def command(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@pytest.mark.parametrize("megabytes", [300, 500, 800, 850, 900, 950, 1000, 1200, 1600, 2000, 2500, 3000])
def test_with_too_little_address_space_it_says_memory(place, reference, megabytes):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    finished = run(place.words(), limits=limit)
    assert finished.code in (0, 137), finished.text
    if finished.code:
        assert "memory" in finished.text.lower()
        assert run(place.words()).code == 0
    assert_same(place.out, reference.out)


def test_a_series_larger_than_mem_is_refused_before_it_starts(place):
    begin = time.monotonic()
    finished = run(place.words("--mem", "0.01"))
    assert finished.code == 137
    assert "GB of memory" in finished.text
    assert time.monotonic() - begin < 60
    assert not list(place.out.glob("sub-*/**/*.nii.gz"))

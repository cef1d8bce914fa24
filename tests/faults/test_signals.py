"""Ended at any moment, a run leaves only whole files, and the same command finishes with the same bytes."""

import random
import signal
import time

import pytest

from tests.faults.runs import assert_gone, assert_same, assert_whole, finish, run, start, wait_for

pytestmark = pytest.mark.faults
MOMENTS = 20
#: Every fourth run has workers.
PARALLEL = 4
SECONDS_TO_STOP = 15


def disturbed(place, moment, number, seconds, nprocs):
    """Send a signal at a random moment of one of twenty equal parts of a run; how it ended, and how soon."""
    process = start(place.words(nprocs=nprocs))
    time.sleep(seconds * (moment + random.random()) / MOMENTS)  # noqa: S311
    process.send_signal(number)
    finished = finish(process)
    assert_gone(process.pid)
    return finished


@pytest.fixture(params=range(MOMENTS))
def moment(request):
    return request.param


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_the_same_command_goes_on_to_the_same_bytes(place, reference, parallel_seconds, moment, number):
    nprocs = 2 if moment % PARALLEL == PARALLEL - 1 else 1
    finished = disturbed(place, moment, number, parallel_seconds if nprocs > 1 else reference.seconds, nprocs)
    if place.out.exists():
        assert_whole(place.out, reference.out)
    if number == signal.SIGTERM:
        assert_told(finished, place, number)
    again = run(place.words(nprocs=nprocs))
    assert again.code == 0, again.text
    assert_same(place.out, reference.out)
    assert (place.out / "sub-01.html").is_file()


@pytest.mark.parametrize("moment", range(2, MOMENTS, 3))
def test_an_interrupt_ends_it_within_seconds(place, reference, parallel_seconds, moment):
    nprocs = 1 + moment % 2
    finished = disturbed(place, moment, signal.SIGINT, parallel_seconds if nprocs > 1 else reference.seconds, nprocs)
    assert_told(finished, place, signal.SIGINT)
    assert finished.seconds < SECONDS_TO_STOP


def assert_told(finished, place, number):
    """It says that it was interrupted, unless it had not begun, or was done."""
    has_begun = (place.out / "logs").exists()
    assert finished.code in (130, 0) or (finished.code == -number and not has_begun), finished.text
    if finished.code == 130:
        assert "nterrupted" in finished.text
        assert "Traceback" not in finished.text


def test_a_second_interrupt_changes_nothing(place):
    process = start(place.words(nprocs=2))
    wait_for(process, "finding the brain")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    finished = finish(process)
    assert finished.code == 130
    assert_gone(process.pid)

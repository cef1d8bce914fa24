"""Two runs never work on the same files."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
import threading

import pytest

from bids_sr.bids.locks import locked


def test_the_second_waits_and_is_told_once(tmp_path):
    file, told, order = tmp_path / "logs" / "a.lock", [], []
    holds, may_end = threading.Event(), threading.Event()

    def first():
        with locked(file, lambda: told.append("first")):
            holds.set()
            may_end.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert holds.wait(10)
    with locked(file, lambda: (told.append("second"), may_end.set())):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert told == ["second"]
    assert not file.exists()


def test_many_at_once_are_one_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locked(tmp_path / "a.lock", lambda: None):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (160, 1)


def test_a_killed_process_holds_nothing(tmp_path):
    code = "import fcntl, os, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.lock")], check=False)
    assert (tmp_path / "a.lock").exists()
    told = []
    with locked(tmp_path / "a.lock", lambda: told.append(1)) as keeps_out:
        assert keeps_out
    assert told == []
    assert not (tmp_path / "a.lock").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_locks_it_works_unlocked(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "a.lock", lambda: pytest.fail("nobody holds it")) as keeps_out:
        assert not keeps_out


def test_other_problems_of_locking_are_told_and_leave_no_file_open(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", fail)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError, match="broken"), locked(tmp_path / "a.lock", lambda: None):
        pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_locks_leave_the_low_descriptors_to_programs_that_know_no_others(tmp_path):
    """`select`, with which nipype listens to programs that it runs, refuses those from 1024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    try:
        before = lowest_free()
        with locked(tmp_path / "a.lock", lambda: None):
            assert lowest_free() == before
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
        with locked(tmp_path / "a.lock", lambda: None) as keeps_out:
            assert keeps_out
            assert lowest_free() == before + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def lowest_free():
    """The number that the next file to be opened gets."""
    handle = os.open("/dev/null", os.O_RDONLY)
    os.close(handle)
    return handle

"""Two runs never work on the same files; what a killed one left half written goes."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from bids_sr.workflows import locks
from bids_sr.workflows.locks import locked, remove_unfinished, remove_unfinished_texts


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
    with locked(tmp_path / "a.lock", lambda: told.append(1)):
        pass
    assert told == []
    assert not (tmp_path / "a.lock").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_locks_it_works_unlocked(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "a.lock", lambda: pytest.fail("nobody holds it")):
        pass


def test_other_problems_of_locking_are_told_and_leave_no_file_open(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", fail)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError, match="broken"), locked(tmp_path / "a.lock", lambda: None):
        pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        (".sub-01_acq-a_res-1_desc-sr_dwi-0123456789ab.nii.gz", True),
        (".sub-01_acq-a_space-dwi_desc-preproc_T1w-0123456789ab.json", True),
        (".sub-01_acq-b_res-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".sub-01_res-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".sub-01_acq-a_run-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".sub-01_acq-a_res-1_desc-sr_dwi-01234.nii.gz", False),
        ("sub-01_acq-a_res-1_desc-sr_dwi-0123456789ab.nii.gz", False),
        (".DS_Store", False),
    ],
)
def test_only_what_this_series_left_half_written_goes(tmp_path, name, goes):
    file = tmp_path / "ses-1" / "dwi" / name
    file.parent.mkdir(parents=True)
    file.touch()
    remove_unfinished(tmp_path, {"sub": "01", "acq": "a", "desc": "preproc"})
    assert file.exists() is not goes


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        (".sub-01-0123456789ab.html", True),
        (".README-0123456789ab", True),
        (".-0123456789ab.bidsignore", True),
        (".group_tensor-0123456789ab.tsv", False),
        (".bidsignore", False),
    ],
)
def test_half_written_texts_of_the_dataset_go(tmp_path, name, goes):
    (tmp_path / name).touch()
    remove_unfinished_texts(tmp_path)
    assert (tmp_path / name).exists() is not goes


def test_the_names_are_those_that_files_have_while_they_are_written(tmp_path):
    from bids_sr.bids.outputs import write_atomically

    for name in ("sub-01_desc-sr_dwi.nii.gz", "README", ".bidsignore"):
        with write_atomically(tmp_path / name) as temporary:
            temporary.touch()
            assert locks._TEMPORARY.fullmatch(temporary.name)

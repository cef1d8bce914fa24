"""A failure says in one line what happened, and which exit status it asks for."""

import resource

import pytest

from bids_sr.errors import NoB0Error
from bids_sr.interfaces.failure import Failure


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (NoB0Error(dwi="a", threshold=50.0, lowest=100.0), 2),
        (MemoryError(), 137),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 137),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 137),
        (OSError(12, "Cannot allocate memory"), 137),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 137),
        (ImportError("libx.so: failed to map segment from shared object: Operation not permitted"), 1),
        (OSError(28, "No space left on device"), 2),
        (OSError(122, "Disk quota exceeded"), 2),
        (OSError(5, "Input/output error"), 1),
        (KeyboardInterrupt(), 130),
        (ValueError("out of memory is only a word here"), 1),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_exit_codes(error, exit_code):
    assert Failure.of(error).exit_code == exit_code


def test_input_errors_keep_their_words_and_bugs_name_their_kind():
    error = NoB0Error(dwi="a", threshold=50.0, lowest=100.0)
    assert Failure.of(error).message == str(error)
    assert Failure.of(ValueError("one\ntwo")).message == "ValueError: one"


def test_a_failure_survives_the_disk(tmp_path):
    failure = Failure.of(MemoryError())
    failure.write(tmp_path)
    assert Failure.read(tmp_path) == failure


def test_no_failure_is_none(tmp_path):
    assert Failure.read(tmp_path) is None
    assert Failure.read(tmp_path / "absent") is None


@pytest.mark.parametrize(("limit", "code"), [(2**30, 137), (resource.RLIM_INFINITY, 1)])
def test_a_silent_failure_of_an_extension_is_one_of_memory_where_memory_is_limited(monkeypatch, limit, code):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, resource.RLIM_INFINITY))
    failure = Failure.of(SystemError("error return without exception set"))
    assert failure.exit_code == code
    assert ("memory" in failure.message.lower()) == (code == 137)
    assert Failure.of(SystemError("bad argument to internal function")).exit_code == 1

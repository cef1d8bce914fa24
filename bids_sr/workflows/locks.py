"""Keeps two runs from working on the same files: the second waits for the first."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bids_sr.bids.inputs import parse_entities

#: Entities that outputs have on top of those of their series.
_ADDED = ("space", "res", "model", "param", "desc")
#: Hidden names that files have while they are written, see `bids_sr.bids.outputs.write_atomically`.
_TEMPORARY = re.compile(r"\.(?P<stem>.*)-[0-9a-f]{12}(\..*)?")
#: What file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL)


@contextmanager
def locked(file: Path, tell_busy: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, waiting where another process has it; the system takes it from a process that dies.

    Where the file system knows no locks, nothing is locked. Killed processes leave the empty file behind, which locks
    nothing by itself.

    Parameters
    ----------
    file : Path
        Made for the time of the lock.
    tell_busy : function
        Called once, before waiting.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = _acquire(file, tell_busy)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)


def _acquire(file: Path, tell_busy: Callable[[], None]) -> int:
    """Descriptor of the lock file, locked if the file system can."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                tell_busy()
                tell_busy = _say_nothing
                _lock(handle, fcntl.LOCK_EX)
            if _is_same(handle, file):
                return handle
        except BaseException:
            os.close(handle)
            raise
        # Its holder removed the file while we waited; the lock of a file without a name keeps nobody out.
        os.close(handle)


def _say_nothing() -> None:
    """Stand in for what was said before."""


def _lock(handle: int, how: int) -> bool:
    """Lock an open file; False where another process holds it, True also where locks are unknown."""
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_same(handle: int, file: Path) -> bool:
    """Whether the file of that name still is the open one."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def remove_unfinished(folder: Path, entities: Mapping[str, str]) -> None:
    """Remove what a killed run left half written for a series, below the folder of its subject.

    Parameters
    ----------
    folder : Path
    entities : mapping
        Of the series, with or without `desc`.
    """
    own = {key: value for key, value in entities.items() if key != "desc"}
    for file in folder.rglob(".*"):
        found = _TEMPORARY.fullmatch(file.name)
        its = parse_entities(Path(found["stem"])) if found else {}
        if {key: value for key, value in its.items() if key in own or key not in _ADDED} == own:
            file.unlink(missing_ok=True)


def remove_unfinished_texts(folder: Path) -> None:
    """Remove reports and texts of the whole dataset that a killed run left half written."""
    for file in folder.glob(".*"):
        if _TEMPORARY.fullmatch(file.name) and not file.name.startswith(".group_"):
            file.unlink(missing_ok=True)

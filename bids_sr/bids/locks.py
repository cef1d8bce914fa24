"""Keeps two runs from working on the same files: the second waits for the first."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

#: What file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL)
#: From this number on, `select` refuses descriptors; nipype calls it where it runs other programs.
_LAST_OF_SELECT = 1024


@contextmanager
def locked(file: Path, tell_busy: Callable[[], None]) -> Iterator[bool]:
    """Hold a lock, waiting where another process has it; the system takes it from a process that dies.

    Killed processes leave the empty file behind, which locks nothing by itself.

    Parameters
    ----------
    file : Path
        Made for the time of the lock.
    tell_busy : function
        Called once, before waiting.

    Yields
    ------
    bool
        False where the file system knows no locks, and nobody is kept out.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, keeps_out = _acquire(file, cache(tell_busy))
    try:
        yield keeps_out
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)


def _acquire(file: Path, tell_busy: Callable[[], None]) -> tuple[int, bool]:
    """Descriptor of the lock file, and whether it is locked."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            keeps_out = _lock(handle, tell_busy)
            if _is_same(handle, file):
                return _out_of_the_way(handle), keeps_out
        except BaseException:
            os.close(handle)
            raise
        # Its holder removed the file while we waited; the lock of a file without a name keeps nobody out.
        os.close(handle)


def _lock(handle: int, tell_busy: Callable[[], None]) -> bool:
    """Lock an open file, as soon as no other process holds it; False where locks are unknown."""
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell_busy()
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _is_same(handle: int, file: Path) -> bool:
    """Whether the file of that name still is the open one."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _out_of_the_way(handle: int) -> int:
    """The same open file under a high number, where there may be one: runs hold many, and `select` needs the low."""
    try:
        high = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _LAST_OF_SELECT)
    except OSError:
        return handle
    os.close(handle)
    return high

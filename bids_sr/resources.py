"""What this process may use: processors, memory, a home folder, whatever the machine around it has."""

from __future__ import annotations

import mmap
import os
import resource
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

BYTES_PER_GB = 1024**3

#: OpenBLAS maps a buffer of 32 MB at its first large product, in numpy and in scipy, and keeps it for later ones.
BLAS_BUFFER = 32 * 1024**2

#: Files that a run may need open at once. Far larger limits slow down programs that close all they might have open.
MOST_FILES = 2**16

# The first that is set tells what the scheduler granted on this node. Needed where the scheduler confines jobs
# neither by affinity nor by cgroup.
_SCHEDULER_CPUS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NSLOTS", "LSB_DJOB_NUMPROC", "NCPUS")


def available_cpus(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Processors that this process may use: the least of affinity, cgroup quota and scheduler's grant.

    Parameters
    ----------
    root : Path
        Where ``/proc`` and ``/sys`` are.
    environment : mapping
        Environment variables.

    Returns
    -------
    int
        At least 1.
    """
    limits = [_affinity(), *_cgroup_cpus(root), *_scheduler_cpus(environment)]
    return max(1, int(min(limits)))


def available_memory_gb(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> float:
    """Memory that this process may use, in GB of 1024^3 bytes: the least of machine, cgroup and scheduler's grant.

    Parameters
    ----------
    root : Path
        Where ``/proc`` and ``/sys`` are.
    environment : mapping
        Environment variables.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_cgroup_memory(root), *_scheduler_memory(environment)]) / BYTES_PER_GB


def has_home() -> bool:
    """Whether the user has a home folder, which DIPY and pybids ask for as soon as they are imported."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def lend_home() -> None:
    """Let libraries take the folder of temporary files for a home where the user has none, as in many containers."""
    if not has_home():
        os.environ["HOME"] = tempfile.gettempdir()


def raise_file_limit() -> int:
    """Let this process have as many files open as the system allows, up to `MOST_FILES`.

    Returns
    -------
    int
        The limit from now on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least, most = (MOST_FILES if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard))
    wanted = max(least, min(most, MOST_FILES))
    if wanted > least:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return least


@cache
def reserve_blas_buffers() -> None:
    """Let the OpenBLAS of numpy and of scipy take their buffers while it is known that there is room for them.

    Where the address space is limited (``ulimit -v``, ``h_vmem`` of Grid Engine) and it finds no room, the one that
    scipy 1.15 brings (0.3.28) asks again for ever instead of failing.

    Raises
    ------
    MemoryError
        If there is no room.
    """
    import numpy as np
    from scipy.linalg import blas

    try:
        mmap.mmap(-1, 3 * BLAS_BUFFER).close()
    except OSError as error:
        raise MemoryError("no room for the buffers of OpenBLAS") from error
    # Smaller products need no buffer.
    factor = np.zeros((256, 256))
    blas.dgemm(1.0, factor, factor)
    np.matmul(factor, factor)


def _affinity() -> int:
    """Processors that the scheduler of the kernel may put us on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_cpus(root: Path) -> Iterator[float]:
    """Processor quotas of our control groups; fractions are usual in containers."""
    for folder in _cgroup_folders(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        quota = quota or _read(folder / "cpu.cfs_quota_us")
        period = period or _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def _cgroup_memory(root: Path) -> Iterator[int]:
    """Memory limits of our control groups in bytes."""
    for folder in _cgroup_folders(root, "memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if limit.isdigit():
            yield int(limit)


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of our control groups for a controller, innermost first; an outer group limits its inner ones.

    In a container the path in ``/proc/self/cgroup`` may be the host's and not exist here; the mount point itself,
    which is the last folder, then is our group.
    """
    top = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)  # version 2 of control groups names no controllers
        if controllers and controller not in controllers.split(","):
            continue
        mount = top / controller if controllers else top
        for inner in (Path(path), *Path(path).parents):
            yield mount / inner.relative_to("/")


def _scheduler_cpus(environment: Mapping[str, str]) -> list[int]:
    """Processors granted by a cluster's scheduler, as a list of none or one."""
    counts = (environment.get(name, "") for name in _SCHEDULER_CPUS)
    return [int(count) for count in counts if count.isdigit() and int(count) > 0][:1]


def _scheduler_memory(environment: Mapping[str, str]) -> list[int]:
    """Memory granted by SLURM in bytes, as a list of none or one; SLURM writes MB, and 0 for the whole node."""
    per_node, per_cpu, per_gpu, gpus = (
        int(text) if (text := environment.get(f"SLURM_{name}", "")).isdigit() else 0
        for name in ("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU", "GPUS_ON_NODE")
    )
    if per_node:
        return [per_node * 1024**2]
    if per_cpu:
        return [per_cpu * 1024**2 * cpus for cpus in _scheduler_cpus(environment)]
    return [per_gpu * gpus * 1024**2] if per_gpu and gpus else []


def _read(path: Path) -> str:
    """Content of a small kernel file, empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""

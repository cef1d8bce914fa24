"""What this process may use is the least that any authority over it grants."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bids_sr.resources import MOST_FILES, available_cpus, available_memory_gb, raise_file_limit

GB = 1024**3


def tree(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")
    return root


@pytest.fixture(autouse=True)
def _eight_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GB // 4096}.get)


def test_without_limits_affinity_and_machine_decide(tmp_path):
    assert available_cpus(tmp_path, {}) == 8
    assert available_memory_gb(tmp_path, {}) == 64


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_cgroup_2_quota(tmp_path, quota, cpus):
    tree(tmp_path, {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": quota})
    assert available_cpus(tmp_path, {}) == cpus


def test_cgroup_2_limit_of_an_outer_group_counts(tmp_path):
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slurm/job/step",
            "sys/fs/cgroup/slurm/job/step/memory.max": "max",
            "sys/fs/cgroup/slurm/job/memory.max": 16 * GB,
            "sys/fs/cgroup/slurm/memory.max": 32 * GB,
        },
    )
    assert available_memory_gb(tmp_path, {}) == 16


def test_cgroup_1_limits(tmp_path):
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/a\n3:memory:/a\n2:pids:/",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": 300000,
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": 100000,
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": 8 * GB,
        },
    )
    assert available_cpus(tmp_path, {}) == 3
    assert available_memory_gb(tmp_path, {}) == 8


def test_cgroup_1_without_limits(tmp_path):
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/\n3:memory:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        },
    )
    assert available_cpus(tmp_path, {}) == 8
    assert available_memory_gb(tmp_path, {}) == 64


def test_cgroup_1_path_of_the_host_seen_from_a_container(tmp_path):
    tree(
        tmp_path,
        {"proc/self/cgroup": "3:memory:/docker/0123", "sys/fs/cgroup/memory/memory.limit_in_bytes": 4 * GB},
    )
    assert available_memory_gb(tmp_path, {}) == 4


@pytest.mark.parametrize(
    ("environment", "cpus", "memory"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "32", "SLURM_MEM_PER_NODE": "8192"}, 4, 8),
        ({"SLURM_CPUS_ON_NODE": "6", "SLURM_MEM_PER_CPU": "2048"}, 6, 12),
        ({"SLURM_CPUS_ON_NODE": "32", "SLURM_MEM_PER_NODE": "0"}, 8, 64),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_GPU": "8192", "SLURM_GPUS_ON_NODE": "2"}, 4, 16),
        ({"SLURM_MEM_PER_GPU": "8192"}, 8, 64),
        ({"NSLOTS": "2"}, 2, 64),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_MEM_PER_NODE": "x"}, 8, 64),
    ],
)
def test_scheduler_grants(tmp_path, environment, cpus, memory):
    assert available_cpus(tmp_path, environment) == cpus
    assert available_memory_gb(tmp_path, environment) == memory


def test_this_machine_has_something():
    assert available_cpus(Path("/")) >= 1
    assert available_memory_gb(Path("/")) > 0


STARVED = """
import resource, scipy.linalg.blas
from bids_sr.resources import reserve_blas_buffers

if {before}:
    reserve_blas_buffers()
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20),) * 2)
try:
    reserve_blas_buffers()
    factor = [[1.0] * 256] * 256
    print(scipy.linalg.blas.dgemm(1.0, factor, factor)[0, 0])
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("before", "says"), [(False, "no room for the buffers of OpenBLAS"), (True, "256.0")])
def test_a_product_of_matrices_without_room_for_its_buffer_fails_instead_of_hanging(before, says):
    """With 20 MB of address space left: refused where the buffers were not taken before, done where they were."""
    done = subprocess.run(
        [sys.executable, "-c", STARVED.format(before=before)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == says, done.stderr


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (64, 128, 128),
        (1024, 2**30, MOST_FILES),
        (1024, resource.RLIM_INFINITY, MOST_FILES),
        (2**20, 2**30, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
        (64, 64, None),
    ],
)
def test_the_limit_of_open_files_is_raised_and_never_lowered(monkeypatch, soft, hard, expected):
    given = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    limit = raise_file_limit()
    assert given == ([] if expected is None else [(expected, hard)])
    assert limit == expected or expected is None


def test_a_limit_that_the_system_refuses_stays(monkeypatch):
    def refuse(*_):
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 128))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit() == 64

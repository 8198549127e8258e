"""What a process may use of its machine: containers and services have limits of their own."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from atmo.host import Host

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight logical processors, two to a core, all of them allowed, in no control group."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for cpu in range(8):
        write(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}")
    return tmp_path


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_two_threads_of_a_core_are_one_core(machine: Path) -> None:
    assert Host(machine).cores() == 4


def test_a_pinned_process_has_the_cores_it_is_pinned_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5})
    assert Host(machine).cores() == 2


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("150000 100000", 1), ("20000 100000", 1), ("max 100000", 4)]
)
def test_a_container_s_quota_bounds_the_cores(machine: Path, quota: str, cores: int) -> None:
    write(machine / "proc/self/cgroup", "0::/")
    write(machine / "sys/fs/cgroup/cpu.max", quota)
    assert Host(machine).cores() == cores


def test_a_service_inherits_the_limits_of_what_it_is_in(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/system.slice/atmo.service")
    write(machine / "sys/fs/cgroup/system.slice/cpu.max", "300000 100000")
    write(machine / "sys/fs/cgroup/system.slice/atmo.service/cpu.max", "max 100000")
    write(machine / "sys/fs/cgroup/system.slice/memory.max", 2 * GIB)
    write(machine / "sys/fs/cgroup/system.slice/memory.current", GIB)
    write(machine / "sys/fs/cgroup/system.slice/atmo.service/memory.max", "max")
    assert Host(machine).cores() == 3
    assert Host(machine).memory_bytes() == 2 * GIB


def test_the_older_control_groups_count_as_well(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n3:pids:/docker/1")
    write(machine / "sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", 200_000)
    write(machine / "sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", 100_000)
    write(machine / "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", GIB)
    write(machine / "sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes", GIB // 4)
    assert Host(machine).cores() == 2
    assert Host(machine).memory_bytes() == GIB


def test_a_model_that_is_only_cached_does_not_count_as_used(machine: Path) -> None:
    """A file that was read lies in the group's page cache, which the kernel empties before it refuses anything."""
    write(machine / "proc/self/cgroup", "0::/")
    write(machine / "sys/fs/cgroup/memory.max", GIB)
    write(machine / "sys/fs/cgroup/memory.current", GIB - 1)
    write(machine / "sys/fs/cgroup/memory.stat", f"anon {GIB // 4}\ninactive_file {GIB // 2}")
    assert Host(machine).free_bytes() == GIB // 2 + 1


def test_without_limits_the_machine_s_own_figures_hold(tmp_path: Path) -> None:
    assert Host(tmp_path).memory_bytes() == psutil.virtual_memory().total
    assert 1 <= Host(tmp_path).cores() <= (os.cpu_count() or 1)

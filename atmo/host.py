"""How much of this machine this process may use: a container, a service or a pinned process has less than the machine.

Linux only tells (control groups of version 2 and 1, the affinity mask); elsewhere the machine's own figures hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Host:
    """root: of the file system that is asked, for tests."""

    root: Path = Path("/")

    def cores(self) -> int:
        """Physical cores this process may compute on; at least 1.

        Two threads of one core share its arithmetic, so that llama.cpp gains nothing by the second. A quota of 1.5
        cores is one: a thread that is stopped for the rest of the period would be waited for by the other.
        """
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        cores = len({self._siblings(cpu) for cpu in allowed})
        if not self._siblings_known(allowed):
            cores = min(len(allowed), psutil.cpu_count(logical=False) or len(allowed))
        return max(1, min(cores, int(self._quota())))

    def memory_bytes(self) -> int:
        """That this process may ever have."""
        return min([psutil.virtual_memory().total, *(limit for limit, _ in self._memory())])

    def free_bytes(self) -> int:
        """That it may have now. What the group's files take in the page cache is given back when it is needed."""
        left = (max(0, limit - used) for limit, used in self._memory())
        return min([int(psutil.virtual_memory().available), *left])

    def _siblings(self, cpu: int) -> str:
        return self._read(self.root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)

    def _siblings_known(self, cpus: set[int]) -> bool:
        return any((self.root / f"sys/devices/system/cpu/cpu{cpu}/topology").is_dir() for cpu in cpus)

    def _quota(self) -> float:
        """In cores; without one, endlessly many."""
        found = float("inf")
        for folder in self._groups("cpu"):
            quota, _, period = self._read(folder / "cpu.max").partition(" ")
            quota = quota or self._read(folder / "cpu.cfs_quota_us")
            period = period or self._read(folder / "cpu.cfs_period_us")
            if quota.isdigit() and period.isdigit() and int(period):
                found = min(found, int(quota) / int(period))
        return found if found < float("inf") else float(1 << 20)

    def _memory(self) -> Iterator[tuple[int, int]]:
        """Limit and use of each control group around this process that has a limit."""
        for folder in self._groups("memory"):
            limit = self._read(folder / "memory.max") or self._read(folder / "memory.limit_in_bytes")
            used = self._read(folder / "memory.current") or self._read(folder / "memory.usage_in_bytes")
            if limit.isdigit() and used.isdigit():
                yield int(limit), int(used) - self._cached(folder)

    def _cached(self, folder: Path) -> int:
        for line in self._read(folder / "memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
        return 0

    def _groups(self, controller: str) -> Iterator[Path]:
        """The group of this process and those it is in. In a container, the mount shows its own group as the root."""
        base = self.root / "sys/fs/cgroup"
        for line in self._read(self.root / "proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = base / controller if controllers else base
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top) and folder.is_dir())

    def _read(self, path: Path) -> str:
        try:
            return path.read_text().strip()
        except OSError:
            return ""


THIS = Host()

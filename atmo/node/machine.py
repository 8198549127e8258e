"""What this machine is, as the mesh is told."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

import atmo
from atmo.config import Config
from atmo.host import THIS
from atmo.ids import Multiaddr
from atmo.inference.gpus import Gpus
from atmo.mesh.rows import NodeInfo

NO_GPUS = Gpus()


def describe(config: Config, address: Multiaddr | None, gpus: Gpus = NO_GPUS) -> NodeInfo:
    return NodeInfo(
        name=config.node.name,
        addresses=(str(address),) if address is not None else (),
        mode=config.node.mode,
        software=f"atmo/{atmo.__version__}",
        labels=tuple(sorted(config.node.labels.items())),
        cpu=_cpu_name(),
        cores=THIS.cores(),
        memory_bytes=THIS.memory_bytes(),
        gpus=gpus.names,
        gpu_memory_bytes=gpus.memory_bytes,
    )


def memory_bytes() -> tuple[int, int]:
    """Resident memory of this process, and of it with its workers."""
    own = psutil.Process()
    mine = own.memory_info().rss
    workers = 0
    for child in own.children(recursive=True):
        try:
            workers += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return mine, mine + workers


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()[:80]
    except OSError:
        pass
    return platform.processor() or platform.machine()

"""What a number was measured on: enough to judge it, nothing that names the machine."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

import atmo

PACKAGES = ("cryptography", "msgspec", "numpy", "onnxruntime", "pyzmq", "tokenizers", "uvloop", "xllamacpp")
# How long the machine is watched before a scenario, to tell whether others were at work.
WATCH_S = 1.0
# Above this share of all cores the result says that the machine was not quiet. A guess: an idle Linux machine is at 1%.
QUIET_SHARE = 0.05


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """cores: those this process may use."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    atmo: str
    packages: dict[str, str]


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """busy_share: of all cores, in the second before the scenario; quiet: that this was little."""

    busy_share: float
    quiet: bool


def describe() -> Machine:
    return Machine(
        cpu=_cpu_name(),
        cores=len(psutil.Process().cpu_affinity() or []) if hasattr(psutil.Process, "cpu_affinity") else _cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        atmo=atmo.__version__,
        packages={name: found for name in PACKAGES if (found := _version(name))},
    )


def watch(seconds: float = WATCH_S) -> Conditions:
    """See whether the machine is quiet. Blocks for `seconds`."""
    share = psutil.cpu_percent(interval=seconds) / 100
    return Conditions(round(share, 3), share <= QUIET_SHARE)


def _cores() -> int:
    return psutil.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

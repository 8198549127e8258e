"""Which GPUs the engine of this machine can use, and how much of their memory is free.

Only the engine's own library knows what it was built for, and it is not to be loaded into a node's process (a driver
that fails takes its process with it), so a short one of its own is asked; where no device file of a GPU is, none.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from atmo.inference.engines import installed_llama_engines

log = structlog.get_logger("atmo.gpus")

# To load the library and to ask the driver, which may have to wake a card up. A guess.
PATIENCE_S = 20.0
_DEVICES = ("nvidia[0-9]*", "kfd", "dxg", "dri/renderD*")


@dataclass(frozen=True, slots=True)
class Gpus:
    """Of one machine, all GPUs together, in bytes."""

    names: tuple[str, ...] = ()
    memory_bytes: int = 0
    free_bytes: int = 0


def look(engine: str = "auto", devices: Path = Path("/dev")) -> Gpus:
    """Blocks for half a second where there may be any. engine: as in ModelSpec."""
    named = next(iter(installed_llama_engines()), "") if engine == "auto" else engine
    if named != "xllamacpp" or not _may_be(devices):
        return Gpus()  # llama-cpp-python does not tell what a GPU has free
    try:
        asked = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, timeout=PATIENCE_S, check=True, text=True
        )
        return msgspec.json.decode(asked.stdout.strip().rpartition("\n")[2], type=Gpus)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        log.warning("GPUs are not counted on", why=type(error).__name__)
        return Gpus()


def _may_be(devices: Path) -> bool:
    return sys.platform == "darwin" or any(True for kind in _DEVICES for _ in devices.glob(kind))


def seen() -> Gpus:
    """What llama.cpp sees in this process."""
    import xllamacpp

    kinds = xllamacpp.ggml_backend_dev_type
    wanted = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    found = [device for device in xllamacpp.get_device_info() if device["type"] in wanted]
    names = tuple("".join(filter(str.isprintable, str(device["description"])))[:80] for device in found)[:64]
    return Gpus(
        names, sum(int(each["memory_total"]) for each in found), sum(int(each["memory_free"]) for each in found)
    )


if __name__ == "__main__":
    sys.stdout.write("\n" + msgspec.json.encode(seen()).decode() + "\n")

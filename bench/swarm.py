"""Models that travel: how near one source comes to the wire, what several add, what eight downloaders cost an origin.

In each round, in turns: a plain TCP connection, ZeroMQ without and with CURVE, each carrying as many frames of 1 MiB as
the model has chunks between two processes, one reading a file, the other writing one, neither hashing; the last two
once more with a hash over each frame before it is written; and the mesh itself, one process each side, with everything
it does: reading, encrypting (or not, on the plain lane), hashing, writing, syncing. What each takes of the processor at
both ends is told with it: where that is more than there is, it decides the speed. Then several sources to one
downloader, what people copy files with today, and eight downloaders that begin together where only the origin has the
model, every node's upload limited to the same rate by its own token bucket. All of these lie in memory, where there is
room, so that the disk is not what is measured; the mesh once more on the disk, and the disk alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil

from atmo.errors import AtmoError
from atmo.models.partial import WINDOW_CHUNKS
from bench import copiers, lines, movers
from bench.harness import Context, Outcome, Pair, Series
from bench.movers import MIB, Json

WIRES = {
    "tcp": "wire: tcp",
    "plain": "wire: plain",
    "plain+hash": "wire: plain, hashed",
    "curve": "wire: curve",
    "curve+hash": "wire: curve, hashed",
}
_MEMORY = "atmo-bench-swarm-"


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """sources: how many, in turns, 1 among them; model_mib: what one downloader fetches; shared_mib: what all of them
    fetch together, at `limit_mb_per_s` each; line_mib: what goes over a long line."""

    rounds: int
    sources: list[int]
    model_mib: int
    shared_mib: int
    downloaders: int
    limit_mb_per_s: float
    line_mib: int


@dataclass
class _Found:
    """Samples of all rounds, by what was measured."""

    wires: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in WIRES})
    mesh: dict[int, list[float]] = field(default_factory=dict)
    copiers: dict[str, list[float]] = field(default_factory=dict)
    plain: list[float] = field(default_factory=list)
    on_disk: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)
    hash: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    plain_cpu: list[float] = field(default_factory=list)
    both_cpu: dict[str, list[float]] = field(default_factory=dict)
    cores: dict[str, list[float]] = field(default_factory=dict)
    rss: list[float] = field(default_factory=list)
    held: lines.Held = field(default_factory=lines.Held)
    egress: list[float] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    with _in_memory(context.folder, 4 * sizes.model_mib + (sizes.downloaders + 1) * sizes.shared_mib) as memory:
        return asyncio.run(_run(context, sizes, memory))


async def _run(context: Context, sizes: Sizes, memory: Path) -> list[Outcome]:
    found = _Found()
    for number in range(sizes.rounds):
        folder = memory / str(number)
        folder.mkdir()
        model = _noise(folder / "model.bin", sizes.model_mib, context)
        await _compare(found, model, folder)
        for count in sizes.sources:
            if count > 1:
                done = await movers.one_downloader(folder / f"from-{count}", model, count)
                found.mesh.setdefault(count, []).append(_speed(done))
        for name, there in copiers.installed().items():
            if there:
                speed = await copiers.copy(name, model, folder / "copier", max(sizes.sources))
                found.copiers.setdefault(name, []).append(speed)
        await _on_disk(found, model, context.folder / str(number))
        shared = _noise(folder / "shared.bin", sizes.shared_mib, context)
        left, took_s = await movers.many(
            folder / "many", shared, sizes.downloaders, upload_mb_per_s=sizes.limit_mb_per_s
        )
        found.egress.append(left / shared.stat().st_size)
        found.walls.append(took_s / (shared.stat().st_size / 1e6 / sizes.limit_mb_per_s))
        await lines.hold(found.held, folder / "hosts", shared, sizes.downloaders, sizes.limit_mb_per_s, sizes.line_mib)
        shutil.rmtree(folder)
        context.say(f"round {number + 1} of {sizes.rounds}")
    return _outcomes(found, memory != context.folder)


async def _compare(found: _Found, model: Path, folder: Path) -> None:
    """The wires, and one source beside the wire that it is compared with."""
    found.hash.append(_hash_speed())
    for kind in ("tcp", "plain", "plain+hash"):
        await _wire(found, kind, model, folder)
    done = await movers.one_downloader(folder / "plain", model, 1, plain_lane=True)
    _count_cpu(found, "mesh, plain lane", done)
    if done["plain_bytes"] < done["bytes"]:
        raise AtmoError(f"Only {done['plain_bytes']} of {done['bytes']} bytes took the plain lane.")
    found.plain.append(_speed(done))
    found.plain_cpu.append(done["cpu_s"] / done["bytes"] * 1e9)
    for kind in ("curve", "curve+hash"):
        await _wire(found, kind, model, folder)
    done = await movers.one_downloader(folder / "from-1", model, 1)
    _count_cpu(found, "mesh, one source", done)
    found.mesh.setdefault(1, []).append(_speed(done))
    found.cpu.append(done["cpu_s"] / done["bytes"] * 1e9)
    found.rss.append((done["peak_rss_bytes"] - done["rest_rss_bytes"]) / 1e6)


def _count_cpu(found: _Found, what: str, done: Json) -> None:
    found.both_cpu.setdefault(what, []).append(done["both_cpu_s"] / done["bytes"] * 1e9)
    found.cores.setdefault(what, []).append(done["both_cpu_s"] / done["s"])


async def _on_disk(found: _Found, model: Path, folder: Path) -> None:
    here = await asyncio.to_thread(_measure_disk, found, model, folder)
    found.on_disk.append(_speed(await movers.one_downloader(folder / "from-1", here, 1)))
    shutil.rmtree(folder)


def _measure_disk(found: _Found, model: Path, folder: Path) -> Path:
    """And leave the model there, with nothing that waits to be written."""
    folder.mkdir()
    found.disk.append(_disk_speed(folder / "disk.bin", model.stat().st_size // MIB))
    here = folder / "model.bin"
    shutil.copyfile(model, here)
    os.sync()
    return here


def _outcomes(found: _Found, in_memory: bool) -> list[Outcome]:
    where = "" if in_memory else "on the disk, for want of memory"
    absent = [name for name, there in copiers.installed().items() if not there]
    one = Series("mesh, one source", "MiB/s", found.mesh[1], where)
    plain = Series("mesh, plain lane", "MiB/s", found.plain, where)
    wires = {kind: Series(name, "MiB/s", found.wires[kind], where) for kind, name in WIRES.items()}
    others = [Series(name, "MiB/s", found.copiers[name], "not encrypted") for name in found.copiers]
    on_disk = Series("mesh, one source, disk", "MiB/s", found.on_disk)
    disk = Series("disk, written and synced", "MiB/s", found.disk, "each 32 MiB, as the mesh does")
    return [
        Pair("one source against CURVE", one, wires["curve"]),
        Pair("one source against CURVE and a hash", one, wires["curve+hash"]),
        Pair("plain lane against ZeroMQ", plain, wires["plain"]),
        Pair("plain lane against ZeroMQ and a hash", plain, wires["plain+hash"]),
        Pair("plain lane against TCP", plain, wires["tcp"]),
        *(Pair(f"plain lane against {other.name}", plain, other) for other in others),
        Pair("one source against the disk", on_disk, disk),
        *(Series(f"mesh, {count} sources", "MiB/s", each) for count, each in found.mesh.items() if count > 1),
        Series("share of CURVE lost", "share", _lost(found.mesh[1], found.wires["curve"])),
        Series("share of plain ZeroMQ lost", "share", _lost(found.plain, found.wires["plain"])),
        Series("SHA-256, one thread", "MiB/s", found.hash, f"not installed: {', '.join(absent)}" if absent else ""),
        *(Series(f"CPU of both ends, {what}", "s/GB", each) for what, each in found.both_cpu.items()),
        *(Series(f"cores busy, {what}", "cores", each) for what, each in found.cores.items()),
        Series("CPU of the downloader", "s/GB", found.cpu, "both threads, hashing and writing included"),
        Series("CPU of the downloader, plain", "s/GB", found.plain_cpu),
        Series("memory of the transfer", "MB", found.rss, "the downloader's peak over what it took at rest"),
        Series("origin egress", "models", found.egress, "what left the origin, in copies of the model"),
        Series("wall time of all", "ideals", found.walls, "until the last has it, against one copy at the limit"),
        *lines.outcomes(found.held),
    ]


def _lost(ours: list[float], theirs: list[float]) -> list[float]:
    return [1.0 - our / their for our, their in zip(ours, theirs, strict=True)]


def _speed(done: Json) -> float:
    return float(done["bytes"] / MIB / done["s"])


# Files


def _noise(path: Path, mib: int, context: Context) -> Path:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(context.rng.bytes(MIB))
    return path


@contextmanager
def _in_memory(otherwise: Path, needed_mib: int) -> Iterator[Path]:
    """A folder of a file system in memory, if there is one with so much room."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shutil.disk_usage(shared).free < 2 * needed_mib * MIB:
        yield otherwise
        return
    for left in shared.glob(f"{_MEMORY}*"):  # by a run that was ended before its time: it is memory that nobody has
        if not psutil.pid_exists(int(left.name.removeprefix(_MEMORY))):
            shutil.rmtree(left)
    made = shared / f"{_MEMORY}{os.getpid()}"
    made.mkdir(mode=0o700)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _hash_speed() -> float:
    data, began_s = bytes(MIB), time.perf_counter()
    for _ in range(256):
        hashlib.sha256(data).digest()
    return 256 / (time.perf_counter() - began_s)


def _disk_speed(path: Path, mib: int) -> float:
    data, began_s = os.urandom(MIB), time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for number in range(mib):
            file.write(data)
            if number % WINDOW_CHUNKS == WINDOW_CHUNKS - 1:
                os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())
    path.unlink()
    return mib / (time.perf_counter() - began_s)


# Bare wires


async def _wire(found: _Found, kind: str, model: Path, folder: Path) -> None:
    """Between two processes that do nothing else."""
    _count_wire(found, kind, model, *await movers.wire(kind, model, folder))


def _count_wire(found: _Found, kind: str, model: Path, speed: float, cpu_s: float) -> None:
    size_bytes = model.stat().st_size
    found.wires[kind].append(speed)
    found.both_cpu.setdefault(WIRES[kind], []).append(cpu_s / size_bytes * 1e9)
    found.cores.setdefault(WIRES[kind], []).append(cpu_s / (size_bytes / MIB / speed))

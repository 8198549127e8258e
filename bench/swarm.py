"""Models that travel: how near one source comes to the wire, what several add, what eight downloaders cost an origin.

In each round, in this order: a plain TCP connection, ZeroMQ without and with CURVE, each carrying as many frames of 1
MiB as the model has chunks between two processes, one reading a file, the other writing one, neither hashing; then the
mesh itself, one process each side, with everything it does: reading, encrypting, hashing, writing, syncing. Then 1, 2,
4 and 8 sources to one downloader, and eight downloaders that begin together where only the origin has the model, every
node's upload limited to the same rate by its own token bucket.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from atmo.errors import AtmoError
from atmo.keys import Identity
from bench import processes
from bench.harness import Context, Outcome, Pair, Series

Json = dict[str, Any]
MIB = 1 << 20
WIRES = ("tcp", "plain", "curve")
PATIENCE_S = 1200.0


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """sources: how many, in turns, 1 among them; model_mib: what one downloader fetches; shared_mib: what all of them
    fetch together, at `limit_mb_per_s` each."""

    rounds: int
    sources: list[int]
    model_mib: int
    shared_mib: int
    downloaders: int
    limit_mb_per_s: float


def run(context: Context) -> list[Outcome]:
    return asyncio.run(_run(context, context.sizes(Sizes)))


async def _run(context: Context, sizes: Sizes) -> list[Outcome]:
    wires: dict[str, list[float]] = {name: [] for name in WIRES}
    mesh: dict[int, list[float]] = {count: [] for count in sizes.sources}
    cpu: list[float] = []
    rss: list[float] = []
    egress: list[float] = []
    walls: list[float] = []
    bare = {"hash": [_hash_speed() for _ in range(sizes.rounds)], "disk": []}
    for number in range(sizes.rounds):
        folder = context.folder / str(number)
        folder.mkdir()
        model = _noise(folder / "model.bin", sizes.model_mib, context)
        bare["disk"].append(_disk_speed(folder / "disk.bin", sizes.model_mib))
        for name in WIRES:
            wires[name].append(await _wire(name, model, folder))
        for count in sizes.sources:
            done = await _one_downloader(folder / f"from-{count}", model, count)
            mesh[count].append(done["bytes"] / MIB / done["s"])
            if count == 1:
                cpu.append(done["cpu_s"] / done["bytes"] * 1e9)
                rss.append(done["peak_rss_bytes"] / 1e6)
        shared = _noise(folder / "shared.bin", sizes.shared_mib, context)
        left, took_s = await _many(folder / "many", shared, sizes)
        egress.append(left / shared.stat().st_size)
        walls.append(took_s / (shared.stat().st_size / 1e6 / sizes.limit_mb_per_s))
        _forget(folder)
        context.say(f"round {number + 1} of {sizes.rounds}")
    return _outcomes(wires, mesh, bare, cpu, rss, egress, walls)


def _outcomes(
    wires: dict[str, list[float]],
    mesh: dict[int, list[float]],
    bare: dict[str, list[float]],
    cpu: Sequence[float],
    rss: Sequence[float],
    egress: Sequence[float],
    walls: Sequence[float],
) -> list[Outcome]:
    one = Series("mesh, one source", "MiB/s", mesh[1])
    named = {name: Series(f"wire: {name}", "MiB/s", wires[name]) for name in WIRES}
    lost = [1.0 - ours / its for ours, its in zip(mesh[1], wires["curve"], strict=True)]
    found: list[Outcome] = [Pair(f"one source against {name}", one, named[name]) for name in WIRES]
    found += [Series(f"mesh, {count} sources", "MiB/s", mesh[count]) for count in mesh if count > 1]
    found += [
        Series("share of CURVE lost", "share", lost),
        Series("SHA-256, one thread", "MiB/s", bare["hash"]),
        Series("disk, written and synced", "MiB/s", bare["disk"]),
        Series("CPU of the downloader", "s/GB", list(cpu), "both threads, hashing and writing included"),
        Series("memory of the downloader", "MB", list(rss), "the whole process at its peak"),
        Series("origin egress", "models", list(egress), "what left the origin, in copies of the model"),
        Series("wall time of all", "ideals", list(walls), "until the last has it, against one copy at the limit"),
    ]
    return found


# Files


def _noise(path: Path, mib: int, context: Context) -> Path:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(context.rng.bytes(MIB))
    return path


def _forget(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.unlink()


def _hash_speed() -> float:
    data, began_s = bytes(MIB), time.perf_counter()
    for _ in range(256):
        hashlib.sha256(data).digest()
    return 256 / (time.perf_counter() - began_s)


def _disk_speed(path: Path, mib: int) -> float:
    data, began_s = os.urandom(MIB), time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(mib):
            file.write(data)
        os.fdatasync(file.fileno())
    path.unlink()
    return mib / (time.perf_counter() - began_s)


# Bare wires


async def _wire(kind: str, model: Path, folder: Path) -> float:
    """MiB/s between two processes that do nothing else."""
    sink = folder / "sink.bin"
    receiver = await _start("bench.wires", "receive", kind, str(sink))
    try:
        ready = await _line(receiver)
        sender = await _start("bench.wires", "send", kind, str(model), str(ready["port"]), ready["key"])
        try:
            return float((await _line(receiver))["mib_per_s"])
        finally:
            await _end(sender)
    finally:
        await _end(receiver)
        sink.unlink(missing_ok=True)


# The mesh


class _Movers:
    """Nodes as processes, every one linked to the first."""

    def __init__(self, folder: Path, stack: AsyncExitStack, **models: Any) -> None:
        self._folder = folder
        self._stack = stack
        self._models = models
        self._root = Identity.generate()
        self._first = ""

    async def add(self, *names: str) -> list[asyncio.subprocess.Process]:
        made = []
        for name in names:
            process = await _start("bench.mover")
            self._stack.push_async_callback(_end, process)
            home = str(self._folder / name)
            _tell(process, root=self._root.secret.hex(), home=home, name=name, models=self._models)
            made.append(process)
        for process in made:
            ready = await _line(process)
            if self._first:
                _tell(process, do="dial", address=self._first)
            self._first = self._first or ready["address"]
        return made


async def _one_downloader(folder: Path, model: Path, sources: int) -> Json:
    async with AsyncExitStack() as stack:
        movers = _Movers(folder, stack)
        *givers, downloader = await movers.add(*(f"source-{number}" for number in range(sources)), "downloader")
        for source in givers:
            _tell(source, do="share", path=str(model))
        roots = [(await _line(source))["model"] for source in givers]
        root = roots[0]
        _tell(downloader, do="fetch", model=root, seeders=sources)
        return await _line(downloader)


async def _many(folder: Path, model: Path, sizes: Sizes) -> tuple[int, float]:
    """Bytes that left the origin, and seconds until the last downloader had the model."""
    async with AsyncExitStack() as stack:
        movers = _Movers(folder, stack, upload_mb_per_s=sizes.limit_mb_per_s)
        names = [f"downloader-{number}" for number in range(sizes.downloaders)]
        origin, *others = await movers.add("origin", *names)
        _tell(origin, do="share", path=str(model))
        root = (await _line(origin))["model"]
        for other in others:
            _tell(other, do="await", model=root, links=sizes.downloaders)
        for other in others:
            await _line(other)
        began_s = time.monotonic()
        for other in others:
            _tell(other, do="fetch", model=root, seeders=1)
        done = await asyncio.gather(*(_line(other) for other in others))
        took_s = time.monotonic() - began_s
        return sum(int(each["sources"].get("origin", 0)) for each in done), took_s


# Processes


async def _start(module: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MIB,
        env={**os.environ, **processes.ONE_THREAD}, cwd=Path(__file__).parents[1],
    )  # fmt: skip


def _tell(process: asyncio.subprocess.Process, **command: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(command).encode() + b"\n")


async def _line(process: asyncio.subprocess.Process) -> Json:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
    if not line:
        raise AtmoError(f"A process of the benchmark ended too soon ({await process.wait()}).")
    found: Json = json.loads(line)
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), processes.GRACE_S)
    except TimeoutError:
        process.kill()
        await process.wait()

"""Nodes and bare wires as processes, for benchmarks of models that travel: here, or each on a host of its own.

A place is where a process runs: the address that it binds, and the words that start it there (tests/node/network.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

from atmo.errors import AtmoError
from atmo.keys import Identity
from bench import processes

Json = dict[str, Any]
Place: TypeAlias = tuple[str, tuple[str, ...]]
HERE: Place = ("127.0.0.1", ())
MIB = 1 << 20
PATIENCE_S = 1200.0


def here(name: str) -> Place:
    return HERE


class Movers:
    """Nodes as processes, every one linked to the first. place: of a node, by its name; models: their `[models]`."""

    def __init__(self, folder: Path, stack: AsyncExitStack, place: Callable[[str], Place], **models: Any) -> None:
        self._folder = folder
        self._stack = stack
        self._place = place
        self._models = models
        self._root = Identity.generate()
        self._first = ""

    async def add(self, *names: str) -> list[asyncio.subprocess.Process]:
        made = []
        for name in names:
            address, prefix = self._place(name)
            process = await start("bench.mover", prefix=prefix)
            self._stack.push_async_callback(end, process)
            home = str(self._folder / name)
            tell(process, root=self._root.secret.hex(), home=home, name=name, host=address, models=self._models)
            made.append(process)
        for process in made:
            ready = await line(process)
            if self._first:
                tell(process, do="dial", address=self._first)
            self._first = self._first or ready["address"]
        return made


async def one_downloader(
    folder: Path, model: Path, sources: int, place: Callable[[str], Place] = here, **models: Any
) -> Json:
    """What the downloader says of its fetch, and `both_cpu_s`, what it took of the processor with its sources. models:
    every node's `[models]`. The folder is removed."""
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        movers = Movers(folder, stack, place, **models)
        *givers, downloader = await movers.add(*(f"source-{number}" for number in range(sources)), "downloader")
        for source in givers:
            tell(source, do="share", path=str(model))
        roots = [(await line(source))["model"] for source in givers]
        rest_s = await usage(givers)
        tell(downloader, do="fetch", model=roots[0], seeders=sources)
        done = await line(downloader)
        return {**done, "both_cpu_s": done["cpu_s"] + await usage(givers) - rest_s}


async def usage(processes: list[asyncio.subprocess.Process]) -> float:
    """Seconds of the processor, of all of them, until now."""
    for each in processes:
        tell(each, do="usage")
    return sum([float((await line(each))["cpu_s"]) for each in processes])


async def many(
    folder: Path, model: Path, downloaders: int, place: Callable[[str], Place] = here, **models: Any
) -> tuple[int, float]:
    """Bytes that left the origin, and seconds until the last downloader had the model. The folder is removed."""
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        movers = Movers(folder, stack, place, **models)
        names = [f"downloader-{number}" for number in range(downloaders)]
        origin, *others = await movers.add("origin", *names)
        tell(origin, do="share", path=str(model))
        root = (await line(origin))["model"]
        for other in others:
            tell(other, do="await", model=root, links=downloaders)
        for other in others:
            await line(other)
        began_s = time.monotonic()
        for other in others:
            tell(other, do="fetch", model=root, seeders=1)
        done = await asyncio.gather(*(line(other) for other in others))
        took_s = time.monotonic() - began_s
        return sum(int(each["sources"].get("origin", 0)) for each in done), took_s


async def wire(
    kind: str, model: Path, folder: Path, receiver_at: Place = HERE, sender_at: Place = HERE
) -> tuple[float, float]:
    """MiB/s between two processes that do nothing else, and what both took of the processor, in seconds."""
    sink = folder / "sink.bin"
    receiver = await start("bench.wires", "receive", kind, str(sink), receiver_at[0], prefix=receiver_at[1])
    try:
        ready = await line(receiver)
        there = (receiver_at[0], str(ready["port"]), ready["key"])
        sender = await start("bench.wires", "send", kind, str(model), *there, prefix=sender_at[1])
        try:
            took, gave = await line(receiver), await line(sender)
        finally:
            await end(sender)
    finally:
        await end(receiver)
        sink.unlink(missing_ok=True)
    return float(took["mib_per_s"]), float(took["cpu_s"]) + float(gave["cpu_s"])


async def start(module: str, *words: str, prefix: tuple[str, ...] = ()) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-m", module, *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MIB,
        env={**os.environ, **processes.ONE_THREAD}, cwd=Path(__file__).parents[1],
    )  # fmt: skip


def tell(process: asyncio.subprocess.Process, **command: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(command).encode() + b"\n")


async def line(process: asyncio.subprocess.Process) -> Json:
    assert process.stdout is not None
    said = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
    if not said:
        raise AtmoError(f"A process of the benchmark ended too soon ({await process.wait()}).")
    found: Json = json.loads(said)
    return found


async def end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), processes.GRACE_S)
    except TimeoutError:
        process.kill()
        await process.wait()

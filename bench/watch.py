"""`atmo mesh watch` over a mesh of 200 nodes: how long a frame takes, and what it costs at ten frames a second.

The second part runs the real command in a pseudo-terminal against the real API of a node that does not exist: what it
says is invented (`atmo.cli.watch.demo`), and changes with every look.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import random
import struct
import subprocess
import termios
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil
from rich.console import Console
from rich.live import Live

from atmo.cli.watch import demo
from atmo.cli.watch.frame import frame
from atmo.cli.watch.view import View
from atmo.clock import SystemClock
from atmo.errors import AtmoError
from atmo.gateway.app import NodeHandle, build_app
from atmo.gateway.server import UnixServer
from atmo.ids import MeshId, Multiaddr
from atmo.keys import Identity
from atmo.node.events import Journal
from atmo.transport.neighbours import Neighbours, NodeCard
from bench import processes
from bench.harness import Context, Outcome, Series

Json = dict[str, Any]

SCREENS = ((80, 24), (140, 40))
EVENTS_PER_S = 12
# Reports that the invented node goes through.
REPORTS = 8
HOME = b"\x1b[H"


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """frames: of each size of screen; settle_s: from the first frame until the command is watched."""

    nodes: int
    frames: int
    settle_s: float
    windows: int
    window_s: float


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    outcomes: list[Outcome] = [_frames(context, sizes, *screen) for screen in SCREENS]
    context.say(f"the command runs for {sizes.settle_s + sizes.windows * sizes.window_s:.0f} s")
    return [*outcomes, *asyncio.run(_command(context, sizes))]


def _frames(context: Context, sizes: Sizes, width: int, height: int) -> Series:
    """Each frame shows other numbers than the last, so nothing is left out; the terminal is a file."""
    story, samples = demo.story(sizes.nodes, context.seed), []
    reports = [demo.report(sizes.nodes, context.chance) for _ in range(REPORTS)]
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=width, height=height)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for number in range(sizes.frames + REPORTS):
                story.seen(reports[number % REPORTS])
                story.at_s += 1
                begun_s = time.perf_counter()
                live.update(frame(story, View(), width, height), refresh=True)
                samples.append(1000 * (time.perf_counter() - begun_s))
    note = f"{sizes.nodes} nodes, made and written by rich, every frame differs; the first {REPORTS} are left out"
    return Series(f"frame, {width}x{height}", "ms", samples[REPORTS:], note)


class Invented:
    """What the live view asks of a node."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self.journal = Journal(SystemClock())
        self._chance = chance
        self._reports = [demo.report(count, chance) for _ in range(REPORTS)]
        self._looks = 0
        self._requests = 0

    def status(self) -> Json:
        return {"node": {"name": "laptop", "pid": os.getpid()}}

    def mesh_view(self) -> Json:
        self._looks += 1
        return self._reports[self._looks % REPORTS]

    def events(self, since: int, *, follow: bool) -> AsyncIterator[Json]:
        assert follow
        return self.journal.follow(since)

    def happen(self) -> None:
        """A request begins and another is answered."""
        self._requests += 1
        for number, kind in ((self._requests, "asked"), (self._requests - 3, "answered")):
            at = {"request_id": f"{number:032x}", "capability": "atmo:chat:coder", "peer": demo.peer(number % 7)}
            amounts = {"first_s": 0.03, "total_s": 0.5, "output_tokens": 30, "decode_s": 0.47, "detail": ""}
            self.journal.record(kind, **at, name="", **(amounts if kind == "answered" else {}))


async def _command(context: Context, sizes: Sizes) -> list[Series]:
    world = processes.World(context.folder)
    node = Invented(sizes.nodes, context.chance)
    async with _served(node, world) as _, _busy(node):
        with_terminal = await asyncio.to_thread(_watched, world, sizes)
    shares, rates = with_terminal
    note = f"`atmo mesh watch` in a pseudo-terminal of 140x40, {sizes.nodes} nodes, {2 * EVENTS_PER_S} events a second"
    return [
        Series("CPU at 10 frames a second", "% of a core", shares, note),
        Series("frames a second", "1/s", rates, "seen by the terminal"),
    ]


@asynccontextmanager
async def _served(node: Invented, world: processes.World) -> AsyncGenerator[None, None]:
    """The API on a socket, and the card by which clients find it."""
    peer = Identity.generate().public
    neighbours = Neighbours(world.runtime)
    socket = world.runtime / "invented.sock"
    neighbours.announce(
        NodeCard(peer, MeshId(peer), Multiaddr("127.0.0.1", 1, peer), os.getpid(), "laptop", str(socket))
    )
    server = UnixServer(build_app(cast(NodeHandle, node)), socket)
    await server.start()
    try:
        yield
    finally:
        node.journal.close()
        await server.stop()
        await neighbours.close()


@asynccontextmanager
async def _busy(node: Invented) -> AsyncGenerator[None, None]:
    async def happen() -> None:
        while True:
            node.happen()
            await asyncio.sleep(1 / EVENTS_PER_S)

    task = asyncio.create_task(happen())
    try:
        yield
    finally:
        task.cancel()


def _watched(world: processes.World, sizes: Sizes) -> tuple[list[float], list[float]]:
    """Percent of a core and frames a second, in each window."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    environment = {**world.environment, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [*processes.ATMO, "mesh", "watch"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    terminal = _Terminal(ours)
    try:
        processes.wait_until(lambda: terminal.frames > 0, 20.0, "the first frame")
        time.sleep(sizes.settle_s)
        shares, rates = [], []
        for _ in range(sizes.windows):
            share, rate = _window(psutil.Process(process.pid), terminal, sizes.window_s)
            shares.append(share)
            rates.append(rate)
        if process.poll() is not None:
            raise AtmoError(f"`atmo mesh watch` ended with exit code {process.returncode}.")
    finally:
        process.terminate()
        process.wait()
        terminal.close()
    return shares, rates


def _window(process: psutil.Process, terminal: _Terminal, window_s: float) -> tuple[float, float]:
    before, frames, begun_s = process.cpu_times(), terminal.frames, time.perf_counter()
    time.sleep(window_s)
    after, elapsed_s = process.cpu_times(), time.perf_counter() - begun_s
    used_s = after.user + after.system - before.user - before.system
    return 100 * used_s / elapsed_s, (terminal.frames - frames) / elapsed_s


class _Terminal:
    """Reads all that is drawn and counts the frames, each of which begins in the upper left corner."""

    def __init__(self, descriptor: int) -> None:
        self.frames = 0
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(5.0)
        os.close(self._descriptor)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._descriptor, 1 << 16)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            self.frames += data.count(HOME)

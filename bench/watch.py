"""`atmo mesh watch` over a mesh of 200 nodes: how long a frame takes, and what it costs at ten frames a second.

The second part runs the real command in a pseudo-terminal against the real API of a node that does not exist: what it
says is invented (`atmo.cli.watch.demo`), and changes with every look.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import msgspec
import psutil
from rich.console import Console

from atmo.cli.watch import demo
from atmo.cli.watch.canvas import Canvas
from atmo.cli.watch.frame import frame
from atmo.cli.watch.view import View
from atmo.errors import AtmoError
from bench import processes
from bench.harness import Context, Outcome, Series
from bench.invented import EVENTS_PER_S, REPORTS, Invented, busy, served

SCREENS = ((80, 24), (140, 40))
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
        canvas = Canvas(console)
        for number in range(sizes.frames + REPORTS):
            story.seen(reports[number % REPORTS])
            story.at_s += 1
            begun_s = time.perf_counter()
            canvas.draw(frame(story, View(), width, height), (width, height))
            samples.append(1000 * (time.perf_counter() - begun_s))
    note = (
        f"{sizes.nodes} nodes, made and written, every frame after a look at the mesh; the first {REPORTS} are left out"
    )
    return Series(f"frame, {width}x{height}", "ms", samples[REPORTS:], note)


async def _command(context: Context, sizes: Sizes) -> list[Series]:
    world = processes.World(context.folder)
    node = Invented(sizes.nodes, context.chance)
    async with served(node, world.runtime), busy(node):
        shares, rates = await asyncio.to_thread(_watched, world, sizes)
    note = f"`atmo mesh watch` in a pseudo-terminal of 140x40, {sizes.nodes} nodes, {2 * EVENTS_PER_S} events a second"
    return [
        Series("CPU at 10 frames a second", "% of a core", shares, note),
        Series("frames a second", "1/s", rates, "seen by the terminal"),
    ]


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

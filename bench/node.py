"""A node as its user meets it: how soon it is ready, what it takes while nobody asks, how soon `--help` answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import msgspec
import psutil

from bench import processes
from bench.harness import Context, Outcome, Pair, Series

MODEL = "atmo-nano"


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """settle_s: after a start and one question, before the node counts as being at rest."""

    helps: int
    starts: int
    settle_s: float
    rest_windows: int
    window_s: float


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    world = processes.World(context.folder)
    return [_helps(sizes), *_life(context, sizes, world)]


def _helps(sizes: Sizes) -> Pair:
    helps_s, bare_s = [], []
    for _ in range(sizes.helps + 1):
        helps_s.append(_wall_s(*processes.ATMO, "--help"))
        bare_s.append(_wall_s(sys.executable, "-c", "pass"))
    return Pair(
        "--help against bare python",
        Series("atmo --help", "s", helps_s[1:], "wall time of the command; the first of all is left out"),
        Series("python -c pass", "s", bare_s[1:]),
    )


def _wall_s(*words: str) -> float:
    begun_s = time.perf_counter()
    subprocess.run(words, env=processes.environment({}), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun_s


def _life(context: Context, sizes: Sizes, world: processes.World) -> list[Series]:
    """Start and stop several times; the last start is watched at rest."""
    starts_s, stops_s = [], []
    try:
        for number in range(sizes.starts):
            begun_s = time.perf_counter()
            report = json.loads(world.command("node", "start", "--serve", MODEL, "--json"))
            starts_s.append(time.perf_counter() - begun_s)
            if number == sizes.starts - 1:
                rest = _at_rest(context, sizes, world, report["node"]["name"], report["node"]["pid"])
            begun_s = time.perf_counter()
            world.command("node", "stop")
            stops_s.append(time.perf_counter() - begun_s)
    finally:
        if processes.of_world(context.folder):
            world.command("node", "stop", "--all")
    return [
        Series(
            "start to ready", "s", starts_s, f"wall time of `atmo node start`, {MODEL} loaded; the first makes the keys"
        ),
        Series("stop", "s", stops_s, "wall time of `atmo node stop`, until the process is gone"),
        *rest,
    ]


def _at_rest(context: Context, sizes: Sizes, world: processes.World, name: str, pid: int) -> list[Series]:
    world.client(name).ask("What is Atmosphere?", model=MODEL)  # everything that loads on first use is loaded
    time.sleep(sizes.settle_s)
    node = psutil.Process(pid)
    workers = node.children(recursive=True)
    context.say(f"node at rest, watched for {sizes.rest_windows * sizes.window_s:.0f} s")
    node_share, worker_share = _cpu_shares(node, workers, sizes)
    both = [a + b for a, b in zip(node_share, worker_share, strict=True)]
    processes_now = [node, *workers]
    unit, window = "% of a core", f"user and system time in windows of {sizes.window_s:.0f} s"
    return [
        Series("CPU at rest, node", unit, node_share, window),
        Series("CPU at rest, workers", unit, worker_share, f"{len(workers)} processes"),
        Series("CPU at rest, node and workers", unit, both),
        Series("memory, node", "MB", [node.memory_info().rss / 1e6], "resident, encoder loaded and used"),
        Series(
            "memory, workers",
            "MB",
            [sum(one.memory_info().rss for one in workers) / 1e6],
            "resident, the model included",
        ),
        Series("memory, all, shared pages once", "MB", [sum(_share_bytes(one) for one in processes_now) / 1e6]),
    ]


def _cpu_shares(node: psutil.Process, workers: list[psutil.Process], sizes: Sizes) -> tuple[list[float], list[float]]:
    """Percent of one core in each window, of the node and of its workers together."""
    shares: tuple[list[float], list[float]] = [], []
    for _ in range(sizes.rest_windows):
        before, begun_s = (_cpu_s([node]), _cpu_s(workers)), time.perf_counter()
        time.sleep(sizes.window_s)
        elapsed_s = time.perf_counter() - begun_s
        for share, now_s, before_s in zip(shares, (_cpu_s([node]), _cpu_s(workers)), before, strict=True):
            share.append(100 * (now_s - before_s) / elapsed_s)
    return shares


def _cpu_s(watched: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in watched))


def _share_bytes(process: psutil.Process) -> int:
    """Proportional share where the kernel tells it (Linux), else what is resident."""
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.rss))

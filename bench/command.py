"""The command line as a person meets it: `--help`, `atmo` alone, and the first token of `atmo ask` on a warm node.

Ours is the time from the start of the process to the first byte on its standard output; the baseline is what the engine
itself took for the same prompt (waiting and prefill, as the node reports it), asked in turns. What lies between is
Python's start, the command's imports, its way to the node, and the decision.
"""

from __future__ import annotations

import subprocess
import time

import msgspec

from atmo.client import SyncClient
from bench import processes
from bench.harness import Context, Outcome, Pair, Series

MODEL = "atmo-nano"
PROMPT = "Number {n}: what is Atmosphere?"


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    helps: int
    asks: int
    max_tokens: int


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    world = processes.World(context.folder)
    try:
        world.command("node", "start", "--serve", MODEL)
        return [
            _wall(world, sizes.helps, "atmo --help", "--help"),
            _wall(world, sizes.helps, "atmo alone"),
            _asks(world, sizes),
        ]
    finally:
        if processes.of_world(context.folder):
            world.command("node", "stop", "--all")


def _wall(world: processes.World, count: int, name: str, *words: str) -> Series:
    times_s = []
    for _ in range(count + 1):
        begun_s = time.perf_counter()
        world.command(*words)
        times_s.append(time.perf_counter() - begun_s)
    return Series(name, "s", times_s[1:], "wall time of the command; the first of all is left out")


def _asks(world: processes.World, sizes: Sizes) -> Pair:
    client = world.client("default")
    ours_s, engine_s = [], []
    for number in range(sizes.asks + 1):
        ours_s.append(_first_byte_s(world, PROMPT.format(n=2 * number), sizes.max_tokens))
        engine_s.append(_engine_s(client, PROMPT.format(n=2 * number + 1), sizes.max_tokens))
    return Pair(
        "atmo ask against the model",
        Series("atmo ask, first byte", "s", ours_s[1:], "from the start of its process; the first of all is left out"),
        Series("the model's first token", "s", engine_s[1:], "waiting and prefill, as the engine measured them"),
    )


def _first_byte_s(world: processes.World, prompt: str, max_tokens: int) -> float:
    words = (*processes.ATMO, "ask", prompt, "--model", MODEL, "--max-tokens", str(max_tokens))
    begun_s = time.perf_counter()
    with subprocess.Popen(words, env=world.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first_s = time.perf_counter() - begun_s
        process.stdout.read()
    return first_s


def _engine_s(client: SyncClient, prompt: str, max_tokens: int) -> float:
    *_, done = client.stream(prompt, model=MODEL, max_tokens=max_tokens).steps()
    return float(done["queue_s"] + done["prefill_s"])

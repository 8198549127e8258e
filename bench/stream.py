"""What streaming through a hop takes from an engine's speed, and how soon a slot is free after its reader left.

The same model twice: in a worker of this process, asked directly, and behind two nodes, asked through the API socket of
the one that does not serve it. Both are asked in turns and never at the same time, and each figure is of some seconds'
work whatever the number of streams. The model is a parrot with as much to compute as one of some fifty million
parameters.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec

from atmo.client import SyncClient
from atmo.clock import SystemClock
from atmo.errors import AtmoError
from atmo.generation import Finish, Sampling, Task, Turn
from atmo.inference.engine import ModelSpec
from atmo.inference.supervisor import Supervisor
from bench import processes
from bench.harness import Context, Outcome, Pair, Series
from tests.inference.gguf_maker import write_parrot

SERVING, ASKING = "serving", "asking"
STREAMS = (1, 4, 16)
SLOTS = 4
ANSWERS = 8  # of each figure at least; one stream alone would else be measured for a second at a time
LIMIT_S = 60.0


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """tokens: of each answer; blocks, inner: the model's layers and their inner width."""

    rounds: int
    tokens: int
    blocks: int
    inner: int
    cancels: int


def run(context: Context) -> list[Outcome]:
    return asyncio.run(_run(context, context.sizes(Sizes)))


async def _run(context: Context, sizes: Sizes) -> list[Outcome]:
    model = write_parrot(context.folder / "parrot.gguf", blocks=sizes.blocks, inner=sizes.inner)
    world = processes.World(context.folder)
    engine = Supervisor(
        ModelSpec(name="parrot", kind="gguf", path=str(model), slots=SLOTS), lambda event: None, SystemClock()
    )
    await engine.start()
    try:
        await engine.wait_ready(LIMIT_S)
        _start_nodes(context.folder, world, model)
        asker, server = world.client(ASKING), world.client(SERVING)
        alone, hop = await _speeds(context, sizes, engine, asker)
        freed_s = [_cancel(asker, server, number) for number in range(sizes.cancels)]
    finally:
        await engine.close()
        world.command("node", "stop", "--all")
    outcomes: list[Outcome] = [Series("cancelled to free", "s", freed_s, "looked at through the API, every 5 ms or so")]
    for count in STREAMS:
        name = f"{count} stream{'s' if count > 1 else ''}"
        ours = Series(f"through a hop, {name}", "tokens/s", hop[count])
        base = Series(f"engine alone, {name}", "tokens/s", alone[count])
        lost = [1.0 - mine / its for mine, its in zip(hop[count], alone[count], strict=True)]
        outcomes += [Pair(f"hop against engine, {name}", ours, base), Series(f"share lost, {name}", "share", lost)]
    return outcomes


def _start_nodes(folder: Path, world: processes.World, model: Path) -> None:
    serve, bare = folder / "serve.toml", folder / "bare.toml"
    serve.write_text(f'[inference]\nslots = {SLOTS}\nqueue = 64\n[[serve]]\nmodel = "{model}"\n')
    bare.write_text("serve = []\n")
    world.command("node", "start", "--name", SERVING, "--config", str(serve))
    world.command("node", "start", "--name", ASKING, "--config", str(bare))
    asker = world.client(ASKING)
    processes.wait_until(lambda: _offered(asker), LIMIT_S, "the model seen by the node that asks")


def _offered(asker: SyncClient) -> bool:
    return any(offer["ready"] for node in asker.mesh()["nodes"] if node["linked"] for offer in node["capabilities"])


async def _speeds(
    context: Context, sizes: Sizes, engine: Supervisor, asker: SyncClient
) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Tokens a second by the count of streams: engine alone, through a hop. The first round warms up."""
    speeds: tuple[dict[int, list[float]], dict[int, list[float]]] = ({}, {})
    with ThreadPoolExecutor(max(STREAMS)) as threads:
        for number in range(sizes.rounds + 1):
            for count in STREAMS:
                ways: list[Callable[[], Awaitable[float]]] = [
                    partial(_direct, engine, count, sizes.tokens),
                    partial(_remote, threads, asker, count, sizes.tokens),
                ]
                batches, spent_s = max(1, ANSWERS // count), [0.0, 0.0]
                for _ in range(batches):
                    for at in context.chance.sample(range(len(ways)), len(ways)):
                        spent_s[at] += await ways[at]()
                for found, spent in zip(speeds, spent_s, strict=True):
                    if number:
                        found.setdefault(count, []).append(batches * count * sizes.tokens / spent)
    return speeds


async def _direct(engine: Supervisor, count: int, tokens: int) -> float:
    async def one(number: int) -> int:
        task = Task((Turn("user", f"song {number}"),), Sampling(max_tokens=tokens))
        async with aclosing(engine.chat(task)) as parts:
            async for part in parts:
                if isinstance(part, Finish):
                    return part.output_tokens
        return 0

    return await _timed([one(number) for number in range(count)], count * tokens)


async def _remote(threads: ThreadPoolExecutor, asker: SyncClient, count: int, tokens: int) -> float:
    def one(number: int) -> int:
        written = 0
        for event in asker.stream(f"song {number}", model="parrot", max_tokens=tokens, timeout_s=LIMIT_S).steps():
            written = event["output_tokens"] if event["event"] == "done" else written
        return written

    loop = asyncio.get_running_loop()
    return await _timed([loop.run_in_executor(threads, one, number) for number in range(count)], count * tokens)


async def _timed(streams: Sequence[Awaitable[int]], expected: int) -> float:
    """Seconds until all of them are whole."""
    begun_s = time.monotonic()
    written = sum(await asyncio.gather(*streams))
    if written != expected:
        raise AtmoError(f"{written} tokens were written where {expected} were asked for.")
    return time.monotonic() - begun_s


def _cancel(asker: SyncClient, server: SyncClient, number: int) -> float:
    """Leave in mid-answer; seconds until the serving node has its slot back."""
    events = asker.stream(f"long song {number}", model="parrot", max_tokens=1500, timeout_s=LIMIT_S).steps()
    for event in events:
        if event["event"] == "text":
            break
    left_s = time.monotonic()
    events.close()
    processes.wait_until(lambda: server.status()["capabilities"][0]["in_flight"] == 0, LIMIT_S, "the slot is free")
    return time.monotonic() - left_s

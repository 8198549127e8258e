"""One node, one model, more requests than it can answer: is the work that gets done still useful?

First the capacity: as many askers as slots and places in the queue, each asking again when it has its answer. Then
requests arrive by a Poisson process at a multiple of it, each with a deadline; those that are refused are retried by
the node itself, on its budget. Goodput counts answers that arrived whole and in time. Node and askers share the
process and the machine in both halves; the engine works in a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import msgspec
import psutil

from atmo.config import load
from atmo.errors import AtmoError
from atmo.gateway.app import AskRequest
from atmo.node.node import Node
from bench.harness import Context, Outcome, Series
from tests.inference.gguf_maker import write_parrot

QUEUE, SLOTS = 16, 4


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """factor: requests for each that could be answered; timeout_s: of each request."""

    capacity_s: float
    overload_s: float
    factor: float
    tokens: int
    timeout_s: float


def run(context: Context) -> list[Outcome]:
    return asyncio.run(_run(context, context.sizes(Sizes)))


async def _run(context: Context, sizes: Sizes) -> list[Outcome]:
    parrot = write_parrot(context.folder / "parrot.gguf")
    flags = {
        "home": str(context.folder / "home"),
        "runtime": str(context.folder / "run"),
        "node.mode": "standalone",
        "inference.slots": SLOTS,
        "inference.queue": QUEUE,
        "serve": [str(parrot)],
    }
    node = Node(load(flags, environ={}))
    await node.start()
    try:
        await node.settled()
        asked = _Asked(node, sizes)
        capacity = await _capacity(asked, sizes)
        context.say(f"capacity {capacity:.1f} answers/s")
        before_bytes = psutil.Process().memory_info().rss
        goodput, queue = await _overload(context, asked, sizes, capacity)
        grown_mib = (psutil.Process().memory_info().rss - before_bytes) / (1 << 20)
        left = [float(service["in_flight"] + service["queued"]) for service in node.status()["capabilities"]]
    finally:
        await node.stop()
    return [
        Series("capacity", "answers/s", [capacity], f"{SLOTS + QUEUE} askers, each with one request at a time"),
        Series("goodput", "answers/s", [goodput], f"{sizes.factor:g} times the capacity arriving"),
        Series("goodput lost", "share", [max(0.0, 1.0 - goodput / capacity)]),
        Series("queue", "requests", queue, "looked at ten times a second"),
        Series("left behind", "requests", left),
        Series("memory gained", "MiB", [grown_mib], "by the node's process, askers included"),
        Series("refused", "requests", [float(asked.refused)], "with a time to come back"),
    ]


class _Asked:
    """Asks and counts."""

    def __init__(self, node: Node, sizes: Sizes) -> None:
        self.node = node
        self._sizes = sizes
        self.answered = self.refused = self.late = 0

    async def one(self, number: int) -> None:
        request = AskRequest(
            text=f"song {number}", model="parrot", max_tokens=self._sizes.tokens, timeout_s=self._sizes.timeout_s
        )
        try:
            async with aclosing(self.node.ask(request)) as events:
                async for event in events:
                    if event["event"] == "done":
                        self.answered += 1
        except AtmoError as error:
            if error.code == "overloaded":
                self.refused += 1
            else:
                self.late += 1


async def _capacity(asked: _Asked, sizes: Sizes) -> float:
    """Answers a second while there is always one more waiting."""
    ends_s = time.monotonic() + sizes.capacity_s
    begun_s = time.monotonic()

    async def keep_asking(first: int) -> None:
        number = first
        while time.monotonic() < ends_s:
            await asked.one(number)
            number += 1000

    await asyncio.gather(*(keep_asking(number) for number in range(SLOTS + QUEUE)))
    return asked.answered / (time.monotonic() - begun_s)


async def _overload(context: Context, asked: _Asked, sizes: Sizes, capacity: float) -> tuple[float, list[float]]:
    """Answers a second, and how many waited at any time."""
    asked.answered = asked.refused = asked.late = 0
    tasks: set[asyncio.Task[None]] = set()
    queue: list[float] = []
    begun_s = next_s = looked_s = time.monotonic()
    number = 0
    while (now_s := time.monotonic()) < begun_s + sizes.overload_s:
        while next_s <= now_s:
            task = asyncio.create_task(asked.one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            next_s += context.chance.expovariate(sizes.factor * capacity)
            number += 1
        if now_s - looked_s >= 0.1:
            looked_s = now_s
            queue.append(float(sum(service["queued"] for service in asked.node.status()["capabilities"])))
        await asyncio.sleep(0.001)
    goodput = asked.answered / (time.monotonic() - begun_s)
    await asyncio.gather(*tasks)
    await asyncio.sleep(0.1)
    return goodput, queue

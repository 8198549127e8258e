"""Whether a mesh finds together on a machine that has less time for it than it takes at rest.

All node processes are stopped and continued together, so that each second holds only so many milliseconds for them,
whatever else the machine does: a slow machine, made from a fast one. A mesh that answers lost links with more work than
it has time for stays apart for ever; one that does not is whole some time later, and quiet.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec

from atmo.errors import AtmoError
from atmo.keys import Identity
from bench.gossip import Json, Member, start
from bench.harness import Context, Outcome, Series

ANSWER_S = 60.0  # how long a starved node may take to say what it is asked


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """on_ms, off_ms: how long the processes run and stand still in turns. limit_s: after which a mesh has failed."""

    nodes: int
    rounds: int
    on_ms: float
    off_ms: float
    limit_s: float


class Round(msgspec.Struct, frozen=True):
    """Seconds until all nodes knew all, and until all were linked to all; what all of them did until then."""

    known_s: float
    full_s: float
    counts: dict[str, float]


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    rounds = [asyncio.run(_round(context, sizes)) for _ in range(sizes.rounds)]
    share = sizes.on_ms / (sizes.on_ms + sizes.off_ms)
    note = f"{sizes.nodes} processes on one machine, which run for {share:.0%} of the time"
    until = "until all are linked to all"
    return [
        Series("all know all", "s", [found.known_s for found in rounds], note),
        Series("all linked to all", "s", [found.full_s for found in rounds], "asked once a second"),
        Series("frames", "frames", [found.counts["frames_sent"] for found in rounds], until),
        Series("bytes", "MB", [found.counts["bytes_sent"] / 1e6 for found in rounds], until),
        Series("dials", "dials", [found.counts["dials"] for found in rounds], until),
        Series("links lost", "ends", [found.counts.get("LinkDown", 0.0) for found in rounds], until),
    ]


async def _round(context: Context, sizes: Sizes) -> Round:
    root = Identity(context.rng.bytes(32))
    async with AsyncExitStack() as stack:
        members = []
        for _ in range(sizes.nodes):
            member = await start(context, root)
            stack.push_async_callback(member.close)
            members.append(member)
        addresses = [(await member.expect("ready"))["address"] for member in members]
        async with _slowly([member.pid for member in members], sizes):
            began_s = asyncio.get_running_loop().time()
            for member in members[1:]:
                member.do(do="dial", addresses=addresses[:1])
            known_s = await _when(members, "table", lambda said: len(said["nodes"]) == sizes.nodes, began_s, sizes)
            full_s = await _when(members, "links", lambda said: said["count"] == sizes.nodes - 1, began_s, sizes)
            context.say(f"all know all after {known_s:.0f} s, all linked to all after {full_s:.0f} s")
            counts: dict[str, float] = {}
            for said in await _ask(members, "counts"):
                for name, count in said.items():
                    counts[name] = counts.get(name, 0.0) + (count if isinstance(count, int | float) else 0.0)
    return Round(known_s, full_s, counts)


async def _when(members: list[Member], what: str, true: Callable[[Json], bool], began_s: float, sizes: Sizes) -> float:
    """Seconds since `began_s` at which it was true of all. Raises AtmoError if it never is."""
    loop = asyncio.get_running_loop()
    while not all(map(true, await _ask(members, what))):
        if loop.time() > began_s + sizes.limit_s:
            raise AtmoError(f"The starved mesh did not find together within {sizes.limit_s:.0f} s.")
        await asyncio.sleep(1.0)
    return loop.time() - began_s


async def _ask(members: list[Member], what: str) -> list[Json]:
    for member in members:
        member.do(do=what)
    return list(await asyncio.gather(*(member.expect(what, ANSWER_S) for member in members)))


@asynccontextmanager
async def _slowly(pids: list[int], sizes: Sizes) -> AsyncIterator[None]:
    """Meanwhile these processes run for a part of the time only."""

    async def slow_down() -> None:
        while True:
            _signal(pids, signal.SIGSTOP)
            await asyncio.sleep(sizes.off_ms / 1000.0)
            _signal(pids, signal.SIGCONT)
            await asyncio.sleep(sizes.on_ms / 1000.0)

    task = asyncio.create_task(slow_down())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        _signal(pids, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

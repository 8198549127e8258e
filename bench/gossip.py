"""How long a new row takes from one node to all others: real processes, real sockets, one machine's clock."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from atmo.errors import AtmoError
from atmo.keys import Identity
from bench import processes
from bench.harness import FOLDER, Context, Outcome, Series

Json = dict[str, Any]
# A row that the gossip lane lost comes by repair, within about 8 s. Later than this it does not come at all.
ARRIVAL_LIMIT_S = 20.0
START_LIMIT_S = 30.0


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """pause_s: the longest wait between two publications."""

    nodes: int
    publications: int
    warm_up: int
    pause_s: float


class Member:
    """The parent's end of one node process (member.py)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: asyncio.Queue[Json] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def expect(self, event: str, limit_s: float = START_LIMIT_S) -> Json:
        """The next event of this kind; others before it are dropped. Raises AtmoError when the node died or is late."""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    found = await self.events.get()
                    if found["event"] == event:
                        return found
                    if found["event"] == "ended":
                        raise AtmoError("A node of the gossip scenario ended by itself.")
        except TimeoutError:
            raise AtmoError(f"A node of the gossip scenario did not say {event!r} within {limit_s:.0f} s.") from None

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(processes.GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.events.put_nowait(json.loads(line))
        self.events.put_nowait({"event": "ended"})


def run(context: Context) -> list[Outcome]:
    return asyncio.run(_run(context, context.sizes(Sizes)))


async def _run(context: Context, sizes: Sizes) -> list[Outcome]:
    root = Identity(context.rng.bytes(32))
    async with AsyncExitStack() as stack:
        members = []
        for _ in range(sizes.nodes):
            member = await start(context, root)
            stack.push_async_callback(member.close)
            members.append(member)
        await _link(members)
        context.say(f"{sizes.nodes} nodes linked, {sizes.nodes * (sizes.nodes - 1) // 2} links")
        each_ms, all_ms = await _publish(context, sizes, members)
    note = f"{sizes.nodes} processes on one machine, rows of 3 kB, CURVE sockets on loopback"
    return [Series("until all have it", "ms", all_ms, note), Series("until one has it", "ms", each_ms, "each receiver")]


async def start(context: Context, root: Identity) -> Member:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.member"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=FOLDER.parent,
        env=processes.environment({processes.MARK: str(context.folder / "home")}),
    )
    member = Member(process)
    member.do(root=root.secret.hex())
    return member


async def _link(members: list[Member]) -> None:
    """Each is told where those before it are; the mesh does the rest."""
    addresses: list[str] = []
    for member in members:
        address = (await member.expect("ready"))["address"]
        member.do(do="dial", addresses=addresses)
        addresses.append(address)
    async with asyncio.timeout(START_LIMIT_S):
        for member in members:
            while True:
                member.do(do="links")
                if (await member.expect("links"))["count"] == len(members) - 1:
                    break
                await asyncio.sleep(0.05)


async def _seen(member: Member, number: int) -> Json:
    """When this capability stood in the table; rows that were said once more while the mesh formed are not it."""
    while (event := await member.expect("seen", ARRIVAL_LIMIT_S))["number"] != number:
        pass
    return event


async def _publish(context: Context, sizes: Sizes, members: list[Member]) -> tuple[list[float], list[float]]:
    """Milliseconds from the publisher's call until each of the others, and until all of them, had the row."""
    each_ms: list[float] = []
    all_ms: list[float] = []
    for number in range(sizes.warm_up + sizes.publications):
        await asyncio.sleep(context.chance.uniform(0.0, sizes.pause_s))
        publisher = context.chance.choice(members)
        publisher.do(do="publish", number=number)
        begun_ns = (await publisher.expect("published"))["at_ns"]
        others = [member for member in members if member is not publisher]
        seen = [await _seen(member, number) for member in others]
        publisher.do(do="withdraw", number=number)
        if number >= sizes.warm_up:
            taken_ms = [(event["at_ns"] - begun_ns) / 1e6 for event in seen]
            each_ms += taken_ms
            all_ms.append(max(taken_ms))
    return each_ms, all_ms

"""A node that does not exist, with an API that does: for the live view over meshes of any size.

`python -m bench.invented NODES` announces it in `$ATMO_RUNTIME` like a real one and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from atmo.cli.watch import demo
from atmo.clock import SystemClock
from atmo.config import Config, GatewaySection, load
from atmo.gateway.gateway import Gateway
from atmo.gateway.handle import NodeHandle
from atmo.ids import MeshId, Multiaddr
from atmo.keys import Identity
from atmo.node.events import Journal
from atmo.transport.neighbours import Neighbours, NodeCard

Json = dict[str, Any]

EVENTS_PER_S = 12
# Reports that the invented node goes through.
REPORTS = 8


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

    def transfers_view(self) -> Json:
        return {"transfers": demo.transfers()}

    def counters(self) -> Json:
        return {"uptime_s": 0.0, "peers": 0, "rows": {}, "engines": [], "lanes": {}}

    def events(self, since: int, *, follow: bool) -> AsyncIterator[Json]:
        return self.journal.follow(since) if follow else _each(self.journal.since(since))

    def explained(self, request_id: str) -> Json:
        return {"lines": [f"Request {request_id[-4:]} is invented, and so is its decision."]}

    def happen(self) -> None:
        """A request begins and another one is answered."""
        self._requests += 1
        for number, kind in ((self._requests, "asked"), (self._requests - 3, "answered")):
            at = {"request_id": f"{number:032x}", "capability": "atmo:chat:coder", "peer": demo.peer(number % 7)}
            amounts = {"first_s": 0.03, "total_s": 0.5, "output_tokens": 30, "decode_s": 0.47, "detail": ""}
            self.journal.record(kind, **at, name="", **(amounts if kind == "answered" else {}))


@asynccontextmanager
async def served(node: Invented, runtime: Path) -> AsyncGenerator[None, None]:
    """The API on a socket, and the card by which clients find it."""
    peer = Identity.generate().public
    neighbours = Neighbours(runtime)
    socket = runtime / "invented.sock"
    neighbours.announce(
        NodeCard(peer, MeshId(peer), Multiaddr("127.0.0.1", 1, peer), os.getpid(), "laptop", str(socket))
    )
    config = Config(home=runtime, runtime=runtime, gateway=GatewaySection(port=-1))
    config.node_home.mkdir(parents=True, exist_ok=True)
    server = Gateway(cast(NodeHandle, node), config, socket, SystemClock())
    await server.start()
    try:
        yield
    finally:
        node.journal.close()
        await server.stop()
        await neighbours.close()


@asynccontextmanager
async def busy(node: Invented) -> AsyncGenerator[None, None]:
    async def happen() -> None:
        while True:
            node.happen()
            await asyncio.sleep(1 / EVENTS_PER_S)

    task = asyncio.create_task(happen())
    try:
        yield
    finally:
        task.cancel()


async def _each(events: list[Json]) -> AsyncIterator[Json]:
    for event in events:
        yield event


async def main(count: int) -> None:
    node = Invented(count, random.Random(count))
    for event in demo.events(count):
        node.journal.record(**{key: value for key, value in event.items() if key not in ("seq", "at_s")})
    async with served(node, load().runtime):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

"""A mesh node in a process of its own, without engines: one of the eight of the gossip scenario.

Talks JSON lines with its parent. First comes `{"root": hex}`, the key of the mesh, perhaps with `host`, where to listen
(loopback), and `notes`, true if every event for people is to be told; then commands, `do` being one of dial
(addresses), publish (number), withdraw (number), links, table, counts. It says `ready` (address), `links` (count),
`table` (names of the nodes it knows), `counts` (see `Counting`), and, with the time on the machine's monotonic clock,
`published` and `seen` (number, at_ns) and `note` (what, about, at_ns). When its input ends it leaves the mesh and
exits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import structlog

from atmo.clock import SystemClock
from atmo.generation import Finish
from atmo.ids import MeshId, Multiaddr, PeerId, parse_multiaddr
from atmo.keys import CurveKeys, Identity, issue_credential
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.field import GradientField
from atmo.mesh.node import MeshNode
from atmo.mesh.rows import Kind, NodeInfo
from atmo.mesh.service import Answer, Question
from atmo.mesh.table import RoutingTable
from atmo.transport.base import Deliver, Received, TransportEvent
from atmo.transport.zeromq import ZmqTransport

Json = dict[str, Any]
VIEWS = 8  # description, centre and six examples: a row of 3 kB, as a real one


class Watched(RoutingTable):
    """A routing table that tells the parent the moment a capability of another node stands in it."""

    def __init__(self, own: PeerId) -> None:
        super().__init__()
        self._own = own

    def put_capability(self, peer: PeerId, capability: Capability) -> None:
        super().put_capability(peer, capability)
        if peer != self._own:
            say({"event": "seen", "number": int(capability.descriptor.model), "at_ns": time.monotonic_ns()})


class Counting(ZmqTransport):
    """A transport that counts what it does since it began: dials, dials that failed, links that came up and went down,
    frames sent and heard (a gossip frame once for each link) and their bytes."""

    counts: Counter[str]

    async def start(self, deliver: Deliver) -> None:
        self.counts = Counter()

        def counted(happened: Sequence[TransportEvent]) -> None:
            for event in happened:
                self.counts[type(event).__name__] += 1
                if isinstance(event, Received):
                    self.counts["bytes_heard"] += len(event.frame)
            deliver(happened)

        await super().start(counted)

    def dial(self, address: Multiaddr) -> None:
        self.counts["dials"] += 1
        super().dial(address)

    def send(self, peer: PeerId, frame: bytes) -> None:
        self.counts["frames_sent"] += 1
        self.counts["bytes_sent"] += len(frame)
        super().send(peer, frame)

    def publish(self, frame: bytes) -> None:
        self.counts["frames_sent"] += len(self.linked())
        self.counts["bytes_sent"] += len(self.linked()) * len(frame)
        super().publish(frame)


class Idle:
    """A service that nobody asks."""

    def __init__(self, capability_id: str) -> None:
        self._load = Load(capability_id, 0, 1, 0, 0.0, 0.0, 0.0, True)

    async def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        yield Finish(reason="stop")

    def load(self) -> Load:
        return self._load


async def live() -> None:
    reader = await _standard_input()
    first = json.loads(await reader.readline())
    node = _make_node(Identity(bytes.fromhex(first["root"])), first.get("host", "127.0.0.1"))
    if first.get("notes"):
        node.note = _tell  # type: ignore[method-assign]
    await node.start()
    try:
        assert node.transport.address is not None
        name = node.transport.address.port
        address = str(node.transport.address)
        node.introduce(NodeInfo(name=f"member-{name}", addresses=(address,), mode="provider", software="-"))
        say({"event": "ready", "address": str(node.transport.address)})
        while line := await reader.readline():
            _obey(node, json.loads(line))
    finally:
        await node.stop()


def _make_node(root: Identity, host: str) -> MeshNode:
    identity, curve, clock = Identity.generate(), CurveKeys.generate(), SystemClock()
    credential = issue_credential(root, identity, curve, wall_s=clock.wall())
    mesh = MeshId(root.public)
    transport = Counting(identity.public, curve, credential, mesh, host=host, clock=clock)
    node = MeshNode(
        identity=identity,
        mesh=mesh,
        certificate=credential.certificate,
        generation=1,
        transport=transport,
        clock=clock,
        rng=random.Random(os.getpid()),
    )
    node.table = Watched(identity.public)
    node.field = GradientField(node.table)
    return node


def _obey(node: MeshNode, command: Json) -> None:
    if command["do"] == "dial":
        for address in command["addresses"]:
            node.discovered(parse_multiaddr(address))
    elif command["do"] == "publish":
        capability = _capability(command["number"])
        begun_ns = time.monotonic_ns()
        node.offer(capability, Idle(capability.descriptor.id))
        say({"event": "published", "number": command["number"], "at_ns": begun_ns})
    elif command["do"] == "withdraw":
        node.withdraw(_capability(command["number"]).descriptor.id)
    elif command["do"] == "table":
        rows = node.core.store.rows(Kind.NODE)
        say({"event": "table", "nodes": sorted(row.body.name for row in rows if isinstance(row.body, NodeInfo))})
    elif command["do"] == "counts":
        assert isinstance(node.transport, Counting)
        say({"event": "counts", "cpu_s": time.process_time(), **node.transport.counts})
    else:
        say({"event": "links", "count": len(node.transport.linked())})


def _tell(what: str, about: str) -> None:
    say({"event": "note", "what": what, "about": about, "at_ns": time.monotonic_ns()})


def _capability(number: int) -> Capability:
    views = tuple(hashlib.shake_128(f"{number}/{view}".encode()).digest(EMBEDDING_DIM) for view in range(VIEWS))
    descriptor = Descriptor(
        id=f"atmo:chat:row-{number}", type="chat", description="A row to be timed. " * 10, model=str(number)
    )
    return Capability(descriptor, "none", views)


def say(event: Json) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")  # at once, and whole: a pipe takes lines up to 4 kB in one piece


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    uvloop.run(live())

"""A mesh to play with: members, their transports of any kind, and what each was told."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import zmq

from atmo.clock import SystemClock
from atmo.ids import MeshId, Multiaddr, PeerId, parse_multiaddr
from atmo.keys import Credential, CurveBinding, CurveKeys, Identity, Passport, issue_credential
from atmo.transport import sockets, wire
from atmo.transport.base import Deliver, DialableTransport, DialFailed, Lane, LinkDown, LinkUp, Received, TransportEvent
from atmo.transport.faults import NO_FAULTS, Faults, FaultyTransport
from atmo.transport.memory import MemoryNetwork, MemoryTransport
from atmo.transport.zeromq import ZmqTransport

PATIENCE_S = 10.0
LIGHT_DELAY = Faults(delay_s=(0.0, 0.01))


@dataclass
class Member:
    identity: Identity
    curve: CurveKeys
    credential: Credential


def enrol(root: Identity, identity: Identity | None = None, **dates: Any) -> Member:
    """A member of the root's mesh with a fresh curve key."""
    identity = identity or Identity.generate()
    curve = CurveKeys.generate()
    dates = {"wall_s": time.time()} | dates
    return Member(identity, curve, issue_credential(root, identity, curve, **dates))


@dataclass
class End:
    """A transport and all it has told."""

    transport: DialableTransport
    events: list[TransportEvent] = field(default_factory=list)
    listener: Deliver | None = None
    bulk_frames: int = 0  # counted by a listener that does not keep them

    @property
    def peer(self) -> PeerId:
        return self.transport.peer

    def hear(self, events: Sequence[TransportEvent]) -> None:
        self.events.extend(events)

    def deliver(self, events: Sequence[TransportEvent]) -> None:
        """What the transport calls: the test's listener where there is one."""
        (self.listener or self.hear)(events)

    def frames(self, lane: Lane, peer: PeerId | None = None) -> list[bytes]:
        return [
            bytes(event.frame)
            for event in self.events
            if isinstance(event, Received) and event.lane is lane and peer in (None, event.peer)
        ]

    def ups(self) -> list[LinkUp]:
        return [event for event in self.events if isinstance(event, LinkUp)]

    def downs(self) -> list[LinkDown]:
        return [event for event in self.events if isinstance(event, LinkDown)]

    def failures(self) -> list[DialFailed]:
        return [event for event in self.events if isinstance(event, DialFailed)]

    def keeps_promises(self) -> None:
        """Of every peer: LinkUp and LinkDown in turn, and frames between them only."""
        up: set[PeerId] = set()
        for event in self.events:
            if isinstance(event, LinkUp):
                assert event.peer not in up, "two LinkUps without a LinkDown between"
                up.add(event.peer)
            elif isinstance(event, LinkDown):
                assert event.peer in up, "LinkDown without LinkUp"
                up.remove(event.peer)
            elif isinstance(event, Received):
                assert event.peer in up, "a frame without a link"


async def until(condition: Callable[[], object], within_s: float = PATIENCE_S, what: str = "") -> None:
    """Wait for a condition. Fails the test when it does not come true."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, what or "the condition did not come true"
        await asyncio.sleep(0.002)


class Lab:
    """Starts transports of one kind and ends them all."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.root = Identity.generate()
        self.network = MemoryNetwork()
        self.ends: list[End] = []

    async def __aenter__(self) -> Lab:
        return self

    async def __aexit__(self, *_: object) -> None:
        for end in self.ends:
            await end.transport.close()
            end.keeps_promises()

    def transport(self, member: Member, root: Identity | None = None, **options: Any) -> DialableTransport:
        return self.transport_of_kind(self.kind, member, root, **options)

    def transport_of_kind(
        self, kind: str, member: Member | None = None, root: Identity | None = None, **options: Any
    ) -> DialableTransport:
        member = member or enrol(root or self.root)
        mesh = MeshId((root or self.root).public)
        if kind == "zeromq":
            return ZmqTransport(member.identity.public, member.curve, member.credential, mesh, **options)
        inner = MemoryTransport(self.network, member.identity.public, member.credential, mesh, SystemClock())
        if kind == "memory":
            return inner
        faults = {"faults-none": NO_FAULTS, "faults-delay": LIGHT_DELAY}[kind]
        return FaultyTransport(inner, faults, random.Random(7))

    async def start(self, member: Member | None = None, root: Identity | None = None, **options: Any) -> End:
        member = member or enrol(root or self.root)
        end = End(self.transport(member, root, **options))
        await end.transport.start(end.deliver)
        self.ends.append(end)
        return end

    async def linked_pair(self, **options: Any) -> tuple[End, End]:
        one, other = await self.start(**options), await self.start(**options)
        await link(one, other)
        return one, other


async def link(one: End, other: End) -> None:
    one.transport.dial(other.transport.address)
    await until(lambda: other.peer in one.transport.linked() and one.peer in other.transport.linked())


class Child:
    """A node in another process (child.py). It ends when its standard input closes, so never outlives the test."""

    def __init__(self, lab: Lab, *, dial: str = "", **timing: float) -> None:
        options = {"root": lab.root.secret.hex(), "timing": timing, "dial": dial}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py")), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
        self._reader: asyncio.Task[None] | None = None
        self.said: list[dict[str, Any]] = []

    async def __aenter__(self) -> Child:
        self._reader = asyncio.create_task(self._read())
        await until(lambda: self.said, what="the child did not start")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self._reader is not None
        self.signal(signal.SIGCONT)
        self.process.stdin.close()
        try:
            await asyncio.to_thread(self.process.wait, PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        await self._reader
        self.process.stdout.close()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await asyncio.to_thread(self.process.stdout.readline):
            self.said.append(json.loads(line))

    @property
    def address(self) -> Multiaddr:
        return parse_multiaddr(self.said[0]["address"])

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [words for words in self.said if words["event"] == event]

    def signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)


class Raw:
    """Talks to a node's ports without a transport: what an outsider or a dishonest member could do."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._context: sockets.Context = zmq.Context()
        self._wires: list[sockets.Wire] = []

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._wires:
            connection.close()
        self._context.destroy(linger=0)

    def knock(self, address: Multiaddr, frame: bytes | None = None) -> bytes:
        """Say `frame` at the door (by default a proper introduction) and return the answer, empty if there is none."""
        frame = wire.encode_door(wire.Introduce(self.member.credential)) if frame is None else frame
        with socket.create_connection((address.host, address.port), timeout=PATIENCE_S) as visit:
            visit.sendall(wire.enclose(frame))
            head = visit.recv(2)
            size = int.from_bytes(head, "big")
            return visit.recv(size, socket.MSG_WAITALL) if size else b""

    def introduce(self, address: Multiaddr) -> tuple[wire.Introduction, Passport]:
        word = wire.decode_door(self.knock(address))
        assert isinstance(word, wire.Introduction), word
        binding = msgspec.msgpack.decode(word.credential.binding.payload, type=CurveBinding)
        return word, Passport(MeshId(b""), PeerId(binding.peer), binding.curve, 0)

    def connect(self, port: int, server: Passport) -> sockets.Wire:
        connection = sockets.Wire(
            self._context, "127.0.0.1", port, max_frame_bytes=1 << 21, curve=(self.member.curve, server.curve)
        )
        self._wires.append(connection)
        return connection

    def hello(self, **changes: Any) -> bytes:
        words: dict[str, Any] = {
            "peer": self.member.identity.public,
            "instance": bytes(8),
            "sequence": 1,
            "address": None,
        }
        words |= {"gossip_port": 9, "bulk_port": 9} | changes
        return wire.encode_hello(wire.Hello(**words))


async def receive(connection: sockets.Wire) -> bytes:
    got: list[bytes] = []

    def arrived() -> bool:
        frame = connection.receive()
        if frame is not None:
            got.append(frame)
        return bool(got)

    await until(arrived)
    return got[0]

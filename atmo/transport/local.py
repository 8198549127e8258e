"""What the parts of a ZeroMQ transport share about this end, and the table of its links."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Protocol

from atmo.clock import Clock
from atmo.ids import Multiaddr, PeerId
from atmo.keys import Credential, CurveKeys
from atmo.transport import wire
from atmo.transport.base import Frame, Lane, LinkDown, LinkUp, Received, TransportEvent
from atmo.transport.door import Ports
from atmo.transport.link import Link, LinkTiming
from atmo.trust import Trust


@dataclass
class Local:
    """This end. `ports` and `address` are known once the sockets are bound."""

    peer: PeerId
    keys: CurveKeys
    credential: Credential
    trust: Trust
    clock: Clock
    timing: LinkTiming
    instance: bytes = field(default_factory=lambda: os.urandom(8))
    ports: Ports | None = None
    address: Multiaddr | None = None
    dialable: bool = True
    plain_avoided: set[PeerId] = field(default_factory=set)  # written by the event loop's thread
    _sequence: int = 0

    def next_hello(self) -> tuple[int, bytes]:
        """A fresh HELLO and its sequence number."""
        assert self.ports is not None
        self._sequence += 1
        address = str(self.address) if self.dialable and self.address is not None else None
        hello = wire.Hello(
            self.peer, self.instance, self._sequence, address, self.ports.gossip, self.ports.bulk
        )  # fmt: skip
        return self._sequence, wire.encode_hello(hello)


@dataclass(frozen=True, slots=True)
class BulkGranted:
    """The peer gave back this many bytes of the bulk window, or made it so much larger. For the transport's loop side
    only."""

    size_bytes: int
    wider: bool = False


Happening = tuple[Link | None, TransportEvent | BulkGranted]


class LaneOwner(Protocol):
    """A part that holds sockets for links."""

    def opened(self, link: Link) -> None: ...

    def closed(self, link: Link, reason: str) -> None: ...


class LinkTable:
    """Peer -> link, and the events that go to the event loop with the next batch."""

    def __init__(self) -> None:
        self.links: dict[PeerId, Link] = {}
        self.happened: list[Happening] = []
        self.owners: list[LaneOwner] = []

    def up(self, link: Link) -> None:
        """Announce a link; one that stood before must have gone down."""
        assert link.peer not in self.links
        self.links[link.peer] = link
        self.happened.append((link, LinkUp(link.peer, link.passport, link.address, link.outbound)))
        for owner in self.owners:
            owner.opened(link)

    def down(self, link: Link, reason: str) -> None:
        """End a link. A second call does nothing."""
        if link.down:
            return
        link.down = True
        del self.links[link.peer]
        for owner in self.owners:
            owner.closed(link, reason)
        self.happened.append((link, LinkDown(link.peer, reason)))

    def received(self, link: Link, lane: Lane, frame: Frame, *, plain: bool = False) -> None:
        link.lanes[lane].count_in(len(frame))
        if plain:
            link.plain.count_in(len(frame))
        self.happened.append((link, Received(link.peer, lane, frame, plain)))

    def granted(self, link: Link, size_bytes: int, *, wider: bool = False) -> None:
        self.happened.append((link, BulkGranted(size_bytes, wider)))

    def failed(self, event: TransportEvent) -> None:
        self.happened.append((None, event))

    def take_happened(self) -> list[Happening]:
        happened, self.happened = self.happened, []
        return happened

"""What every transport does: carry opaque frames between keys.

The idea. Above this module a peer is a key and a frame is bytes; below it are sockets, addresses and encryption. A link
is named by the peer at its other end, whoever dialled it, so that a node behind NAT is served over the link it opened.

The promises every implementation keeps (tests/transport/test_conformance.py):

1. No frame is delivered before `LinkUp` of its sender, none after `LinkDown`.
2. The sender of a frame is authenticated: it holds the curve key that a member of this mesh certified. Only of what is
   marked `plain`, on `Lane.BULK` and where both ends asked for it, this is not so.
3. On `Lane.CONTROL` and `Lane.BULK` frames arrive in order, each once, or the link goes down: nothing is dropped in
   silence.
   Frames that were accepted but not yet delivered when a link goes down are lost, and `LinkDown` is how one knows.
4. `Lane.GOSSIP` may lose frames: whoever publishes repeats what matters.
5. Nothing here blocks the event loop. A peer that does not read costs bounded memory, then its link.
6. A bulk sender holds no more than the receiver granted (`BULK_WINDOW_BYTES`), so chunks never delay a heartbeat.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from atmo.errors import AtmoError
from atmo.ids import Multiaddr, PeerId
from atmo.keys import Passport

if TYPE_CHECKING:
    from atmo.transport.link import LinkStats


Frame: TypeAlias = bytes | memoryview


class Lane(enum.IntEnum):
    """Lanes do not wait for each other. CONTROL: requests, replies, heartbeats. GOSSIP: rows. BULK: model chunks."""

    CONTROL = 0
    GOSSIP = 1
    BULK = 2


# A request with its attachments is cut into frames by the layer above; a batch of rows is far smaller. Bulk is one 1
# MiB chunk and its header.
MAX_FRAME_BYTES = {Lane.CONTROL: 1 << 20, Lane.GOSSIP: 256 << 10, Lane.BULK: (1 << 20) + 4096}
# What a link may hold that the peer has not read, before the link is given up. A guess: 16 full control frames.
MAX_BACKLOG_BYTES = 16 << 20
# What a bulk sender may have in flight. Bandwidth x delay of 1 Gbit/s at 60 ms.
BULK_WINDOW_BYTES = 8 << 20
# What a receiver may make of it where a path carries more in its delay: 10 Gbit/s at 25 ms.
MAX_BULK_WINDOW_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The peer is authenticated and frames flow. `address` is where it can be dialled, None if nobody knows."""

    peer: PeerId
    passport: Passport
    address: Multiaddr | None
    outbound: bool


@dataclass(frozen=True, slots=True)
class LinkDown:
    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class DialFailed:
    """Nothing came of `dial(address)`; `error` says why in a user's words."""

    address: Multiaddr
    error: AtmoError


@dataclass(frozen=True, slots=True)
class Received:
    """frame: bytes; on `Lane.BULK` perhaps a view of where the socket put them, which lives as long as it is held.
    plain: it came unencrypted, so it may be anybody's."""

    peer: PeerId
    lane: Lane
    frame: Frame
    plain: bool = False


TransportEvent = LinkUp | LinkDown | DialFailed | Received
Deliver = Callable[[Sequence[TransportEvent]], None]
"""Called on the event loop's thread with what happened since the last call, in order."""


class Transport(Protocol):
    """All methods are called on the event loop's thread; none blocks."""

    @property
    def peer(self) -> PeerId:
        """Who this end is."""

    @property
    def address(self) -> Multiaddr | None:
        """Where this end can be dialled, None where nobody can. Known once `start` has returned."""

    async def start(self, deliver: Deliver) -> None:
        """Bind and begin to deliver events. Raises PortInUse."""

    def dial(self, address: Multiaddr) -> None:
        """Ask for a link. The outcome is an event: `LinkUp` or `DialFailed`. A second dial to a linked or dialled peer
        is no error and does nothing. With `address.peer` set, only that peer is accepted there."""

    def send(self, peer: PeerId, frame: bytes) -> None:
        """Queue a frame on `Lane.CONTROL`. Raises PeerUnreachable without a link, FrameTooLarge above the limit."""

    def publish(self, frame: bytes) -> None:
        """Offer a frame to every linked peer on `Lane.GOSSIP`. Raises FrameTooLarge."""

    async def send_bulk(self, peer: PeerId, frame: Frame, *, plain: bool = False) -> None:
        """Queue a frame on `Lane.BULK` as soon as the receiver's window has room for it. It is not copied, and not to
        be changed any more. plain: anybody may read it, so it may go unencrypted where both ends have a way for that.

        Raises PeerUnreachable without a link or when the link goes down while waiting, FrameTooLarge above the limit.
        """

    def release_bulk(self, peer: PeerId, frame_bytes: int) -> None:
        """The receiver has dealt with a bulk frame of this size: its sender may send as much again."""

    def bulk_in_flight(self, peer: PeerId) -> int:
        """Bytes sent on `Lane.BULK` and not known to be released there: up to half a window more than really are."""

    def widen_bulk(self, peer: PeerId, window_bytes: int) -> None:
        """Let the peer have so much in flight on `Lane.BULK`, MAX_BULK_WINDOW_BYTES at most. It is never narrowed."""

    def avoid_plain(self, peer: PeerId) -> None:
        """Send nothing unencrypted to this peer any more, and take nothing, from the next link on."""

    def hang_up(self, peer: PeerId, reason: str) -> None:
        """End the link; `LinkDown` with this reason follows here, and the other end notices."""

    def linked(self) -> frozenset[PeerId]:
        """Peers with a link now."""

    def stats(self) -> dict[PeerId, LinkStats]:
        """A snapshot of every link, for operators."""

    def rtt_s(self, peer: PeerId) -> float | None:
        """Smoothed round-trip time to a linked peer; None without a link or before the first measurement."""

    async def close(self) -> None:
        """End all links and free every socket and thread. May be called twice."""


class DialableTransport(Transport, Protocol):
    """A transport that others can dial: every one but a lone node's."""

    @property
    def address(self) -> Multiaddr:
        """Known once `start` has returned."""

"""A transport within one process: for tests of what lies above, on a real event loop, without sockets.

It keeps the same promises as the transport over ZeroMQ, and costs what a network costs where that can be seen: frames
are copied, counted and limited, introductions go through the same door, credentials are checked, credits are spent.
What can be done to it and not to a network: `cut` and `heal` two peers, `stall` a peer that should stop reading.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field

from atmo.clock import Clock, SystemClock
from atmo.errors import FrameTooLarge, PeerUnreachable, RemoteProtocolError, TransportError
from atmo.ids import MeshId, Multiaddr, PeerId, format_peer, short
from atmo.keys import Credential, Passport
from atmo.transport import wire
from atmo.transport.base import (
    BULK_WINDOW_BYTES,
    MAX_BACKLOG_BYTES,
    MAX_BULK_WINDOW_BYTES,
    MAX_FRAME_BYTES,
    Deliver,
    DialFailed,
    Frame,
    Lane,
    LinkDown,
    LinkUp,
    Received,
    TransportEvent,
)
from atmo.transport.credit import CreditGrants
from atmo.transport.door import Doorkeeper, Ports, read_introduction
from atmo.transport.link import LaneStats, LinkStats, cost_bytes
from atmo.transport.outbox import BulkOutbox
from atmo.trust import Trust

_HOST = "127.0.0.1"
_FIRST_PORT = 10_000


@dataclass(eq=False)
class _End:
    """One side of a link. `queued_bytes` waits at the other side's door, for the layer above it to read."""

    owner: MemoryTransport
    passport: Passport
    outbound: bool
    address: Multiaddr
    since_s: float
    other: _End | None = None
    down: bool = False
    queued_bytes: int = 0
    outbox: BulkOutbox = field(default_factory=BulkOutbox)
    grants: CreditGrants = field(default_factory=lambda: CreditGrants(BULK_WINDOW_BYTES))
    lanes: dict[Lane, LaneStats] = field(default_factory=lambda: {lane: LaneStats() for lane in Lane})

    @property
    def peer(self) -> PeerId:
        return self.passport.peer


@dataclass(frozen=True, slots=True)
class _Granted:
    size_bytes: int
    wider: bool = False


_Happening = tuple[_End | None, TransportEvent | _Granted]


class MemoryNetwork:
    """Where memory transports find each other. `mtu_bytes` lowers the limit of every lane."""

    def __init__(self, mtu_bytes: int | None = None) -> None:
        self.mtu_bytes = mtu_bytes
        self.frames = 0
        self.bytes = 0
        self._ports = itertools.count(_FIRST_PORT)
        self._listening: dict[int, MemoryTransport] = {}
        self._cuts: set[frozenset[PeerId]] = set()

    def cut(self, one: PeerId, other: PeerId) -> None:
        """End the link between the two and let none come up until `heal`."""
        self._cuts.add(frozenset((one, other)))
        for transport in self._listening.values():
            if transport.peer == one:
                transport.break_link(other, "the connection closed")

    def heal(self, one: PeerId, other: PeerId) -> None:
        self._cuts.discard(frozenset((one, other)))

    def is_cut(self, one: PeerId, other: PeerId) -> bool:
        return frozenset((one, other)) in self._cuts

    def listen(self, transport: MemoryTransport) -> int:
        port = next(self._ports)
        self._listening[port] = transport
        return port

    def leave(self, port: int) -> None:
        self._listening.pop(port, None)

    def find(self, address: Multiaddr) -> MemoryTransport | None:
        return self._listening.get(address.port) if address.host == _HOST else None

    def __repr__(self) -> str:
        return f"<MemoryNetwork {len(self._listening)} peers, {self.frames} frames, {self.bytes} bytes>"


class MemoryTransport:
    """Implements `atmo.transport.base.Transport`."""

    def __init__(
        self,
        network: MemoryNetwork,
        peer: PeerId,
        credential: Credential,
        mesh: MeshId,
        clock: Clock | None = None,
        trust: Trust | None = None,
    ) -> None:
        self._network = network
        self._peer = peer
        self._credential = credential
        self._trust = trust or Trust(mesh)
        self._clock = clock if clock is not None else SystemClock()
        self._deliver: Deliver | None = None
        self._address: Multiaddr | None = None
        self._stalled = False
        self._scheduled = False
        self._happened: deque[_Happening] = deque()
        self._ends: dict[PeerId, _End] = {}  # as the network has it
        self._links: dict[PeerId, _End] = {}  # as the layer above knows it
        self._admitted: dict[PeerId, Passport] = {}

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def address(self) -> Multiaddr:
        if self._address is None:
            raise TransportError("The transport has not started, so it has no address yet.")
        return self._address

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._address = Multiaddr(_HOST, self._network.listen(self), self._peer)
        port = self._address.port
        self._keeper = Doorkeeper(
            self._credential, self._trust, Ports(port, port, port), self._admit, self._clock.now()
        )  # fmt: skip

    def dial(self, address: Multiaddr) -> None:
        asyncio.get_running_loop().call_soon(self._dial, address)

    def send(self, peer: PeerId, frame: bytes) -> None:
        end = self._require(peer, frame, Lane.CONTROL)
        end.queued_bytes += cost_bytes(frame)
        if end.queued_bytes > MAX_BACKLOG_BYTES:
            self.break_link(peer, f"does not read: {end.queued_bytes >> 20} MiB wait for it")
        else:
            self._carry(end, Lane.CONTROL, frame)

    def publish(self, frame: bytes) -> None:
        self._check_size(frame, Lane.GOSSIP)
        for end in list(self._links.values()):
            if end.queued_bytes <= MAX_BACKLOG_BYTES // 4:
                end.queued_bytes += cost_bytes(frame)
                self._carry(end, Lane.GOSSIP, frame)

    async def send_bulk(self, peer: PeerId, frame: Frame, *, plain: bool = False) -> None:
        end = self._require(peer, frame, Lane.BULK)
        await end.outbox.send(frame, lambda ready: self._carry(end, Lane.BULK, ready))

    def release_bulk(self, peer: PeerId, frame_bytes: int) -> None:
        end = self._links.get(peer)
        if end is None or end.other is None:
            return
        grant_bytes = end.grants.release(frame_bytes)
        if grant_bytes:
            end.other.owner.happen(end.other, _Granted(grant_bytes))

    def bulk_in_flight(self, peer: PeerId) -> int:
        end = self._links.get(peer)
        return end.outbox.in_flight if end is not None else 0

    def widen_bulk(self, peer: PeerId, window_bytes: int) -> None:
        end = self._links.get(peer)
        if end is None or end.other is None:
            return
        more = end.grants.widen(min(window_bytes, MAX_BULK_WINDOW_BYTES))
        if more:
            end.other.owner.happen(end.other, _Granted(more, wider=True))

    def avoid_plain(self, peer: PeerId) -> None:
        return  # nothing is unencrypted here

    def hang_up(self, peer: PeerId, reason: str) -> None:
        self.break_link(peer, reason, f"the peer ended it: {reason}")

    def linked(self) -> frozenset[PeerId]:
        return frozenset(self._links)

    def rtt_s(self, peer: PeerId) -> float | None:
        """Nothing takes time here."""
        return 0.0 if peer in self._links else None

    def stats(self) -> dict[PeerId, LinkStats]:
        now_s = self._clock.now()
        return {
            peer: LinkStats(
                peer,
                end.outbound,
                end.address,
                now_s - end.since_s,
                0.0,
                end.queued_bytes,
                True,
                dict(end.lanes),
                LaneStats(),
            )
            for peer, end in self._links.items()
        }

    async def close(self) -> None:
        for peer in list(self._ends):
            self.break_link(peer, "the node closed", "the peer ended it: the node closed")
        if self._address is not None:
            self._network.leave(self._address.port)
        self._stalled = False
        self._hand_over()
        self._deliver = None

    def stall(self) -> None:
        """Stop reading, as a process does that is stuck: frames wait for `resume`."""
        self._stalled = True

    def resume(self) -> None:
        self._stalled = False
        self._schedule()

    def break_link(self, peer: PeerId, reason: str, their_reason: str = "the connection closed") -> None:
        """End the link at both sides."""
        end = self._ends.get(peer)
        if end is None or end.other is None:
            return
        for side, why in ((end, reason), (end.other, their_reason)):
            side.down = True
            del side.owner._ends[side.peer]
            side.owner.happen(side, LinkDown(side.peer, why))

    def happen(self, end: _End | None, event: TransportEvent | _Granted) -> None:
        """Queue an event; it is delivered with all others of this turn of the loop."""
        self._happened.append((end, event))
        self._schedule()

    def _admit(self, passport: Passport) -> None:
        self._admitted[passport.peer] = passport

    def _dial(self, address: Multiaddr) -> None:
        if self._deliver is None or address.peer in self._ends:
            return
        try:
            self._connect(address)
        except (PeerUnreachable, RemoteProtocolError) as exc:
            error = PeerUnreachable(f"Cannot reach {address}: {exc.message}", hint=exc.hint)
            self.happen(None, DialFailed(address, error))

    def _connect(self, address: Multiaddr) -> None:
        there = self._network.find(address)
        if there is self:
            raise PeerUnreachable("That is this node itself.")
        if there is None or self._network.is_cut(self._peer, there.peer):
            raise PeerUnreachable("Nothing listens there.")
        wall_s, now_s = self._clock.wall(), self._clock.now()
        knock = wire.encode_door(wire.Introduce(self._credential))
        answer = there._keeper.answer("memory", knock, now_s=there._clock.now(), wall_s=there._clock.wall())
        passport, _ = read_introduction(answer or b"", self._trust, address.peer, wall_s)
        if passport.peer in self._ends:
            return
        here_end = _End(self, passport, True, there.address, now_s)
        there_end = _End(there, there._admitted[self._peer], False, self.address, now_s, here_end)
        here_end.other = there_end
        for end in (here_end, there_end):
            end.owner._ends[end.peer] = end
            end.owner.happen(end, LinkUp(end.peer, end.passport, end.address, end.outbound))

    def _carry(self, end: _End, lane: Lane, frame: Frame) -> None:
        if end.down or end.other is None:
            return
        copy = bytes(bytearray(frame))
        self._network.frames += 1
        self._network.bytes += len(copy)
        end.lanes[lane].count_out(len(copy))
        end.other.lanes[lane].count_in(len(copy))
        if lane is Lane.BULK:
            end.other.grants.receive(len(copy))
        end.other.owner.happen(end.other, Received(self._peer, lane, copy))

    def _require(self, peer: PeerId, frame: Frame, lane: Lane) -> _End:
        self._check_size(frame, lane)
        end = self._links.get(peer)
        if end is None or end.down:
            raise PeerUnreachable(f"There is no link to peer {format_peer(peer)}.")
        return end

    def _check_size(self, frame: Frame, lane: Lane) -> None:
        limit = min(MAX_FRAME_BYTES[lane], self._network.mtu_bytes or MAX_FRAME_BYTES[lane])
        if len(frame) > limit:
            raise FrameTooLarge(
                f"A frame of {len(frame)} bytes is too large for the {lane.name.lower()} lane, which takes {limit}."
            )

    def _schedule(self) -> None:
        if not self._scheduled and not self._stalled and self._happened:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._stalled or self._deliver is None:
            return
        happened = list(self._happened)
        self._happened.clear()
        events: list[TransportEvent] = []
        for end, event in happened:
            self._account(end, event)
            if not isinstance(event, _Granted):
                events.append(event)
        try:
            if events:
                self._deliver(events)
        finally:
            for end, event in happened:
                if end is not None and end.other is not None and isinstance(event, Received):
                    end.other.queued_bytes -= cost_bytes(event.frame) if event.lane is not Lane.BULK else 0

    def _account(self, end: _End | None, event: TransportEvent | _Granted) -> None:
        """Keep the books of links and credits."""
        if end is None:
            return
        if isinstance(event, LinkUp):
            self._links[end.peer] = end
        elif isinstance(event, LinkDown):
            if self._links.get(end.peer) is end:
                del self._links[end.peer]
            end.outbox.end(PeerUnreachable(f"The link to {format_peer(end.peer)} went down: {event.reason}."))
        elif isinstance(event, _Granted):
            (end.outbox.widen if event.wider else end.outbox.refill)(event.size_bytes)

    def __repr__(self) -> str:
        count = len(self._links)
        return f"<MemoryTransport {short(self._peer)}, {count} link{'s' if count != 1 else ''}>"

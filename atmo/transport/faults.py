"""A bad network around a good transport: wrap any transport, and what arrives at this end arrives late, twice or never.

Faults act on what comes in, so a fault at one end is a one-way fault; wrap both ends for both ways, and wrap a wrapped
transport to add up faults. The transport's promises still hold, because those of a real one would: a gossip frame may
be lost, doubled or overtaken by itself; on the other lanes a fault shows as delay, in order, or as the loss of the
link. So a `silent` peer's frames are held, as TCP would send them again, until either it is heard again in time or the
link is given up.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from atmo.errors import PeerUnreachable
from atmo.ids import Multiaddr, PeerId, format_peer
from atmo.transport.base import (
    Deliver,
    DialableTransport,
    DialFailed,
    Frame,
    Lane,
    LinkDown,
    LinkUp,
    Received,
    TransportEvent,
)
from atmo.transport.link import LinkStats


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities are per gossip frame; delays are drawn uniformly, in seconds.

    `reorder`: the share of gossip frames that wait another `reorder_s`. `silent`: peers whose frames do not arrive for
    now; after `notice_s` their link is given up. `cut`: peers with whom there can be no link.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.05
    delay_s: tuple[float, float] = (0.0, 0.0)
    silent: frozenset[PeerId] = frozenset()
    cut: frozenset[PeerId] = frozenset()
    notice_s: float = 1.5


NO_FAULTS = Faults()


@dataclass(eq=False)
class _Inlet:
    """What has arrived of one link and is not delivered yet, in order, with the time it is due."""

    up: bool = False
    links_arrived: int = 0  # LinkUps that came in; with the next, says which link of this peer a gossip frame is of
    links_delivered: int = 0
    waiting: deque[tuple[float, TransportEvent]] = field(default_factory=deque)
    last_due_s: float = 0.0
    giving_up: asyncio.TimerHandle | None = None


class FaultyTransport:
    """Implements `atmo.transport.base.Transport`. `faults` may be changed at any time."""

    def __init__(self, inner: DialableTransport, faults: Faults, rng: random.Random) -> None:
        self.inner = inner
        self._faults = faults
        self._rng = rng
        self._deliver: Deliver | None = None
        self._inlets: dict[PeerId, _Inlet] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        for peer in faults.cut & self.inner.linked():
            self.inner.hang_up(peer, "the connection closed")
        for peer, inlet in list(self._inlets.items()):
            self._watch_silence(peer, inlet)
            self._flow(peer, inlet)

    @property
    def peer(self) -> PeerId:
        return self.inner.peer

    @property
    def address(self) -> Multiaddr:
        return self.inner.address

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver
        await self.inner.start(self._arrived)

    def dial(self, address: Multiaddr) -> None:
        if address.peer in self._faults.cut:
            asyncio.get_running_loop().call_soon(self._hand_over, [_unreachable(address)])
        else:
            self.inner.dial(address)

    def send(self, peer: PeerId, frame: bytes) -> None:
        self._require(peer)
        self.inner.send(peer, frame)

    def publish(self, frame: bytes) -> None:
        self.inner.publish(frame)

    async def send_bulk(self, peer: PeerId, frame: Frame, *, plain: bool = False) -> None:
        self._require(peer)
        await self.inner.send_bulk(peer, frame, plain=plain)

    def release_bulk(self, peer: PeerId, frame_bytes: int) -> None:
        self.inner.release_bulk(peer, frame_bytes)

    def bulk_in_flight(self, peer: PeerId) -> int:
        return self.inner.bulk_in_flight(peer)

    def widen_bulk(self, peer: PeerId, window_bytes: int) -> None:
        self.inner.widen_bulk(peer, window_bytes)

    def avoid_plain(self, peer: PeerId) -> None:
        self.inner.avoid_plain(peer)

    def hang_up(self, peer: PeerId, reason: str) -> None:
        self.inner.hang_up(peer, reason)

    def linked(self) -> frozenset[PeerId]:
        return frozenset(peer for peer, inlet in self._inlets.items() if inlet.up)

    def stats(self) -> dict[PeerId, LinkStats]:
        return self.inner.stats()

    def rtt_s(self, peer: PeerId) -> float | None:
        return self.inner.rtt_s(peer)

    async def close(self) -> None:
        self._faults = NO_FAULTS
        await self.inner.close()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for peer, inlet in list(self._inlets.items()):
            inlet.waiting = deque((0.0, event) for _, event in inlet.waiting)
            self._flow(peer, inlet)
        self._deliver = None

    def _require(self, peer: PeerId) -> None:
        if peer not in self.linked():
            raise PeerUnreachable(f"There is no link to peer {format_peer(peer)}.")

    def _arrived(self, events: Sequence[TransportEvent]) -> None:
        for event in events:
            if isinstance(event, DialFailed):
                self._hand_over([event])
            elif isinstance(event, Received) and event.lane is Lane.GOSSIP:
                self._on_gossip(event)
            elif isinstance(event, LinkUp) and event.peer in self._faults.cut:
                self._refuse(event)
            else:
                self._queue(event)

    def _refuse(self, event: LinkUp) -> None:
        """A link that came up across the cut ends at once; the layer above does not hear of it."""
        self.inner.hang_up(event.peer, "the connection closed")
        if event.outbound and event.address is not None:
            self._hand_over([_unreachable(event.address)])

    def _on_gossip(self, event: Received) -> None:
        if event.peer in self._faults.silent or self._rng.random() < self._faults.drop:
            return
        copies = 2 if self._rng.random() < self._faults.duplicate else 1
        for _ in range(copies):
            delay_s = self._rng.uniform(*self._faults.delay_s)
            if self._rng.random() < self._faults.reorder:
                delay_s += self._faults.reorder_s
            inlet = self._inlets.get(event.peer)
            if inlet is not None:
                self._later(delay_s, partial(self._gossip_due, inlet, inlet.links_arrived, event))

    def _gossip_due(self, inlet: _Inlet, link: int, event: Received) -> None:
        """Only to the link it came over, and only while that is up."""
        if inlet.up and inlet.links_delivered == link:
            self._hand_over([event])

    def _queue(self, event: LinkUp | LinkDown | Received) -> None:
        inlet = self._inlets.get(event.peer)
        if inlet is None:
            if not isinstance(event, LinkUp):
                return  # of a link that was refused
            inlet = self._inlets[event.peer] = _Inlet()
        due_s = asyncio.get_running_loop().time() + self._rng.uniform(*self._faults.delay_s)
        inlet.last_due_s = max(inlet.last_due_s, due_s)
        inlet.waiting.append((inlet.last_due_s, event))
        if isinstance(event, LinkUp):
            inlet.links_arrived += 1
            self._watch_silence(event.peer, inlet)
        self._flow(event.peer, inlet)

    def _flow(self, peer: PeerId, inlet: _Inlet) -> None:
        """Deliver what is due, and come back for the rest."""
        now_s = asyncio.get_running_loop().time()
        due: list[TransportEvent] = []
        while inlet.waiting and not self._held(peer, inlet):
            due_s, event = inlet.waiting[0]
            if due_s > now_s:
                self._later(due_s - now_s, lambda: self._flow(peer, inlet))
                break
            inlet.waiting.popleft()
            due.append(event)
            inlet.up = not isinstance(event, LinkDown)
            inlet.links_delivered += isinstance(event, LinkUp)
            if isinstance(event, LinkDown) and not inlet.waiting and self._inlets.get(peer) is inlet:
                del self._inlets[peer]
        if due:
            self._hand_over(due)

    def _held(self, peer: PeerId, inlet: _Inlet) -> bool:
        """A silent peer's frames wait; that its link is down is this end's own finding and does not."""
        if peer not in self._faults.silent:
            return False
        if isinstance(inlet.waiting[-1][1], LinkDown):
            inlet.waiting = deque(entry for entry in inlet.waiting if not isinstance(entry[1], Received))
            return False
        return True

    def _watch_silence(self, peer: PeerId, inlet: _Inlet) -> None:
        silent = peer in self._faults.silent
        if silent and inlet.giving_up is None:
            reason = f"not heard for {self._faults.notice_s:.1f} s"
            inlet.giving_up = self._later(self._faults.notice_s, lambda: self.inner.hang_up(peer, reason))
        elif not silent and inlet.giving_up is not None:
            inlet.giving_up.cancel()
            inlet.giving_up = None

    def _later(self, delay_s: float, action: Callable[[], None]) -> asyncio.TimerHandle | None:
        if delay_s <= 0:
            action()
            return None
        timer: asyncio.TimerHandle

        def fire() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay_s, fire)
        self._timers.add(timer)
        return timer

    def _hand_over(self, events: Sequence[TransportEvent]) -> None:
        if self._deliver is not None:
            self._deliver(events)

    def __repr__(self) -> str:
        return f"<FaultyTransport {self._faults} around {self.inner!r}>"


def _unreachable(address: Multiaddr) -> DialFailed:
    return DialFailed(address, PeerUnreachable(f"Cannot reach {address}: no answer."))

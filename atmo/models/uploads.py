"""Which chunk is sent to whom, and which is not: the giving half of transfers, as a state machine.

Theory of operation. Each peer has a queue, served in turns, so that nobody who asks for much holds up who asks for
little; a rate limit is a bucket that all share, first come first served, and since every peer waits for at most one
chunk at a time that is fair, too.

Whoever gives a chunk away says so: a second peer that asks for it is told who is about to have it (`Elsewhere`), as
long as it waits in the queue or is on its way, and once more for a while after it was sent; it picks another meanwhile.
So a node that many download from at once gives each chunk once, and they give it to each other; with 8 of them asking
at random every tenth chunk would leave twice. (The idea is super-seeding's, BEP 16, without hiding anything.) The while
begins when the chunk leaves: a queue of eight peers on a slow line is longer than it. And it does not end before the
chunk is there, as far as credit tells: eight windows of chunks on one slow line are longer than it, too.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from atmo.ids import PeerId, short

# Chunks one peer may have asked for and not got; more are not heard. Twice a window's most.
MAX_QUEUED = 64
# Peers that are served at once. A guess: each costs a few megabytes.
MAX_PEERS = 64
# How long whoever asks for a chunk that was sent to another is told to go there. A guess: several times what a
# chunk takes over a slow line.
ELSEWHERE_S = 3.0
# How long a chunk counts as on its way at most. A guess: a line on which a window takes longer than that is none to
# wait for.
MOST_WAY_S = 30.0

Root = bytes
Wanted = tuple[Root, int]


@dataclass(slots=True)
class _Peer:
    queue: OrderedDict[Wanted, None] = field(default_factory=OrderedDict)
    sent_elsewhere: set[Wanted] = field(default_factory=set)
    shares: set[Root] = field(default_factory=set)  # of what it gives to others what it gets
    bytes: int = 0
    taken: int = 0  # chunks, ever


@dataclass(frozen=True, slots=True)
class _Given:
    """A chunk's last receiver. sent_s: inf while it is queued; number: of the receiver's chunks."""

    to: PeerId
    sent_s: float = math.inf
    number: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """To a question for chunks. elsewhere: (chunks, who has them or is about to); refused: too many at once."""

    queued: int
    elsewhere: tuple[tuple[PeerId, tuple[int, ...]], ...] = ()
    refused: tuple[int, ...] = ()


class Uploads:
    """All peers that are being served. in_flight: chunks that were taken for a peer and are not there yet."""

    def __init__(self, in_flight: Callable[[PeerId], int] = lambda peer: 0) -> None:
        self._in_flight = in_flight
        self._peers: dict[PeerId, _Peer] = {}
        self._given: dict[Root, dict[int, _Given]] = {}
        self._order: deque[tuple[float, Root, int]] = deque()

    def shares(self, peer: PeerId, root: Root) -> None:
        """The peer downloads this too, and gives what it gets."""
        self._of(peer).shares.add(root)

    def ask(self, peer: PeerId, root: Root, chunks: Iterable[int], now_s: float) -> Answer:
        self._forget(now_s)
        if peer not in self._peers and len(self._peers) >= MAX_PEERS:
            return Answer(0, refused=tuple(chunks))
        asker, given = self._of(peer), self._given.get(root, {})
        elsewhere: dict[PeerId, list[int]] = {}
        refused: list[int] = []
        queued = 0
        for chunk in chunks:
            wanted = root, chunk
            last = given.get(chunk)
            if (
                last is not None
                and last.to != peer
                and self._gives(last.to, root)
                and self._tells(asker, wanted, last, now_s)
            ):
                elsewhere.setdefault(last.to, []).append(chunk)
            elif len(asker.queue) >= MAX_QUEUED:
                refused.append(chunk)
            else:
                asker.queue[wanted] = None
                self._given.setdefault(root, {})[chunk] = _Given(peer)
                queued += 1
        told = tuple((holder, tuple(some)) for holder, some in elsewhere.items())
        return Answer(queued, told, tuple(refused))

    def _tells(self, asker: _Peer, wanted: Wanted, last: _Given, now_s: float) -> bool:
        """Whether to go there for it: each time while it is not there yet, afterwards once."""
        if math.isinf(last.sent_s):
            return True
        there = self._peers[last.to].taken - self._in_flight(last.to)
        if last.number > there and now_s < last.sent_s + MOST_WAY_S:
            return True
        if wanted in asker.sent_elsewhere or now_s > last.sent_s + ELSEWHERE_S:
            return False
        asker.sent_elsewhere.add(wanted)
        return True

    def drop(self, peer: PeerId, root: Root, chunks: Iterable[int]) -> None:
        """The peer got them from somebody else."""
        known = self._peers.get(peer)
        for chunk in chunks if known is not None else ():
            if known is not None and (root, chunk) in known.queue:
                del known.queue[root, chunk]
                self._take_back(peer, root, chunk)

    def next(self, peer: PeerId, now_s: float) -> Wanted | None:
        """What to send it now, None if it waits for nothing."""
        known = self._peers.get(peer)
        if known is None or not known.queue:
            return None
        root, chunk = known.queue.popitem(last=False)[0]
        known.taken += 1
        last = self._given.get(root, {}).get(chunk)
        if last is not None and last.to == peer:
            self._given[root][chunk] = _Given(peer, now_s, known.taken)
            self._order.append((now_s, root, chunk))
        return root, chunk

    def sent(self, peer: PeerId, size_bytes: int) -> None:
        if peer in self._peers:
            self._peers[peer].bytes += size_bytes

    def lost(self, peer: PeerId) -> None:
        """The peer is gone: what it was given last, others may have from here at once."""
        if self._peers.pop(peer, None) is not None:
            for given in self._given.values():
                for chunk in [chunk for chunk, last in given.items() if last.to == peer]:
                    del given[chunk]

    def waiting(self) -> dict[PeerId, int]:
        """Chunks that each peer waits for."""
        return {peer: len(known.queue) for peer, known in self._peers.items() if known.queue}

    def __repr__(self) -> str:
        told = ", ".join(f"{short(peer)}: {count}" for peer, count in self.waiting().items())
        return f"<Uploads to {len(self._peers)} peers, waiting {told or 'none'}>"

    def _of(self, peer: PeerId) -> _Peer:
        return self._peers.setdefault(peer, _Peer())

    def _gives(self, holder: PeerId, root: Root) -> bool:
        known = self._peers.get(holder)
        return known is not None and root in known.shares

    def _take_back(self, peer: PeerId, root: Root, chunk: int) -> None:
        given = self._given.get(root, {})
        last = given.get(chunk)
        if last is not None and last.to == peer:
            del given[chunk]

    def _forget(self, now_s: float) -> None:
        while self._order and self._order[0][0] <= now_s - MOST_WAY_S:
            at_s, root, chunk = self._order.popleft()
            given = self._given.get(root, {})
            if chunk in given and given[chunk].sent_s <= at_s:
                del given[chunk]
                for known in self._peers.values():
                    known.sent_elsewhere.discard((root, chunk))
            if not given:
                self._given.pop(root, None)


class Bucket:
    """A rate limit: tokens are bytes. per_s 0: no limit. A burst of a quarter of a second is let through."""

    def __init__(self, per_s: float, now_s: float) -> None:
        self._per_s = per_s
        self._free_s = now_s

    @property
    def limited(self) -> bool:
        return self._per_s > 0

    def take(self, size_bytes: int, now_s: float) -> float:
        """How long to wait before sending this much, which is counted as sent then."""
        if self._per_s <= 0:
            return 0.0
        self._free_s = max(self._free_s, now_s - 0.25) + size_bytes / self._per_s
        return max(0.0, self._free_s - now_s)

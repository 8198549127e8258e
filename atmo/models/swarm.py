"""Which chunk is asked of whom: the downloading half of a transfer, as a state machine.

Theory of operation (Cohen, "Incentives Build Robustness in BitTorrent", 2003). Every source has told which chunks it
holds. A chunk is asked of one source at a time, so that whoever sends wrong bytes is known beyond doubt, and is out
after the first. Of what a source holds, the chunks that the fewest sources hold come first, ties by a shuffle of this
node's own: nodes that download together then fetch different chunks from the origin and the rest from each other.

How much is asked of a source at once follows what its path carries: twice its best rate times its shortest delay (the
bandwidth-delay product, doubled so that it can be found out; Cardwell et al., BBR, 2016). All sources together may owe
`IN_FLIGHT_CHUNKS`, which bounds the memory of a transfer whatever the model's size.

A source that is silent for longer than its own pace explains loses what it owes to the others and rests. When
everything that is missing has been asked for, idle sources are asked for the same again (endgame); the first copy
counts and the others are cancelled.

Invariants (`validate`): a chunk is missing, asked for, being stored, or here; outside the endgame it is asked of one
source; nothing is asked of a source that is banned, or of chunks that it does not hold; what is owed stays within the
bounds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atmo.ids import PeerId, short

CHUNK_BYTES = 1 << 20
# All that is asked for and not yet on disk. With what the sockets hold besides it stays below 100 MB.
IN_FLIGHT_CHUNKS = 48
FIRST_WINDOW, LEAST_WINDOW, MOST_WINDOW = 4, 2, 32
# BBR's gain while it probes, rounded: the rate may double with each round trip.
WINDOW_GAIN = 2.0
# A fast source may owe what it sends in this time, however near it is: on a busy machine neither end runs all the time.
# A guess: a few time slices of the scheduler.
PAUSE_S = 0.05
# What is left of a source's best rate with each chunk, so that an old best is forgotten: half after 35 chunks. A guess.
RATE_MEMORY = 0.98
# A source is late after this many times what its pace says, and no sooner than that. Guesses.
PATIENCE_FACTOR, LEAST_PATIENCE_S = 8.0, 5.0
# A late source rests so long, doubled with each time in a row. Guesses.
REST_S, MOST_REST_S = 2.0, 60.0
# Chunks that several sources may be asked for at the end: copies beyond that would cost more than they save. A guess.
ENDGAME_CHUNKS = 16

MISSING, ASKED, STORING, HERE = range(4)

Bools = NDArray[np.bool_]


class Shuffle(Protocol):
    """A source of chance: numpy's Generator is one."""

    def permutation(self, x: int, /) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """Ask the peer for these chunks."""

    peer: PeerId
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The peer need not send them any more."""

    peer: PeerId
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Save:
    """Check what the peer sent and write it; tell `stored` or `corrupt`."""

    peer: PeerId
    chunk: int


@dataclass(frozen=True, slots=True)
class Ban:
    """Take nothing from this peer any more."""

    peer: PeerId
    why: str


Effect = Request | Withdraw | Save | Ban


@dataclass(frozen=True, slots=True)
class _Owed:
    """asked_s: when; delivered_*: what the source had sent by then, and when it had sent it last."""

    asked_s: float
    delivered_bytes: int
    delivered_s: float


@dataclass(slots=True)
class Source:
    """One peer that holds chunks. has: (n_chunks,) bool; rate_bps: bytes a second at best, decaying; delay_s: shortest
    time from a request to its chunk; late: copies that may come of chunks that are not owed any more."""

    peer: PeerId
    has: Bools
    owed: dict[int, _Owed] = field(default_factory=dict)
    late: Counter[int] = field(default_factory=Counter)
    deferred: dict[int, float] = field(default_factory=dict)
    bytes: int = 0
    heard_s: float = 0.0
    rate_bps: float = 0.0
    delay_s: float = math.inf
    rests_until_s: float = 0.0
    strikes: int = 0

    @property
    def window(self) -> int:
        """Chunks it may owe: what its path carries, or what comes while this process waits for a processor."""
        if not self.rate_bps or not math.isfinite(self.delay_s):
            return FIRST_WINDOW
        wanted = math.ceil(self.rate_bps * max(WINDOW_GAIN * self.delay_s, PAUSE_S) / CHUNK_BYTES)
        return max(LEAST_WINDOW, min(MOST_WINDOW, wanted))

    @property
    def patience_s(self) -> float:
        """How long a chunk may take."""
        if not self.rate_bps:
            return 2 * LEAST_PATIENCE_S
        return max(LEAST_PATIENCE_S, PATIENCE_FACTOR * (self.window + 1) * CHUNK_BYTES / self.rate_bps)

    def delivered(self, owed: _Owed, size_bytes: int, now_s: float) -> None:
        """A chunk came: learn the path's rate and delay from it."""
        self.bytes += size_bytes
        took_s = max(now_s - owed.delivered_s, 1e-6)
        self.rate_bps = max((self.bytes - owed.delivered_bytes) / took_s, self.rate_bps * RATE_MEMORY)
        self.delay_s = min(self.delay_s, now_s - owed.asked_s)  # never grows: a queue of its own making would feed it
        self.heard_s = now_s
        self.strikes = 0
        self.rests_until_s = 0.0

    def __repr__(self) -> str:
        return f"<Source {short(self.peer)} owes {len(self.owed)} of {self.window}, sent {self.bytes >> 20} MiB>"


class Download:
    """One model on its way here. have: (n_chunks,) bool, what is on disk already."""

    def __init__(self, have: Bools, rng: Shuffle) -> None:
        n = len(have)
        self.sources: dict[PeerId, Source] = {}
        self.banned: set[PeerId] = set()
        self._state: NDArray[np.uint8] = np.where(have, HERE, MISSING).astype(np.uint8)
        self._holders: NDArray[np.int32] = np.zeros(n, dtype=np.int32)
        self._missing = n - int(np.count_nonzero(have))
        self._order = rng.permutation(n)
        self._asked: dict[int, set[PeerId]] = {}
        self._storing: dict[int, PeerId] = {}
        self.wasted_chunks = 0  # copies that came second

    @property
    def chunks(self) -> int:
        return len(self._state)

    @property
    def here(self) -> Bools:
        """(n_chunks,) bool: what is on disk."""
        here: Bools = self._state == HERE
        return here

    @property
    def missing(self) -> int:
        """Chunks that are not on disk yet."""
        return self._missing

    @property
    def done(self) -> bool:
        return not self.missing

    @property
    def in_flight(self) -> int:
        """Chunks that are owed or being written: each may hold a megabyte."""
        return sum(len(source.owed) for source in self.sources.values()) + len(self._storing)

    def reachable(self) -> bool:
        """Can what is missing come from the sources there are?"""
        return bool(np.all((self._holders > 0) | (self._state != MISSING)))

    # Events

    def source(self, peer: PeerId, has: Bools, now_s: float) -> list[Effect]:
        """A peer said what it holds."""
        if peer in self.banned or len(has) != self.chunks:
            return []
        known = self.sources.get(peer)
        if known is None:
            known = self.sources[peer] = Source(peer, np.zeros(self.chunks, dtype=bool), heard_s=now_s)
        self._holders += has.astype(np.int32) - known.has
        known.has = has.copy()
        self._take_back(known, [chunk for chunk in known.owed if not has[chunk]])
        return self._fill(now_s)

    def news(self, peer: PeerId, chunks: Iterable[int], now_s: float) -> list[Effect]:
        """A peer got more chunks."""
        source = self.sources.get(peer)
        if source is None:
            return []
        for chunk in chunks:
            if 0 <= chunk < self.chunks and not source.has[chunk]:
                source.has[chunk] = True
                self._holders[chunk] += 1
        return self._fill(now_s)

    def lost(self, peer: PeerId, now_s: float) -> list[Effect]:
        """A peer is gone, or serves nothing of this any more."""
        self._remove(peer)
        return self._fill(now_s)

    def expects(self, peer: PeerId, chunk: int) -> bool:
        """Whether it was asked of this peer, at some time."""
        source = self.sources.get(peer)
        return source is not None and (chunk in source.owed or source.late[chunk] > 0)

    def arrived(self, peer: PeerId, chunk: int, size_bytes: int, now_s: float) -> list[Effect]:
        """Bytes came. What was never asked of a peer is an offence."""
        source = self.sources.get(peer)
        if source is None:
            return []
        owed = source.owed.pop(chunk, None)
        if owed is None and not source.late[chunk]:
            return self._ban(peer, f"it sent chunk {chunk}, which it was not asked for", now_s)
        if owed is None:
            source.late[chunk] -= 1
        source.delivered(owed or _Owed(now_s, source.bytes, source.heard_s), size_bytes, now_s)
        self._asked.get(chunk, set()).discard(peer)
        if self._state[chunk] in (STORING, HERE):
            self.wasted_chunks += 1
            return self._fill(now_s)
        self._state[chunk] = STORING
        self._storing[chunk] = peer
        return [Save(peer, chunk), *self._fill(now_s)]

    def stored(self, chunk: int, now_s: float) -> list[Effect]:
        """It is on disk and right."""
        self._storing.pop(chunk, None)
        self._missing -= int(self._state[chunk] != HERE)
        self._state[chunk] = HERE
        spare = self._withdraw(chunk)
        return [*spare, *self._fill(now_s)]

    def corrupt(self, chunk: int, now_s: float) -> list[Effect]:
        """It was not what the manifest says."""
        peer = self._storing.pop(chunk)
        self._back(chunk)
        return self._ban(peer, f"chunk {chunk} of it is not what the manifest says", now_s)

    def unsaved(self, chunk: int) -> None:
        """It could not be written, through no fault of its source."""
        if self._storing.pop(chunk, None) is not None:
            self._back(chunk)

    def deferred(self, peer: PeerId, chunks: Iterable[int], wait_s: float, now_s: float) -> list[Effect]:
        """The peer would rather not send these now: others have them or are about to."""
        source = self.sources.get(peer)
        if source is None:
            return []
        for chunk in chunks:
            if source.owed.pop(chunk, None) is not None:
                source.deferred[chunk] = now_s + wait_s
                self._asked[chunk].discard(peer)
                self._back(chunk)
        source.heard_s = now_s
        return self._fill(now_s)

    def tick(self, now_s: float) -> list[Effect]:
        """Time went by: take from sources that are late what they owe."""
        effects: list[Effect] = []
        for source in list(self.sources.values()):
            source.deferred = {chunk: until_s for chunk, until_s in source.deferred.items() if until_s > now_s}
            limit_s = source.patience_s
            silent = now_s - source.heard_s > limit_s
            late = [chunk for chunk, owed in source.owed.items() if silent and now_s - owed.asked_s > limit_s]
            if late:
                self._take_back(source, late)
                source.rests_until_s = now_s + min(MOST_REST_S, REST_S * 2**source.strikes)
                source.strikes += 1
                effects.append(Withdraw(source.peer, tuple(late)))
        return [*effects, *self._fill(now_s)]

    def validate(self) -> None:
        """Raises AssertionError where an invariant does not hold."""
        holders = np.zeros(self.chunks, dtype=np.int32)
        for source in self.sources.values():
            assert source.peer not in self.banned, "a banned peer is a source"
            assert len(source.owed) <= MOST_WINDOW, "a source owes more than any window"
            holders += source.has
            for chunk in source.owed:
                assert source.has[chunk], "asked for what the source does not hold"
                assert source.peer in self._asked[chunk], "owed by one and asked of another"
        assert np.array_equal(holders, self._holders), "holders are counted wrongly"
        assert self._missing == np.count_nonzero(self._state != HERE), "what is missing is counted wrongly"
        assert self.in_flight <= IN_FLIGHT_CHUNKS, "more in flight than allowed"
        twice = [chunk for chunk, peers in self._asked.items() if len(peers) > 1]
        assert not twice or not np.any(self._state == MISSING) or len(twice) <= ENDGAME_CHUNKS
        for chunk, state in enumerate(self._state.tolist()):
            asked = bool(self._asked.get(chunk))
            assert (state == ASKED) <= asked, f"chunk {chunk} waits for nobody"
            assert (state == STORING) == (chunk in self._storing), f"chunk {chunk} is not being stored"
            assert not (state == MISSING and asked), f"chunk {chunk} is missing and asked for"

    def __repr__(self) -> str:
        return f"<Download {self.chunks - self.missing} of {self.chunks} chunks, {len(self.sources)} sources>"

    # What follows from them

    def _ban(self, peer: PeerId, why: str, now_s: float) -> list[Effect]:
        told = [] if peer in self.banned else [Ban(peer, why)]
        self.banned.add(peer)
        self._remove(peer)
        return [*told, *self._fill(now_s)]

    def _remove(self, peer: PeerId) -> None:
        source = self.sources.pop(peer, None)
        if source is None:
            return
        self._holders -= source.has
        for chunk in source.owed:
            self._asked[chunk].discard(peer)
            self._back(chunk)

    def _take_back(self, source: Source, chunks: Iterable[int]) -> None:
        """They are not to be waited for; what comes all the same is taken."""
        for chunk in chunks:
            del source.owed[chunk]
            source.late[chunk] += 1
            self._asked[chunk].discard(source.peer)
            self._back(chunk)

    def _back(self, chunk: int) -> None:
        """Nobody is asked for it any more, unless somebody still is."""
        if self._state[chunk] == HERE or chunk in self._storing:
            return
        if self._asked.get(chunk):
            self._state[chunk] = ASKED
        else:
            self._asked.pop(chunk, None)
            self._state[chunk] = MISSING

    def _withdraw(self, chunk: int) -> list[Effect]:
        """Others that were asked for it, too."""
        effects: list[Effect] = []
        for peer in self._asked.pop(chunk, ()):
            source = self.sources[peer]
            del source.owed[chunk]
            source.late[chunk] += 1  # it may be on its way
            effects.append(Withdraw(peer, (chunk,)))
        return effects

    def _fill(self, now_s: float) -> list[Effect]:
        """Ask every source for as much as it may owe."""
        effects: list[Effect] = []
        room = IN_FLIGHT_CHUNKS - self.in_flight
        ready = [source for source in self.sources.values() if source.rests_until_s <= now_s]
        ready = ready or list(self.sources.values())  # better a slow source than none
        for source in sorted(ready, key=lambda each: len(each.owed)):
            free = min(source.window - len(source.owed), room)
            if free <= 0 or (free < source.window // 3 and source.owed):
                continue  # a few at a time: looking costs as much for one as for many
            chunks = self._rarest(source, free) or self._again(source, free)
            if chunks:
                room -= len(chunks)
                effects.append(self._ask(source, chunks, now_s))
        return effects

    def _rarest(self, source: Source, count: int) -> Sequence[int]:
        """Of what is missing and it has."""
        wanted = source.has & (self._state == MISSING)
        if source.deferred:
            wanted[list(source.deferred)] = False
        found = np.flatnonzero(wanted)
        if len(found) > count:
            rank = self._holders[found].astype(np.int64) * self.chunks + self._order[found]
            found = found[np.argpartition(rank, count - 1)[:count]]
        chosen: list[int] = found.tolist()
        return chosen

    def _again(self, source: Source, count: int) -> Sequence[int]:
        """The endgame: what others owe, the oldest first, once nothing is missing that this source could be asked for.
        Only for one that owes nothing."""
        if source.owed or np.any(self._state == MISSING):
            return ()
        open_s = {
            chunk: min(self.sources[peer].owed[chunk].asked_s for peer in peers)
            for chunk, peers in self._asked.items()
            if len(peers) == 1 and source.has[chunk] and source.peer not in peers and self._state[chunk] == ASKED
        }
        if len(self._asked) > ENDGAME_CHUNKS:
            return ()
        return sorted(open_s, key=lambda chunk: open_s[chunk])[:count]

    def _ask(self, source: Source, chunks: Sequence[int], now_s: float) -> Request:
        heard_s = source.heard_s if source.owed else now_s
        for chunk in chunks:
            source.owed[chunk] = _Owed(now_s, source.bytes, heard_s)
            self._asked.setdefault(chunk, set()).add(source.peer)
            self._state[chunk] = ASKED
        if len(source.owed) == len(chunks):
            source.heard_s = now_s  # its silence begins now
        return Request(source.peer, tuple(chunks))

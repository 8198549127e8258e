"""How rows travel where a flood costs too much: each once along a tree, and announced everywhere else.

Theory of operation (Plumtree; Leitao, Pereira, Rodrigues, SRDS 2007). Of its neighbours a node sends new rows to some
in full (*eager*), to the others it announces them (*lazy*). At first all are eager. Who receives a row that it has
answers Prune, and the link becomes lazy at both ends: the links over which rows arrived first remain, a spanning tree.
Who hears of a row (IHave) that does not arrive in time asks for it (Graft), and that link becomes eager again: so the
tree mends itself where a link was lost. Each row costs one copy for each node, and eight bytes for each other link.

Different from the paper: rows are told in batches, a neighbour is pruned when nothing of what it pushed was new, and
a Graft is answered with the row as it is by then, which may be newer. There is one tree for all origins. Rows that are
not urgent (renewals) may wait at each hop, to travel with others; they are announced when they should have arrived
everywhere near, so that nobody asks for what is only late.

Where all link to all, rows come from their origins themselves, and the tree serves only the pairs that could not link
(`Relay` in gossip.py). There it is *quiet*: all neighbours are lazy and stay so, rows are sent to those alone who ask,
and announcements wait for each other longer, since each goes to everyone. A mesh under stress loses links at many
places at once; what it says then must not grow with the square of its size for each row.

Invariants (`validate`): a neighbour is eager or lazy; what is remembered is bounded; nothing that is here is awaited.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from atmo.ids import PeerId
from atmo.mesh.agenda import Agenda
from atmo.mesh.gossip import batches
from atmo.mesh.limits import MAX_ROWS_PER_FRAME
from atmo.mesh.messages import Graft, IHave, Prune, Push, TreeMessage
from atmo.mesh.rows import Row, RowId, SignedRow

ID_BYTES = 8
# Rows whose ids are known. A guess: a minute of news in a mesh of a thousand nodes that all change every ten seconds.
MAX_RECENT = 8192
# Announced rows that are awaited, and announcers of one. Guesses: what is above comes by comparing tables.
MAX_MISSING = 4096
MAX_ANNOUNCERS = 4
# How long after its announcement a row may arrive by itself: a batch and two slow trips; in a quiet tree, where
# announcements are late anyway, a batch. A guess.
PATIENCE_S = 0.3
# In a quiet tree announcements are so far apart. A guess: at 24 nodes, all of them cut off, each hears 46 a second.
QUIET_ANNOUNCE_S = 0.5
# A row that may wait at each hop is announced so many waits later, up to so many less if that saves a frame: by then it
# has come to most neighbours over the tree. Who asks for what is only late makes links eager that are not needed, and
# has rows twice. Measured in simulation at 200 nodes: with 3 and 1 waits each sends 1.1 pushes and 0.26 requests a
# second, so 0.8 and 0.15. With more, lost rows would come later than by comparing tables.
LATE = 12.0
LATE_TOGETHER = 4.0
NEVER = float("inf")


def id_of(signed: SignedRow) -> bytes:
    """A row's short name, 8 bytes. Whoever makes two rows of his own collide hides one of them for some seconds."""
    return hashlib.sha256(signed.payload).digest()[:ID_BYTES]


@dataclass(frozen=True, slots=True)
class Out:
    """Say this to a neighbour."""

    peer: PeerId
    message: TreeMessage


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A row to be passed on, with the neighbour it came from. wait_s: how long it may be held back."""

    row: Row
    source: PeerId | None
    wait_s: float


@dataclass(frozen=True, slots=True)
class _Unannounced:
    """A row that was sent and is still to be announced. wait_s: as it was held back."""

    at_s: float
    wait_s: float
    name: bytes
    source: PeerId | None


@dataclass(slots=True)
class Tree:
    """`row`: the row of this name as it is now, None if it is gone. Whom the neighbours are says `neighbours`."""

    batch_s: float
    row: Callable[[RowId], SignedRow | None]
    quiet: bool = False
    eager: dict[PeerId, None] = field(default_factory=dict)
    lazy: dict[PeerId, None] = field(default_factory=dict)
    _recent: dict[bytes, RowId] = field(default_factory=dict)  # the oldest first
    _missing: dict[bytes, list[PeerId]] = field(default_factory=dict)  # who announced it and was not asked yet
    _patience: Agenda[bytes] = field(default_factory=Agenda)
    _waiting: dict[RowId, _Waiting] = field(default_factory=dict)
    _due_s: float = NEVER  # when what waits has to go
    _unannounced: deque[_Unannounced] = field(default_factory=lambda: deque(maxlen=MAX_RECENT))  # the first due first
    _sent_s: float = float("-inf")
    _announced_s: float = float("-inf")

    def neighbours(self, now_linked: Iterable[PeerId], *, quiet: bool = False) -> None:
        """These are the neighbours now. New ones are eager; in a quiet tree all are lazy."""
        linked = dict.fromkeys(now_linked)
        if quiet:
            self.lazy = linked
        else:
            self.lazy = {peer: None for peer in self.lazy if peer in linked and not self.quiet}
        self.eager = {peer: None for peer in linked if peer not in self.lazy}
        self.quiet = quiet

    def note(self, row: Row) -> None:
        """This row is here, however it came: nobody needs to send it."""
        name = id_of(row.signed)
        self._recent[name] = row.id
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]
        if self._missing.pop(name, None) is not None:
            self._patience.drop(name)

    def send(self, row: Row, source: PeerId | None, now_s: float, wait_s: float = 0.0) -> None:
        """Pass a row on, to all but the neighbour it came from: with the next batch or `wait_s` from now, if later."""
        waiting = self._waiting.get(row.id)
        if waiting is None or waiting.row.order <= row.order:
            self._waiting[row.id] = _Waiting(row, source, wait_s)
            self._due_s = min(self._due_s, max(now_s + wait_s, self._sent_s + self.batch_s))

    def pushed(self, peer: PeerId, any_new: bool) -> list[Out]:
        """A neighbour pushed rows. The link is worth it if something was new."""
        if any_new:
            self._make_eager(peer)
        if any_new or self.quiet:
            return []
        if peer in self.eager:
            del self.eager[peer]
            self.lazy[peer] = None
        return [Out(peer, Prune())]

    def on_prune(self, peer: PeerId) -> None:
        if peer in self.eager:
            del self.eager[peer]
            self.lazy[peer] = None

    def on_ihave(self, peer: PeerId, announced: IHave, now_s: float) -> None:
        for name in _names(announced.ids):
            if name in self._recent:
                continue
            announcers = self._missing.get(name)
            if announcers is None:
                if len(self._missing) >= MAX_MISSING:
                    continue
                announcers = self._missing[name] = []
                self._patience.put(name, now_s + (self.batch_s if self.quiet else PATIENCE_S))
            if len(announcers) < MAX_ANNOUNCERS and peer not in announcers:
                announcers.append(peer)

    def on_graft(self, peer: PeerId, graft: Graft) -> list[Out]:
        """Rows that a neighbour misses; those that are gone by now are left out."""
        self._make_eager(peer)
        names = [self._recent[name] for name in _names(graft.ids) if name in self._recent]
        rows = [signed for row_id in dict.fromkeys(names) if (signed := self.row(row_id)) is not None]
        return [Out(peer, Push(batch)) for batch in batches(rows)]

    def next_due(self) -> float | None:
        patience_s = self._patience.next_s()
        announce_s = self._unannounced[0].at_s if self._unannounced else NEVER
        soonest_s = min(self._due_s, announce_s, NEVER if patience_s is None else patience_s)
        return soonest_s if soonest_s < NEVER else None

    def due(self, now_s: float) -> list[Out]:
        """Batches, and requests for what did not come."""
        out = self._ask_for_missing(now_s)
        if self._due_s <= now_s:
            self._sent_s, self._due_s = now_s, NEVER
            waiting = list(self._waiting.values())
            self._waiting = {}
            out += self._push(waiting)
            out += self._announce_some(waiting, now_s)
        if self._unannounced and self._unannounced[0].at_s <= now_s:
            ripe_s, names = now_s + LATE_TOGETHER * self._unannounced[0].wait_s, []
            while self._unannounced and self._unannounced[0].at_s <= ripe_s:
                late = self._unannounced.popleft()
                names.append((late.name, late.source))
            out += self._announce(names, now_s)
        return out

    def _announce_some(self, sent: list[_Waiting], now_s: float) -> list[Out]:
        """Announce what is urgent now, the rest later."""
        soonest_s = max(now_s, self._announced_s + QUIET_ANNOUNCE_S) if self.quiet else now_s
        urgent = []
        for each in sent:
            name, at_s = id_of(each.row.signed), max(soonest_s, now_s + LATE * each.wait_s)
            if at_s > now_s:
                self._unannounced.append(_Unannounced(at_s, each.wait_s, name, each.source))
            else:
                urgent.append((name, each.source))
        return self._announce(urgent, now_s)

    def _push(self, waiting: list[_Waiting]) -> list[Out]:
        sources = {each.source for each in waiting}
        out: list[Out] = []
        everything = [Push(batch) for batch in batches(each.row.signed for each in waiting)] if self.eager else []
        for peer in self.eager:
            mine = everything
            if peer in sources:
                mine = [Push(batch) for batch in batches(each.row.signed for each in waiting if each.source != peer)]
            out += [Out(peer, push) for push in mine]
        return out

    def _announce(self, names: list[tuple[bytes, PeerId | None]], now_s: float) -> list[Out]:
        """names: of rows, each with the neighbour that needs not be told."""
        if not names:
            return []
        self._announced_s = now_s
        out: list[Out] = []
        for at in range(0, len(names) if self.lazy else 0, MAX_ROWS_PER_FRAME):
            some = names[at : at + MAX_ROWS_PER_FRAME]
            sources = {source for _, source in some}
            everything = IHave(b"".join(name for name, _ in some))
            for peer in self.lazy:
                if peer not in sources:
                    out.append(Out(peer, everything))
                elif ids := b"".join(name for name, source in some if source != peer):
                    out.append(Out(peer, IHave(ids)))
        return out

    def _ask_for_missing(self, now_s: float) -> list[Out]:
        """Each row is asked for at one announcer after the other; when none is left it comes by comparing tables."""
        asked: dict[PeerId, list[bytes]] = {}
        for name in self._patience.take_due(now_s):
            announcers = [peer for peer in self._missing[name] if peer in self.lazy or peer in self.eager]
            if not announcers:
                del self._missing[name]
                continue
            asked.setdefault(announcers[0], []).append(name)
            self._missing[name] = announcers[1:]
            self._patience.put(name, now_s + PATIENCE_S)
        out = []
        for peer, names in asked.items():
            self._make_eager(peer)
            for at in range(0, len(names), MAX_ROWS_PER_FRAME):
                out.append(Out(peer, Graft(b"".join(names[at : at + MAX_ROWS_PER_FRAME]))))
        return out

    def _make_eager(self, peer: PeerId) -> None:
        if peer in self.lazy and not self.quiet:
            del self.lazy[peer]
            self.eager[peer] = None

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert not self.eager.keys() & self.lazy.keys(), "a neighbour both eager and lazy"
        assert not (self.quiet and self.eager), "a quiet tree pushes"
        assert len(self._recent) <= MAX_RECENT, "too many ids are remembered"
        assert len(self._missing) <= MAX_MISSING, "too many rows are awaited"
        assert not self._missing.keys() & self._recent.keys(), "a row that is here is awaited"
        assert all(self._patience.at(name) is not None for name in self._missing), "a row is awaited for ever"

    def __repr__(self) -> str:
        return f"<Tree {len(self.eager)} eager, {len(self.lazy)} lazy, {len(self._missing)} rows missing>"


def _names(ids: bytes) -> Iterable[bytes]:
    """Whole ids; a rest that is none is nobody's row."""
    return (ids[at : at + ID_BYTES] for at in range(0, len(ids) - ID_BYTES + 1, ID_BYTES))

"""How rows travel: batched into frames, and passed on where the mesh is not fully linked.

Theory of operation. Where everyone is linked to everyone a row reaches all in one hop, from its origin; passing it on
would be n^2 waste. So a node passes on what is new to it only while it knows of a node that it could not link to
(`Relay`), and then along the tree (tree.py), whose links are quiet until somebody misses something: a flood would be
n^2 frames for each row just when the mesh is under stress, and keep it there. The gossip lane may lose frames and a
node may not know that two others are strangers to each other; for both there is repair: each node compares summaries
with a random neighbour every few seconds (core.py), and rows are renewed.

Where the mesh is too large for that, the overlay (overlay.py) decides who is linked and everything new is passed on:
a few small rows a second to all neighbours (a flood: the fastest way and proof against any loss, each node gets some
five copies), everything else along the tree. `Brook` says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from atmo.ids import PeerId
from atmo.mesh.codec import encode
from atmo.mesh.limits import MAX_ROWS_FRAME_BYTES, MAX_ROWS_PER_FRAME
from atmo.mesh.messages import Rows
from atmo.mesh.rows import Row, RowId, SignedRow

# MessagePack headers: of a row (two elements, two byte strings) and of a frame (version, message, tag, array).
_ROW_OVERHEAD_BYTES = 1 + 5 + 5
_FRAME_OVERHEAD_BYTES = 1 + 1 + 1 + 5


def pack(rows: Iterable[SignedRow]) -> Iterator[bytes]:
    """Frames with these rows, in their order, none above the limits."""
    return (encode(Rows(batch)) for batch in batches(rows))


def batches(rows: Iterable[SignedRow]) -> Iterator[tuple[SignedRow, ...]]:
    """These rows in their order, as many together as go into a frame."""
    batch: list[SignedRow] = []
    size = _FRAME_OVERHEAD_BYTES
    for row in rows:
        more = len(row.payload) + len(row.signature) + _ROW_OVERHEAD_BYTES
        if batch and (size + more > MAX_ROWS_FRAME_BYTES or len(batch) == MAX_ROWS_PER_FRAME):
            yield tuple(batch)
            batch, size = [], _FRAME_OVERHEAD_BYTES
        batch.append(row)
        size += more
    if batch:
        yield tuple(batch)


class Outbox:
    """Rows that wait for the next batch. A lone change does not wait; of several changes of a row the last is sent."""

    def __init__(self, batch_s: float) -> None:
        self._batch_s = batch_s
        self._waiting: dict[RowId, Row] = {}
        self._flushed_s = float("-inf")

    def add(self, row: Row) -> None:
        waiting = self._waiting.get(row.id)
        if waiting is None or waiting.order <= row.order:
            self._waiting[row.id] = row

    def due_s(self) -> float | None:
        """Monotonic time of the next flush, None with nothing to send."""
        return self._flushed_s + self._batch_s if self._waiting else None

    def flush(self, now_s: float) -> list[bytes]:
        """The frames to send now: none before it is due."""
        due_s = self.due_s()
        if due_s is None or due_s > now_s:
            return []
        frames = list(pack(row.signed for row in self._waiting.values()))
        self._waiting.clear()
        self._flushed_s = now_s
        return frames

    def drain(self, now_s: float) -> list[bytes]:
        """Everything, due or not: the node is leaving."""
        self._flushed_s = float("-inf")
        return self.flush(now_s)


# What a flood is for: a few small rows. At 24 neighbours or 6, so many rows a second cost some kilobytes. Guesses.
FLOOD_MAX_BYTES = 2048
FLOOD_ROWS_PER_S = 20.0
FLOOD_BURST = 40.0


class Brook:
    """How many rows a node floods: a token bucket."""

    def __init__(self) -> None:
        self._tokens = FLOOD_BURST
        self._at_s = 0.0

    def takes(self, row: Row, now_s: float) -> bool:
        """True if the row is for all neighbours at once, False if it is for the tree."""
        self._tokens = min(FLOOD_BURST, self._tokens + (now_s - self._at_s) * FLOOD_ROWS_PER_S)
        self._at_s = now_s
        if len(row.signed.payload) > FLOOD_MAX_BYTES or self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Relay:
    """Knows whether a row that is new here is to be passed on: whether somebody may not hear it from its origin."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        # Known nodes without a link and since when, oldest first. Those whose link was lost are not in it: until they
        # are known to be dead they may be heard by others and hear through others, at once.
        self._strangers: dict[PeerId, float] = {}
        self._lost: set[PeerId] = set()

    def node_known(self, peer: PeerId, linked: bool, now_s: float) -> None:
        if not linked and peer not in self._lost:
            self._strangers.setdefault(peer, now_s)

    def node_gone(self, peer: PeerId) -> None:
        self._strangers.pop(peer, None)
        self._lost.discard(peer)

    def link_up(self, peer: PeerId) -> None:
        self.node_gone(peer)

    def lost(self, peer: PeerId) -> None:
        """The link of a node that is known went down."""
        self._lost.add(peer)

    def cut_off(self, now_s: float) -> bool:
        """True if there is a node that cannot be reached from here."""
        if self._lost:
            return True
        oldest_s = next(iter(self._strangers.values()), None)
        return oldest_s is not None and now_s - oldest_s >= self._settle_s

"""The routing table: who offers what, how busy it is and what this node saw itself, as a structure of arrays.

One row per (peer, capability id). Rows of the same capability, byte for byte, form a class (classes.py); a decision
ranks classes first and then reads the rows of the few that matter, so its cost hardly depends on the number of rows.
Every mutator is O(1) apart from `drop_node`, which is O(rows of that node). Invariants, checked by `validate`:

- a row stands in exactly one class, at the position its `place` column says, and in its peer's set;
- a class has at least one member, a peer that is gone has no row;
- numbers that came from outside are finite and within bounds.

Times are monotonic seconds of the caller's clock. The table knows no clock, no network and no chance.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from atmo.ids import PeerId, short
from atmo.mesh.capability import Capability, Load
from atmo.mesh.classes import ClassIndex, Interner, Labels, bounded
from atmo.mesh.columns import Columns
from atmo.mesh.rows import Gradient, NodeInfo

NEVER = -np.inf
FOREVER = np.inf

MAX_IN_FLIGHT = 100_000.0  # a guess: above it only nonsense is advertised
MAX_SLOTS = 256.0  # vLLM's default max_num_seqs; "endless" slots count as so many
MAX_SERVICE_S = 3600.0  # a guess
MAX_TPS = 1e5  # a guess; ten times what the fastest served models decode for one request


class RowColumns(Columns):
    """Per (peer, capability). What the peer says: in_flight (running and queued), slots, service_s, prompt_tps,
    decode_tps, ready (1 or 0), said_s (when it was heard, -inf never). What this node saw, written by the field: own
    (in flight from here and not in in_flight, as of the report of settled_s), since_s (when the oldest of our requests
    there began of which nothing has come yet, inf without any), prompt_s and output_s (seconds a token)
    with the five means they are solved from (pace.py), samples, excess_s with excess_at_s (first-token wait that
    nothing explains), failures with failed_at_s, streak (failures in a row), ejections, ejected_until_s.
    """

    SPEC: ClassVar[dict[str, tuple[str, float]]] = {
        "peer": ("int32", -1),
        "klass": ("int32", -1),
        "place": ("int32", -1),
        "in_flight": ("float64", 0),
        "slots": ("float64", 1),
        "service_s": ("float64", 0),
        "prompt_tps": ("float64", 0),
        "decode_tps": ("float64", 0),
        "ready": ("float64", 1),
        "said_s": ("float64", NEVER),
        "own": ("float64", 0),
        "since_s": ("float64", FOREVER),
        "settled_s": ("float64", NEVER),
        "prompt_s": ("float64", 0),
        "output_s": ("float64", 0),
        "mean_xx": ("float64", 0),
        "mean_xy": ("float64", 0),
        "mean_yy": ("float64", 0),
        "mean_xt": ("float64", 0),
        "mean_yt": ("float64", 0),
        "samples": ("float64", 0),
        "excess_s": ("float64", 0),
        "excess_at_s": ("float64", NEVER),
        "failures": ("float64", 0),
        "failed_at_s": ("float64", NEVER),
        "streak": ("int64", 0),
        "ejections": ("int64", 0),
        "ejected_until_s": ("float64", NEVER),
    }
    # What a decision reads: two lines of the processor's cache for each row.
    TOGETHER = (
        "in_flight",
        "slots",
        "own",
        "since_s",
        "said_s",
        "settled_s",
        "service_s",
        "decode_tps",
        "prompt_s",
        "output_s",
        "samples",
        "excess_s",
        "excess_at_s",
        "failures",
        "failed_at_s",
        "ready",
        "ejected_until_s",
    )
    MEANS = ("mean_xx", "mean_xy", "mean_yy", "mean_xt", "mean_yt")
    peer: NDArray[np.int32]
    klass: NDArray[np.int32]
    place: NDArray[np.int32]
    in_flight: NDArray[np.float64]
    slots: NDArray[np.float64]
    service_s: NDArray[np.float64]
    prompt_tps: NDArray[np.float64]
    decode_tps: NDArray[np.float64]
    ready: NDArray[np.float64]
    said_s: NDArray[np.float64]
    own: NDArray[np.float64]
    since_s: NDArray[np.float64]
    settled_s: NDArray[np.float64]
    prompt_s: NDArray[np.float64]
    output_s: NDArray[np.float64]
    samples: NDArray[np.float64]
    excess_s: NDArray[np.float64]
    excess_at_s: NDArray[np.float64]
    failures: NDArray[np.float64]
    failed_at_s: NDArray[np.float64]
    streak: NDArray[np.int64]
    ejections: NDArray[np.int64]
    ejected_until_s: NDArray[np.float64]


class PeerColumns(Columns):
    """Per peer. lost: no link; rtt_s with rtt_at_s: path latency, peak EWMA, -1 never measured; label_set: a number in
    `RoutingTable.label_sets`."""

    SPEC: ClassVar[dict[str, tuple[str, float]]] = {
        "lost": ("bool", 0),
        "rtt_s": ("float64", -1),
        "rtt_at_s": ("float64", NEVER),
        "label_set": ("int32", 0),
    }
    lost: NDArray[np.bool_]
    rtt_s: NDArray[np.float64]
    rtt_at_s: NDArray[np.float64]
    label_set: NDArray[np.int32]

    def __init__(self, capacity: int = 16) -> None:
        super().__init__(capacity)
        self.id: dict[int, PeerId] = {}
        self.info: dict[int, NodeInfo] = {}
        self.rows: dict[int, dict[str, int]] = {}  # peer -> capability id -> row
        self.loads: dict[int, tuple[dict[str, Load], float]] = {}  # the last gradient, and when it was heard


class RoutingTable:
    """See the module. Peers may be named in any order of events: a gradient or a lost link may come before the rows."""

    def __init__(self, capacity: int = 64) -> None:
        self.rows = RowColumns(capacity)
        self.peers = PeerColumns()
        self.classes = ClassIndex()
        self.capability_id: dict[int, str] = {}
        self._peer_of: dict[PeerId, int] = {}
        self.peers_named: dict[str, set[int]] = {}
        self.label_sets: Interner[Labels] = Interner()
        self.label_sets.number(frozenset())  # number 0: a peer whose NODE row is missing

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        live = self.rows.live()
        lost = int(np.count_nonzero(self.peers.lost))
        ready = int(np.count_nonzero(self.rows.ready[live]))
        return (
            f"<RoutingTable {len(self)} rows ({ready} ready), {len(self.classes)} classes, "
            f"{len(self.peers)} peers ({lost} without a link)>"
        )

    def put_node(self, peer: PeerId, info: NodeInfo) -> None:
        """The peer's NODE row: its name and labels."""
        index = self.peer_index(peer)
        self._unname(index)
        self.peers.info[index] = info
        self.peers.label_set[index] = self.label_sets.number(frozenset(info.labels))
        self.peers_named.setdefault(info.name, set()).add(index)

    def put_capability(self, peer: PeerId, capability: Capability) -> None:
        """A CAPABILITY row: new, or changed. What was observed of it stays."""
        index = self.peer_index(peer)
        name = capability.descriptor.id
        klass = self.classes.intern(capability)
        row = self.peers.rows[index].get(name, -1)
        if row < 0:
            row = self.rows.take()
            self.peers.rows[index][name] = row
            self.capability_id[row] = name
            self.rows.peer[row] = index
            loads, said_s = self.peers.loads.get(index, ({}, NEVER))
            if name in loads:
                self._put_load(row, loads[name], said_s)
        elif self.rows.klass[row] == klass:
            return
        else:
            self._leave_class(row)
        self.rows.klass[row] = klass
        self.rows.place[row] = self.classes.members[klass].add(row)

    def put_gradient(self, peer: PeerId, gradient: Gradient, now: float) -> None:
        """A GRADIENT row, heard at `now`. Loads of capabilities that are not known yet are kept for them."""
        index = self.peer_index(peer)
        loads = {load.capability: load for load in gradient.loads}
        self.peers.loads[index] = (loads, now)
        for name, row in self.peers.rows[index].items():
            if name in loads:
                self._put_load(row, loads[name], now)

    def put_load(self, peer: PeerId, load: Load, now: float) -> None:
        """Fresh load of one capability, as it comes with an answer."""
        row = self.find(peer, load.capability)
        if row >= 0:
            self._put_load(row, load, now)

    def drop_capability(self, peer: PeerId, capability_id: str) -> None:
        index = self._peer_of.get(peer, -1)
        row = self.peers.rows[index].pop(capability_id, -1) if index >= 0 else -1
        if row >= 0:
            self._drop_row(row)

    def drop_node(self, peer: PeerId) -> None:
        """The peer is gone, with all it offered and all that was known of it."""
        index = self._peer_of.pop(peer, -1)
        if index < 0:
            return
        for row in self.peers.rows[index].values():
            self._drop_row(row)
        self._unname(index)
        del self.peers.rows[index], self.peers.id[index]
        self.peers.loads.pop(index, None)
        self.peers.info.pop(index, None)
        self.peers.give_back(index)

    def mark_lost(self, peer: PeerId) -> None:
        """No link to the peer: its rows stay, and nothing is sent there."""
        index = self.peer_index(peer)  # first: a new peer may make the columns grow into other arrays
        self.peers.lost[index] = True

    def mark_back(self, peer: PeerId) -> None:
        index = self.peer_index(peer)
        self.peers.lost[index] = False

    def find(self, peer: PeerId, capability_id: str) -> int:
        """The row's number, or -1."""
        index = self._peer_of.get(peer, -1)
        return self.peers.rows[index].get(capability_id, -1) if index >= 0 else -1

    def find_peer(self, peer: PeerId) -> int:
        """The peer's number, or -1."""
        return self._peer_of.get(peer, -1)

    def peer_index(self, peer: PeerId) -> int:
        """The peer's number, given one if it had none."""
        index = self._peer_of.get(peer, -1)
        if index < 0:
            index = self.peers.take()
            self._peer_of[peer] = index
            self.peers.id[index] = peer
            self.peers.rows[index] = {}
        return index

    def row_peer(self, row: int) -> PeerId:
        return self.peers.id[int(self.rows.peer[row])]

    def place_of(self, row: int) -> tuple[PeerId, str]:
        """Peer and capability id of the row."""
        return self.peers.id[int(self.rows.peer[row])], self.capability_id[row]

    def node_name(self, row: int) -> str:
        """The name in the NODE row, or the end of the peer id while that row is missing."""
        index = int(self.rows.peer[row])
        info = self.peers.info.get(index)
        return info.name if info is not None and info.name else short(self.peers.id[index])

    def _put_load(self, row: int, load: Load, now: float) -> None:
        columns = self.rows
        columns.in_flight[row] = bounded(load.in_flight, MAX_IN_FLIGHT) + bounded(load.queued, MAX_IN_FLIGHT)
        columns.slots[row] = max(1.0, bounded(load.slots, MAX_SLOTS))
        columns.service_s[row] = bounded(load.service_s, MAX_SERVICE_S)
        columns.prompt_tps[row] = bounded(load.prompt_tps, MAX_TPS)
        columns.decode_tps[row] = bounded(load.decode_tps, MAX_TPS)
        columns.ready[row] = load.ready
        columns.said_s[row] = now

    def _drop_row(self, row: int) -> None:
        self._leave_class(row)
        del self.capability_id[row]
        self.rows.give_back(row)

    def _leave_class(self, row: int) -> None:
        klass, place = int(self.rows.klass[row]), int(self.rows.place[row])
        moved = self.classes.members[klass].remove_at(place)
        if moved >= 0:
            self.rows.place[moved] = place
        if not len(self.classes.members[klass]):
            self.classes.release(klass)

    def _unname(self, index: int) -> None:
        info = self.peers.info.get(index)
        if info is not None:
            self.peers_named[info.name].discard(index)
            if not self.peers_named[info.name]:
                del self.peers_named[info.name]

    def validate(self) -> None:
        """Raises AssertionError when an invariant does not hold. O(rows): for tests."""
        seen: set[int] = set()
        for peer, index in self._peer_of.items():
            assert self.peers.id[index] == peer
            for name, row in self.peers.rows[index].items():
                assert self.rows.peer[row] == index
                assert self.capability_id[row] == name
                klass = int(self.rows.klass[row])
                assert self.classes.members[klass].view()[self.rows.place[row]] == row
                assert self.classes.capability[klass].descriptor.id == name
                seen.add(row)
        assert seen == set(self.rows.live().tolist()) == set(self.capability_id)
        assert sum(len(bag) for bag in self.classes.members.values()) == len(seen)
        assert all(len(bag) for bag in self.classes.members.values())
        assert set(self.classes.live().tolist()) == set(self.classes.capability) == set(self.classes.members)
        assert set(np.flatnonzero(self.classes.present).tolist()) == set(self.classes.members)
        assert len(self.peers) == len(self._peer_of)
        live = self.rows.live()
        for name in (
            "in_flight",
            "slots",
            "service_s",
            "prompt_tps",
            "decode_tps",
            "own",
            "prompt_s",
            "output_s",
            "failures",
        ):
            values = getattr(self.rows, name)[live]
            assert np.isfinite(values).all(), name
            assert (values >= 0).all(), name
        assert (self.rows.slots[live] >= 1).all()

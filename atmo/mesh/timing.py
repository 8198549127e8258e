"""How fast the mesh talks. All durations in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atmo.mesh.limits import MAX_TTL_S
from atmo.mesh.rows import Kind

# Up to so many nodes rows are renewed at their full pace. Measured in simulation: at 200 nodes with three rows each
# (458, 625 and 204 bytes) renewals then cost each node 0.95 kB/s, one and a half copies of each row.
QUIET_NODES = 16
# A guess: at a thousand nodes of which all are busy each hears 50 loads a second.
LOAD_INTERVAL_S = 0.33
# How long a renewal may wait at each hop to travel with others, at most and for each `QUIET_NODES` nodes of the mesh.
# Measured: a frame of one renewal costs as much in headers as in content. At the most it is at its last node after a
# minute, when it has most of an hour left.
RENEWAL_WAIT_S = 0.08
MAX_RENEWAL_WAIT_S = 5.0
# When a row is renewed: shares of its TTL. From three quarters on it is overdue (rowstore.py).
EARLY_SHARES = (0.4, 0.5)
LATE_SHARES = (0.6, 0.7)
# A row that is missed is found by a node's own next comparison unless the neighbour misses it, too, or by one of its
# neighbours'. A guess: after four of its own it is found.
COMPARISONS_TO_FIND = 4
# Hops of a renewal. A guess: twice the diameter of an overlay of a thousand nodes.
RENEWAL_HOPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshTiming:
    """batch_s: changes within it travel in one frame; a lone change does not wait. *_ttl_s: how long a row lives
    without being renewed. repair_s: mean time between two comparisons with a random neighbour. settle_s: how long a
    node may be known without a link before it counts as unreachable from here. dial_timeout_s: a dial that has no
    outcome by then has failed. redial_min_s, redial_max_s: the wait after the first failed dial, doubled with each
    further one up to the latter, times 0.5 to 1 at random. courtesy_s: of two nodes that learn of each other the one
    with the higher key waits so long before it dials. probe_s: how long after the loss of a link its peer may take to
    be back before it is accused. suspicion_s: how long the accused has to contradict, at the least (suspicion.py).
    sync_s: the same as repair_s where the mesh is too large for all to link to all, times the logarithm of its size.

    `stretched` is how the mesh stays quiet however large it grows: see there.
    """

    batch_s: float = 0.1  # design: below what a person notices, above the spacing of a burst
    node_ttl_s: float = 60.0
    capability_ttl_s: float = 60.0
    gradient_ttl_s: float = 10.0
    repair_s: float = 5.0  # a guess: 50 bytes for each node in the mesh each time
    settle_s: float = 2.0  # a guess: a dial takes some round trips
    dial_timeout_s: float = 10.0
    redial_min_s: float = 0.5
    redial_max_s: float = 60.0
    courtesy_s: float = 0.3
    suspect_ttl_s: float = 30.0
    probe_s: float = 1.5  # two dials: the first after half a second, and time for its handshake
    suspicion_s: float = 4.0  # memberlist, LAN: SuspicionMult 4, ProbeInterval 1 s
    sync_s: float = 30.0  # the design's

    def ttl_s(self, kind: Kind) -> float:
        return {
            Kind.NODE: self.node_ttl_s,
            Kind.CAPABILITY: self.capability_ttl_s,
            Kind.GRADIENT: self.gradient_ttl_s,
            Kind.SEED: self.capability_ttl_s,
            Kind.CERT: self.node_ttl_s,
            Kind.SUSPECT: self.suspect_ttl_s,
        }[kind]

    def stretched_ttl_s(self, kind: Kind, nodes: int) -> float:
        """How long a row lives in a mesh of so many nodes.

        A renewal reaches every node, so all renewals together cost each node N * size / TTL: the TTL grows with N and
        the cost stays what it was at `QUIET_NODES`. Load is renewed more often than the rest and its TTL grows faster,
        up to that of the node: how busy a thousand nodes are cannot be known to the second, and who chooses one learns
        it from its answers.
        """
        stretch = max(1.0, nodes / QUIET_NODES)
        ttl_s = self.ttl_s(kind) * stretch
        if kind is Kind.GRADIENT:
            ttl_s = min(self.ttl_s(kind) * stretch**1.5, max(ttl_s, self.ttl_s(Kind.NODE) * stretch))
        return max(self.ttl_s(kind), min(ttl_s, MAX_TTL_S))

    def renewal_shares(self, ttl_s: float, nodes: int) -> tuple[float, float]:
        """At which shares of its TTL a row is renewed in a mesh of so many nodes, the soonest and the latest.

        Before half of it is over, so that one lost renewal costs nothing; later, for a third less traffic, where what
        is left is time enough for comparisons to find it.
        """
        left_s = self.renewal_travel_s(nodes) + COMPARISONS_TO_FIND * self.sync_interval_s(nodes)
        return LATE_SHARES if ttl_s * (1.0 - LATE_SHARES[1]) >= left_s else EARLY_SHARES

    def renewal_wait_s(self, nodes: int) -> float:
        """How long a node may hold a renewal back, so that several travel as one: a thousandth of what it lives."""
        return min(MAX_RENEWAL_WAIT_S, RENEWAL_WAIT_S * (nodes / QUIET_NODES - 1.0)) if nodes > QUIET_NODES else 0.0

    def renewal_travel_s(self, nodes: int) -> float:
        """How long a renewal may take to the last node of a mesh."""
        return RENEWAL_HOPS * self.renewal_wait_s(nodes)

    def load_interval_s(self, nodes: int) -> float:
        """The shortest time between two changes of a node's load: nothing in a small mesh, 20 s at a thousand nodes."""
        return LOAD_INTERVAL_S * (max(1.0, nodes / QUIET_NODES) - 1.0)

    def sync_interval_s(self, nodes: int) -> float:
        """Mean time between two comparisons of tables where not all link to all."""
        return self.sync_s * max(1.0, math.log10(nodes) - 1.0)

"""How fast the mesh talks. All durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from atmo.mesh.rows import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshTiming:
    """batch_s: changes within it travel in one frame; a lone change does not wait. *_ttl_s: how long a row lives
    without being renewed; it is renewed at 0.4 to 0.5 of that, so that one lost renewal costs nothing. repair_s: mean
    time between two comparisons with a random neighbour. settle_s: how long a node may be known without a link before
    it counts as unreachable from here. dial_timeout_s: a dial that has no outcome by then has failed. redial_min_s,
    redial_max_s: the wait after the first failed dial, doubled with each further one up to the latter, times 0.5 to 1
    at random. courtesy_s: of two nodes that learn of each other the one with the higher key waits so long before it
    dials. probe_s: how long after the loss of a link its peer may take to be back before it is accused. suspicion_s:
    how long the accused has to contradict, at the least (suspicion.py).
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

    def ttl_s(self, kind: Kind) -> float:
        return {
            Kind.NODE: self.node_ttl_s,
            Kind.CAPABILITY: self.capability_ttl_s,
            Kind.GRADIENT: self.gradient_ttl_s,
            Kind.SUSPECT: self.suspect_ttl_s,
        }[kind]

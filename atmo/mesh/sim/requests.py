"""Requests in a simulated mesh: would they have been served?

Every few seconds some node that is well looks up who offers what it needs, and asks one of them; if that one does not
answer it asks another, three in all. The request was served if one of the three is alive, running and within reach. As
in `MeshNode`, where all link to all only linked nodes are asked, in an overlay anybody, and who did not answer is
avoided for a while. Not counted are requests of nodes that are themselves stopped, unwell (`unwell`: starved, liars, of
another time), or cut off from more than three quarters of the mesh: it is they that are not available.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from atmo.mesh.rows import Kind
from atmo.mesh.sim.node import SimNode
from atmo.mesh.sim.scenario import Sim

TRIES = 3
# For how long a node that did not answer is not asked again by the same node. A guess: in `MeshNode` until it renews
# its row, which takes longer.
AVOID_S = 60.0
# A node that reaches less of the mesh is not counted as one that asks.
WITHIN_REACH = 0.25


@dataclass(slots=True)
class Requests:
    """tried: requests that count; served: at one of three nodes; at_once: at the first that was named."""

    sim: Sim
    chance: Random
    tried: int = 0
    served: int = 0
    at_once: int = 0
    unwell: dict[SimNode, None] = field(default_factory=dict)
    _avoided: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def availability(self) -> float:
        return self.served / max(1, self.tried)

    def keep_asking(self, every_s: float) -> None:
        """From now on, at random times that far apart on average."""
        self.ask()
        self.sim._at(self.sim.time_s + self.chance.uniform(0.5, 1.5) * every_s, self.keep_asking, every_s)

    def ask(self) -> None:
        """One request of a node that chance picks."""
        asker = self.chance.choice(self.sim.nodes)
        if not asker.alive or asker.backlog is not None or asker in self.unwell:
            return
        within_reach = sum(self._answers(asker, node) for node in self.sim.nodes)
        if within_reach < max(1.0, WITHIN_REACH * (len(self.sim.living) - 1)):
            return
        self.tried += 1
        for attempt, node in enumerate(self._candidates(asker)):
            if self._answers(asker, node):
                self.served += 1
                self.at_once += attempt == 0
                return
            self._avoided[asker.number, node.number] = self.sim.time_s + AVOID_S

    def _candidates(self, asker: SimNode) -> Iterator[SimNode]:
        """Whom to ask, one after the other: of those that the asker's own table names."""
        doubts, core, now_s = asker.core.vigil.detector.doubts, asker.core, self.sim.time_s
        named = [
            self.sim._by_peer[row.id.origin]
            for row in core.store.rows(Kind.CAPABILITY)
            if row.id.origin != asker.peer and not doubts(row.id.origin)
        ]
        if core.fabric.everyone:
            named = [node for node in named if node.peer in core.links]
        fresh = [node for node in named if self._avoided.get((asker.number, node.number), 0.0) <= now_s]
        yield from self.chance.sample(fresh, min(TRIES, len(fresh)))

    def _answers(self, asker: SimNode, node: SimNode) -> bool:
        away = node is asker or not node.alive or node.backlog is not None
        return not away and not self.sim.network.blocked(asker.number, node.number)

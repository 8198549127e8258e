"""A day in the life of a mesh: quiet stretches, misfortunes of every kind, and requests all the time.

What must hold, whatever happens (each breach is an AssertionError that tells the story so far):

- after every misfortune's beginning and end, every invariant of every core;
- nobody takes a node for dead that no misfortune hit, unless its own clock is so wrong that nobody hears its doubts;
- when a misfortune is over all is as before within `SETTLE_S`: every living node is linked as the size of the mesh asks
  for, all tables are the same, every living node is in them and no dead one is;
- a node that was buried and did not start again stays out of every table.

What is counted are requests (requests.py), one every few seconds.

Rows are renewed as seldom as in a mesh four to ten times as large, so that a quiet hour costs little; all else has its
usual pace. Half of the seeds are meshes where all link to all, the others overlays
from the first node on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

from atmo.mesh import events
from atmo.mesh.events import Health
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.rows import Kind
from atmo.mesh.sim import misfortunes
from atmo.mesh.sim.misfortunes import Misfortune
from atmo.mesh.sim.network import Conditions
from atmo.mesh.sim.node import SimNode
from atmo.mesh.sim.requests import Requests
from atmo.mesh.sim.scenario import Sim
from atmo.mesh.timing import MeshTiming

NODES = 20
HOUR_S = 3600.0
# Between two misfortunes, on average, and between two requests. Guesses: a bad day, and 17,000 requests.
QUIET_S = 900.0
REQUEST_S = 5.0
# Until all is as before. A peer that came and went is dialled more and more seldom, up to ten minutes apart where
# others are linked; measured: mostly under a minute, 282 s at most in 18 hours of three seeds.
SETTLE_S = 600.0
# A death may be told so long after what caused it: the longest suspicion, and a row's way.
ECHO_S = 60.0
PACE = MeshTiming(node_ttl_s=240.0, capability_ttl_s=240.0)
OVERLAY_PACE = MeshTiming(node_ttl_s=600.0, capability_ttl_s=600.0)


@dataclass(frozen=True, slots=True)
class Report:
    """Of one life. served, at_once: requests that somebody answered, and those that the first node asked answered;
    settled_s: the longest that it took until all was as before."""

    seed: int
    hours: float
    misfortunes: int
    requests: int
    served: int
    at_once: int
    settled_s: float
    events: int
    trace: str

    @property
    def availability(self) -> float:
        return self.served / max(1, self.requests)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.hours:g} h, {self.misfortunes} misfortunes, {self.requests} requests, "
            f"{self.availability:.4%} served, {self.at_once / max(1, self.requests):.4%} by the first node asked, "
            f"as before within {self.settled_s:.0f} s, {self.events:,} events, trace {self.trace[:12]}"
        )


class Life:
    """`run` lives through so many hours. Equal seeds give equal lives."""

    def __init__(self, seed: int, *, nodes: int = NODES) -> None:
        self.everyone = seed % 2 == 0
        sizes = ViewSizes(everyone=nodes) if self.everyone else ViewSizes(everyone=0, shuffle_s=240.0)
        pace = PACE if self.everyone else OVERLAY_PACE
        self.sim = Sim(0, seed=seed, conditions=Conditions(max_ms=50.0), timing=pace, sizes=sizes)
        self._chance = Random(f"life {seed}")  # noqa: S311 - a simulation must be repeatable
        self.met: Counter[str] = Counter()  # misfortunes, by name
        self.requests = Requests(self.sim, self._chance)
        self._seed = seed
        self._settled_s = 0.0
        self._story: list[str] = []
        self._excused: dict[SimNode, float] = {}  # who may be taken for dead, and until when
        self._unheard: dict[SimNode, float] = {}  # who may take others for dead, and until when
        for node in self.sim.add(nodes):
            self.sim.offer(node, node.offers)

    def run(self, hours: float) -> Report:
        """Raises AssertionError, with the story, when something that must hold does not."""
        until_s = self.sim.time_s + hours * HOUR_S
        try:
            self._settle("the beginning")
            self.requests.keep_asking(REQUEST_S)
            while self.sim.time_s < until_s:
                self.sim.run(min(self._chance.expovariate(1.0 / QUIET_S), until_s - self.sim.time_s))
                self._check()
                begin = [self._chance.choice(misfortunes.ALL) for _ in range(1 if self._chance.random() < 0.7 else 2)]
                self._suffer(begin)
        except AssertionError as exc:
            told = "\n  ".join(self._story[-12:])
            raise AssertionError(f"seed {self._seed}, {self.sim.time_s:.1f} s: {exc}\n  {told}") from exc
        asked, sim = self.requests, self.sim
        return Report(
            self._seed, hours, sum(self.met.values()), asked.tried, asked.served, asked.at_once, self._settled_s,
            sim.handled, sim.trace,
        )  # fmt: skip

    # Misfortunes

    def _suffer(self, begin: list[misfortunes.Begin]) -> None:
        """One misfortune, or two that overlap, from the beginning until all is as before."""
        ends: list[tuple[float, Misfortune]] = []
        for each in begin:
            met = each(self.sim, self._chance)
            self._note(f"{met.name} begins: {[node.number for node in met.hit]}")
            self.met[met.name] += 1
            ends.append((self.sim.time_s + met.lasts_s, met))
            self._excuse(met)
            self._check()
        for at_s, met in sorted(ends, key=lambda end: end[0]):
            self.sim.run(max(0.0, at_s - self.sim.time_s))
            self._check()
            met.end()
            self._note(f"{met.name} ends")
            self._excuse(met)
        self._settle(" and ".join(met.name for _, met in ends))
        self.requests.unwell.clear()

    def _excuse(self, met: Misfortune) -> None:
        everyone = len(met.hit) == len(self.sim.nodes)
        until_s = self.sim.time_s + met.lasts_s + ECHO_S
        self._unheard |= dict.fromkeys(met.unheard, until_s)
        for node in met.hit:
            self._excused[node] = max(until_s, self._excused.get(node, 0.0))
            if not everyone:
                self.requests.unwell[node] = None

    def _settle(self, after: str) -> None:
        """Wait until all is as before."""
        for node in self.sim.nodes:
            misfortunes.revive(self.sim, node)
        began_s = self.sim.time_s
        while not self._well():
            assert self.sim.time_s - began_s < SETTLE_S, f"{after}: not as before after {SETTLE_S} s: {self._ails()}"
            self.sim.run(2.0)
        self._check()
        self._settled_s = max(self._settled_s, self.sim.time_s - began_s)

    def _well(self) -> bool:
        linked = self.sim.fully_linked() if self.everyone else self.sim.connected()
        return linked and self.sim.converged() and self._all_offer()

    def _all_offer(self) -> bool:
        return all(self.sim.all_know(node, Kind.CAPABILITY, node.offers) for node in self.sim.living)

    def _ails(self) -> str:
        links = sorted(len(node.core.links) for node in self.sim.living)
        missing = [
            (node.number, other.number)
            for node in self.sim.living
            for other in self.sim.living
            if not self.sim.knows(node, other) or not self.sim.knows(node, other, Kind.CAPABILITY, other.offers)
        ]
        return f"links {links}, who does not know whom {missing[:8]}, same rows: {self.sim.converged_rows()}"

    def _check(self) -> None:
        """All invariants, and nobody was taken for dead who was well."""
        self.sim.validate_cores()
        for node in self.sim.nodes:
            for at_s, effect in node.effects:
                if isinstance(effect, events.HealthChanged) and effect.health is Health.DEAD:
                    whom = self.sim._by_peer[effect.peer]
                    excused = at_s <= max(self._excused.get(whom, 0.0), self._unheard.get(node, 0.0))
                    assert excused, f"{node.number} buried {whom.number}, who was well, at {at_s:.1f} s"
            node.effects.clear()
            node.delivered.clear()

    def _note(self, what: str) -> None:
        self._story.append(f"{self.sim.time_s:9.1f} s {what}")

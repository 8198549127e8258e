"""What befalls nodes besides death and cut cables: they are stopped, starved, half deaf, out of time, slandered.

Verbs for stories, as those of `Sim`, each a function of the simulation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from random import Random

from atmo.ids import PeerId
from atmo.mesh.detector import Detector
from atmo.mesh.events import Event
from atmo.mesh.limits import MAX_CHARGES
from atmo.mesh.rows import Charge
from atmo.mesh.sim.network import Link, pair
from atmo.mesh.sim.node import SimNode
from atmo.mesh.sim.scenario import Sim


def pause(sim: Sim, node: SimNode) -> None:
    """SIGSTOP: the node does nothing; what is sent to it waits. Its peers notice when heartbeats stay away."""
    if not node.alive or node.backlog is not None:
        return
    backlog: list[Event] = []
    node.backlog = backlog
    notice_s = sim.time_s + sim.network.conditions.heartbeat_ms / 1e3
    for number in sim.network.linked_to(node.number):
        link = sim.network.links[pair(node.number, number)]
        sim._at(notice_s, _miss, sim, node, backlog, sim.nodes[number], link)


def resume(sim: Sim, node: SimNode) -> None:
    """SIGCONT: it meets all that happened meanwhile, in order and at once."""
    backlog, node.backlog = node.backlog or [], None
    for event in backlog:
        sim.tell(node, event)
    sim._plan_tick(node)


def starve(sim: Sim, nodes: Iterable[SimNode], seconds: float, *, gap_s: tuple[float, float] = (0.2, 3.0)) -> None:
    """The nodes get the CPU for 20 to 100 ms at a time, with gaps between."""
    chance = Random(f"starve {sim.time_s} {sim._seed}")  # noqa: S311 - a simulation must be repeatable
    for node in nodes:
        sim._at(sim.time_s + chance.uniform(0.0, 1.0), _stutter, sim, node, chance, sim.time_s + seconds, gap_s)


def deafen(sim: Sim, sources: Iterable[SimNode], targets: Iterable[SimNode]) -> None:
    """A one-way partition: nothing of the sources arrives at the targets."""
    targets = list(targets)
    for source in sources:
        for target in targets:
            sim.network.deafen(source.number, target.number)
    sim._miss_heartbeats()


def ring(sim: Sim, nodes: list[SimNode]) -> None:
    """Each still reaches the one before and the one behind it, and nobody else."""
    for at, a in enumerate(nodes):
        for behind, b in enumerate(nodes[at + 1 :], 1):
            if behind not in (1, len(nodes) - 1):
                sim.network.cut(a.number, b.number)
    sim._miss_heartbeats()


def slander(sim: Sim, liar: SimNode, victims: Iterable[SimNode]) -> None:
    """From now on it accuses the victims, whatever they say, always in their present life; else it is as before."""
    honest = liar.core.vigil.detector
    false = _Slanderer(*(getattr(honest, each.name) for each in fields(Detector)))
    false.victims = tuple(sorted(victim.peer for victim in victims))
    liar.core.vigil.detector = false


def flood(sim: Sim, source: SimNode, target: SimNode, frame: bytes, per_s: float, seconds: float) -> None:
    """Send the frame over and over on the gossip lane."""
    for count in range(int(per_s * seconds)):
        sim._at(sim.time_s + count / per_s, sim.inject, source, target, frame)


class _Slanderer(Detector):
    """A detector that accuses whom it likes, besides those whom it misses."""

    victims: tuple[PeerId, ...] = ()

    def charges(self) -> tuple[Charge, ...]:
        lives = [(peer, self.lives.life(peer)) for peer in self.victims]
        lies = [Charge(peer, *life) for peer, life in lives if life is not None]
        honest = [charge for charge in super().charges() if charge.peer not in self.victims]
        return tuple(sorted([*lies, *honest], key=lambda charge: charge.peer)[:MAX_CHARGES])


def _miss(sim: Sim, node: SimNode, backlog: list[object], other: SimNode, link: Link) -> None:
    if node.backlog is backlog and sim.network.links.get(pair(node.number, other.number)) is link:
        sim._unlink(node, other, "heartbeats stayed away")


def _stutter(sim: Sim, node: SimNode, chance: Random, until_s: float, gap_s: tuple[float, float]) -> None:
    if sim.time_s >= until_s or not node.alive:
        return
    pause(sim, node)
    wakes_s = sim.time_s + chance.uniform(*gap_s)
    sim._at(wakes_s, resume, sim, node)
    sim._at(wakes_s + chance.uniform(0.02, 0.1), _stutter, sim, node, chance, until_s, gap_s)

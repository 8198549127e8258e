"""What can go wrong in a day of a mesh: a catalogue of misfortunes, each with a beginning and an end.

A misfortune begins, lasts and ends; afterwards the mesh must become as if nothing had happened. `hit` are the nodes
that may be taken for dead meanwhile, by anybody; of all others that would be a false death. Every one belongs to a line
of docs/faults.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from atmo.mesh.capability import Load
from atmo.mesh.codec import encode
from atmo.mesh.messages import Rows
from atmo.mesh.rows import Gradient, Kind, NodeInfo, RowId, SignedRow, seal
from atmo.mesh.sim import mishaps
from atmo.mesh.sim.node import SimNode
from atmo.mesh.sim.scenario import Sim

DAY_S = 86_400.0


def nothing() -> None:
    """The end of what ends by itself."""


@dataclass(frozen=True, slots=True)
class Misfortune:
    """lasts_s: when to call `end`; hit: who may be taken for dead until then and shortly after; unheard: whose rows
    nobody takes meanwhile, so that a node which it cannot reach itself does not hear that it is accused, and may be
    taken for dead by it alone."""

    name: str
    lasts_s: float
    hit: list[SimNode] = field(default_factory=list)
    end: Callable[[], None] = nothing
    unheard: list[SimNode] = field(default_factory=list)


Begin = Callable[[Sim, Random], Misfortune]


def some(sim: Sim, chance: Random, share: float) -> list[SimNode]:
    """A share of the nodes that run, one at least and never the first, whom newcomers know."""
    running = [node for node in sim.living if node.backlog is None and node.number]
    return chance.sample(running, min(len(running), max(1, round(share * len(sim.nodes)))))


def crash(sim: Sim, chance: Random) -> Misfortune:
    """One to three nodes are killed; they come back by and by, one in four without its state."""
    return _die(sim, chance, some(sim, chance, chance.choice([0.01, 0.08, 0.15])), "crash")


def massacre(sim: Sim, chance: Random) -> Misfortune:
    """Half of all nodes die at once."""
    return _die(sim, chance, some(sim, chance, 0.5), "massacre")


def _die(sim: Sim, chance: Random, dying: list[SimNode], name: str) -> Misfortune:
    for node in dying:
        sim.kill(node)

    def back() -> None:
        for node in dying:
            revive(sim, node, forgot=chance.random() < 0.25)

    return Misfortune(name, chance.uniform(5.0, 600.0), dying, back)


def churn(sim: Sim, chance: Random) -> Misfortune:
    """A fifth of the nodes leaves within a minute, each for some seconds, half of them with a goodbye."""
    leaving = some(sim, chance, 0.2)
    for at, node in enumerate(leaving):
        leaves_s = sim.time_s + 60.0 * at / len(leaving)
        sim._at(leaves_s, sim.stop if chance.random() < 0.5 else sim.kill, node)
        sim._at(leaves_s + chance.uniform(2.0, 20.0), revive, sim, node)
    return Misfortune("churn", 85.0, leaving)


def revive(sim: Sim, node: SimNode, *, forgot: bool = False) -> None:
    """It starts again, by way of whoever lives, and offers what it offered."""
    if not node.alive:
        sim.restart(node, forgot=forgot, via=next(other for other in sim.living if other is not node))
        sim.offer(node, node.offers)


def standstill(sim: Sim, chance: Random) -> Misfortune:
    """A tenth of the nodes is stopped for a while, shorter or longer than it takes to bury them."""
    stopped = some(sim, chance, 0.1)
    for node in stopped:
        mishaps.pause(sim, node)

    def go_on() -> None:
        for node in stopped:
            if node.alive:
                mishaps.resume(sim, node)

    return Misfortune("standstill", chance.choice([1.0, 5.0, 30.0, 300.0]), stopped, go_on)


def starvation(sim: Sim, chance: Random) -> Misfortune:
    """A tenth gets hardly any CPU for a minute."""
    starved = some(sim, chance, 0.1)
    mishaps.starve(sim, starved, 60.0, gap_s=(0.2, chance.choice([2.0, 12.0])))
    return Misfortune("starvation", 75.0, starved)


def halves(sim: Sim, chance: Random) -> Misfortune:
    shuffled = chance.sample(sim.nodes, len(sim.nodes))
    sim.partition(shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :])
    return Misfortune("halves", chance.uniform(2.0, 300.0), list(sim.nodes), sim.heal)


def one_way(sim: Sim, chance: Random) -> Misfortune:
    shuffled = chance.sample(sim.nodes, len(sim.nodes))
    mishaps.deafen(sim, shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :])
    return Misfortune("one way", chance.uniform(2.0, 300.0), list(sim.nodes), sim.heal)


def ring(sim: Sim, chance: Random) -> Misfortune:
    """Each reaches two others alone; everyone stays known, but who has no link left may be taken for dead."""
    shuffled = chance.sample(sim.nodes, len(sim.nodes))
    mishaps.ring(sim, shuffled)
    return Misfortune("ring", chance.uniform(2.0, 300.0), list(sim.nodes), sim.heal)


def broken_cable(sim: Sim, chance: Random) -> Misfortune:
    """Some pairs cannot reach each other; others see them, so nobody is dead."""
    for _ in range(chance.randint(1, 4)):
        sim.cut(*chance.sample(sim.nodes, 2))
    return Misfortune("broken cable", chance.uniform(10.0, 300.0), [], sim.heal)


def bad_line(sim: Sim, chance: Random) -> Misfortune:
    """Up to a fifth of all gossip is lost."""
    good = sim.network.conditions
    sim.network.conditions = replace(good, loss=chance.uniform(0.02, 0.2))

    def repair() -> None:
        sim.network.conditions = good

    return Misfortune("bad line", 300.0, [], repair)


def wrong_clock(sim: Sim, chance: Random) -> Misfortune:
    """A clock is off: by little, which nobody may notice, or by a day. Then it is set right, perhaps backwards."""
    (node,) = some(sim, chance, 0.0)
    node.skew_s = chance.choice([-DAY_S, -240.0, 120.0, DAY_S])

    def set_right() -> None:
        node.skew_s = 0.0

    return Misfortune("wrong clock", chance.uniform(10.0, 300.0), [node], set_right, [node])


def slander(sim: Sim, chance: Random) -> Misfortune:
    """One node accuses two others all the time, whatever they say; one liar buries nobody."""
    liar, *victims = some(sim, chance, 0.15)
    mishaps.slander(sim, liar, victims)

    def expose() -> None:
        sim.kill(liar)
        revive(sim, liar)

    return Misfortune("slander", chance.uniform(20.0, 120.0), [liar], expose)


def flood(sim: Sim, chance: Random) -> Misfortune:
    """A member sends a row that everybody has, a hundred times a second."""
    source, target = (*some(sim, chance, 0.0), sim.nodes[0])
    row = target.core.store.get(RowId(target.peer, Kind.NODE, ""))
    if row is not None:
        mishaps.flood(sim, source, target, encode(Rows((row.signed,))), 100.0, 5.0)
    return Misfortune("flood", 6.0)


def two_tongues(sim: Sim, chance: Random) -> Misfortune:
    """A node signs two rows under one version and tells each half of the others one first."""
    (liar,) = some(sim, chance, 0.0)
    said = liar.core.author.publish(Kind.GRADIENT, "", _busy(1, chance.random()), liar.moment(sim.time_s))
    if said is not None:
        other = seal(
            said.id, _busy(2, chance.random()), mesh=sim.mesh, order=said.order, issued_s=said.issued_s,
            ttl_s=said.ttl_s, sign=liar._sign,
        )  # fmt: skip
        for node in sim.living:
            for row in (said, other) if node.number % 2 else (other, said):
                sim.inject(liar, node, encode(Rows((row.signed,))))

    def fall_silent() -> None:
        if liar.alive:
            sim.withdraw(liar, Kind.GRADIENT, "")

    return Misfortune("two tongues", 30.0, [], fall_silent)


def _busy(in_flight: int, service_s: float) -> Gradient:
    return Gradient((Load("atmo:chat:nano", in_flight, 4, 0, service_s, 100.0, 10.0, True),))


def copied_key(sim: Sim, chance: Random) -> Misfortune:
    """Somebody speaks with a node's key, in a later generation: the owner outbids it."""
    (owner,) = some(sim, chance, 0.0)
    body = NodeInfo(name="thief", addresses=(), mode="participant", software="sim")
    row = seal(
        RowId(owner.peer, Kind.NODE, ""), body, mesh=sim.mesh, order=(owner.core.generation + 3, 1),
        issued_s=owner.moment(sim.time_s).wall_s, ttl_s=60.0, sign=owner._sign,
    )  # fmt: skip
    teller, hearer = chance.sample([node for node in sim.living if node is not owner], 2)
    if teller.peer in hearer.core.links:
        sim.inject(teller, hearer, encode(Rows((row.signed,))))
    return Misfortune("copied key", 30.0, [owner])


def replay(sim: Sim, chance: Random) -> Misfortune:
    """Rows that were heard before are sent again, by members and to everybody."""
    heard: list[SignedRow] = [row.signed for row in sim.nodes[0].core.store.rows()]

    def again() -> None:
        for node in sim.living:
            for source in chance.sample(sim.living, 2):
                if source.peer in node.core.links:
                    sim.inject(source, node, encode(Rows(tuple(heard))))

    return Misfortune("replay", chance.choice([5.0, 60.0, 600.0]), [], again)


ALL: tuple[Begin, ...] = (
    crash, massacre, churn, standstill, starvation, halves, one_way, ring, broken_cable, bad_line, wrong_clock, slander,
    flood, two_tongues, copied_key, replay,
)  # fmt: skip

"""The dead whom nobody saw die are found, and the living who cannot be dialled stay."""

from __future__ import annotations

from random import Random

import pytest

from atmo.ids import PeerId
from atmo.mesh import events
from atmo.mesh.events import Health
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.patrol import DIALS, ENDS, INTERVAL_S, OVER_S, SPARED_S, WITHIN_S, Patrol
from atmo.mesh.sim import Conditions, Sim, SimNode
from atmo.mesh.suspicion import patience_s

A, B, C = (PeerId(bytes([number]) * 32) for number in range(1, 4))
OUTCOME_S = 15.0


@pytest.fixture
def patrol() -> Patrol:
    return Patrol(Random(1), OUTCOME_S)


def walk(patrol: Patrol, strangers: list[PeerId], until_s: float) -> list[tuple[float, PeerId]]:
    """Who is dialled when, if every dial comes to its end at once."""
    dials = []
    while (at_s := patrol.next_due()) is not None and at_s <= until_s:
        peer = patrol.due(lambda: strangers, at_s)
        if peer is not None:
            patrol.dialled(peer, at_s)
            assert patrol.over(peer)
            dials.append((at_s, peer))
        patrol.validate()
    return dials


def test_single_deaths_start_nothing(patrol: Patrol) -> None:
    for number in range(20):
        patrol.ended(number * WITHIN_S)

    assert patrol.next_due() is None


def test_several_deaths_start_a_bounded_number_of_dials_spread_over_a_while(patrol: Patrol) -> None:
    for _ in range(ENDS):
        patrol.ended(100.0)

    dials = walk(patrol, [A, B, C], 1000.0)

    assert len(dials) == DIALS
    assert {peer for _, peer in dials} == {A, B, C}
    assert dials[0][0] > 100.0
    assert 100.0 + OVER_S / 2 <= dials[-1][0] <= 100.0 + 1.5 * OVER_S


def test_however_many_die_patrols_are_apart(patrol: Patrol) -> None:
    for _ in range(100):
        patrol.ended(100.0)
    assert len(walk(patrol, [A], 100.0 + INTERVAL_S)) == DIALS

    for _ in range(100):
        patrol.ended(100.0 + OVER_S * 2)

    second = walk(patrol, [A], 1000.0)
    assert len(second) == DIALS
    assert second[0][0] > 100.0 + INTERVAL_S


def test_who_could_not_be_dialled_is_spared_for_an_hour_of_its_present_life(patrol: Patrol) -> None:
    assert patrol.counts(A, 1, 0.0)

    assert not patrol.counts(A, 1, SPARED_S - 1.0)
    assert patrol.counts(B, 1, SPARED_S - 1.0)
    assert patrol.counts(A, 2, SPARED_S - 1.0)

    for _ in range(ENDS):
        patrol.ended(SPARED_S)
    assert {peer for _, peer in walk(patrol, [A, B, C], SPARED_S + 100.0)} == {C}
    assert patrol.counts(A, 2, 3.0 * SPARED_S)


def test_a_dial_without_an_outcome_is_given_up_and_says_nothing(patrol: Patrol) -> None:
    patrol.dialled(A, 10.0)
    assert patrol.unanswered(10.0 + OUTCOME_S - 0.1) == []

    assert patrol.unanswered(10.0 + OUTCOME_S) == [A]
    assert not patrol.over(A)


# In a mesh


def overlay(n: int, seed: int = 1) -> Sim:
    sim = Sim(0, seed=seed, conditions=Conditions(min_ms=10.0, max_ms=50.0), sizes=ViewSizes(everyone=0))
    sim.grow(n, rows=n, over_s=5.0)
    sim.run(30.0)
    return sim


def bury_all(sim: Sim, dead: list[SimNode], living: int) -> None:
    """Until no table names one of the dead: a wait from the first burial on, a patrol, and the wait that it begins."""
    suspicion_s = patience_s(sim.nodes[0]._timing.suspicion_s, living, 0)
    peers = {node.peer for node in dead}
    sim.wait_until(
        lambda: not any(row.id.origin in peers for node in sim.living for row in node.core.store.rows()),
        suspicion_s + 60.0,
        "no ghosts",
    )


def lived_on(sim: Sim) -> bool:
    """True if no survivor was ever taken for dead."""
    living = {node.peer for node in sim.living}
    told = (effect for node in sim.living for _, effect in node.effects)
    return not any(
        isinstance(effect, events.HealthChanged) and effect.health is Health.DEAD and effect.peer in living
        for effect in told
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_node_that_dies_together_with_all_its_neighbours_leaves_no_ghost(seed: int) -> None:
    sim = overlay(80, seed)
    victim = sim.nodes[40]
    dead = [victim, *(sim.nodes[number] for number in sim.network.linked_to(victim.number))]

    for node in dead:
        sim.kill(node)

    bury_all(sim, dead, 80)
    assert lived_on(sim)
    sim.validate_cores()


def test_half_of_a_mesh_dies_at_once_and_leaves_no_ghosts() -> None:
    sim = overlay(100)
    victims = [sim.nodes[number] for number in (20, 70)]
    unseen = {number for victim in victims for number in (victim.number, *sim.network.linked_to(victim.number))}
    others = [node for node in sim.nodes[1::2] if node.number not in unseen]
    dead = [*(sim.nodes[number] for number in sorted(unseen)), *others[: 50 - len(unseen)]]

    for node in dead:
        sim.kill(node)

    bury_all(sim, dead, 100)
    assert lived_on(sim)
    assert sim.connected()
    sim.validate_cores()


def test_a_healthy_node_that_nobody_can_dial_survives_a_patrol_and_is_then_left_alone() -> None:
    sim = overlay(40)
    (hidden,) = sim.add(reachable=False)
    sim.wait_until(lambda: sim.all_know(hidden), 10.0, "everybody knows it")
    sim.run(10.0)
    victim = sim.nodes[20]
    near = [victim, *(sim.nodes[number] for number in sim.network.linked_to(victim.number))]
    dead = [node for node in near if node is not hidden]

    for node in dead:
        sim.kill(node)
    bury_all(sim, dead, 41)
    sim.run(60.0)

    doubted = [
        effect
        for node in sim.living
        for _, effect in node.effects
        if isinstance(effect, events.HealthChanged) and effect.peer == hidden.peer
    ]
    assert {effect.health for effect in doubted} >= {Health.SUSPECT, Health.REFUTED}
    assert lived_on(sim)
    assert sim.all_know(hidden)
    sim.validate_cores()


def extras(sim: Sim) -> int:
    """Ends of links that make nobody a neighbour."""
    return sum(len(node.core.links) - len(node.core.fabric.overlay.active) for node in sim.living)


def test_a_patrol_s_links_end_as_extras_do() -> None:
    sim = overlay(60)
    at_rest = extras(sim)
    for node in sim.nodes[1:5]:
        sim.kill(node)
    sim.wait_until(lambda: any(node.core.fabric.patrol.under_way for node in sim.living), 60.0, "a patrol")
    sim.run(5.0)
    under_way = extras(sim)
    assert under_way > 3 * at_rest

    sim.run(90.0)

    assert extras(sim) < under_way / 4
    assert not any(node.core.fabric.overlay.links.is_wanted(peer) for node in sim.living for peer in node.core.links)
    sim.validate_cores()

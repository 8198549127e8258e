"""Stories of death and of what only looks like it, in simulated time. Each names its line of what the mesh survives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atmo.mesh import events
from atmo.mesh.capability import Load
from atmo.mesh.codec import decode, encode
from atmo.mesh.events import Health
from atmo.mesh.messages import Rows
from atmo.mesh.rows import Charge, Gradient, Kind, NodeInfo, RowId, Suspicion, seal
from atmo.mesh.sim import Conditions, Sim, SimNode, mishaps
from atmo.mesh.suspicion import patience_s

CHAT = "atmo:chat:nano"
MakeSim = Callable[..., Sim]


@pytest.fixture
def world() -> Iterator[MakeSim]:
    """Makes simulations; when the test ends every invariant of every one of them is checked."""
    made: list[Sim] = []

    def make(*arguments: Any, **options: Any) -> Sim:
        made.append(Sim(*arguments, **options))
        return made[-1]

    yield make
    for sim in made:
        sim.run(0.1)
        sim.validate()


def formed(sim: Sim) -> Sim:
    sim.wait_until(sim.fully_linked, 120.0, "a full mesh")
    sim.wait_until(sim.converged, 30.0, "equal tables")
    return sim


def offering(sim: Sim) -> Sim:
    """Everyone offers something and says how busy it is."""
    for node in sim.living:
        sim.offer(node, CHAT)
        sim.load(node, CHAT, 0)
    sim.wait_until(lambda: all(sim.all_know(node, Kind.CAPABILITY, CHAT) for node in sim.living), 20.0)
    return sim


def suspicion_s(sim: Sim) -> float:
    """What "suspicion" means in the bars: the probe, and the shortest wait in a mesh of this size."""
    timing = sim._timing
    return timing.probe_s + patience_s(timing.suspicion_s, len(sim.nodes), 9)


def said(node: SimNode, about: SimNode, since_s: float = 0.0) -> list[Health]:
    """What this node told its user about that one."""
    return [
        effect.health
        for at_s, effect in node.effects
        if isinstance(effect, events.HealthChanged) and effect.peer == about.peer and at_s >= since_s
    ]


def buried(sim: Sim, dead: SimNode) -> bool:
    """Nothing it said is in anybody's table."""
    return not any(list(node.core.store.rows(origin=dead.peer)) for node in sim.living if node is not dead)


def deaths(sim: Sim, of: list[SimNode]) -> list[tuple[int, int]]:
    """(who, of whom) for every burial."""
    return [(node.number, other.number) for node in sim.nodes for other in of if Health.DEAD in said(node, other)]


# Death


@pytest.mark.parametrize(("nodes", "loss"), [(2, 0.0), (5, 0.0), (24, 0.0), (24, 0.05)])
def test_a_killed_node_is_dead_in_every_table_within_suspicion_and_two_seconds(
    world: MakeSim, nodes: int, loss: float
) -> None:
    sim = offering(formed(world(nodes, conditions=Conditions(loss=loss))))
    dead = sim.nodes[1]

    sim.kill(dead)
    sim.run(0.5)
    for node in sim.living:
        assert events.PeerLost(dead.peer) in [effect for _, effect in node.effects]
    sim.wait_until(lambda: buried(sim, dead), suspicion_s(sim) + 2.0 - 0.5, "burial")

    for node in sim.living:
        assert said(node, dead) == [Health.SUSPECT, Health.DEAD]
    sim.run(100.0)
    assert buried(sim, dead)
    assert deaths(sim, sim.living) == []


def test_a_stopped_node_is_missed_within_two_seconds_and_dead_within_suspicion_and_two_more(world: MakeSim) -> None:
    sim = offering(formed(world(8)))
    stopped = sim.nodes[3]

    mishaps.pause(sim, stopped)
    others = [node for node in sim.nodes if node is not stopped]
    sim.wait_until(lambda: all(stopped.peer not in node.core.links for node in others), 2.0)

    sim.wait_until(lambda: buried(sim, stopped), suspicion_s(sim) + 2.0)


def test_nothing_that_is_sent_again_brings_the_dead_back(world: MakeSim) -> None:
    """Newcomers, repairs, and a replay of every frame that anybody ever received."""
    sim = world(5)
    recorded: list[tuple[SimNode, SimNode, events.FrameReceived]] = []
    tell = sim.tell

    def record(node: SimNode, event: events.Event) -> None:
        if isinstance(event, events.FrameReceived) and isinstance(decode(event.frame), Rows):
            recorded.append((sim._by_peer[event.peer], node, event))
        tell(node, event)

    sim.tell = record  # type: ignore[method-assign]
    offering(formed(sim))
    sim.kill(sim.nodes[4])
    sim.wait_until(lambda: buried(sim, sim.nodes[4]), 10.0)
    sim.add(1)
    sim.run(50.0)
    sim.tell = tell  # type: ignore[method-assign]
    before = [node.core.store.fingerprint() for node in sim.living]
    assert len(recorded) > 200

    for source, target, event in recorded:
        if source.alive and target.alive:
            target.core.handle(event, target.moment(sim.time_s))

    assert [node.core.store.fingerprint() for node in sim.living] == before
    assert buried(sim, sim.nodes[4])


def test_a_row_that_was_written_before_the_end_and_arrives_after_it_brings_nobody_back(world: MakeSim) -> None:
    sim = formed(world(4))
    dead, witness = sim.nodes[3], sim.nodes[0]
    info = NodeInfo(name="later", addresses=(), mode="participant", software="sim")
    order = (dead.generation, 1000)
    row = seal(
        RowId(dead.peer, Kind.NODE, ""), info, mesh=sim.mesh, order=order, ttl_s=60.0, sign=dead._sign,
        issued_s=dead.moment(sim.time_s).wall_s,
    )  # fmt: skip
    sim.kill(dead)
    sim.wait_until(lambda: buried(sim, dead), 10.0)

    sim.inject(sim.nodes[1], witness, encode(Rows((row.signed,))))
    sim.run(60.0)

    assert buried(sim, dead)
    assert said(witness, dead) == [Health.SUSPECT, Health.DEAD]


def test_half_of_the_nodes_die_at_once_and_the_others_stay(world: MakeSim) -> None:
    sim = offering(formed(world(20)))
    for node in sim.nodes[10:]:
        sim.kill(node)

    sim.wait_until(lambda: all(buried(sim, dead) for dead in sim.nodes[10:]), suspicion_s(sim) + 2.0)

    assert sim.fully_linked()
    assert deaths(sim, sim.living) == []


def test_a_node_that_dies_together_with_its_accusers_is_still_found_dead(world: MakeSim) -> None:
    sim = formed(world(6))
    sim.kill(sim.nodes[5])
    sim.run(1.5)
    for node in sim.nodes[3:5]:
        sim.kill(node)

    sim.wait_until(lambda: all(buried(sim, dead) for dead in sim.nodes[3:]), 12.0)


def test_a_node_that_says_goodbye_is_not_accused(world: MakeSim) -> None:
    sim = formed(world(5))
    sim.stop(sim.nodes[2])
    sim.run(30.0)

    assert all(said(node, sim.nodes[2]) == [] for node in sim.living)


def test_a_restarted_node_is_believed_at_once_in_its_new_life(world: MakeSim) -> None:
    sim = offering(formed(world(5)))
    node = sim.nodes[2]
    sim.kill(node)
    sim.wait_until(lambda: buried(sim, node), 10.0)

    sim.restart(node)

    sim.wait_until(lambda: sim.all_know(node), 3.0)
    assert not sim.knows(sim.nodes[0], node, Kind.CAPABILITY, CHAT)  # it has not offered it in this life
    sim.run(60.0)
    assert Health.DEAD not in said(sim.nodes[0], node, since_s=sim.time_s - 60.0)


# What only looks like it


def test_a_node_that_was_paused_for_five_seconds_refutes_and_nobody_buries_it(world: MakeSim) -> None:
    sim = offering(formed(world(10)))
    paused = sim.nodes[4]

    mishaps.pause(sim, paused)
    sim.run(5.0)
    assert Health.SUSPECT in said(sim.nodes[0], paused)
    mishaps.resume(sim, paused)

    sim.wait_until(sim.converged, 3.0)
    formed(sim)
    sim.run(60.0)
    assert deaths(sim, sim.nodes) == []
    assert all(sim.all_know(node, Kind.CAPABILITY, CHAT) for node in sim.nodes)


def test_a_node_that_was_taken_for_dead_comes_back_with_all_it_said(world: MakeSim) -> None:
    sim = offering(formed(world(10)))
    paused = sim.nodes[4]
    mishaps.pause(sim, paused)
    sim.wait_until(lambda: buried(sim, paused), 10.0)

    mishaps.resume(sim, paused)

    sim.wait_until(lambda: sim.all_know(paused, Kind.CAPABILITY, CHAT), 5.0)
    sim.wait_until(sim.converged, 10.0)
    assert paused.core.generation == 1
    assert paused.core.vigil.detector.incarnation >= 1
    assert said(sim.nodes[0], paused)[-1] in (Health.REFUTED, Health.HEALED)


@pytest.mark.parametrize("seed", range(2))
def test_no_healthy_node_is_declared_dead_while_a_tenth_is_starved(world: MakeSim, seed: int) -> None:
    sim = offering(formed(world(20, seed=seed)))
    starved, healthy = sim.nodes[4:6], sim.nodes[:4] + sim.nodes[6:]

    mishaps.starve(sim, starved, 40.0)
    sim.run(45.0)

    assert deaths(sim, healthy) == []
    formed(sim)
    assert all(sim.all_know(node, Kind.CAPABILITY, CHAT) for node in sim.nodes)


def test_no_healthy_node_is_declared_dead_while_a_tenth_stands_still_for_longer_than_any_suspicion(
    world: MakeSim,
) -> None:
    """They see all others silent when they wake, and it is they who slept."""
    sim = offering(formed(world(20)))
    asleep, healthy = sim.nodes[4:6], sim.nodes[:4] + sim.nodes[6:]

    mishaps.starve(sim, asleep, 60.0, gap_s=(3.0, 12.0))
    sim.run(75.0)

    assert deaths(sim, healthy) == []
    formed(sim)


def test_a_link_that_is_cut_buries_nobody_who_is_seen_by_others(world: MakeSim) -> None:
    sim = offering(formed(world(6)))
    a, b = sim.nodes[2:4]

    sim.cut(a, b)
    sim.run(120.0)

    assert deaths(sim, sim.nodes) == []
    assert sim.knows(a, b)
    assert sim.knows(b, a)
    sim.heal()
    formed(sim)


# Partitions


def halves(sim: Sim) -> None:
    sim.partition(sim.nodes[:6], sim.nodes[6:])


def ring(sim: Sim) -> None:
    """Each still reaches its two neighbours alone."""
    for a in sim.nodes:
        for b in sim.nodes[a.number + 1 :]:
            if (b.number - a.number) % len(sim.nodes) not in (1, len(sim.nodes) - 1):
                sim.cut(a, b)


def one_way(sim: Sim) -> None:
    mishaps.deafen(sim, sim.nodes[:6], sim.nodes[6:])


@pytest.mark.parametrize("split", [halves, ring, one_way])
def test_after_five_minutes_of_partition_all_tables_become_the_same(
    world: MakeSim, split: Callable[[Sim], None]
) -> None:
    sim = offering(formed(world(12)))
    split(sim)
    sim.run(300.0)
    sim.load(sim.nodes[0], CHAT, 3)
    sim.load(sim.nodes[11], CHAT, 4)

    sim.heal()

    sim.wait_until(sim.fully_linked, 130.0, "a full mesh")  # the last dial may be a minute away
    sim.wait_until(sim.converged, 2 * 1.5 * sim._timing.repair_s, "equal tables")  # two intervals of repair
    assert all(sim.all_know(node, Kind.CAPABILITY, CHAT) for node in sim.nodes)
    assert all(not node.core.vigil.detector.suspects() for node in sim.nodes)


def test_in_a_ring_everyone_stays_known(world: MakeSim) -> None:
    sim = formed(world(12))
    ring(sim)
    sim.run(300.0)

    assert deaths(sim, sim.nodes) == []
    assert all(sim.all_know(node) for node in sim.nodes)


# Liars


def test_one_lying_accuser_evicts_nobody(world: MakeSim) -> None:
    sim = offering(formed(world(6)))
    sim.add(1, reachable=False)  # whom nobody but the first is linked to
    liar, victims = sim.nodes[1], [sim.nodes[2], sim.nodes[6]]
    formed_s = sim.time_s

    mishaps.slander(sim, liar, victims)
    sim.run(180.0)

    assert [death for death in deaths(sim, sim.nodes) if death[0] != liar.number] == []
    assert all(sim.all_know(victim) for victim in victims)
    assert Health.SUSPECT not in said(sim.nodes[0], sim.nodes[2], formed_s)


def test_a_liar_makes_its_victim_speak_at_most_once_a_second(world: MakeSim) -> None:
    sim = formed(world(4))
    mishaps.slander(sim, sim.nodes[1], [sim.nodes[2]])
    sim.run(30.0)

    assert 1 <= sim.nodes[2].core.vigil.detector.incarnation <= 31


def test_an_accusation_of_a_life_that_is_still_to_come_counts_for_nothing(world: MakeSim) -> None:
    sim = formed(world(5))
    victim = sim.nodes[2]
    for liar in (sim.nodes[3], sim.nodes[4]):
        charges = tuple(Charge(victim.peer, generation, 2**53 - 1) for generation in (1, 2))
        row = liar.core.author.publish(Kind.SUSPECT, "", Suspicion(charges), liar.moment(sim.time_s))
        assert row is not None
        sim.inject(liar, sim.nodes[0], encode(Rows((row.signed,))))
        sim.inject(liar, victim, encode(Rows((row.signed,))))

    sim.run(20.0)

    assert victim.core.vigil.detector.incarnation == 0
    assert deaths(sim, [victim]) == []


def test_a_node_that_says_two_things_at_once_is_found_out_and_all_keep_the_same(world: MakeSim) -> None:
    sim = formed(world(6, real_keys=True))
    liar = sim.nodes[5]
    order = (1, 900)
    rows = [
        seal(
            RowId(liar.peer, Kind.GRADIENT, ""), Gradient((Load(CHAT, busy, 4, 0, 1.0, 1.0, 1.0, True),)),
            mesh=sim.mesh, order=order, issued_s=liar.moment(sim.time_s).wall_s, ttl_s=60.0, sign=liar._sign,
        )
        for busy in (1, 2)
    ]  # fmt: skip

    for node in sim.nodes[:5]:  # to some the one first, to some the other
        for row in rows if node.number % 2 else reversed(rows):
            sim.inject(liar, node, encode(Rows((row.signed,))))

    kept = {node.core.store.get(rows[0].id) for node in sim.nodes[:5]}
    assert len(kept) == 1
    assert kept != {None}
    for node in sim.nodes[:5]:
        assert [effect.origin for _, effect in node.effects if isinstance(effect, events.Equivocated)] == [liar.peer]
        assert len(node.core.store.proofs) == 1


def test_a_flood_of_one_frame_changes_nothing_and_harms_nobody(world: MakeSim) -> None:
    sim = offering(formed(world(6)))
    row = sim.nodes[1].core.store.get(RowId(sim.nodes[2].peer, Kind.NODE, ""))
    assert row is not None
    frame = encode(Rows((row.signed,)))

    mishaps.flood(sim, sim.nodes[1], sim.nodes[0], frame, per_s=500.0, seconds=10.0)
    sim.load(sim.nodes[3], CHAT, 3)
    took_s = sim.wait_until(lambda: loads(sim, sim.nodes[3]) == {3}, 1.0)
    sim.run(20.0)

    assert took_s < 0.2
    assert deaths(sim, sim.nodes) == []


def loads(sim: Sim, origin: SimNode) -> set[int]:
    """How busy it is, by everybody's table."""
    rows = [node.core.store.get(RowId(origin.peer, Kind.GRADIENT, "")) for node in sim.living]
    return {row.body.loads[0].in_flight if row and isinstance(row.body, Gradient) else -1 for row in rows}


# Lost state, wrong clocks


@pytest.mark.parametrize("after_s", [0.2, 3.0, 20.0, 100.0])
def test_a_node_that_lost_its_state_is_believed_again_however_dead_it_was(world: MakeSim, after_s: float) -> None:
    sim = offering(formed(world(5)))
    node = sim.nodes[3]
    sim.kill(node)
    sim.run(after_s)

    sim.restart(node, forgot=True)

    sim.wait_until(lambda: node.core.generation == 2, 70.0)
    sim.wait_until(lambda: sim.all_know(node), 5.0)
    assert any(isinstance(effect, events.OwnRowSeen) for _, effect in node.effects)
    sim.run(60.0)
    assert sim.all_know(node)
    assert all(Health.DEAD not in said(other, node, sim.time_s - 60.0) for other in sim.living)


def test_a_node_that_lives_a_generation_again_is_believed_however_it_was_accused_in_it(world: MakeSim) -> None:
    """Its home comes from a copy made before it began that generation, in which it had an incarnation already."""
    sim = offering(formed(world(5)))
    node, other = sim.nodes[3], sim.nodes[1]
    mishaps.pause(sim, node)
    sim.wait_until(lambda: buried(sim, node), 60.0)
    mishaps.resume(sim, node)
    sim.wait_until(lambda: node.core.vigil.detector.incarnation > 0 and sim.all_know(node), 60.0)
    now = node.moment(sim.time_s)
    body = NodeInfo(name="thief", addresses=(), mode="participant", software="sim")
    own = RowId(node.peer, Kind.NODE, "")
    stolen = seal(own, body, mesh=sim.mesh, order=(1, 99), issued_s=now.wall_s, ttl_s=60.0, sign=node._sign)
    sim.inject(other, node, encode(Rows((stolen.signed,))))
    sim.wait_until(lambda: all(each.core.store.life(node.peer) == (2, 1) for each in sim.living), 30.0)
    sim.kill(node)
    sim.wait_until(lambda: buried(sim, node), 60.0)

    sim.restart(node)
    assert node.core.generation == 2, "it does not know that it was there before"
    sim.offer(node, CHAT)

    sim.wait_until(lambda: sim.all_know(node) and sim.all_know(node, Kind.CAPABILITY, CHAT), 20.0)
    assert node.core.generation == 3
    assert not any(isinstance(effect, events.OwnRowSeen) and effect.times > 1 for _, effect in node.effects)


def test_a_clock_that_runs_backwards_after_a_restart_does_no_harm_within_the_tolerance(world: MakeSim) -> None:
    sim = offering(formed(world(5)))
    node = sim.nodes[3]
    sim.kill(node)
    sim.wait_until(lambda: buried(sim, node), 10.0)
    node.skew_s = -240.0

    sim.restart(node)
    sim.offer(node, CHAT)

    sim.wait_until(lambda: sim.all_know(node, Kind.CAPABILITY, CHAT), 10.0)


def test_while_an_observer_s_clock_is_set_back_the_dead_stay_dead(world: MakeSim) -> None:
    sim = offering(formed(world(5)))
    dead, observer = sim.nodes[3], sim.nodes[0]
    kept = [row.signed for row in observer.core.store.rows(origin=dead.peer)]
    sim.kill(dead)
    sim.wait_until(lambda: buried(sim, dead), 10.0)

    observer.skew_s = -200.0
    sim.inject(sim.nodes[1], observer, encode(Rows(tuple(kept))))
    sim.run(1.0)

    assert buried(sim, dead)


def test_a_clock_a_day_off_is_named_and_set_right_its_node_is_back(world: MakeSim) -> None:
    sim = formed(world(4))
    node = sim.nodes[3]
    node.skew_s = 86_400.0
    sim.load(node, CHAT, 1)
    sim.run(80.0)
    assert any(isinstance(effect, events.ClockOff) for _, effect in sim.nodes[0].effects)

    node.skew_s = 0.0
    sim.load(node, CHAT, 2)

    sim.wait_until(lambda: sim.all_know(node), 40.0)


def story(seed: int) -> str:
    sim = Sim(8, seed=seed, conditions=Conditions(loss=0.05))
    sim.run(5.0)
    mishaps.starve(sim, sim.nodes[1:2], 20.0)
    mishaps.pause(sim, sim.nodes[2])
    sim.kill(sim.nodes[3])
    sim.run(10.0)
    mishaps.resume(sim, sim.nodes[2])
    mishaps.deafen(sim, sim.nodes[:2], sim.nodes[5:6])
    mishaps.slander(sim, sim.nodes[6], [sim.nodes[7]])
    sim.run(30.0)
    sim.validate()
    return sim.trace


def test_mishaps_are_the_same_with_the_same_seed() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)

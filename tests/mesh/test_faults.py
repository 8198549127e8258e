"""What the mesh survives, told of overlays: each test belongs to a line of docs/faults.md. Of meshes where all link to
all tells test_failures.py, of a thousand nodes test_scale.py."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from atmo.keys import issue_revocation
from atmo.mesh import events
from atmo.mesh.codec import decode, encode
from atmo.mesh.conduct import ROWS_PER_S
from atmo.mesh.events import Health
from atmo.mesh.limits import MAX_ROWS_PER_FRAME
from atmo.mesh.messages import Rows
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.rows import Kind, RowId
from atmo.mesh.sim import Conditions, Sim, SimNode, mishaps
from atmo.mesh.sim.life import Life
from atmo.mesh.sim.misfortunes import revive
from atmo.mesh.sim.node import EPOCH_S
from atmo.mesh.sim.requests import Requests
from tests.vectors import make

CHAT = "atmo:chat:nano"


def overlay(n: int, *, loss: float = 0.0, seed: int = 1) -> Sim:
    """A mesh at rest in which everybody says what it is and what it offers, and nobody is linked to all."""
    sim = Sim(0, seed=seed, conditions=Conditions(min_ms=10.0, max_ms=50.0, loss=loss), sizes=ViewSizes(everyone=0))
    sim.grow(n, rows=n, over_s=n / 20)
    for node in sim.nodes:
        sim.offer(node, node.offers)
    sim.run(15.0)
    sim.wait_until(sim.converged, 60.0, "equal tables")
    return sim


def deaths(sim: Sim) -> set[tuple[int, int]]:
    """(who, of whom) for every burial."""
    return {
        (node.number, sim._by_peer[effect.peer].number)
        for node in sim.nodes
        for _, effect in node.effects
        if isinstance(effect, events.HealthChanged) and effect.health is Health.DEAD
    }


class Tape:
    """Records every frame that anybody receives."""

    def __init__(self, sim: Sim) -> None:
        self.frames: list[tuple[SimNode, events.FrameReceived]] = []
        self._tell = sim.tell
        sim.tell = self._record  # type: ignore[method-assign]

    def _record(self, node: SimNode, event: events.Event) -> None:
        if isinstance(event, events.FrameReceived):
            self.frames.append((node, event))
        self._tell(node, event)


def test_every_recorded_frame_of_any_kind_replayed_changes_no_table() -> None:
    sim = Sim(0, conditions=Conditions(loss=0.05), sizes=ViewSizes(everyone=0))
    tape = Tape(sim)
    sim.grow(30, rows=30, over_s=3.0)
    for node in sim.nodes:
        sim.offer(node, CHAT)
    sim.run(60.0)
    sim.withdraw(sim.nodes[3], Kind.CAPABILITY, CHAT)
    sim.kill(sim.nodes[4])
    sim.run(60.0)
    sim.wait_until(sim.converged_rows, 60.0)
    before = {node.number: node.core.store.fingerprint() for node in sim.living}
    kinds = Counter(type(decode(event.frame)).__name__ for _, event in tape.frames)
    assert {"Rows", "Versions", "Digest", "Push", "IHave", "Graft", "Prune", "Join", "Neighbour", "Shuffle"} <= set(
        kinds
    )

    for node, event in list(tape.frames):
        if node.alive:
            node.core.handle(event, node.moment(sim.time_s))

    assert {node.number: node.core.store.fingerprint() for node in sim.living} == before
    for node in sim.living:
        node.core.store.validate()


def test_stories_use_every_message_of_the_protocol() -> None:
    """Those that keep the mesh together come by themselves; those of requests are only carried."""
    sim = Sim(0, conditions=Conditions(loss=0.1), sizes=ViewSizes(everyone=0))
    tape = Tape(sim)
    sim.grow(40, rows=40, over_s=2.0)
    sim.run(30.0)
    asker, server = sim.nodes[0], next(sim._by_peer[peer] for peer in sim.nodes[0].core.links)
    for message in make.messages().values():
        if type(message).__module__ == "atmo.mesh.messages":
            sim._perform(asker, events.Send(server.peer, encode(message)))
    sim.run(1.0)

    seen = {type(decode(event.frame)) for _, event in tape.frames}
    unseen = {type(message) for message in make.messages().values()} - seen
    assert unseen == set()


def latencies_ms(sim: Sim, target: SimNode, origins: list[SimNode], rounds: int) -> list[float]:
    """How long the target takes to hear of loads that others tell, one after the other."""
    taken = []
    for number in range(rounds):
        origin = origins[number % len(origins)]
        began_s = sim.time_s
        sim.offer(origin, f"row {number} {began_s}")
        name = RowId(origin.peer, Kind.CAPABILITY, f"row {number} {began_s}")
        sim.wait_until(lambda name=name: target.core.store.get(name) is not None, 10.0)  # type: ignore[misc]
        taken.append((sim.time_s - began_s) * 1e3)
        sim.run(0.2)
    return taken


def test_a_flood_of_rows_at_fifty_times_the_limit_ends_the_flooder_s_link_and_delays_nobody() -> None:
    """Honest p99 at most doubled, the flooder out within 5 s. What a frame costs of the CPU is not simulated."""
    sim = overlay(40)
    target = sim.nodes[5]
    flooder = sim._by_peer[next(iter(target.core.fabric.overlay.active))]
    honest = [node for node in sim.nodes if node not in (target, flooder)][:20]
    calm_ms = sorted(latencies_ms(sim, target, honest, 20))
    row = target.core.store.get(RowId(target.peer, Kind.NODE, ""))
    assert row is not None
    frame = encode(Rows((row.signed,) * MAX_ROWS_PER_FRAME))

    mishaps.flood(sim, flooder, target, frame, per_s=50 * ROWS_PER_S / MAX_ROWS_PER_FRAME, seconds=5.0)
    flooded_ms = sorted(latencies_ms(sim, target, honest, 20))
    sim.run(1.0)

    assert any(isinstance(effect, events.Misbehaved) for at_s, effect in target.effects)
    assert flooder.peer not in target.core.links
    assert flooded_ms[-1] <= 2 * calm_ms[-1]
    assert deaths(sim) == set()
    sim.run(30.0)
    assert flooder.peer not in target.core.links  # for a minute
    assert sim.all_know(flooder)


def test_one_liar_in_an_overlay_evicts_nobody() -> None:
    sim = overlay(40)
    liar, victims = sim.nodes[7], [sim.nodes[3], sim.nodes[30]]
    near = sim._by_peer[next(iter(liar.core.fabric.overlay.active))]

    mishaps.slander(sim, liar, [*victims, near])
    sim.run(60.0)

    assert {death for death in deaths(sim) if death[0] != liar.number} == set()
    assert all(sim.all_know(victim) for victim in (*victims, near))
    sim.validate_cores()


def test_no_healthy_node_of_an_overlay_is_declared_dead_while_a_tenth_is_paused() -> None:
    sim = overlay(60)
    paused = sim.nodes[10:16]
    for node in paused:
        mishaps.pause(sim, node)
    sim.run(40.0)
    for node in paused:
        mishaps.resume(sim, node)
    sim.run(40.0)

    assert {of for _, of in deaths(sim)} <= {node.number for node in paused}
    assert len({of for _, of in deaths(sim)}) == len(paused)  # they were silent for longer than any suspicion
    sim.wait_until(sim.converged, 60.0)
    assert sim.connected()


def test_one_signature_is_checked_for_each_row_a_node_takes() -> None:
    """Copies of a row, announcements and comparisons cost none."""
    sim = overlay(40)
    before = sum(node.checked for node in sim.nodes)
    news: list[events.Change] = []
    for node in sim.nodes:
        node.watch = lambda changed: news.extend(changed.changes)
    for origin in sim.nodes[::4]:
        sim.offer(origin, "atmo:chat:new")
    sim.run(5.0)

    heard = [change for change in news if change.row is not None]
    checked = sum(node.checked for node in sim.nodes) - before
    assert len(heard) >= 10 * 40
    assert checked == len(heard) - len({change.row.signed.payload for change in heard if change.row is not None})


@pytest.mark.parametrize("nodes", [20, 60])
def test_while_a_fifth_of_the_mesh_is_replaced_each_minute_lookups_name_living_nodes(nodes: int) -> None:
    """99.9% of lookups name a living node, where all link to all and in an overlay; asking again finds one always."""
    everyone = nodes == 20
    sim = Sim(nodes, conditions=Conditions(max_ms=50.0)) if everyone else overlay(nodes)
    for node in sim.nodes:
        sim.offer(node, node.offers)
    sim.run(20.0)
    chance = Random(nodes)
    requests = Requests(sim, chance)
    requests.keep_asking(0.05)
    every_s = 60.0 / (nodes / 5)
    for _ in range(round(180.0 / every_s)):
        victim = chance.choice([node for node in sim.living if node.number])
        sim.kill(victim)
        sim._at(sim.time_s + 2.5 * every_s, revive, sim, victim)
        sim.run(every_s)

    assert requests.tried > 3000
    assert requests.at_once / requests.tried >= 0.999
    assert requests.served == requests.tried
    sim.validate_cores()


@pytest.mark.parametrize("seed", [0, 1])
def test_an_hour_of_misfortunes_leaves_no_trace(seed: int) -> None:
    """24 hours of 50 seeds: `make soak`. Seed 0 is a mesh where all link to all, seed 1 an overlay."""
    report = Life(seed).run(1.0)

    assert report.misfortunes >= 3
    assert report.requests > 500
    assert report.availability >= 0.999


def test_a_revoked_member_is_ignored_on_its_links_within_two_seconds_and_by_the_mesh_within_ten() -> None:
    """Although the simulated nodes do not hang up on it, as real ones do."""
    sim = Sim(0, conditions=Conditions(min_ms=10.0, max_ms=50.0), sizes=ViewSizes(everyone=0), real_keys=True)
    sim.grow(30, rows=30, over_s=2.0)
    sim.run(15.0)
    owner, *others, revoked = sim.nodes
    linked = [node for node in others if revoked.peer in node.core.links]
    assert 0 < len(linked) < len(others)
    assert all(knows(node, revoked) for node in others)

    sim.tell(owner, events.Revoke(issue_revocation(sim.registry._root, revoked.peer, EPOCH_S + sim.time_s)))

    sim.wait_until(lambda: not any(knows(node, revoked) for node in linked), 2.0, "its neighbours ignore it")
    sim.wait_until(lambda: not any(knows(node, revoked) for node in others), 8.0, "everybody ignores it")
    sim.offer(revoked, "atmo:chat:again")
    sim.run(60.0)
    assert not any(knows(node, revoked) for node in [owner, *others])


def knows(node: SimNode, other: SimNode) -> bool:
    return any(row.id.origin == other.peer for kind in Kind for row in node.core.store.rows(kind))


def test_equal_seeds_give_equal_lives() -> None:
    traces = [Life(seed, nodes=8).run(0.3).trace for seed in (3, 3, 5)]

    assert traces[0] == traces[1] != traces[2]

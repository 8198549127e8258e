"""Stories of whole meshes, in simulated time, driven through the same core as on sockets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atmo.ids import Multiaddr
from atmo.keys import Identity
from atmo.mesh import events
from atmo.mesh.codec import decode, encode
from atmo.mesh.messages import Cancel, Rows
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.rows import Kind, NodeInfo, RowId, SignedRow
from atmo.mesh.sim import Conditions, Sim, SimNode
from atmo.mesh.sim.scenario import SimTimeout

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
        sim.run(0.1)  # whoever was just told of a lost link
        sim.validate()


def formed(sim: Sim) -> Sim:
    """Wait until everyone is linked to everyone and knows everyone."""
    sim.wait_until(sim.fully_linked, 30.0, "a full mesh")
    sim.wait_until(sim.converged, 30.0, "equal tables")
    return sim


def test_two_nodes_find_each_other(world: MakeSim) -> None:
    sim = world(2)

    sim.wait_until(sim.converged, 1.0)

    assert sim.knows(sim.nodes[0], sim.nodes[1])
    assert sim.knows(sim.nodes[1], sim.nodes[0])


def test_two_nodes_find_each_other_with_real_keys(world: MakeSim) -> None:
    sim = world(2, real_keys=True)

    sim.wait_until(sim.converged, 1.0)


def test_fifty_nodes_that_may_all_link_to_all_form_a_full_mesh(world: MakeSim) -> None:
    began_s = time.process_time()
    sim = world(50, sizes=ViewSizes(everyone=50))
    for node in sim.nodes:
        sim.offer(node, CHAT)

    took_s = sim.wait_until(sim.fully_linked, 10.0) + sim.wait_until(sim.converged, 10.0)

    assert took_s < 2.0
    assert time.process_time() - began_s < 10.0  # 0.6 s on the machine this was written on


def test_a_new_row_is_known_to_all_after_one_hop(world: MakeSim) -> None:
    sim = formed(world(20, conditions=Conditions(min_ms=5.0, max_ms=40.0)))
    sim.run(1.0)

    sim.offer(sim.nodes[7], CHAT)

    assert sim.wait_until(lambda: sim.all_know(sim.nodes[7], Kind.CAPABILITY, CHAT), 1.0) < 0.042


def test_a_withdrawn_capability_is_gone_everywhere(world: MakeSim) -> None:
    sim = formed(world(5))
    sim.offer(sim.nodes[1], CHAT)
    sim.wait_until(lambda: sim.all_know(sim.nodes[1], Kind.CAPABILITY, CHAT), 1.0)

    sim.withdraw(sim.nodes[1], Kind.CAPABILITY, CHAT)

    sim.wait_until(lambda: nobody_knows(sim, sim.nodes[1], Kind.CAPABILITY, CHAT), 1.0)
    sim.run(70.0)
    assert nobody_knows(sim, sim.nodes[1], Kind.CAPABILITY, CHAT)


def nobody_knows(sim: Sim, origin: SimNode, kind: Kind = Kind.NODE, key: str = "") -> bool:
    return not any(sim.knows(node, origin, kind, key) for node in sim.living)


def test_a_node_that_says_goodbye_is_forgotten_at_once(world: MakeSim) -> None:
    sim = formed(world(5))

    sim.stop(sim.nodes[2])

    assert sim.wait_until(lambda: nobody_knows(sim, sim.nodes[2]), 1.0) < 0.1
    sim.run(120.0)
    assert nobody_knows(sim, sim.nodes[2])


def test_a_killed_node_is_avoided_at_once_and_expires(world: MakeSim) -> None:
    sim = formed(world(5))
    sim.load(sim.nodes[2], CHAT, 1)
    sim.run(0.5)

    sim.kill(sim.nodes[2])

    sim.run(0.1)
    lost = events.PeerLost(sim.nodes[2].peer)
    assert all(lost in [effect for _, effect in node.effects] for node in sim.living)
    sim.wait_until(lambda: nobody_knows(sim, sim.nodes[2], Kind.GRADIENT), 10.0)
    sim.wait_until(lambda: nobody_knows(sim, sim.nodes[2]), 60.0)


def test_the_dead_are_not_carried_on_by_newcomers(world: MakeSim) -> None:
    """Each newcomer would keep a dead node's row for another lifetime, and hand it to the next."""
    sim = formed(world(3))
    dead = sim.nodes[2]
    sim.kill(dead)

    for _ in range(12):
        sim.run(10.0)
        sim.add(1)

    sim.wait_until(lambda: nobody_knows(sim, dead), 1.0)


def test_a_restarted_node_is_known_by_its_new_words_alone(world: MakeSim) -> None:
    sim = formed(world(4))
    node = sim.nodes[3]
    sim.offer(node, CHAT)
    sim.wait_until(lambda: sim.all_know(node, Kind.CAPABILITY, CHAT), 1.0)
    sim.kill(node)
    sim.run(0.2)

    sim.restart(node)

    formed(sim)
    assert nobody_knows(sim, node, Kind.CAPABILITY, CHAT)  # it has not offered it in this life
    row = sim.nodes[0].core.store.get(RowId(node.peer, Kind.NODE, ""))
    assert row is not None
    assert row.generation == 2


def test_a_node_that_lost_its_state_is_believed_again(world: MakeSim) -> None:
    sim = formed(world(4))
    node = sim.nodes[3]
    for _ in range(3):
        sim.kill(node)
        sim.run(0.2)
        sim.restart(node)
        formed(sim)
    sim.kill(node)
    sim.run(0.2)

    sim.restart(node, forgot=True)

    sim.wait_until(lambda: node.core.generation == 5, 2.0)
    formed(sim)
    assert events.OwnRowSeen(5, 1) in [effect for _, effect in node.effects]


def test_a_node_that_lost_its_state_long_ago_is_believed_again(world: MakeSim) -> None:
    """All its rows have expired, but nobody accepts lower versions of the same generation yet."""
    sim = formed(world(4))
    node = sim.nodes[3]
    sim.run(200.0)
    sim.kill(node)
    sim.run(400.0)

    sim.restart(node, forgot=True)

    sim.wait_until(sim.fully_linked, 70.0)
    sim.wait_until(sim.converged, 1.0)
    assert node.core.generation == 2


def test_a_copied_key_is_noticed_by_its_owner(world: MakeSim) -> None:
    """Two nodes with one key cannot both be linked to one peer, but their rows meet."""
    sim = formed(world(3))
    victim, thief = sim.nodes[1], sim.nodes[2]
    thief.core = type(thief.core)(
        peer=victim.peer,
        mesh=sim.mesh,
        generation=9,
        sign=victim._sign,
        verify=victim._verify,
        timing=victim._timing,
        rng=thief._rng,
        roll=victim.registry.roll(),
        certificate=victim.certificate,
    )
    body = NodeInfo(name="thief", addresses=(), mode="participant", software="sim")
    (_, broadcast) = thief.core.handle(events.Publish(Kind.NODE, "", body), thief.moment(sim.time_s))
    assert isinstance(broadcast, events.Broadcast)
    thief.alive = False

    sim.inject(thief, sim.nodes[0], broadcast.frame)
    sim.run(10.0)

    assert any(isinstance(effect, events.OwnRowSeen) for _, effect in victim.effects)
    kept = sim.nodes[0].core.store.get(RowId(victim.peer, Kind.NODE, ""))
    assert kept is not None
    assert kept.generation == 10
    assert isinstance(kept.body, NodeInfo)
    assert kept.body.name == "node-1"


def test_a_partition_heals_and_both_sides_agree_again(world: MakeSim) -> None:
    sim = formed(world(10))
    left, right = sim.nodes[:5], sim.nodes[5:]
    sim.partition(left, right)
    sim.run(300.0)
    assert nobody_of(left, sim, right)
    sim.offer(left[0], CHAT)
    sim.offer(right[0], CHAT)

    sim.heal()

    sim.wait_until(sim.converged, 90.0)  # the seed is dialled once a minute by then
    assert sim.all_know(left[0], Kind.CAPABILITY, CHAT)
    assert sim.all_know(right[0], Kind.CAPABILITY, CHAT)


def nobody_of(side: list[SimNode], sim: Sim, others: list[SimNode]) -> bool:
    return not any(sim.knows(node, other) for node in side for other in others)


def test_a_cut_link_is_made_again_when_the_cable_is_back(world: MakeSim) -> None:
    sim = formed(world(3))
    a, b = sim.nodes[1:]
    sim.cut(a, b)
    sim.wait_until(lambda: b.peer not in a.core.links, 2.0)
    sim.run(20.0)

    sim.heal()

    sim.wait_until(sim.fully_linked, 60.0)


def test_rows_lost_on_the_gossip_lane_arrive_by_repair(world: MakeSim) -> None:
    sim = formed(world(20, conditions=Conditions(loss=0.2)))
    for node in sim.nodes:
        sim.offer(node, CHAT)
        sim.load(node, CHAT, 1)

    sim.run(20.0)

    for node in sim.nodes:
        assert sim.all_know(node, Kind.CAPABILITY, CHAT)
        assert sim.all_know(node, Kind.GRADIENT)


def test_gossip_published_before_a_subscription_has_arrived_is_made_up_for(world: MakeSim) -> None:
    sim = world(5, conditions=Conditions(slow_join_ms=200.0))
    formed(sim)

    for node in sim.nodes:
        sim.offer(node, CHAT)

    sim.wait_until(lambda: all(sim.all_know(node, Kind.CAPABILITY, CHAT) for node in sim.nodes), 30.0)


def test_no_live_capability_expires_while_a_tenth_of_the_gossip_is_lost(world: MakeSim) -> None:
    sim = formed(world(10, conditions=Conditions(loss=0.1)))
    for node in sim.nodes:
        sim.offer(node, CHAT)
    sim.run(10.0)
    gone: list[events.Change] = []
    for node in sim.nodes:
        node.watch = lambda changed: gone.extend(change for change in changed.changes if change.row is None)

    sim.run(300.0)

    assert gone == []


def test_a_star_of_nodes_that_cannot_be_dialled_is_one_mesh(world: MakeSim) -> None:
    """All are behind NAT but the first: they reach each other's rows through it."""
    sim = world(1)
    sim.add(9, reachable=False)
    sim.wait_until(sim.converged, 20.0)
    leaf = sim.nodes[5]
    assert len(leaf.core.links) == 1
    for node in sim.nodes:
        sim.load(node, CHAT, 0)
    sim.run(10.0)

    sim.load(leaf, CHAT, 3)
    sim.run(10.0)
    sim.wait_until(sim.converged, 10.0)

    assert all(sim.all_know(node, Kind.GRADIENT) for node in sim.nodes)


def test_a_node_whose_clock_is_a_day_off_is_named_by_those_it_talks_to(world: MakeSim) -> None:
    sim = world(2)
    sim.nodes[1].skew_s = 86_400.0
    sim.publish(sim.nodes[1], Kind.NODE, "", NodeInfo(name="x", addresses=(), mode="participant", software="sim"))
    sim.run(3.0)

    (off,) = [effect for _, effect in sim.nodes[0].effects if isinstance(effect, events.ClockOff)]

    assert off.off_s == pytest.approx(86_400.0, abs=5.0)


def test_clocks_that_differ_by_two_minutes_do_no_harm(world: MakeSim) -> None:
    sim = world(4)
    for node, skew_s in zip(sim.nodes, (0.0, 120.0, -120.0, 60.0), strict=True):
        node.skew_s = skew_s
        sim.load(node, CHAT, 1)

    formed(sim)
    sim.run(60.0)

    assert all(sim.all_know(node, Kind.GRADIENT) for node in sim.nodes)


def test_every_recorded_frame_replayed_changes_nothing(world: MakeSim) -> None:
    sim = formed(world(5))
    recorded: list[tuple[SimNode, SimNode, events.FrameReceived]] = []
    tell = sim.tell

    def record(node: SimNode, event: events.Event) -> None:
        if isinstance(event, events.FrameReceived):
            recorded.append((sim._by_peer[event.peer], node, event))
        tell(node, event)

    sim.tell = record  # type: ignore[method-assign]
    for node in sim.nodes:
        sim.offer(node, CHAT)
    sim.run(30.0)
    sim.withdraw(sim.nodes[1], Kind.CAPABILITY, CHAT)
    sim.kill(sim.nodes[4])
    sim.run(65.0)
    sim.tell = tell  # type: ignore[method-assign]
    changed: list[events.RowsChanged] = []
    for node in sim.living:
        node.watch = changed.append
    before = sim.nodes[0].core.store.fingerprint()

    for source, target, event in recorded:
        if source.alive and isinstance(decode(event.frame), Rows):
            sim.tell(target, event)

    assert len(recorded) > 100
    assert [change for effect in changed for change in effect.changes if not is_renewal_of_itself(change)] == []
    assert sim.nodes[0].core.store.fingerprint() == before


def is_renewal_of_itself(change: events.Change) -> bool:
    """A node that is told an event also does what is due: it may renew its own rows meanwhile."""
    return change.renewal


def test_a_peer_that_sends_garbage_is_hung_up_on_and_stays_out(world: MakeSim) -> None:
    sim = formed(world(3))
    rude, host = sim.nodes[1], sim.nodes[0]

    for _ in range(20):
        sim.inject(rude, host, b"\x01garbage")
    sim.run(10.0)

    assert rude.peer not in host.core.links
    assert any(isinstance(effect, events.Misbehaved) for _, effect in host.effects)
    sim.wait_until(lambda: rude.peer in host.core.links, 120.0)  # forgiven in the end


def test_a_member_s_forged_rows_reach_nobody(world: MakeSim) -> None:
    sim = formed(world(4, real_keys=True))
    before = [node.core.store.fingerprint() for node in sim.nodes]
    victim = sim.nodes[2].core.store.get(RowId(sim.nodes[2].peer, Kind.NODE, ""))
    assert victim is not None
    payload = victim.signed.payload.replace(b"node-2", b"node-X")
    forged = SignedRow(payload, Identity(bytes(32)).sign(b"atmo/row/1", payload))

    sim.inject(sim.nodes[1], sim.nodes[0], encode(Rows((forged,))))
    sim.run(0.5)

    assert [node.core.store.fingerprint() for node in sim.nodes] == before


def test_requests_are_delivered_in_order(world: MakeSim) -> None:
    sim = formed(world(2))
    for attempt in range(5):
        effect = events.Send(sim.nodes[1].peer, encode(Cancel(bytes(16), attempt)))
        sim._perform(sim.nodes[0], effect)

    sim.run(0.2)

    assert [delivered.message for delivered in sim.nodes[1].delivered] == [Cancel(bytes(16), i) for i in range(5)]


def test_a_seed_that_is_switched_on_later_is_found(world: MakeSim) -> None:
    sim = world(2)
    sim.kill(sim.nodes[0])
    sim.run(200.0)
    assert sim.nodes[1].core.links == frozenset()

    sim.restart(sim.nodes[0])

    sim.wait_until(sim.converged, 61.0)


def test_an_address_where_somebody_else_lives_now_leads_nowhere(world: MakeSim) -> None:
    sim = world(2)
    ghost = Multiaddr(sim.nodes[0].address.host, 4600, Identity(bytes(32)).public)

    sim.tell(sim.nodes[1], events.Discovered(ghost))

    formed(sim)
    sim.run(100.0)


def test_waiting_for_what_never_comes_ends(world: MakeSim) -> None:
    sim = world(2)
    with pytest.raises(SimTimeout, match="pigs to fly"):
        sim.wait_until(lambda: False, 5.0, "pigs to fly")


def story(seed: int) -> str:
    """A bit of everything, and the digest over all that happened."""
    sim = Sim(8, seed=seed, conditions=Conditions(loss=0.05))
    for node in sim.nodes:
        sim.offer(node, CHAT)
    sim.run(5.0)
    sim.kill(sim.nodes[3])
    sim.partition(sim.nodes[:4], sim.nodes[4:])
    sim.run(20.0)
    sim.restart(sim.nodes[3])
    sim.heal()
    sim.run(40.0)
    sim.validate()
    return sim.trace


def test_equal_seeds_give_equal_runs_and_other_seeds_others() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)


def test_a_run_is_the_same_in_another_process() -> None:
    """The order of Python's sets differs from process to process: nothing may depend on it."""
    program = "from tests.mesh.test_sim import story; print(story(1))"
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for seed in ("1", "2")
    }

    assert traces == {story(1)}


@pytest.mark.parametrize("seed", range(5))
def test_a_mesh_settles_after_any_series_of_misfortunes(world: MakeSim, seed: int) -> None:
    sim = world(8, seed=seed, conditions=Conditions(loss=0.05, max_ms=50.0))
    chance = sim.network._rng
    for _ in range(20):
        node = sim.nodes[chance.randrange(1, 8)]
        misfortune = chance.choice(["kill", "restart", "cut", "heal", "load", "offer", "withdraw", "partition"])
        if misfortune == "kill" and node.alive:
            sim.kill(node)
        elif misfortune == "restart" and not node.alive:
            sim.restart(node, forgot=chance.random() < 0.3)
        elif misfortune == "cut":
            sim.cut(node, sim.nodes[chance.randrange(8)])
        elif misfortune == "partition":
            sim.partition(sim.nodes[:3], sim.nodes[3:])
        elif misfortune == "heal":
            sim.heal()
        elif misfortune == "load":
            sim.load(node, CHAT, chance.randrange(9))
        elif misfortune == "offer":
            sim.offer(node, CHAT)
        elif misfortune == "withdraw":
            sim.withdraw(node, Kind.CAPABILITY, CHAT)
        sim.run(chance.uniform(0.0, 15.0))
        sim.validate_cores()
    sim.heal()
    for node in sim.nodes:
        if not node.alive:
            sim.restart(node)

    sim.wait_until(sim.fully_linked, 130.0, "a full mesh")
    sim.wait_until(sim.converged, 90.0, "equal tables")

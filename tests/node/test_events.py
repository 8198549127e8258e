"""The journal of a node: what happens, in order, for as many as want to know, and without a word of what was asked."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from atmo.client import SyncClient
from atmo.clock import ManualClock, SystemClock
from atmo.errors import AtmoError, NodeNotRunning
from atmo.ids import MeshId, PeerId, format_peer
from atmo.keys import CurveKeys, Identity, issue_credential
from atmo.mesh.node import MeshNode
from atmo.mesh.rows import NodeInfo
from atmo.node.events import Journal
from atmo.transport.memory import MemoryNetwork, MemoryTransport
from tests.cluster import Cluster, eventually

DESK, ATTIC = PeerId(bytes([1]) * 32), PeerId(bytes([2]) * 32)


# The ring


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_events_are_numbered_without_gaps_and_kept_up_to_a_limit() -> None:
    clock = ManualClock()
    journal = Journal(clock, keep=3)
    assert journal.since() == []
    for number in range(5):
        clock.advance(1)
        journal.record(f"event-{number}")
    kept = journal.since()
    assert kinds(kept) == ["event-2", "event-3", "event-4"]
    assert [event["seq"] - kept[0]["seq"] for event in kept] == [0, 1, 2]
    assert kept[-1]["at_s"] == clock.wall()
    assert kinds(journal.since(kept[0]["seq"])) == ["event-3", "event-4"]
    assert journal.since(kept[-1]["seq"]) == journal.since(journal.seq + 10) == []


def test_who_comes_back_too_late_is_told_that_something_is_missing() -> None:
    journal = Journal(ManualClock(), keep=2)
    journal.record("first")
    (first,) = journal.since()
    for _ in range(3):
        journal.record("later")
    told = journal.since(first["seq"])
    assert kinds(told) == ["gap", "later", "later"]
    assert [event["seq"] for event in told] == [first["seq"] + n for n in (1, 2, 3)]


def test_a_later_life_of_a_node_has_higher_numbers() -> None:
    clock = ManualClock()
    journal = Journal(clock)
    for _ in range(900):  # a thousand events a second is more than a node has
        journal.record("busy")
    clock.advance(1.0)
    assert Journal(clock).seq > journal.seq


def test_a_node_that_is_gone_keeps_its_name() -> None:
    journal = Journal(ManualClock())
    journal.about("joined", DESK)
    journal.about("suspect", DESK, "desk")
    journal.about("refuted", DESK, "", "it spoke")
    journal.about("unreachable", None, "", "nobody there")
    joined, _, refuted, unreachable = journal.since()
    assert joined["name"] == ""
    assert (refuted["name"], refuted["peer"], refuted["detail"]) == ("desk", format_peer(DESK), "it spoke")
    assert "peer" not in unreachable


def test_a_follower_of_a_node_where_nothing_happened_yet_does_not_spin() -> None:
    async def story() -> None:
        stream = Journal(SystemClock()).follow(pulse_s=0.001)
        async with asyncio.timeout(5.0):
            assert (await anext(stream))["event"] == "pulse"
        await stream.aclose()

    asyncio.run(story())


def test_followers_hear_everything_and_end_with_the_node() -> None:
    async def story() -> None:
        journal = Journal(SystemClock())
        journal.record("before")
        heard: list[list[str]] = [[], []]

        async def follow(number: int) -> None:
            async for event in journal.follow(pulse_s=30.0):  # a pulse would be heard, too
                heard[number].append(event["event"])

        followers = [asyncio.create_task(follow(number)) for number in range(2)]
        await asyncio.sleep(0)
        journal.record("during")
        await asyncio.sleep(0)
        journal.record("last")
        journal.close()
        await asyncio.wait_for(asyncio.gather(*followers), 5.0)
        assert heard == [["before", "during", "last"]] * 2

    asyncio.run(story())


def test_silence_is_told_by_a_pulse() -> None:
    async def story() -> None:
        journal = Journal(SystemClock())
        journal.record("only")
        stream = journal.follow(pulse_s=0.001)
        heard = [await anext(stream) for _ in range(3)]
        await stream.aclose()
        assert kinds(heard) == ["only", "pulse", "pulse"]
        assert {event["seq"] for event in heard} == {journal.seq}

    asyncio.run(story())


def test_a_follower_with_a_number_from_the_future_is_not_deaf() -> None:
    async def story() -> None:
        journal = Journal(SystemClock())
        stream = journal.follow(journal.seq + 1000, pulse_s=0.001)
        assert (await anext(stream))["event"] == "pulse"
        journal.record("news")
        assert (await anext(stream))["event"] == "news"
        await stream.aclose()

    asyncio.run(story())


# A large mesh, where most nodes have no link


def test_a_node_that_is_only_heard_of_has_appeared() -> None:
    """Forty members: the first learns of many by gossip alone, and is told of each of them once, by name."""

    async def story() -> None:
        root, network = Identity.generate(), MemoryNetwork()
        told: list[tuple[str, str]] = []
        first = _member(root, network, lambda what, peer, name, detail: told.append((what, name)))
        nodes = [first, *(_member(root, network) for _ in range(39))]
        names = {f"node-{number}" for number in range(len(nodes))}
        try:
            for number, node in enumerate(nodes):
                await node.start()
                assert node.transport.address is not None
                addresses = (str(node.transport.address),)
                node.introduce(NodeInfo(name=f"node-{number}", addresses=addresses, mode="provider", software="-"))
            for number, node in enumerate(nodes[1:]):
                address = nodes[number // 2].transport.address
                assert address is not None
                node.discovered(address)
            async with asyncio.timeout(60):
                while not _all_know(nodes):  # noqa: ASYNC110 - forty tables have no event for it
                    await asyncio.sleep(0.05)
            appeared = [name for what, name in told if what == "appeared"]
            assert len(appeared) >= 5
            assert set(appeared) < names
            assert len(set(appeared)) == len(appeared)
        finally:
            for node in nodes:
                await node.stop()

    asyncio.run(story())


def _all_know(nodes: list[MeshNode]) -> bool:
    return all(node.name_of(other.peer) for node in nodes for other in nodes)


def _member(root: Identity, network: MemoryNetwork, on_event: Any = lambda *event: None) -> MeshNode:
    identity, mesh = Identity.generate(), MeshId(root.public)
    credential = issue_credential(root, identity, CurveKeys.generate(), wall_s=SystemClock().wall())
    return MeshNode(
        identity=identity,
        mesh=mesh,
        certificate=credential.certificate,
        generation=1,
        transport=MemoryTransport(network, identity.public, credential, mesh),
        clock=SystemClock(),
        rng=random.Random(1),
        on_event=on_event,
    )


# Real nodes


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


def told(client: SyncClient, *wanted: str) -> list[dict[str, Any]]:
    """Wait until all these events happened; returns them, in their order."""

    def all_of_them() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = [event for event in client.events(follow=False) if event.kind in wanted]
        return events if set(wanted) <= set(kinds(events)) else []

    found: list[dict[str, Any]] = eventually(all_of_them, f"events {wanted}")
    return found


def ask(client: SyncClient, text: str, to: str, **wishes: Any) -> None:
    client.ask(text, allow_nodes=to, timeout_s=10, **wishes)


def test_a_request_is_told_where_it_was_asked_and_where_it_was_served(cluster: Cluster) -> None:
    here, there = cluster.start("here"), cluster.start("there")
    cluster.together()
    ask(here, "tell me about the zebracanary", "there")
    asked, answered = told(here, "asked", "answered")
    report = here.mesh()
    (other,) = (node for node in report["nodes"] if node["name"] == "there")
    assert report["full_mesh"]
    assert (report["accusations"], other["state"], other["neighbour"]) == ([], "linked", True)
    assert other["slots"] == other["capabilities"][0]["slots"] > 0
    assert report["seq"] >= answered["seq"]
    serving, served = told(there, "serving", "served")
    assert {event["request_id"] for event in (asked, answered, serving, served)} == {asked["request_id"]}
    assert (asked["name"], serving["name"]) == ("there", "here")
    assert answered["output_tokens"] == served["output_tokens"] > 0
    assert answered["total_s"] >= answered["first_s"] > 0

    stream = here.stream("Hello", allow_nodes="there", temperature=5.0, max_tokens=900, timeout_s=10)
    assert [step.kind for step in islice(stream.steps(), 2)] == ["route", "text"]
    stream.close()
    told(here, "cancelled")
    told(there, "refused")
    with pytest.raises(AtmoError):
        ask(here, "word " * 20_000, "there")
    with pytest.raises(AtmoError, match="since"):
        next(here.events(-1))
    assert "zebracanary" not in json.dumps([*here.events(follow=False), *there.events(follow=False)])


def test_members_that_go_are_told_with_their_names(cluster: Cluster) -> None:
    here, there, guest = (cluster.start(name) for name in ("here", "there", "guest"))
    cluster.together()
    since = here.mesh()["seq"]
    there.stop()
    cluster.pids.pop("there")
    left = next(event for event in here.events(since) if event["event"] == "left")
    assert left["name"] == "there"
    here.revoke("guest")
    revoked = next(event for event in here.events(left["seq"]) if event["event"] == "revoked")
    assert revoked["name"] == "guest"
    with pytest.raises(NodeNotRunning):
        list(SyncClient(socket_path=there.address.socket).events())
    assert list(guest.events(follow=False))


def test_a_node_that_keeps_failing_is_put_out_for_a_while(cluster: Cluster) -> None:
    here = cluster.start("here")
    cluster.start("mute")
    cluster.together()
    pid = cluster.pids["mute"]

    def fail(_: int) -> None:
        with pytest.raises(AtmoError):
            ask(here, "What is 2+2?", "mute")

    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(fail, range(6)))
    finally:
        os.kill(pid, signal.SIGCONT)
    put_out = next(event for event in told(here, "failed", "ejected") if event["event"] == "ejected")
    assert put_out["name"] == "mute"
    assert "atmo:chat:atmo-nano failed too often" in put_out["detail"]

    def waits() -> bool:
        offers = [offer for node in here.mesh()["nodes"] if node["name"] == "mute" for offer in node["capabilities"]]
        return any(0 < offer["ejected_s"] <= 30 for offer in offers)

    eventually(waits, "the report says for how long")


def test_a_stopping_node_does_not_wait_for_those_who_follow_it(cluster: Cluster) -> None:
    """An open stream of events ends with the node instead of holding it up, and the follower sees the end."""
    client = cluster.start("here")
    stream = client.events()
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, stream)
        client.stop()
        assert rest.result(10) is not None
    cluster.pids.pop("here")
    log = (cluster.folder / "home/nodes/here/node.log").read_text()
    assert "Traceback" not in log

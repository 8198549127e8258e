"""Requests to nodes that are no neighbours: a link is made for them, or there is a reason at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

import atmo.mesh.node as mesh_node
from atmo.clock import SystemClock
from atmo.errors import NoRoute, PeerUnreachable
from atmo.generation import Finish, Piece, Task, Turn
from atmo.ids import MeshId, Multiaddr, PeerId
from atmo.keys import CurveKeys, Identity, issue_credential
from atmo.mesh.asking import Job
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.constraints import Constraints
from atmo.mesh.node import MeshNode
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.query import Query
from atmo.mesh.rows import Kind, NodeInfo
from atmo.mesh.service import Answer, Question
from atmo.transport.memory import MemoryNetwork, MemoryTransport

ROOT = Identity(bytes(32))
MESH = MeshId(ROOT.public)
# One neighbour is enough, so a node that has one looks for no other.
SIZES = ViewSizes(everyone=0, active=2, own_choice=0, linger_s=0.3, parting_s=0.1)


class Echo:
    """A service that says who it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        yield Piece(f"I am {self._name}.")
        yield Finish(reason="stop")

    def load(self) -> Load:
        return Load("atmo:chat:echo", 0, 1, 0, 0.0, 0.0, 0.0, True)


class Village:
    """An asker and strangers, each linked to a friend of all, and the asker cut off from the strangers."""

    def __init__(self, sizes: ViewSizes = SIZES) -> None:
        self.network = MemoryNetwork()
        self.nodes: list[MeshNode] = []
        self._sizes = sizes

    async def add(self, name: str, *, address: bool = True, offers: bool = True) -> MeshNode:
        identity, curve, clock = Identity.generate(), CurveKeys.generate(), SystemClock()
        credential = issue_credential(ROOT, identity, curve, wall_s=clock.wall())
        transport = MemoryTransport(self.network, identity.public, credential, MESH, clock)
        node = MeshNode(
            identity=identity,
            certificate=credential.certificate,
            mesh=MESH,
            generation=1,
            transport=transport,
            clock=clock,
            rng=Random(1),
            sizes=self._sizes,
        )
        for other in self.nodes[1:2]:  # the asker
            self.network.cut(other.peer, node.peer)
        await node.start()
        addresses = (str(transport.address),) if address else ()
        node.introduce(NodeInfo(name=name, addresses=addresses, mode="provider", software="-"))
        if offers:
            descriptor = Descriptor(id="atmo:chat:echo", type="chat", description="Says who it is.")
            node.offer(Capability(descriptor, "none", (bytes([1]) * EMBEDDING_DIM,)), Echo(name))
        for friend in self.nodes[:1]:
            node.discovered(Multiaddr("127.0.0.1", friend.transport.address.port, friend.peer))  # type: ignore[union-attr]
        self.nodes.append(node)
        return node

    def back(self, one: MeshNode, other: MeshNode) -> None:
        self.network.heal(one.peer, other.peer)


@asynccontextmanager
async def village(sizes: ViewSizes = SIZES) -> AsyncIterator[tuple[Village, MeshNode]]:
    """With the friend and the asker."""
    made = Village(sizes)
    try:
        await made.add("friend", offers=False)
        yield made, await made.add("asker", offers=False)
    finally:
        for node in made.nodes:
            await node.stop()


async def eventually(true: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(10.0):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert true(), what


async def knows(asker: MeshNode, *strangers: MeshNode) -> None:
    """Wait until the asker could route to them, and has no link to any."""
    await eventually(lambda: all(asker.table.find(node.peer, "atmo:chat:echo") >= 0 for node in strangers), "they are")
    assert not asker.transport.linked() & {node.peer for node in strangers}


async def ask(asker: MeshNode) -> str:
    query = Query(asker.peer, constraints=Constraints(model="atmo:chat:echo"))
    said = ""
    async for reply in asker.ask(Job(Task((Turn("user", "Who?"),)), query, timeout_s=10.0)):
        said += reply.text if isinstance(reply, Piece) else ""
    return said


def linked(one: MeshNode, other: PeerId) -> bool:
    return other in one.transport.linked()


def test_a_link_is_made_for_a_request_and_given_up_when_nobody_uses_it() -> None:
    async def story() -> None:
        async with village() as (people, asker):
            stranger = await people.add("stranger")
            await knows(asker, stranger)
            people.back(asker, stranger)

            assert await ask(asker) == "I am stranger."

            assert linked(asker, stranger.peer)
            assert stranger.peer not in asker.core.fabric.overlay.active
            await eventually(lambda: not linked(asker, stranger.peer), "it is given up")
            assert await ask(asker) == "I am stranger.", "and made again"

    asyncio.run(story())


def test_a_node_that_cannot_be_reached_is_a_reason_at_once() -> None:
    async def story() -> None:
        async with village() as (people, asker):
            await knows(asker, await people.add("stranger"))

            with pytest.raises(PeerUnreachable, match="Nothing listens there"):
                await ask(asker)

    asyncio.run(story())


def test_a_node_without_an_address_is_a_reason_at_once() -> None:
    async def story() -> None:
        async with village() as (people, asker):
            await knows(asker, await people.add("stranger", address=False))

            with pytest.raises(PeerUnreachable, match="cannot be dialled now"):
                await ask(asker)

    asyncio.run(story())


def test_a_dial_that_comes_to_nothing_is_a_reason_before_the_request_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with village() as (people, asker):
            await knows(asker, await people.add("stranger"))
            monkeypatch.setattr(mesh_node, "LINK_WAIT_S", 0.05)
            monkeypatch.setattr(asker.transport, "dial", lambda address: None)  # a firewall that says nothing

            with pytest.raises(PeerUnreachable, match="no link to it came about in time"):
                await ask(asker)

    asyncio.run(story())


def test_another_node_answers_for_one_that_cannot_be_reached() -> None:
    async def story() -> None:
        async with village() as (people, asker):
            lost, found = await people.add("lost"), await people.add("found")
            await knows(asker, lost, found)
            people.back(asker, found)

            assert [await ask(asker) for _ in range(5)] == ["I am found."] * 5

    asyncio.run(story())


def test_who_could_not_be_asked_while_the_mesh_was_small_can_be_once_it_has_grown() -> None:
    async def story() -> None:
        async with village(replace(SIZES, everyone=3)) as (people, asker):
            stranger = await people.add("stranger")
            await knows(asker, stranger)
            with pytest.raises(NoRoute, match="a missing link"):
                await ask(asker)

            people.back(asker, stranger)
            await people.add("one too many", offers=False)
            await eventually(lambda: not asker.core.fabric.everyone, "all linked to all no more")

            assert await ask(asker) == "I am stranger."

    asyncio.run(story())


def test_what_is_found_not_to_fit_its_text_is_not_asked() -> None:
    async def story() -> None:
        async with village() as (people, asker):
            asker.vet = lambda origin, capability: False
            stranger = await people.add("stranger")
            await eventually(lambda: bool(asker.name_of(stranger.peer)), "it is known")
            await eventually(lambda: len(list(asker.core.store.rows(Kind.CAPABILITY))) == 1, "so is what it offers")

            assert asker.table.find(stranger.peer, "atmo:chat:echo") < 0

    asyncio.run(story())

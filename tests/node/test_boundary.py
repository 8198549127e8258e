"""The boundary is a property: with retries, failover, hedging, a prompt cache, audit, logs and a cloud to fall back on,
no word of a prompt that must stay is found outside. That each of these was at work is asserted as well.

Three real nodes on real sockets: `ward`, where it is asked, and `icu`, both inside; `office`, outside, which would love
to answer; and a cloud that ward and office have keys for. Every frame that any of them hands to a socket is caught
before it is encrypted, every request that reaches the cloud is kept, and every file of every node and of every engine's
folder is read.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import zmq

from atmo import receipts
from atmo.client import SyncClient
from atmo.config import Config, DiscoverySection, NodeSection, RuntimeSection, ServeSection, load
from atmo.errors import AtmoError
from atmo.generation import Sampling, Task, Turn
from atmo.ids import PeerId
from atmo.inference.engines.http_upstream import Access
from atmo.mesh import asking
from atmo.mesh.messages import Ask, Failed
from atmo.node.node import Node
from atmo.transport.bulk import BulkLane
from atmo.transport.control import ControlLane
from atmo.transport.gossip import GossipLane
from atmo.transport.link import Link
from tests.inference.http_servers import OPENAI_MODELS, FakeServer, Reply, Request, as_json, fake
from tests.inference.test_http_runtimes import OPENAI_HELLO
from tests.node.sites import nano
from tests.node.swarm_support import until

pytestmark = pytest.mark.asyncio

INSIDE = {"data_residency": ["hospital"]}


@dataclass
class Tap:
    """What was handed to sockets. to: whose key a frame was meant for, None for everybody."""

    frames: list[tuple[PeerId | None, bytes]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def holding(self, canary: str) -> list[PeerId | None]:
        """Who was sent a frame with these words in it."""
        return [to for to, frame in self.frames if _holds(frame, canary)]


def _holds(data: bytes, canary: str) -> bool:
    """In any form in which text is written down."""
    forms = (canary.encode(), canary.encode("utf-16-le"), canary.encode().hex().encode())
    coded = [base64.b64encode(canary.encode()[at:])[: len(canary)] for at in range(3)]
    return any(form in data for form in (*forms, *(each[:-4] for each in coded)))


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Tap:
    """Catches frames where they are meant for somebody, and again where they enter ZeroMQ, so that none is missed."""
    caught = Tap()
    sends = {lane: lane.send for lane in (ControlLane, BulkLane)}
    publish, enter, enter_many = GossipLane.publish, zmq.Socket.send, zmq.Socket.send_multipart

    def send(self: Any, link: Link, frame: bytes, *plain: bool) -> None:
        caught.frames.append((link.peer, bytes(frame)))
        sends[type(self)](self, link, frame, *plain)

    def publish_all(self: GossipLane, frame: bytes) -> None:
        caught.frames.append((None, bytes(frame)))
        publish(self, frame)

    def into_zmq(self: Any, data: Any, *more: Any, **kinds: Any) -> Any:
        caught.raw.append(bytes(data.bytes if isinstance(data, zmq.Frame) else data))
        return enter(self, data, *more, **kinds)

    def many_into_zmq(self: Any, parts: Any, *more: Any, **kinds: Any) -> Any:
        return enter_many(self, list(parts), *more, **kinds)  # which sends each part by itself

    for lane in (ControlLane, BulkLane):
        monkeypatch.setattr(lane, "send", send)
    monkeypatch.setattr(GossipLane, "publish", publish_all)
    monkeypatch.setattr(zmq.Socket, "send", into_zmq)
    monkeypatch.setattr(zmq.Socket, "send_multipart", many_into_zmq)
    return caught


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cloud of this test is on this machine, and counts as the cloud all the same."""
    monkeypatch.setattr(Access, "is_local", property(lambda self: False))


@dataclass
class Hospital:
    ward: Node
    icu: Node
    office: Node
    cloud: FakeServer
    client: SyncClient
    folder: Path

    @property
    def inside(self) -> set[PeerId | None]:
        return {self.ward.mesh.peer, self.icu.mesh.peer}

    async def ask(self, text: str, **wishes: Any) -> list[dict[str, Any]] | AtmoError:
        """Over HTTP, with the audit trail behind it, as a program would."""

        def run() -> list[dict[str, Any]] | AtmoError:
            try:
                return list(self.client.stream(text, timeout_s=20, **wishes).steps())
            except AtmoError as error:
                return error

        return await asyncio.to_thread(run)

    async def post(self, body: dict[str, Any]) -> httpx.Response:
        """To OpenAI's API of the ward."""
        assert self.ward.gateway is not None
        async with httpx.AsyncClient(timeout=20) as http:
            return await http.post(f"{self.ward.gateway.url}/chat/completions", json=body)

    def leaks(self, tap: Tap, canary: str) -> list[str]:
        """Where these words are and may not be."""
        found = [f"a frame to {self._name(to)}" for to in tap.holding(canary) if to not in self.inside]
        found += ["the cloud" for asked in self.cloud.asked if _holds(repr(asked.body).encode(), canary)]
        for place, _, names in os.walk(self.folder):
            for name in names:
                file = Path(place) / name
                if file.is_file() and _holds(file.read_bytes(), canary):
                    found.append(str(file))
        return found

    def _name(self, peer: PeerId | None) -> str:
        return "everybody" if peer is None else self.ward.mesh.name_of(peer)

    def audited(self) -> tuple[int, int]:
        """What the ward's audit trail holds: requests, and how many attempts failed."""
        assert self.ward.gateway is not None
        with closing(sqlite3.connect(self.ward.config.audit_file)) as database:
            rows, retries = database.execute("select count(*), sum(retries) from requests").fetchone()
        return int(rows), int(retries or 0)


def _answer(request: Request) -> Reply:
    return as_json(OPENAI_MODELS) if request.path.endswith("/models") else OPENAI_HELLO


@asynccontextmanager
async def hospital(environ: dict[str, str]) -> AsyncIterator[Hospital]:
    base = load(environ=environ)
    async with fake(_answer) as cloud:
        runtime = RuntimeSection(kind="openai", url=cloud.url, models=("qwen2.5-7b-instruct",))
        nodes = []
        for name, serves, runtimes in (("icu", True, ()), ("office", True, (runtime,)), ("ward", False, (runtime,))):
            labels = {} if name == "office" else {"residency": "hospital"}
            config = Config(
                home=base.home,
                runtime=base.runtime,
                node=NodeSection(name=name, labels=labels),
                discovery=DiscoverySection(lan=False, runtimes=False, runtimes_every_s=0.2),
                serve=(ServeSection(model="atmo-nano"),) if serves else (),
                runtimes=runtimes,
            )
            nodes.append(Node(config))
        icu, office, ward = nodes
        try:
            for node in nodes:
                await node.start()
            for node in nodes:
                await node.settled()
            clouded = "atmo:chat:qwen2.5-7b-instruct"
            await until(lambda: all(len(node.mesh.transport.linked()) == 2 for node in nodes), "all are linked")
            await until(lambda: len(ward.mesh.table) == 4, "ward knows all four offers")
            await until(lambda: clouded in ward.services, "ward has its cloud")
            yield Hospital(ward, icu, office, cloud, SyncClient(ward.config, node="ward"), base.home.parent)
        finally:
            await asyncio.gather(*(node.stop() for node in nodes))


async def test_no_word_of_a_bounded_prompt_is_found_outside(
    environ: dict[str, str],
    tap: Tap,
    far_away: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []
    temporary = Path(environ["ATMO_HOME"]).parent / "tmp"  # where engines have their folders
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    async with hospital(environ) as place:

        def canary(what: str) -> str:
            said.append(f"zanzibar-{what}-4711")
            return f"Hello! Who are you? {said[-1]}"

        # That the tap and the cloud see what there is to see.
        free = await place.ask(canary("free"), model="qwen2.5-7b-instruct")
        assert isinstance(free, list)
        assert place.leaks(tap, said[0]), "an unbounded prompt goes to the cloud, and that is noticed"
        outside = await place.ask(canary("outside"), model="atmo-nano", constraints={"allow_nodes": "office"})
        assert isinstance(outside, list)
        assert place.office.mesh.peer in tap.holding(said[1])
        assert sum(_holds(frame, said[1]) for frame in tap.raw) == len(tap.holding(said[1])), "no other way out"

        # Inside there is a node that serves it.
        served = await place.ask(canary("served"), constraints=INSIDE)
        assert isinstance(served, list)
        assert [event["node"] for event in served if event["event"] == "done"] == ["icu"]
        assert place.icu.mesh.peer in tap.holding(said[2])
        again = await place.ask(f"Hello! Who are you? {said[2]}", constraints=INSIDE)
        assert isinstance(again, list)
        assert [event["cached_tokens"] > 10 for event in again if event["event"] == "done"] == [True], "a cache is on"

        # A hedge beside it, after no time at all: nobody else may be asked.
        hedges: list[object] = []
        with monkeypatch.context() as patch:
            hedge = asking.Asking._hedge

            def noted(self: asking.Asking, *args: Any) -> None:
                hedges.append(self)
                hedge(self, *args)

            patch.setattr(asking.Asking, "_hedge", noted)
            patch.setattr(asking, "HEDGE_SAMPLES", 1)
            patch.setattr(asking, "LEAST_HEDGE_S", 0.0)
            for turn in range(2):
                place.ward.mesh.asking._waits = {"atmo:chat:atmo-nano": deque([0.0])}
                assert isinstance(await place.ask(canary(f"hedged-{turn}"), constraints=INSIDE), list)
        assert hedges, "a second node was looked for"

        # It refuses, again and again: retries and failover find nobody, the cloud is not fallen back on.
        place.icu.mesh.serving._draining = True
        refused = await place.ask(canary("refused"), constraints={**INSIDE, "type": "chat"})
        assert isinstance(refused, AtmoError)
        private = await place.ask(canary("private"), private=True)
        assert isinstance(private, AtmoError)
        alone = await place.ask(canary("alone"), constraints={"local_only": True})
        assert isinstance(alone, AtmoError)

        # Nobody inside has that model, it comes, and OpenAI's API is the door.
        model = place.ward.transfers.store.import_(nano(), "came", copy=True)
        yes = {"private": True, "migrate": "yes"}
        for more in ({}, {"stream": True}, {"stream": True, "atmo": {**yes, "constraints": {"residency": "hospital"}}}):
            turns = [{"role": "user", "content": canary(f"came-{len(said)}")}]
            reply = await place.post({"model": "came", "messages": turns, "atmo": yes, **more})
            assert (reply.status_code, "error" in reply.text) == (200, False), reply.text
        assert model.root in place.ward.kept.roots()
        assert len(list(receipts.kept(place.ward.config.home))) == 3

        # It dies in the middle of it.
        place.icu.mesh.serving._draining = False
        asked = asyncio.create_task(place.ask(canary("broken"), model="atmo-nano", constraints=INSIDE))
        await until(lambda: tap.holding(said[-1]), "it was asked")
        await place.icu.mesh.transport.close()
        await asked
        await until(lambda: place.audited()[0] == len(said) + 1, "all of it is in the audit trail")
        assert place.audited()[1] >= 1, "and that there were attempts that failed"

        for word in said[2:]:
            assert place.leaks(tap, word) == []
    for word in said[2:]:
        assert place.leaks(tap, word) == [], "nor after all have stopped"
    printed = capfd.readouterr()
    assert not [word for word in said if word in printed.out + printed.err]


async def test_a_node_that_is_not_where_the_data_may_be_refuses_whatever_its_asker_knew(
    environ: dict[str, str], far_away: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boundary rides with the request: labels may have changed while it was on its way."""
    async with hospital(environ) as place:
        heard: list[Failed] = []
        monkeypatch.setattr(place.ward.mesh.asking, "receive", lambda peer, reply: heard.append(reply))
        task = Task((Turn("user", "Hello"),), Sampling(max_tokens=1))

        place.ward.mesh.say(place.icu.mesh.peer, Ask(bytes(16), 0, "atmo:chat:atmo-nano", task, 5.0, 8, ("bank",)))
        cloud = "atmo:chat:qwen2.5-7b-instruct"
        place.ward.mesh.say(place.ward.mesh.peer, Ask(bytes(16), 1, cloud, task, 5.0, 8, ("hospital",)))

        await until(lambda: len(heard) == 2, "both were refused")
        assert {reply.code for reply in heard} == {"outside_boundary"}
        assert not [asked for asked in place.cloud.asked if not asked.path.endswith("/models")]

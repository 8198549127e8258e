"""What becomes of a request whose node is busy, slow or gone: other nodes, pauses, a second question, a clear end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing

import pytest

from atmo.clock import SystemClock
from atmo.errors import EngineUnavailable, Overloaded
from atmo.generation import Finish, Piece, Task, Turn
from atmo.ids import PeerId
from atmo.mesh import asking
from atmo.mesh.asking import Asking, Job, Routed
from atmo.mesh.budget import Budget
from atmo.mesh.messages import AnyMessage, Ask, Cancel, Done, Failed, Part
from atmo.mesh.query import Query
from atmo.mesh.routing import decide
from tests.mesh.routing_support import Town, capability

SING = Task((Turn("user", "sing"),))
Behave = Callable[[Ask], None]


class Stage:
    """A requester and nodes that do as told. `said`: what was sent to whom."""

    def __init__(self, *nodes: str, root: str = "5f" * 32) -> None:
        self.town = Town()
        self.offer = capability("singer", root=root)
        self.peers = {name: self.town.node(name, self.offer) for name in nodes}
        self.behaviour: dict[PeerId, Behave] = dict.fromkeys(self.peers.values(), self.answer)
        self.said: list[tuple[str, AnyMessage]] = []
        self.asking = Asking(
            SystemClock(),
            lambda query: decide(self.town.table, self.town.field, query, self.town.now, self.town.rng),
            self._transmit,
            lambda seen: None,
            lambda peer, needed: None,
            lambda peer, capability_id: root,
            lambda: 0.0,
        )

    def node(self, name: str, behave: Behave) -> None:
        self.behaviour[self.peers[name]] = behave

    def name(self, peer: PeerId) -> str:
        return next(name for name, known in self.peers.items() if known == peer)

    def _transmit(self, peer: PeerId, message: AnyMessage) -> None:
        self.said.append((self.name(peer), message))
        if isinstance(message, Ask):
            asyncio.get_running_loop().call_soon(self.behaviour[peer], message)

    def _peer_of(self, ask: Ask) -> PeerId:
        return self.peers[next(name for name, said in reversed(self.said) if said is ask)]

    def answer(self, ask: Ask) -> None:
        peer = self._peer_of(ask)
        self.asking.receive(peer, Part(ask.id, ask.attempt, 0, Piece("la", (1,))))
        self.asking.receive(peer, Done(ask.id, ask.attempt, 1, Finish(reason="stop", output_tokens=1), None))

    def be_busy(self, ask: Ask) -> None:
        self.fail(ask, "overloaded")

    def fail(self, ask: Ask, code: str) -> None:
        self.asking.receive(self._peer_of(ask), Failed(ask.id, ask.attempt, code, "No.", "", 0.05, None))

    def be_silent(self, ask: Ask) -> None:
        """It says nothing."""

    def break_off(self, ask: Ask) -> None:
        peer = self._peer_of(ask)
        self.asking.receive(peer, Part(ask.id, ask.attempt, 0, Piece("la", (1,))))
        self.asking.peer_lost(peer, "killed")

    async def ask(self, timeout_s: float = 20.0) -> tuple[str, list[Routed]]:
        text, routed = "", []
        job = Job(SING, Query(local=self.town.home), timeout_s)
        async with aclosing(self.asking.ask(job)) as replies:
            async for reply in replies:
                if isinstance(reply, Routed):
                    routed.append(reply)
                elif isinstance(reply, Piece):
                    text += reply.text
        return text, routed

    def asked(self) -> list[str]:
        return [name for name, message in self.said if isinstance(message, Ask)]


@pytest.mark.asyncio
async def test_a_busy_node_is_passed_over_for_another_at_once() -> None:
    stage = Stage("anna", "ben")
    stage.node("anna", stage.be_busy)
    for _ in range(5):
        assert (await stage.ask())[0] == "la"
    assert stage.asked().count("ben") == 5


@pytest.mark.asyncio
async def test_where_all_are_busy_they_are_asked_again_after_a_pause() -> None:
    stage = Stage("anna")
    turns = iter([stage.be_busy, stage.be_busy, stage.answer])
    stage.node("anna", lambda ask: next(turns)(ask))
    began_s = time.monotonic()
    assert (await stage.ask())[0] == "la"
    assert time.monotonic() - began_s >= 3 * asking.FIRST_PAUSE_S, "one pause, and one of twice its length"
    assert stage.asked() == ["anna"] * 3


@pytest.mark.asyncio
async def test_nobody_waits_beyond_the_deadline_for_a_busy_node() -> None:
    stage = Stage("anna")
    stage.node("anna", stage.be_busy)
    with pytest.raises(Overloaded):
        await stage.ask(timeout_s=0.2)
    assert stage.asked() == ["anna"]


@pytest.mark.asyncio
async def test_without_a_budget_a_request_is_not_tried_again() -> None:
    stage = Stage("anna", "ben")
    stage.asking.retries = Budget(share=0.0, trickle_per_s=0.0, _tokens=0.0)
    stage.node("anna", lambda ask: stage.fail(ask, "engine_unavailable"))
    stage.node("ben", lambda ask: stage.fail(ask, "engine_unavailable"))
    with pytest.raises(EngineUnavailable) as caught:
        await stage.ask()
    assert "being retried already" in caught.value.hint
    assert len(stage.asked()) == 1


@pytest.mark.asyncio
async def test_an_answer_that_has_begun_needs_no_budget_to_go_on() -> None:
    stage = Stage("anna", "ben")
    stage.asking.retries = Budget(share=0.0, trickle_per_s=0.0, _tokens=0.0)
    stage.node("anna", stage.break_off)
    stage.node("ben", lambda ask: stage.answer(ask) if ask.task.prefix.text else stage.break_off(ask))
    text, routed = await stage.ask()
    assert text in ("lala", "lalala"), "what ben begins is gone on with by anna, who breaks off, and so on"
    assert routed[-1].resumed
    assert not routed[-1].other_model


@pytest.mark.asyncio
async def test_beside_a_node_that_is_slow_to_begin_another_is_asked() -> None:
    stage = Stage("anna", "ben")
    for _ in range(2 * asking.HEDGE_SAMPLES):  # learn what is usual
        await stage.ask()
    stage.said.clear()
    stage.node("anna", stage.be_silent)
    hedged: list[Routed] = []
    while not hedged:  # until anna is the one who is asked first
        _, routed = await stage.ask()
        hedged = routed[1:]
    assert stage.name(hedged[0].decision.peer) == "ben"
    assert ("anna", Cancel) in [(name, type(message)) for name, message in stage.said], "the slow one is told to stop"


@pytest.mark.asyncio
async def test_few_requests_are_asked_twice_however_slow_everyone_is() -> None:
    stage = Stage("anna", "ben")
    for _ in range(asking.HEDGE_SAMPLES):
        await stage.ask()
    stage.asking.hedges = Budget(share=asking.HEDGE_SHARE, trickle_per_s=0.0, _tokens=0.0)
    stage.said.clear()

    def answer_late(ask: Ask) -> None:
        asyncio.get_running_loop().call_later(2 * asking.LEAST_HEDGE_S, stage.answer, ask)

    for name in stage.peers:
        stage.node(name, answer_late)
    await asyncio.gather(*(stage.ask() for _ in range(100)))
    assert 100 < len(stage.asked()) <= 105

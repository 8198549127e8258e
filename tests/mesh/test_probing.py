"""Where reports are old, fresh load is asked for: whom, when it is waited for, and what the answers change."""

from __future__ import annotations

import asyncio

import pytest

from atmo.clock import SystemClock
from atmo.ids import PeerId
from atmo.mesh import choice
from atmo.mesh.messages import Probe
from atmo.mesh.probing import Probing
from tests.mesh.routing_support import Town, capability, load, peer

CODER = "atmo:chat:coder"
NAMES = [f"n{number}" for number in range(12)]


def a_town(age_s: float, service_s: float = 1.0) -> Town:
    town = Town()
    for name in NAMES:
        town.tell(town.node(name, capability("coder", "code")), load("coder", service_s=service_s))
        town.field.observe_rtt(peer(name), 0.001, town.now)
    town.now += age_s
    return town


def test_fresh_reports_are_not_asked_about() -> None:
    assert a_town(age_s=0.4).ask("code").probes == ()


def test_old_reports_name_a_few_places_to_ask() -> None:
    probes = a_town(age_s=3.0).ask("code").probes

    assert len(probes) == choice.PROBES
    assert len(set(probes)) == len(probes)


def test_news_decide_where_the_rest_is_old() -> None:
    """Eleven nodes said long ago that they were idle; of two it is known now, and one of these has a queue."""
    town = a_town(age_s=20.0)
    town.field.on_feedback(peer("n3"), load("coder", in_flight=4), town.now)
    town.field.on_feedback(peer("n7"), load("coder", in_flight=1), town.now)

    decision = town.ask("code")

    assert decision.chosen.node == "n7"
    assert decision.chosen.why == "the lowest potential of those with fresh news"
    assert not {peer("n3"), peer("n7")} & {probe.peer for probe in decision.probes}


def test_a_node_never_asks_itself() -> None:
    town = Town()
    for name in ("home", "n1", "n2", "n3"):
        town.tell(town.node(name, capability("coder", "code")), load("coder"))
    town.now += 20.0

    for _ in range(30):
        assert peer("home") not in {probe.peer for probe in town.ask("code").probes}


class Wire:
    """Links with a round trip, and nodes that answer when told to."""

    def __init__(self, town: Town, rtt_s: float | None = 0.0001, silent: frozenset[PeerId] = frozenset()) -> None:
        self.town, self.silent = town, silent
        self.linked = frozenset(peer(name) for name in NAMES)
        self.asked: list[PeerId] = []
        self.probing = Probing(SystemClock(), self.send, lambda: self.linked, lambda _: rtt_s)

    def send(self, who: PeerId, probe: Probe) -> None:
        self.asked.append(who)
        if who not in self.silent:
            asyncio.get_running_loop().call_soon(self.answer, who, probe.capability)

    def answer(self, who: PeerId, capability_id: str) -> None:
        self.town.field.on_feedback(who, load("coder", in_flight=2), self.town.now)
        self.probing.told(who, capability_id)


@pytest.mark.asyncio
async def test_a_request_waits_for_news_that_come_quickly_and_is_decided_by_them() -> None:
    town = a_town(age_s=20.0)
    wire = Wire(town)
    decision = town.ask("code")

    assert await wire.probing.refresh(decision)

    assert {probe.peer for probe in decision.probes} == set(wire.asked)
    again = town.ask("code")
    assert again.peer in wire.asked
    assert again.chosen.in_flight == 2
    assert repr(wire.probing) == "<Probing 0 answers due>"


@pytest.mark.asyncio
async def test_a_request_does_not_wait_over_a_path_that_is_long_for_its_work() -> None:
    for rtt_s in (0.2, None):
        wire = Wire(a_town(age_s=20.0), rtt_s)

        assert not await wire.probing.refresh(wire.town.ask("code"))
        assert len(wire.asked) == choice.PROBES, "the answers serve those that follow"
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_nobody_waits_long_for_those_that_say_nothing() -> None:
    town = a_town(age_s=20.0)
    wire = Wire(town, silent=frozenset(peer(name) for name in NAMES))

    async with asyncio.timeout(10):
        assert not await wire.probing.refresh(town.ask("code"))


@pytest.mark.asyncio
async def test_only_linked_nodes_are_asked_and_none_twice_while_an_answer_is_due() -> None:
    town = a_town(age_s=20.0)
    wire = Wire(town, rtt_s=None, silent=frozenset(peer(name) for name in NAMES))
    decision = town.ask("code")
    first = decision.probes[0].peer
    wire.linked -= {first}
    for _ in range(3):
        await wire.probing.refresh(decision)

    assert first not in wire.asked
    assert len(wire.asked) == choice.PROBES - 1

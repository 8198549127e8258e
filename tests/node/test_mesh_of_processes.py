"""Twenty-four real node processes on loopback: they find each other, hear each other, and notice who is gone."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from atmo.mesh.suspicion import patience_s
from atmo.mesh.timing import MeshTiming
from tests.node.members import Member, Strain, eventually, know, mesh

NODES = 24
PUBLICATIONS = 20
DEAD_WITHIN_S = MeshTiming().probe_s + patience_s(MeshTiming().suspicion_s, NODES, 9) + 2.0
MISSED_S = 1.6  # a stopped node's links are lost only then
# The mesh forgives a tenth of its nodes that they are starved. If the test itself is, all of them are.
STARVED_S = 0.25

pytestmark = [
    pytest.mark.timeout(300),  # half a minute where the machine is not busy with other things
    pytest.mark.skipif(sys.platform != "linux", reason="times processes by the machine's monotonic clock"),
]


def test_two_dozen_processes_hear_each_other_and_notice_who_is_gone() -> None:
    asyncio.run(_story())


async def _story() -> None:
    async with Strain() as whole, mesh(NODES) as members:
        everyone = {member.name for member in members}
        await know(members, everyone, 60.0)
        await eventually(lambda: all(_joined(member) >= NODES - 1 for member in members), "a full mesh", 60.0)

        async with Strain() as strain:
            delays_s = sorted(await _publish(members))
        p99_s = delays_s[int(len(delays_s) * 0.99)]
        print(f"rows: p50 {delays_s[len(delays_s) // 2]:.3f} s, p99 {p99_s:.3f} s, {strain.worst_s:.3f} s of strain")
        assert p99_s < strain.bar(1.0)

        killed, stopped, *others = members
        async with Strain() as strain:
            killed_ns = killed.kill()
            lost_s = await _noticed(others, killed, "lost", killed_ns)
            stopped_ns = stopped.stop()
            missed_s = await _noticed(others, stopped, "lost", stopped_ns)
        print(f"kill -9 known to all after {lost_s:.3f} s, SIGSTOP after {missed_s:.3f} s")
        assert lost_s < strain.bar(0.5)
        assert missed_s < strain.bar(2.0)

        async with Strain() as strain:
            dead_s = await _noticed(others, killed, "dead", killed_ns)
            buried_s = await _noticed(others, stopped, "dead", stopped_ns)
        print(f"dead in every table after {dead_s:.1f} s, and {buried_s:.1f} s; {strain.worst_s:.3f} s of strain")
        assert dead_s < strain.bar(DEAD_WITHIN_S)
        assert buried_s < strain.bar(DEAD_WITHIN_S + MISSED_S)
        await know(others, everyone - {killed.name, stopped.name}, 10.0)

        stopped.go_on()
        await know(others, everyone - {killed.name}, 30.0)
        if whole.worst_s < STARVED_S:
            healthy = [(m.name, o.name) for m in others for o in others if m is not o and m.noted("dead", o)]
            assert healthy == []


def _joined(member: Member) -> int:
    return sum(1 for event in member.said if event["event"] == "note" and event["what"] == "joined")


async def _publish(members: list[Member]) -> list[float]:
    """Seconds from the publisher's call until each of the others had the row."""
    delays_s = []
    chance = random.Random(1)
    for number in range(PUBLICATIONS):
        publisher = chance.choice(members)
        publisher.do(do="publish", number=number)
        others = [member for member in members if member is not publisher]
        await eventually(lambda n=number, o=others: all(_seen(m, n) for m in o), f"row {number} is everywhere")  # type: ignore[misc]
        begun = next(event["at_ns"] for event in publisher.said if _is(event, "published", number))
        delays_s += [(_seen(member, number) - begun) / 1e9 for member in others]
        publisher.do(do="withdraw", number=number)
    return delays_s


def _seen(member: Member, number: int) -> int:
    return next((int(event["at_ns"]) for event in member.said if _is(event, "seen", number)), 0)


def _is(event: dict[str, object], what: str, number: int) -> bool:
    return event["event"] == what and event.get("number") == number


async def _noticed(members: list[Member], gone: Member, what: str, since_ns: int) -> float:
    """Wait until all have noted it; seconds until the last did."""
    waits = "all note it"
    await eventually(lambda: all(member.noted(what, gone, since_ns) for member in members), waits, 30.0)
    return max(_after_s(member, gone, what, since_ns) for member in members)


def _after_s(member: Member, gone: Member, what: str, since_ns: int) -> float:
    noted = member.noted(what, gone, since_ns)
    assert noted is not None
    return float(noted["at_ns"] - since_ns) / 1e9

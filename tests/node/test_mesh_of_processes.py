"""Twenty-four real node processes on loopback: they find each other, hear each other, and notice who is gone."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from atmo.mesh.suspicion import patience_s
from atmo.mesh.timing import MeshTiming
from tests.node.members import Member, eventually, know, mesh

NODES = 24
# Two cores carry all of them, the tests and whatever else runs: beyond the bars for one node, this is forgiven.
PUBLICATIONS = 20
DEAD_WITHIN_S = MeshTiming().probe_s + patience_s(MeshTiming().suspicion_s, NODES, 9) + 2.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="times processes by the machine's monotonic clock")


def test_two_dozen_processes_hear_each_other_and_notice_who_is_gone() -> None:
    asyncio.run(_story())


async def _story() -> None:
    async with mesh(NODES) as members:
        everyone = {member.name for member in members}
        await know(members, everyone, 40.0)
        await eventually(lambda: all(_joined(member) >= NODES - 1 for member in members), "a full mesh", 30.0)

        delays_s = sorted(await _publish(members))
        print(f"rows: p50 {delays_s[len(delays_s) // 2]:.3f} s, p99 {delays_s[int(len(delays_s) * 0.99)]:.3f} s")
        assert delays_s[int(len(delays_s) * 0.99)] < 1.0

        killed, stopped, *others = members
        killed_ns = killed.kill()
        print(f"kill -9 known to all after {await _noticed(others, killed, 'lost', killed_ns):.3f} s")
        stopped_ns = stopped.stop()
        print(f"SIGSTOP known to all after {await _noticed(others, stopped, 'lost', stopped_ns):.3f} s")
        first = max(_after_s(member, killed, "lost", killed_ns) for member in others)
        second = max(_after_s(member, stopped, "lost", stopped_ns) for member in others)
        assert first < 0.5
        assert second < 2.0

        print(f"kill -9 dead in every table after {await _noticed(others, killed, 'dead', killed_ns):.1f} s")
        print(f"SIGSTOP dead in every table after {await _noticed(others, stopped, 'dead', stopped_ns):.1f} s")
        assert max(_after_s(member, killed, "dead", killed_ns) for member in others) < DEAD_WITHIN_S
        assert max(_after_s(member, stopped, "dead", stopped_ns) for member in others) < DEAD_WITHIN_S + 2.0
        await know(others, everyone - {killed.name, stopped.name}, 5.0)

        stopped.go_on()
        await know(others, everyone - {killed.name}, 15.0)
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

"""Faults happen as configured, and break no promise of the transport."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atmo.errors import PeerUnreachable
from atmo.transport.base import Lane
from atmo.transport.faults import NO_FAULTS, Faults, FaultyTransport
from tests.transport.support import End, Lab, link, until


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab("faults-none") as lab:
        yield lab


def set_faults(end: End, faults: Faults) -> None:
    assert isinstance(end.transport, FaultyTransport)
    end.transport.faults = faults


@pytest.mark.asyncio
async def test_gossip_is_dropped_and_doubled_in_the_given_share(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    set_faults(other, Faults(drop=0.25, duplicate=0.5))
    for number in range(1000):
        one.transport.publish(number.to_bytes(2, "big"))
    await until(lambda: other.frames(Lane.GOSSIP)[-3:] and other.frames(Lane.GOSSIP)[-1] > b"\x03\xd0")
    got = other.frames(Lane.GOSSIP)
    assert 700 < len(set(got)) < 800
    assert 1.4 < len(got) / len(set(got)) < 1.6


@pytest.mark.asyncio
async def test_gossip_is_reordered(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    set_faults(other, Faults(reorder=0.3, reorder_s=0.02))
    sent = [bytes([number]) for number in range(100)]
    for frame in sent:
        one.transport.publish(frame)
    await until(lambda: len(other.frames(Lane.GOSSIP)) == 100)
    assert other.frames(Lane.GOSSIP) != sent
    assert sorted(other.frames(Lane.GOSSIP)) == sent


@pytest.mark.asyncio
async def test_control_is_only_delayed_and_keeps_its_order(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    set_faults(other, Faults(drop=0.9, duplicate=0.9, reorder=0.9, delay_s=(0.0, 0.05)))
    sent = [bytes([number]) for number in range(100)]
    for frame in sent:
        one.transport.send(other.peer, frame)
    await asyncio.sleep(0)
    await until(lambda: len(other.frames(Lane.CONTROL)) == 100)
    assert other.frames(Lane.CONTROL) == sent


@pytest.mark.asyncio
async def test_a_silence_that_ends_in_time_loses_nothing(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    set_faults(other, Faults(silent=frozenset({one.peer}), notice_s=5.0))
    one.transport.send(other.peer, b"into the silence")
    await asyncio.sleep(0.02)
    assert not other.frames(Lane.CONTROL)
    set_faults(other, NO_FAULTS)
    await until(lambda: other.frames(Lane.CONTROL) == [b"into the silence"])
    assert not other.downs()


@pytest.mark.asyncio
async def test_a_silence_that_lasts_ends_the_link(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    set_faults(other, Faults(silent=frozenset({one.peer}), notice_s=0.05))
    one.transport.send(other.peer, b"never heard")
    await until(lambda: other.downs() and one.downs())
    assert "not heard for" in other.downs()[0].reason
    assert not other.frames(Lane.CONTROL)


@pytest.mark.asyncio
async def test_a_cut_ends_the_link_and_lets_none_come_up_until_it_is_mended(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    set_faults(other, Faults(cut=frozenset({one.peer})))
    await until(lambda: one.downs() and other.downs())
    other.transport.dial(one.transport.address)
    await until(lambda: other.failures())
    one.transport.dial(other.transport.address)
    await until(lambda: len(one.downs()) == 2, what="the far end sees its link come up and go")
    assert len(other.ups()) == 1
    with pytest.raises(PeerUnreachable):
        other.transport.send(one.peer, b"across the cut")
    set_faults(other, NO_FAULTS)
    await link(other, one)


@pytest.mark.asyncio
async def test_late_gossip_does_not_outlive_its_link(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    set_faults(other, Faults(reorder=1.0, reorder_s=0.1))
    one.transport.publish(b"late")
    await asyncio.sleep(0.01)
    one.transport.hang_up(other.peer, "bye")
    await until(lambda: other.downs())
    await link(one, other)
    await asyncio.sleep(0.15)
    assert not other.frames(Lane.GOSSIP)


@pytest.mark.asyncio
async def test_faults_add_up_when_wrapped_twice(lab: Lab) -> None:
    one = await lab.start()
    inner = lab.transport_of_kind("memory")
    twice = FaultyTransport(
        FaultyTransport(inner, Faults(drop=0.5), random.Random(1)), Faults(drop=0.5), random.Random(2)
    )
    other = End(twice)
    await twice.start(other.deliver)
    lab.ends.append(other)
    await link(one, other)
    for number in range(400):
        one.transport.publish(number.to_bytes(2, "big"))
    await until(lambda: other.frames(Lane.GOSSIP))
    await asyncio.sleep(0.02)
    assert 60 < len(other.frames(Lane.GOSSIP)) < 140
    assert "Faults" in repr(twice)

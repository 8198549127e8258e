"""What the memory transport offers beyond the promises: cuts, stalls, a smaller limit, and counts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atmo.errors import FrameTooLarge, PeerUnreachable
from atmo.transport.base import MAX_BACKLOG_BYTES, Lane
from atmo.transport.memory import MemoryTransport
from tests.transport.support import Lab, link, until


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab("memory") as lab:
        yield lab


@pytest.mark.asyncio
async def test_a_cut_ends_the_link_and_a_healed_one_can_be_dialled(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    lab.network.cut(one.peer, other.peer)
    await until(lambda: one.downs() and other.downs())
    one.transport.dial(other.transport.address)
    await until(lambda: one.failures())
    lab.network.heal(one.peer, other.peer)
    await link(one, other)


@pytest.mark.asyncio
async def test_a_stalled_peer_costs_bounded_memory_and_then_the_link(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    assert isinstance(other.transport, MemoryTransport)
    other.transport.stall()
    frame = bytes(1 << 20)
    for _ in range(MAX_BACKLOG_BYTES // len(frame)):
        one.transport.send(other.peer, frame)
    with pytest.raises(PeerUnreachable):
        one.transport.send(other.peer, frame)
    await until(lambda: one.downs())
    other.transport.resume()
    await until(lambda: other.downs())


@pytest.mark.asyncio
async def test_a_smaller_limit_holds_for_every_lane(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    lab.network.mtu_bytes = 100
    with pytest.raises(FrameTooLarge, match="takes 100"):
        one.transport.send(other.peer, bytes(101))
    with pytest.raises(FrameTooLarge):
        one.transport.publish(bytes(101))


@pytest.mark.asyncio
async def test_frames_and_bytes_are_counted(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    assert isinstance(one.transport, MemoryTransport)
    one.transport.send(other.peer, bytes(10))
    one.transport.publish(bytes(20))
    await until(lambda: other.frames(Lane.GOSSIP))
    assert (lab.network.frames, lab.network.bytes) == (2, 30)
    lanes = one.transport.stats()[other.peer].lanes
    assert (lanes[Lane.CONTROL].bytes_out, lanes[Lane.GOSSIP].frames_out) == (10, 1)
    assert "2 frames, 30 bytes" in repr(lab.network)

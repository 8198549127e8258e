"""Every promise of `atmo.transport.base`, kept by every transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from atmo.errors import FrameTooLarge, PeerUnreachable, TransportError
from atmo.ids import Multiaddr, format_peer
from atmo.keys import Identity
from atmo.transport.base import (
    BULK_WINDOW_BYTES,
    MAX_BACKLOG_BYTES,
    MAX_BULK_WINDOW_BYTES,
    MAX_FRAME_BYTES,
    Lane,
    LinkUp,
    Received,
    TransportEvent,
)
from tests.transport.support import End, Lab, enrol, link, until

KINDS = ["zeromq", "memory", "faults-none", "faults-delay"]
CHUNK = bytes(1 << 20)


@pytest_asyncio.fixture(params=KINDS)
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with Lab(request.param) as lab:
        yield lab


@pytest.mark.asyncio
async def test_a_dial_brings_up_one_link_at_both_ends(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    assert [(up.peer, up.outbound) for up in one.ups()] == [(other.peer, True)]
    assert [(up.peer, up.outbound) for up in other.ups()] == [(one.peer, False)]
    assert one.ups()[0].passport.peer == other.peer
    assert one.ups()[0].address == other.transport.address
    assert other.ups()[0].address == one.transport.address


@pytest.mark.asyncio
async def test_both_ends_can_send_whoever_dialled(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    one.transport.send(other.peer, b"from the dialler")
    other.transport.send(one.peer, b"from the dialled")
    await until(lambda: one.frames(Lane.CONTROL) and other.frames(Lane.CONTROL))
    assert one.frames(Lane.CONTROL, other.peer) == [b"from the dialled"]
    assert other.frames(Lane.CONTROL, one.peer) == [b"from the dialler"]


@pytest.mark.asyncio
async def test_one_may_send_from_within_the_delivery_of_link_up(lab: Lab) -> None:
    one, other = End(lab.transport(enrol(lab.root))), await lab.start()

    def greet(events: Sequence[TransportEvent]) -> None:
        one.hear(events)
        for event in events:
            if isinstance(event, LinkUp):
                one.transport.send(event.peer, b"welcome")

    await one.transport.start(greet)
    lab.ends.append(one)
    await link(one, other)
    await until(lambda: other.frames(Lane.CONTROL) == [b"welcome"])


@pytest.mark.asyncio
async def test_a_thousand_control_frames_arrive_in_order_each_once(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    sent = [number.to_bytes(4, "big") * (1 + number % 50) for number in range(1000)]
    for frame in sent:
        one.transport.send(other.peer, frame)
        other.transport.send(one.peer, frame)
    await until(lambda: min(len(one.frames(Lane.CONTROL)), len(other.frames(Lane.CONTROL))) >= 1000)
    assert one.frames(Lane.CONTROL) == sent
    assert other.frames(Lane.CONTROL) == sent


@pytest.mark.asyncio
async def test_frames_up_to_the_limit_pass_and_larger_ones_are_refused_by_the_sender(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    one.transport.send(other.peer, bytes(MAX_FRAME_BYTES[Lane.CONTROL]))
    one.transport.publish(bytes(MAX_FRAME_BYTES[Lane.GOSSIP]))
    await one.transport.send_bulk(other.peer, bytes(MAX_FRAME_BYTES[Lane.BULK]))
    await until(lambda: all(other.frames(lane) for lane in Lane))
    assert {lane: len(other.frames(lane)[0]) for lane in Lane} == MAX_FRAME_BYTES
    with pytest.raises(FrameTooLarge, match="control lane"):
        one.transport.send(other.peer, bytes(MAX_FRAME_BYTES[Lane.CONTROL] + 1))
    with pytest.raises(FrameTooLarge, match="gossip lane"):
        one.transport.publish(bytes(MAX_FRAME_BYTES[Lane.GOSSIP] + 1))
    with pytest.raises(FrameTooLarge, match="bulk lane"):
        await one.transport.send_bulk(other.peer, bytes(MAX_FRAME_BYTES[Lane.BULK] + 1))
    assert one.transport.linked() == {other.peer}


@pytest.mark.asyncio
async def test_an_empty_frame_is_a_frame(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    one.transport.send(other.peer, b"")
    one.transport.publish(b"")
    await one.transport.send_bulk(other.peer, b"")
    await until(lambda: all(other.frames(lane) == [b""] for lane in Lane))


@pytest.mark.asyncio
async def test_gossip_reaches_every_neighbour_as_soon_as_the_link_is_up(lab: Lab) -> None:
    middle = await lab.start()
    others = [await lab.start() for _ in range(3)]
    for other in others:
        await link(other, middle)
    middle.transport.publish(b"news")
    for other in others:
        other.transport.publish(b"from " + other.peer)
    await until(lambda: all(other.frames(Lane.GOSSIP, middle.peer) == [b"news"] for other in others))
    await until(lambda: sorted(middle.frames(Lane.GOSSIP)) == sorted(b"from " + other.peer for other in others))


@pytest.mark.asyncio
async def test_without_a_link_sending_says_so_and_publishing_is_no_error(lab: Lab) -> None:
    one, stranger = await lab.start(), Identity.generate()
    one.transport.publish(b"to nobody")
    with pytest.raises(PeerUnreachable, match=format_peer(stranger.public)):
        one.transport.send(stranger.public, b"lost")
    with pytest.raises(PeerUnreachable):
        await one.transport.send_bulk(stranger.public, b"lost")
    one.transport.release_bulk(stranger.public, 1)
    one.transport.hang_up(stranger.public, "no link, no matter")


@pytest.mark.asyncio
async def test_hanging_up_ends_the_link_at_both_ends_with_the_reason(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    one.transport.hang_up(other.peer, "enough")
    await until(lambda: one.downs() and other.downs())
    assert one.downs()[0].reason == "enough"
    assert "enough" in other.downs()[0].reason
    assert one.transport.linked() == other.transport.linked() == frozenset()
    with pytest.raises(PeerUnreachable):
        one.transport.send(other.peer, b"too late")


@pytest.mark.asyncio
async def test_a_link_can_come_up_again_from_either_side(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    for dialler, dialled in ((other, one), (one, other)):
        one.transport.hang_up(other.peer, "again")
        await until(lambda: not one.transport.linked() and not other.transport.linked())
        await link(dialler, dialled)
    one.transport.send(other.peer, b"still there?")
    await until(lambda: other.frames(Lane.CONTROL) == [b"still there?"])
    assert len(one.ups()) == len(other.ups()) == 3


@pytest.mark.asyncio
async def test_dialling_a_linked_or_dialled_peer_again_does_nothing(lab: Lab) -> None:
    one, other = await lab.start(), await lab.start()
    for _ in range(3):
        one.transport.dial(other.transport.address)
    await until(lambda: one.ups() and other.ups())
    one.transport.dial(other.transport.address)
    one.transport.dial(Multiaddr(other.transport.address.host, other.transport.address.port))
    other.transport.dial(one.transport.address)
    one.transport.send(other.peer, b"after the dials")
    await until(lambda: other.frames(Lane.CONTROL))
    await asyncio.sleep(0.05)
    assert len(one.ups()) == len(other.ups()) == 1
    assert not one.downs() + other.downs()
    assert not one.failures() + other.failures()


@pytest.mark.asyncio
async def test_dials_that_cross_become_one_link(lab: Lab) -> None:
    for _ in range(10):
        await cross(await lab.start(), await lab.start())
    await asyncio.sleep(0.1)
    assert all(not end.failures() and not end.downs() for end in lab.ends)


async def cross(one: End, other: End) -> None:
    """Dial each other at once; then there is one link and both can use it."""
    one.transport.dial(other.transport.address)
    other.transport.dial(one.transport.address)
    await until(lambda: one.ups() and other.ups())
    one.transport.send(other.peer, b"to the other")
    other.transport.send(one.peer, b"to the one")
    await until(lambda: one.frames(Lane.CONTROL) and other.frames(Lane.CONTROL))
    assert len(one.ups()) == len(other.ups()) == 1
    assert {one.ups()[0].outbound, other.ups()[0].outbound} == {True, False}
    assert not one.downs() + other.downs()


@pytest.mark.asyncio
async def test_a_dial_by_host_and_port_alone_finds_who_is_there(lab: Lab) -> None:
    one, other = await lab.start(), await lab.start()
    address = other.transport.address
    one.transport.dial(Multiaddr(address.host, address.port))
    await until(lambda: one.ups())
    assert one.ups()[0].address == address


@pytest.mark.asyncio
async def test_a_dial_to_nobody_fails_with_the_address_in_the_message(lab: Lab) -> None:
    one, other = await lab.start(), await lab.start()
    gone = other.transport.address
    await other.transport.close()
    one.transport.dial(gone)
    await until(lambda: one.failures())
    assert one.failures()[0].address == gone
    assert str(gone.port) in str(one.failures()[0].error)
    assert isinstance(one.failures()[0].error, TransportError)


@pytest.mark.asyncio
async def test_a_dial_that_names_a_peer_accepts_only_that_peer(lab: Lab) -> None:
    one, other, wanted = await lab.start(), await lab.start(), Identity.generate()
    address = other.transport.address
    one.transport.dial(Multiaddr(address.host, address.port, wanted.public))
    await until(lambda: one.failures())
    assert format_peer(other.peer) in str(one.failures()[0].error)
    assert format_peer(wanted.public) in str(one.failures()[0].error)
    assert not one.ups()


@pytest.mark.asyncio
async def test_a_dial_to_oneself_fails(lab: Lab) -> None:
    one = await lab.start()
    address = one.transport.address
    one.transport.dial(address)
    await until(lambda: one.failures())
    one.transport.dial(Multiaddr(address.host, address.port))
    await until(lambda: len(one.failures()) == 2)
    assert all("this node itself" in str(failure.error) for failure in one.failures())


@pytest.mark.asyncio
async def test_a_peer_of_another_mesh_is_refused_with_the_reason(lab: Lab) -> None:
    elsewhere = Identity.generate()
    one, foreign = await lab.start(), await lab.start(root=elsewhere)
    one.transport.dial(foreign.transport.address)
    await until(lambda: one.failures())
    error = str(one.failures()[0].error)
    assert "another mesh" in error
    assert format_peer(elsewhere.public) in error
    assert not one.ups() + foreign.ups()


@pytest.mark.asyncio
async def test_an_expired_credential_is_refused(lab: Lab) -> None:
    late = enrol(lab.root, wall_s=1_600_000_000.0, lifetime_s=3600)
    one, expired = await lab.start(), await lab.start(late)
    expired.transport.dial(one.transport.address)
    await until(lambda: expired.failures())
    assert "expired" in str(expired.failures()[0].error)
    one.transport.dial(expired.transport.address)
    await until(lambda: one.failures())
    assert "expired" in str(one.failures()[0].error)


@pytest.mark.asyncio
async def test_bulk_waits_for_the_receiver_and_flows_when_it_releases(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    fits = BULK_WINDOW_BYTES // len(CHUNK)
    sending = asyncio.create_task(_send_all(lab, fits * 3))
    await until(lambda: len(other.frames(Lane.BULK)) == fits)
    await asyncio.sleep(0.05)
    assert len(other.frames(Lane.BULK)) == fits, "more came than was granted"
    assert not sending.done()
    for released in range(fits * 3):
        await until(lambda released=released: len(other.frames(Lane.BULK)) > released)  # type: ignore[misc]
        other.transport.release_bulk(one.peer, len(CHUNK))
    await sending
    assert [frame[:4] for frame in other.frames(Lane.BULK)] == [n.to_bytes(4, "big") for n in range(fits * 3)]


async def _send_all(lab: Lab, count: int) -> None:
    one, other = lab.ends
    for number in range(count):
        await one.transport.send_bulk(other.peer, number.to_bytes(4, "big") + CHUNK[4:])


@pytest.mark.asyncio
async def test_a_receiver_makes_the_bulk_window_wider_up_to_a_bound(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    fits, wide = BULK_WINDOW_BYTES // len(CHUNK), MAX_BULK_WINDOW_BYTES // len(CHUNK)
    sending = asyncio.create_task(_send_all(lab, wide + 1))
    await until(lambda: len(other.frames(Lane.BULK)) == fits)

    other.transport.widen_bulk(one.peer, BULK_WINDOW_BYTES // 2)
    other.transport.widen_bulk(one.peer, 2 * BULK_WINDOW_BYTES)
    await until(lambda: len(other.frames(Lane.BULK)) == 2 * fits)
    other.transport.widen_bulk(one.peer, 100 * MAX_BULK_WINDOW_BYTES)
    await until(lambda: len(other.frames(Lane.BULK)) == wide)

    assert not sending.done()
    for _ in range(wide):
        other.transport.release_bulk(one.peer, len(CHUNK))
    await sending
    assert other.downs() == []


@pytest.mark.asyncio
async def test_bulk_flows_from_the_dialled_to_the_dialler_too(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    for number in range(3):
        await other.transport.send_bulk(one.peer, bytes([number]) * 1000)
    await until(lambda: len(one.frames(Lane.BULK)) == 3)
    assert [frame[0] for frame in one.frames(Lane.BULK)] == [0, 1, 2]


@pytest.mark.asyncio
async def test_a_bulk_sender_that_waits_learns_that_the_link_is_gone(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    sending = asyncio.create_task(_send_all(lab, 100))
    await until(lambda: len(other.frames(Lane.BULK)) == BULK_WINDOW_BYTES // len(CHUNK))
    other.transport.hang_up(one.peer, "no more room")
    with pytest.raises(PeerUnreachable, match="no more room"):
        await sending


@pytest.mark.asyncio
async def test_a_cancelled_bulk_send_sends_nothing_and_holds_up_nobody(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    fits = BULK_WINDOW_BYTES // len(CHUNK)
    await _send_all(lab, fits)
    cancelled = asyncio.create_task(one.transport.send_bulk(other.peer, b"cancelled" + CHUNK[9:]))
    patient = asyncio.create_task(one.transport.send_bulk(other.peer, b"patient" + CHUNK[7:]))
    await asyncio.sleep(0)
    cancelled.cancel()
    await until(lambda: len(other.frames(Lane.BULK)) == fits)
    for _ in range(fits):
        other.transport.release_bulk(one.peer, len(CHUNK))
    await patient
    await until(lambda: len(other.frames(Lane.BULK)) == fits + 1)
    assert other.frames(Lane.BULK)[-1].startswith(b"patient")


@pytest.mark.asyncio
async def test_who_does_not_read_loses_the_link_and_costs_bounded_memory(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    for _ in range(MAX_BACKLOG_BYTES // len(CHUNK)):  # in one turn of the loop, so the other's loop cannot read
        one.transport.send(other.peer, CHUNK)
    with pytest.raises(PeerUnreachable):
        one.transport.send(other.peer, CHUNK)
    await until(lambda: one.downs() and other.downs())
    assert "does not read" in one.downs()[0].reason


@pytest.mark.asyncio
async def test_who_reads_may_be_sent_any_amount(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    for number in range(64):
        one.transport.send(other.peer, CHUNK)
        await until(lambda number=number: len(other.frames(Lane.CONTROL)) > number - 2)  # type: ignore[misc]
    await until(lambda: len(other.frames(Lane.CONTROL)) == 64)
    assert not one.downs()


@pytest.mark.asyncio
async def test_closing_ends_all_links_and_may_be_done_twice(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    await one.transport.close()
    await one.transport.close()
    assert one.downs()
    assert not one.transport.linked()
    await until(lambda: other.downs())


@pytest.mark.asyncio
async def test_a_peer_that_comes_back_under_its_key_is_a_new_link(lab: Lab) -> None:
    one, identity = await lab.start(), Identity.generate()
    for generation in (1, 2):
        other = await lab.start(enrol(lab.root, identity))
        await link(other, one)
        other.transport.send(one.peer, bytes([generation]))
        await until(lambda: one.frames(Lane.CONTROL)[-1:] == [bytes([generation])])  # noqa: B023 - awaited here
        await other.transport.close()
        await until(lambda: not one.transport.linked())
    assert len(one.ups()) == len(one.downs()) == 2


@pytest.mark.asyncio
async def test_repr_tells_an_operator_the_state(lab: Lab) -> None:
    one, other = await lab.linked_pair()
    assert format_peer(one.peer)[-8:] in repr(one.transport)
    assert "1 link" in repr(one.transport)
    assert all(isinstance(event, LinkUp | Received) for event in other.events)

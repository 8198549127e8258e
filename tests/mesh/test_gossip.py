"""Batching, framing and the rule for passing on."""

from __future__ import annotations

from atmo.ids import MeshId
from atmo.keys import Identity
from atmo.mesh.agenda import Agenda
from atmo.mesh.codec import decode
from atmo.mesh.gossip import Outbox, Relay, pack
from atmo.mesh.limits import MAX_ROW_BYTES, MAX_ROWS_FRAME_BYTES, MAX_ROWS_PER_FRAME
from atmo.mesh.messages import Rows
from atmo.mesh.rows import Kind, NodeInfo, Row, RowId, SignedRow, seal

KEY, OTHER = Identity(bytes(32)), Identity(bytes([1]) * 32)


def row(version: int, name: str = "n", key: Identity = KEY) -> Row:
    body = NodeInfo(name=name, addresses=(), mode="m", software="s")
    row_id = RowId(key.public, Kind.NODE, "")
    mesh = MeshId(KEY.public)
    return seal(row_id, body, mesh=mesh, order=(1, version), issued_s=1.0, ttl_s=60.0, sign=key.sign)


def test_frames_hold_all_rows_in_order_and_stay_below_the_limits() -> None:
    large = [SignedRow(bytes([i]) * (MAX_ROW_BYTES - i), bytes(64)) for i in range(5)]
    small = [SignedRow(i.to_bytes(2, "big"), bytes(64)) for i in range(MAX_ROWS_PER_FRAME + 1)]

    frames = list(pack(large + small))

    assert all(len(frame) <= MAX_ROWS_FRAME_BYTES for frame in frames)
    messages = [decode(frame) for frame in frames]
    assert [signed for message in messages if isinstance(message, Rows) for signed in message.rows] == large + small
    assert list(pack([])) == []


def test_the_first_change_goes_at_once_and_the_next_ones_together() -> None:
    outbox = Outbox(0.1)
    outbox.add(row(1))
    assert len(outbox.flush(50.0)) == 1

    outbox.add(row(2))
    assert outbox.flush(50.05) == []
    assert outbox.due_s() == 50.1
    outbox.add(row(3))
    (frame,) = outbox.flush(50.1)

    assert decode(frame) == Rows((row(3).signed,))
    assert outbox.due_s() is None


def test_an_older_version_does_not_displace_a_newer_one_that_waits() -> None:
    outbox = Outbox(0.1)
    outbox.add(row(3))
    outbox.add(row(2))

    assert decode(outbox.drain(0.0)[0]) == Rows((row(3).signed,))


def test_rows_are_passed_on_only_while_a_known_node_cannot_be_reached() -> None:
    relay = Relay(settle_s=2.0)
    relay.node_known(OTHER.public, False, 10.0)
    assert not relay.cut_off(11.9)  # it may still be linking
    assert relay.cut_off(12.0)

    relay.link_up(OTHER.public)
    assert not relay.cut_off(20.0)


def test_rows_are_passed_on_from_the_loss_of_a_node_until_it_is_known_to_be_gone() -> None:
    relay = Relay(settle_s=2.0)
    relay.link_up(OTHER.public)
    relay.lost(OTHER.public)
    relay.node_known(OTHER.public, False, 10.0)
    assert relay.cut_off(10.0)  # it may contradict, and only others hear it

    relay.node_gone(OTHER.public)
    assert not relay.cut_off(100.0)


def test_an_agenda_keeps_the_last_word_on_each_key() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.put("a", 5.0)
    agenda.put("b", 3.0)
    agenda.put("a", 7.0)
    agenda.put_if_sooner("b", 4.0)
    agenda.put("c", 1.0)
    agenda.drop("c")

    assert agenda.next_s() == 3.0
    assert agenda.take_due(6.0) == ["b"]
    assert agenda.take_due(7.0) == ["a"]
    assert agenda.next_s() is None
    assert len(agenda) == 0


def test_an_agenda_does_not_grow_with_moved_appointments() -> None:
    agenda: Agenda[int] = Agenda()
    for at_s in range(10_000):
        agenda.put(at_s % 3, float(at_s))

    assert len(agenda._heap) < 200
    assert agenda.take_due(9_998.0) == [1, 2]

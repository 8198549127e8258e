"""The core alone: events and the time in, effects out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import TypeVar

import msgspec
import pytest

from atmo.clock import ManualClock, moment
from atmo.errors import LocalProtocolError
from atmo.ids import MeshId, Multiaddr, PeerId
from atmo.keys import CLOCK_TOLERANCE_S, Identity, verify
from atmo.mesh import events
from atmo.mesh.codec import decode, encode
from atmo.mesh.conduct import BAN_S, OFFENCES_ALLOWED
from atmo.mesh.core import JUMP_INTERVAL_S, LOOK_UP_INTERVAL_S, Core, MeshTiming
from atmo.mesh.messages import Cancel, Graft, IHave, Join, Push, Rows, Versions
from atmo.mesh.neighbours import LEAST_WINDOW, STOOD_S
from atmo.mesh.rows import Body, Gradient, Kind, NodeInfo, Row, RowId, SignedRow, peek, seal
from atmo.mesh.tree import id_of
from tests.mesh.membership import OpenRoll

MESH = MeshId(Identity(bytes(32)).public)
LOW, HIGH = sorted((Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)), key=lambda key: key.public)
PEER = Identity(bytes([7]) * 32)
TIMING = MeshTiming()
E = TypeVar("E")


def node(name: str = "n", *addresses: str) -> NodeInfo:
    return NodeInfo(name=name, addresses=addresses, mode="participant", software="test")


class Bench:
    """One core on a bench, with a clock of its own."""

    def __init__(self, key: Identity = LOW, generation: int = 5) -> None:
        self.clock = ManualClock()
        self.key = key
        self.core = Core(
            peer=key.public,
            mesh=MESH,
            generation=generation,
            sign=key.sign,
            verify=verify,
            timing=TIMING,
            rng=Random(1),
            roll=OpenRoll(),
            certificate=None,
        )

    def tell(self, event: events.Event) -> list[events.Effect]:
        return self.core.handle(event, moment(self.clock))

    def after(self, seconds: float) -> list[events.Effect]:
        """Let time pass as a shell would: a Tick at each wakeup."""
        until_s = self.clock.now() + seconds
        effects = []
        for _ in range(10_000):
            at_s = self.core.next_wakeup()
            if at_s is None or at_s > until_s:
                break
            self.clock.advance(max(0.0, at_s - self.clock.now()))
            effects += self.tell(events.Tick())
        else:
            raise AssertionError("the core asks to be woken without end")
        self.clock.advance(max(0.0, until_s - self.clock.now()))
        return effects

    def link(self, peer: Identity = PEER, *, outbound: bool = False) -> list[events.Effect]:
        return self.tell(events.LinkUp(peer.public, None, outbound=outbound))

    def hear(self, *rows: Row, peer: Identity = PEER, gossip: bool = True) -> list[events.Effect]:
        frame = encode(Rows(tuple(row.signed for row in rows)))
        return self.tell(events.FrameReceived(peer.public, gossip, frame))

    def write(
        self,
        key: Identity,
        body: Body | None,
        order: tuple[int, int] = (1, 1),
        kind: Kind = Kind.NODE,
        off_s: float = 0.0,
    ) -> Row:
        issued_s = self.clock.wall() + off_s
        row_id = RowId(key.public, kind, "")
        return seal(row_id, body, mesh=MESH, order=order, issued_s=issued_s, ttl_s=60.0, sign=key.sign)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.core.validate()


def only(kind: type[E], effects: list[events.Effect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def rows_in(effects: Sequence[events.Effect]) -> list[tuple[Kind, tuple[int, int]]]:
    """Kind and order of every row that is sent or broadcast."""
    frames = [effect.frame for effect in effects if isinstance(effect, events.Send | events.Broadcast)]
    messages = [decode(frame) for frame in frames]
    payloads = [peek(signed) for message in messages if isinstance(message, Rows) for signed in message.rows]
    return [(Kind(payload.kind), (payload.generation, payload.version)) for payload in payloads]


# What this node says


def test_a_lone_change_is_told_at_once(bench: Bench) -> None:
    effects = bench.tell(events.Publish(Kind.NODE, "", node()))

    (changed,) = only(events.RowsChanged, effects)
    assert changed.changes[0].row is not None
    assert len(only(events.Broadcast, effects)) == 1


def test_changes_in_quick_succession_travel_together_and_only_the_last_of_a_row(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))
    for _ in range(3):
        bench.clock.advance(0.01)
        bench.tell(events.Publish(Kind.NODE, "", node(f"at {bench.clock.now()}")))
    effects = bench.tell(events.Publish(Kind.GRADIENT, "", Gradient(())))
    assert only(events.Broadcast, effects) == []

    effects = bench.after(0.1)

    assert len(only(events.Broadcast, effects)) == 1
    assert rows_in(effects) == [(Kind.NODE, (5, 4)), (Kind.GRADIENT, (5, 5))]
    assert bench.clock.now() == pytest.approx(0.13)


def test_saying_the_same_again_says_nothing(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))
    bench.clock.advance(1.0)

    assert bench.tell(events.Publish(Kind.NODE, "", node())) == []


def test_own_rows_are_renewed_before_they_expire(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))

    effects = bench.after(60.0)

    assert rows_in(effects) == [(Kind.NODE, (5, 2)), (Kind.NODE, (5, 3))]
    assert all(change.renewal for changed in only(events.RowsChanged, effects) for change in changed.changes)


def test_a_withdrawal_is_told_once(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))
    bench.clock.advance(1.0)

    (changed,) = only(events.RowsChanged, bench.tell(events.Withdraw(Kind.NODE, "")))

    assert changed.changes[0].row is None
    assert bench.tell(events.Withdraw(Kind.NODE, "")) == []


def test_a_clean_stop_withdraws_everything_and_then_the_core_is_silent(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))
    bench.tell(events.Publish(Kind.GRADIENT, "", Gradient(())))
    bench.link()

    effects = bench.tell(events.Stop())

    last_words = [(Kind.GRADIENT, (5, 3)), (Kind.NODE, (5, 4))]
    assert rows_in(only(events.Broadcast, effects)) == last_words
    assert rows_in(only(events.Send, effects)) == last_words
    assert bench.core.next_wakeup() is None
    assert bench.tell(events.Publish(Kind.NODE, "", node())) == []


def test_a_body_that_nobody_would_accept_is_refused_where_it_is_written(bench: Bench) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        bench.tell(events.Publish(Kind.NODE, "", node("x" * 1000)))


def test_a_core_with_nothing_to_do_sleeps(bench: Bench) -> None:
    assert bench.core.next_wakeup() is None


# What it is told


def test_a_peer_that_was_dialled_is_sent_the_own_rows_and_the_versions_of_all(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))

    rows, join, versions = only(events.Send, bench.link(outbound=True))

    assert isinstance(decode(rows.frame), Rows)
    assert isinstance(decode(join.frame), Join)
    message = decode(versions.frame)
    assert isinstance(message, Versions)
    assert [(origin, generation, held) for origin, generation, _, held in message.origins] == [(LOW.public, 5, (1,))]


def test_who_was_dialled_sends_its_own_rows_and_is_asked_for_the_rest(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))

    (rows,) = only(events.Send, bench.link())

    assert isinstance(decode(rows.frame), Rows)


def test_versions_are_answered_with_what_their_sender_lacks_and_nothing_else(bench: Bench) -> None:
    bench.link()
    bench.hear(bench.write(PEER, node("peer")), bench.write(HIGH, node("other"), (3, 1)))
    known = bench.core.store.summary()

    same = tuple((origin, generation, total, (1,)) for origin, generation, total in known)
    assert bench.tell(versions_of(same)) == []

    bench.clock.advance(1.0)
    older = tuple((origin, 1, total, (1,)) for origin, _, total in known)
    assert rows_in(bench.tell(versions_of(older))) == [(Kind.NODE, (3, 1))]

    bench.clock.advance(1.0)
    newer = tuple((origin, 7, total, (1,)) for origin, _, total in known)
    (answer,) = only(events.Send, bench.tell(versions_of(newer)))
    message = decode(answer.frame)
    assert isinstance(message, Versions)
    assert message.origins == same
    assert not message.answer


def versions_of(origins: tuple[tuple[bytes, int, int, tuple[int, ...]], ...]) -> events.FrameReceived:
    """The peer tells what it has, and asks."""
    return events.FrameReceived(PEER.public, False, encode(Versions(bytes(16), 1, bytes(1), origins, True)))


def test_a_peer_that_asks_for_the_table_all_the_time_is_not_answered_all_the_time(bench: Bench) -> None:
    bench.link()
    bench.hear(bench.write(HIGH, node("other")))
    answers = [
        bench.tell(events.FrameReceived(PEER.public, False, encode(Versions(bytes([i] * 16), 1, bytes(1), (), True))))
        for i in range(100)
    ]

    assert len([effects for effects in answers if effects]) == 1


def test_a_gossiped_row_changes_the_table(bench: Bench) -> None:
    bench.link()

    (changed,) = only(events.RowsChanged, bench.hear(bench.write(PEER, node("peer"))))

    assert changed.changes[0].id == RowId(PEER.public, Kind.NODE, "")


def test_in_a_full_mesh_nothing_is_passed_on(bench: Bench) -> None:
    bench.link()
    bench.hear(bench.write(PEER, node("peer")))
    bench.after(10.0)

    assert rows_in(bench.hear(bench.write(PEER, node("renamed"), (1, 2)))) == []


def test_rows_are_passed_on_while_there_is_a_node_that_cannot_be_linked(bench: Bench) -> None:
    other = Identity(bytes([8]) * 32)
    bench.link()
    bench.link(other)
    bench.hear(bench.write(PEER, node("peer")), bench.write(HIGH, node("out of reach")))
    bench.after(TIMING.settle_s)
    news = bench.write(PEER, node("renamed"), (1, 2))

    effects = bench.hear(news) + bench.after(1.0)
    announced = [send for send in only(events.Send, effects) if isinstance(decode(send.frame), IHave)]
    assert announced == [events.Send(other.public, encode(IHave(id_of(news.signed))))]  # not to whom it came from

    asked = bench.tell(events.FrameReceived(other.public, False, encode(Graft(id_of(news.signed)))))
    assert asked == [events.Send(other.public, encode(Push((news.signed,))))]

    again = bench.hear(news, peer=other) + bench.after(1.0)  # a second time it is no news
    assert not [send for send in only(events.Send, again) if isinstance(decode(send.frame), IHave)]


def test_messages_that_are_not_rows_are_handed_over(bench: Bench) -> None:
    bench.link()
    cancel = Cancel(bytes(16), 0)

    effects = bench.tell(events.FrameReceived(PEER.public, False, encode(cancel)))

    assert effects == [events.Deliver(PEER.public, cancel)]


def test_a_lost_peer_is_reported_at_once_and_buried_later(bench: Bench) -> None:
    bench.link()
    bench.hear(bench.write(PEER, node("peer")))

    effects = bench.tell(events.LinkDown(PEER.public, "gone"))
    assert effects == [events.PeerLost(PEER.public)]
    assert len(bench.core.store) == 1

    effects = bench.after(TIMING.probe_s + TIMING.suspicion_s)
    assert [found.health for found in only(events.HealthChanged, effects)] == [
        events.Health.SUSPECT,
        events.Health.DEAD,
    ]
    buried = [change for changed in only(events.RowsChanged, effects) for change in changed.changes]
    assert [change.row for change in buried if change.id.origin == PEER.public] == [None]
    assert len(bench.core.store) == 1  # what this node says against it


# Who does not behave


def test_a_bad_frame_is_forgiven_and_many_are_not(bench: Bench) -> None:
    bench.link()
    bad = events.FrameReceived(PEER.public, True, b"\x01garbage")
    for _ in range(int(OFFENCES_ALLOWED)):
        assert bench.tell(bad) == []

    (misbehaved,) = only(events.Misbehaved, bench.tell(bad))

    assert misbehaved.peer == PEER.public
    bench.tell(events.LinkDown(PEER.public, misbehaved.reason))
    assert len(only(events.Misbehaved, bench.link())) == 1  # and it stays out for a while
    bench.after(BAN_S)
    assert only(events.Misbehaved, bench.link()) == []


def test_a_peer_that_was_hung_up_on_is_not_dialled_until_it_is_forgiven(bench: Bench) -> None:
    bench.tell(events.Discovered(address(0, PEER.public)))
    bench.link()
    for _ in range(int(OFFENCES_ALLOWED) + 1):
        bench.tell(events.FrameReceived(PEER.public, True, b"\x01bad"))
    bench.tell(events.LinkDown(PEER.public, "hung up"))

    effects = bench.tell(events.Discovered(address(0, PEER.public))) + bench.after(BAN_S - 1.0)
    assert only(events.Dial, effects) == []

    assert only(events.Dial, bench.after(2.0)) == [events.Dial(address(0, PEER.public))]


def test_few_bad_frames_in_a_long_time_are_forgiven(bench: Bench) -> None:
    bench.link()
    for _ in range(50):
        bench.clock.advance(3.0)
        assert only(events.Misbehaved, bench.tell(events.FrameReceived(PEER.public, True, b"\x01bad"))) == []


def test_forged_rows_count_and_stale_ones_do_not(bench: Bench) -> None:
    bench.link()
    row = bench.write(PEER, node())
    forged = bench.write(HIGH, node())._replace(signed=SignedRow(row.signed.payload[:-1] + b"x", bytes(64)))

    assert not only(events.Misbehaved, [effect for _ in range(100) for effect in bench.hear(row)])
    assert only(events.Misbehaved, [effect for _ in range(20) for effect in bench.hear(forged)])


def test_requests_do_not_come_on_the_gossip_lane(bench: Bench) -> None:
    bench.link()
    frame = encode(Cancel(bytes(16), 0))

    effects = [effect for _ in range(20) for effect in bench.tell(events.FrameReceived(PEER.public, True, frame))]

    assert only(events.Deliver, effects) == []
    assert only(events.Misbehaved, effects)


def test_frames_of_a_peer_without_a_link_are_not_read(bench: Bench) -> None:
    assert bench.hear(bench.write(PEER, node())) == []


# Own rows that this node did not write


def test_after_losing_its_state_a_node_jumps_beyond_its_former_life() -> None:
    bench = Bench(generation=1)
    bench.tell(events.Publish(Kind.NODE, "", node("again")))
    bench.link()
    former = bench.write(LOW, node("former"), (40, 9))

    effects = bench.hear(former, gossip=False)

    assert only(events.OwnRowSeen, effects) == [events.OwnRowSeen(41, 1)]
    assert rows_in(effects) == [(Kind.NODE, (41, 1))]
    assert all(isinstance(effect, events.Send) for effect in effects if hasattr(effect, "frame"))
    assert bench.core.generation == 41
    assert bench.hear(former) == []
    bench.core.validate()


def test_its_own_words_and_those_of_an_older_life_do_not_startle_a_node(bench: Bench) -> None:
    effects = bench.tell(events.Publish(Kind.NODE, "", node()))
    bench.link()
    echo = only(events.Broadcast, effects)[0].frame

    assert bench.tell(events.FrameReceived(PEER.public, True, echo)) == []
    assert bench.hear(bench.write(LOW, node("older"), (4, 9))) == []


def test_a_copy_of_the_key_is_noticed_and_not_raced_against(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))
    bench.link()

    seen = only(events.OwnRowSeen, bench.hear(bench.write(LOW, node("copy"), (6, 1))))
    assert seen == [events.OwnRowSeen(7, 1)]
    assert only(events.OwnRowSeen, bench.hear(bench.write(LOW, node("copy"), (8, 1)))) == []

    bench.after(JUMP_INTERVAL_S)
    assert only(events.OwnRowSeen, bench.hear(bench.write(LOW, node("copy"), (9, 1)))) == [events.OwnRowSeen(10, 2)]


def test_the_same_version_said_by_a_copy_is_noticed_too(bench: Bench) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node("me")))
    bench.link()

    assert only(events.OwnRowSeen, bench.hear(bench.write(LOW, node("copy"), (5, 1)))) == [events.OwnRowSeen(6, 1)]


def test_a_peer_that_forgot_how_far_it_had_counted_is_shown(bench: Bench) -> None:
    bench.link()
    latest = bench.write(PEER, node("before"), (1, 8))
    bench.hear(latest)
    bench.after(200.0)
    assert len(bench.core.store) == 0

    effects = bench.hear(bench.write(PEER, node("after"), (1, 2)))

    assert effects == [events.Send(PEER.public, encode(Rows((latest.signed,))))]
    assert bench.hear(bench.write(PEER, node("after"), (1, 3))) == []  # not time and again
    relayed = bench.hear(bench.write(HIGH, node("x"), (2, 1)), bench.write(HIGH, node("x")))
    assert only(events.Send, relayed) == []  # the peer cannot help what another forgot


# Oddities that are told


def test_a_node_that_forgot_and_is_told_of_by_others_is_looked_up_once_in_a_while(bench: Bench) -> None:
    """Its neighbours may have forgotten with it: whoever remembers dials it, to show it what it had said."""
    bench.link()
    bench.hear(bench.write(HIGH, node("far", str(address(1))), (3, 1)))
    before = bench.write(HIGH, node("far", str(address(1))), (1, 9), off_s=-1.0)
    bench.after(40.0)
    anew = bench.write(HIGH, node("far", str(address(2))), (1, 1))
    forged = msgspec.structs.replace(anew.signed, signature=bytes(64))

    assert only(events.Dial, bench.hear(before)) == [], "old news of an old life"
    frame = encode(Rows((forged,)))
    assert only(events.Dial, bench.tell(events.FrameReceived(PEER.public, True, frame))) == []
    bench.after(LOOK_UP_INTERVAL_S)
    assert address(2, HIGH.public) in [effect.address for effect in only(events.Dial, bench.hear(anew))]
    assert only(events.Dial, bench.hear(anew)) == []

    shown = bench.link(HIGH) + bench.hear(anew, peer=HIGH, gossip=False)
    assert (Kind.NODE, (3, 1)) in rows_in(shown)


@pytest.mark.parametrize("jump_s", [CLOCK_TOLERANCE_S + 1, -CLOCK_TOLERANCE_S - 1])
def test_a_node_whose_clock_was_set_says_everything_again_with_the_new_date(bench: Bench, jump_s: float) -> None:
    bench.tell(events.Publish(Kind.NODE, "", node()))
    bench.tell(events.Publish(Kind.GRADIENT, "", Gradient(())))
    bench.link()
    bench.after(1.0)
    before = {row.id: row.issued_s for row in bench.core.store.rows(origin=bench.key.public)}

    bench.clock.skew_s += jump_s
    bench.after(10.0)

    after = {row.id: row.issued_s for row in bench.core.store.rows(origin=bench.key.public)}
    assert after.keys() == before.keys()
    assert all(abs(after[row_id] - bench.clock.wall()) < 10.0 for row_id in after)
    versions = [row.version for row in bench.core.store.rows(origin=bench.key.public)]
    bench.clock.skew_s += 1.0  # and only once
    bench.after(0.5)
    assert [row.version for row in bench.core.store.rows(origin=bench.key.public)] == versions


def test_a_peer_whose_clock_is_off_is_named_once(bench: Bench) -> None:
    bench.link()
    off_s = CLOCK_TOLERANCE_S + 100.0

    (clock_off,) = bench.hear(bench.write(PEER, node(), off_s=off_s))

    assert isinstance(clock_off, events.ClockOff)
    assert clock_off.origin == PEER.public
    assert clock_off.off_s == pytest.approx(off_s, abs=1.0)
    assert bench.hear(bench.write(PEER, node(), (1, 2), off_s=off_s)) == []


def test_equivocation_is_told_once_with_its_proof(bench: Bench) -> None:
    bench.link()
    bench.hear(bench.write(PEER, node("a")))

    effects = bench.hear(bench.write(PEER, node("b"))) + bench.hear(bench.write(PEER, node("c")))

    (told,) = only(events.Equivocated, effects)
    assert told.origin == PEER.public
    assert {peek(told.proof.kept).version, peek(told.proof.dropped).version} == {1}


# Whom it dials


def address(number: int, peer: PeerId | None = None) -> Multiaddr:
    return Multiaddr("10.0.0.1", 4600 + number, peer)


def test_a_discovered_address_is_dialled_at_once_and_again_with_growing_waits(bench: Bench) -> None:
    seed = address(0)
    assert bench.tell(events.Discovered(seed)) == [events.Dial(seed)]

    waits = []
    for _ in range(10):
        bench.tell(events.DialFailed(seed))
        failed_s = bench.clock.now()
        wakeup_s = bench.core.next_wakeup()
        assert wakeup_s is not None
        waits.append(wakeup_s - failed_s)
        assert bench.after(waits[-1]) == [events.Dial(seed)]

    assert 0.25 <= waits[0] <= 0.5
    assert 30.0 <= waits[-1] <= 60.0


def test_an_address_that_is_announced_all_the_time_is_not_dialled_all_the_time(bench: Bench) -> None:
    seed = address(0)
    dials = 0
    for _ in range(200):
        effects = bench.tell(events.Discovered(seed)) + bench.after(0.1)
        for dial in only(events.Dial, effects):
            dials += 1
            bench.tell(events.DialFailed(dial.address))

    assert 5 <= dials <= 20  # in twenty seconds


def test_a_dial_without_an_outcome_is_tried_again(bench: Bench) -> None:
    bench.tell(events.Discovered(address(0)))

    assert events.Dial(address(0)) in bench.after(TIMING.dial_timeout_s + 1.0)


def test_a_node_learned_by_gossip_is_dialled_by_the_lower_key_first() -> None:
    waits = {}
    for key, other in ((LOW, HIGH), (HIGH, LOW)):
        bench = Bench(key)
        bench.link()
        bench.hear(bench.write(PEER, node()), bench.write(other, node("other", "/ip4/10.0.0.9/tcp/4600")))
        effects = bench.after(1.0) if bench.core.neighbours.next_due() else []
        waits[key.public] = bench.core, effects

    assert waits[LOW.public][1] == []  # it dialled while handling the row
    assert only(events.Dial, waits[HIGH.public][1]) == [
        events.Dial(Multiaddr("10.0.0.9", 4600, LOW.public)),
    ]


def test_addresses_that_name_another_peer_or_do_not_parse_are_not_dialled(bench: Bench) -> None:
    bench.link()
    liar = node("liar", "nonsense", str(Multiaddr("10.0.0.1", 1, PEER.public)), "/ip4/10.0.0.2/tcp/4600")

    effects = bench.hear(bench.write(HIGH, liar))

    assert only(events.Dial, effects) == [events.Dial(Multiaddr("10.0.0.2", 4600, HIGH.public))]


def test_after_a_lost_link_the_peer_is_dialled_while_its_node_row_lives(bench: Bench) -> None:
    where = Multiaddr("10.0.0.3", 4600, PEER.public)
    bench.link()
    bench.hear(bench.write(PEER, node("peer", str(where))))
    bench.tell(events.LinkDown(PEER.public, "gone"))

    dials = []
    for _ in range(200):
        effects = bench.after(1.0)
        for dial in only(events.Dial, effects):
            dials.append(dial.address)
            bench.tell(events.DialFailed(dial.address))

    assert set(dials) == {where}
    assert 3 <= len(dials) <= 12
    assert bench.core.next_wakeup() is None or bench.core.neighbours.next_due() is None


def test_a_linked_peer_is_not_dialled(bench: Bench) -> None:
    bench.link()

    assert bench.tell(events.Discovered(address(0, PEER.public))) == []


def test_a_seed_is_forgotten_as_an_address_once_it_is_known_who_is_there(bench: Bench) -> None:
    bench.tell(events.Discovered(address(0)))
    bench.tell(events.LinkUp(PEER.public, address(0, PEER.public), outbound=True))
    bench.after(STOOD_S + 1.0)
    bench.tell(events.LinkDown(PEER.public, "gone"))

    (dial,) = only(events.Dial, bench.after(0.5))

    assert dial == events.Dial(address(0, PEER.public))


def test_a_link_that_flaps_is_dialled_later_each_time_and_one_that_stood_at_once(bench: Bench) -> None:
    bench.tell(events.Discovered(address(0, PEER.public)))
    waits_s = []
    for stands_s in (STOOD_S + 1.0, 1.0, 1.0, 1.0, STOOD_S + 1.0):
        bench.link(outbound=True)
        bench.after(stands_s)
        bench.tell(events.LinkDown(PEER.public, "gone"))
        waits_s.append(next_dial_s(bench))

    least_s = [TIMING.redial_min_s * 2.0**flaps / 2 for flaps in (0, 1, 2, 3, 0)]
    assert all(least <= waited <= 2 * least for least, waited in zip(least_s, waits_s, strict=True))


def test_the_end_that_dialled_a_lost_link_dials_first(bench: Bench) -> None:
    bench.tell(events.Discovered(address(0, PEER.public)))
    waits_s = []
    for outbound in (True, False):
        bench.link(outbound=outbound)
        bench.after(STOOD_S + 1.0)
        bench.tell(events.LinkDown(PEER.public, "gone"))
        waits_s.append(next_dial_s(bench))

    dialler_s, other_s = waits_s
    assert dialler_s <= TIMING.redial_min_s < other_s < TIMING.probe_s


def test_repeated_dials_that_come_to_nothing_become_few_at_once_and_never_none(bench: Bench) -> None:
    first = [bench.tell(events.Discovered(address(number))) for number in range(30)]
    dialled = [len(only(events.Dial, bench.after(TIMING.dial_timeout_s))) for _ in range(60)]

    assert all(only(events.Dial, effects) for effects in first)  # the first ones do not wait for each other
    assert all(LEAST_WINDOW * 0.5 <= dials <= LEAST_WINDOW * 2 for dials in dialled[10:])


def next_dial_s(bench: Bench) -> float:
    """How long it takes until the core dials."""
    began_s = bench.clock.now()
    while not only(events.Dial, bench.after(0.01)):
        assert bench.clock.now() - began_s < 100.0
    return bench.clock.now() - began_s


def test_a_node_does_not_dial_itself(bench: Bench) -> None:
    assert bench.tell(events.Discovered(address(0, LOW.public))) == []

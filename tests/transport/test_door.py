"""The door answers members, refuses others with a reason, and cannot be worn down."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.errors import Refused, RemoteProtocolError
from atmo.ids import MeshId, PeerId, format_peer
from atmo.keys import Identity, Passport
from atmo.transport import wire
from atmo.transport.control import dialable_address
from atmo.transport.door import (
    MAX_SOURCES,
    SOURCE_BURST,
    Doorkeeper,
    Ports,
    RateLimit,
    read_introduction,
)
from atmo.trust import Trust
from tests.transport.support import Member, enrol

ROOT = Identity.generate()
TRUST = Trust(MeshId(ROOT.public))
HOST = enrol(ROOT)
PORTS = Ports(11, 12, 13)


class Door:
    """A doorkeeper and whom it admitted."""

    def __init__(self) -> None:
        self.admitted: list[Passport] = []
        self.keeper = Doorkeeper(HOST.credential, TRUST, PORTS, self.admitted.append, 0.0)

    def say(self, frame: bytes, *, source: str = "10.0.0.1", now_s: float = 0.0) -> bytes | None:
        return self.keeper.answer(source, frame, now_s=now_s, wall_s=time.time())


def introduce(member: Member) -> bytes:
    return wire.encode_door(wire.Introduce(member.credential))


def test_a_member_is_admitted_and_learns_key_and_ports() -> None:
    door, member = Door(), enrol(ROOT)
    answer = door.say(introduce(member))
    assert answer is not None
    passport, introduction = read_introduction(answer, TRUST, HOST.identity.public, time.time())
    assert passport.curve == HOST.curve.public
    assert (introduction.control_port, introduction.gossip_port, introduction.bulk_port) == (11, 12, 13)
    assert [seen.curve for seen in door.admitted] == [member.curve.public]


def test_a_stranger_is_refused_with_the_mesh_in_the_reason() -> None:
    door = Door()
    answer = door.say(introduce(enrol(Identity.generate())))
    with pytest.raises(Refused, match=f"{format_peer(TRUST.mesh)}: This node belongs to another mesh") as caught:
        read_introduction(answer or b"", TRUST, None, time.time())
    assert caught.value.by_peer
    assert caught.value.why == "mesh"
    assert "token" in caught.value.hint
    assert not door.admitted


def test_an_introduction_of_somebody_else_is_not_accepted() -> None:
    answer = Door().say(introduce(enrol(ROOT)))
    wanted = Identity.generate().public
    with pytest.raises(RemoteProtocolError, match=format_peer(wanted)):
        read_introduction(answer or b"", TRUST, wanted, time.time())


def test_a_refusal_is_shown_as_one_clean_line() -> None:
    nasty = wire.encode_door(wire.Refusal("x", "line\none\x1b[31m"))
    with pytest.raises(Refused) as caught:
        read_introduction(nasty, TRUST, None, time.time())
    assert caught.value.message == "line?one?[31m"


def test_who_asks_too_often_is_told_to_wait_and_others_are_served() -> None:
    door, frame = Door(), introduce(enrol(ROOT))
    for _ in range(int(SOURCE_BURST)):
        assert door.say(frame) == door.keeper._answer
    busy = door.say(frame)
    assert busy is not None
    assert isinstance(wire.decode_door(busy), wire.Refusal)
    assert door.say(frame, source="10.0.0.2") == door.keeper._answer
    assert door.say(frame, now_s=1.0) == door.keeper._answer


def test_a_flood_from_many_sources_is_limited_and_costs_bounded_memory() -> None:
    limit = RateLimit(0.0)
    allowed = sum(limit.allows(f"10.0.{number // 250}.{number % 250}", 0.0) for number in range(5000))
    assert allowed < 1000
    assert len(limit._sources) <= MAX_SOURCES


def test_what_is_not_our_protocol_gets_no_answer() -> None:
    door = Door()
    for noise in (b"", b"atmo", b"GET / HTTP/1.1", wire.MAGIC + b"\x01\xc1", os.urandom(300)):
        assert door.say(noise) is None
    assert door.say(wire.encode_door(wire.Refusal("a", "b"))) is None


def test_the_words_are_plain_messagepack() -> None:
    """Golden: another implementation reads and writes them."""
    member = enrol(ROOT)
    sealed = [
        [member.credential.membership.payload, member.credential.membership.signature],
        [member.credential.binding.payload, member.credential.binding.signature],
        None,  # made by the root, not by an invite
    ]
    assert introduce(member) == b"atmo\x01" + msgpack.packb(["introduce", sealed])
    hello = wire.Hello(bytes(32), bytes(8), 7, "/ip4/10.0.0.1/tcp/4600", 12, 13)
    packed = msgpack.packb([bytes(32), bytes(8), 7, "/ip4/10.0.0.1/tcp/4600", 12, 13])
    assert wire.encode_hello(hello) == b"\x02\x01" + packed
    assert wire.decode_hello(b"\x02\x01" + packed) == hello


@settings(max_examples=300)
@given(st.binary(max_size=300), st.booleans())
def test_bytes_from_outside_decode_or_raise_one_error(noise: bytes, with_head: bool) -> None:
    for head, decode in ((b"atmo\x01", wire.decode_door), (b"\x02\x01", wire.decode_hello)):
        try:
            decode(head + noise if with_head else noise)
        except RemoteProtocolError:
            pass


def mutations(frame: bytes, count: int) -> Iterator[bytes]:
    """The frame with a few bytes changed, cut out or put in, seeded."""
    rng = random.Random(4)
    for _ in range(count):
        spoilt = bytearray(frame)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(5, len(spoilt))
            spoilt[place : place + rng.choice((0, 1, 1, 1, 8))] = rng.randbytes(rng.choice((0, 1, 1, 1, 8)))
        yield bytes(spoilt)


def test_a_spoilt_introduction_admits_nobody_and_upsets_nobody() -> None:
    door, member = Door(), enrol(ROOT)
    for number, frame in enumerate(mutations(introduce(member), 3000)):
        door.say(frame, source=str(number), now_s=float(number))
    assert all(passport.curve == member.curve.public for passport in door.admitted), "a signature covers every byte"


def test_a_spoilt_hello_decodes_or_raises_one_error() -> None:
    hello = wire.encode_hello(wire.Hello(bytes(32), bytes(8), 7, "/ip4/10.0.0.1/tcp/4600", 12, 13))
    for frame in mutations(hello, 3000):
        try:
            dialable_address(wire.decode_hello(frame), PeerId(bytes(32)))
        except RemoteProtocolError:
            pass


def test_deep_nesting_is_refused_quickly() -> None:
    with pytest.raises(RemoteProtocolError):
        wire.decode_door(b"atmo\x01" + b"\x91" * 4000)


@given(st.binary(min_size=1, max_size=600), st.lists(st.integers(1, 50), max_size=30))
def test_a_frame_is_found_however_it_is_cut(frame: bytes, cuts: list[int]) -> None:
    packet, unpacker, got = wire.enclose(frame), wire.Unpacker(), None
    for cut in [*cuts, len(packet)]:
        piece, packet = packet[:cut], packet[cut:]
        if piece:
            assert got is None
            got = unpacker.feed(piece)
    assert got == frame


STRANGE = [b"\x00\x00x", b"\xff\xff" + b"x" * 9, wire.enclose(b"one") + b"more", b"GET / HTTP"]


@pytest.mark.parametrize("packet", STRANGE)
def test_an_unpacker_refuses_what_is_no_frame(packet: bytes) -> None:
    unpacker = wire.Unpacker()
    with pytest.raises(RemoteProtocolError):
        unpacker.feed(packet)


def test_an_unpacker_holds_little_whatever_it_is_fed() -> None:
    unpacker = wire.Unpacker()
    with pytest.raises(RemoteProtocolError):
        unpacker.feed(b"\x10\x00" + bytes(1 << 20))
    assert len(unpacker._bytes) < 8192

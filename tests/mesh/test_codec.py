"""Invariant: whatever the bytes, decoding gives a message or a RemoteProtocolError, soon and in little memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.errors import FrameTooLarge, LocalProtocolError, RemoteProtocolError
from atmo.generation import Piece, Sampling, Task, Turn
from atmo.mesh.codec import decode, encode
from atmo.mesh.limits import MAX_MESSAGE_BYTES, MAX_ROW_BYTES, MAX_ROWS_PER_FRAME
from atmo.mesh.messages import AnyMessage, Ask, Part, Push, Rows, Scores, Vectors
from atmo.mesh.rows import Kind, SignedRow, decode_body, peek
from tests.vectors import make

MESSAGES = make.messages()
VERSION = b"\x01"


def frame(fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return VERSION + packed


def fields(name: str) -> list[Any]:
    """A good message's fields, to be spoilt."""
    unpacked: list[Any] = msgpack.unpackb(encode(MESSAGES[name])[1:])
    return unpacked


def spoilt(name: str, place: int, value: Any) -> bytes:
    changed = fields(name)
    changed[place] = value
    return frame(changed)


def spoilt_within(name: str, place: int, inner: int, value: Any) -> bytes:
    changed = fields(name)
    changed[place][inner] = value
    return frame(changed)


NESTED = b"\x91" * 65_000 + b"\xc0"
SIGNED = [b"p", b"s" * 64]

BAD_FRAMES = {
    "empty": b"",
    "no message": VERSION,
    "another version": b"\x02" + encode(MESSAGES["grant"])[1:],
    "a tag nobody knows": frame([99]),
    "not an array": frame({"tag": 1}),
    "trailing bytes": encode(MESSAGES["grant"]) + b"\0",
    "truncated": encode(MESSAGES["ask"])[:-1],
    "nested deeply": VERSION + NESTED,
    "nested deeply inside": VERSION + b"\x92\x01" + NESTED,
    "not a number": spoilt("ask", 5, float("nan")),
    "infinite": spoilt_within("done", 4, 4, float("inf")),
    "negative duration": spoilt("ask", 5, -1.0),
    "a probability that is no number": spoilt("scores", 4, [["x", float("nan")]]),
    "a short id": spoilt("cancel", 1, b"x" * 15),
    "a long id": spoilt("cancel", 1, b"x" * 17),
    "text for bytes": spoilt("cancel", 1, "x" * 16),
    "a count below zero": spoilt("cancel", 2, -1),
    "a count beyond bounds": spoilt("cancel", 2, 1 << 63),
    "true for a number": spoilt("cancel", 2, True),
    "bad UTF-8": encode(MESSAGES["part"]).replace(b"Hallo", b"Ha\xff\xfeo"),
    "a text that is too long": spoilt_within("part", 4, 0, "x" * 70_000),
    "too many token ids": spoilt_within("part", 4, 1, [1] * 5000),
    "a token id beyond bounds": spoilt_within("part", 4, 1, [1 << 31]),
    "a piece without an end": VERSION + b"\xdc\xff\xff\x0b",
    "four billion rows claimed": VERSION + b"\x92\x01\xdd\xff\xff\xff\xff",
    "too many rows": frame([1, [SIGNED] * (MAX_ROWS_PER_FRAME + 1)]),
    "a row that is too large": frame([1, [[b"p" * (MAX_ROW_BYTES + 1), b"s" * 64]]]),
    "a signature of another size": frame([1, [[b"p", b"s" * 63]]]),
    "too many turns": spoilt_within("ask", 4, 0, [["user", "x", [], [], "", ""]] * 3000),
    "no credit": spoilt("ask", 6, 0),
    "endless credit": spoilt("grant", 3, 1 << 40),
    "an extension type": VERSION + msgpack.packb(msgpack.ExtType(5, b"x")),
    "a summary with a wrong key": frame([2, [[b"k" * 31, 1, 1]], False]),
    "larger than any frame": VERSION + bytes(MAX_MESSAGE_BYTES),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_is_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(BAD_FRAMES[name])

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_what_a_peer_wrote_does_not_reach_the_terminal_as_it_is() -> None:
    body = msgpack.packb({"name": "x", "\x1b[2Jevil\n": 1})
    with pytest.raises(RemoteProtocolError) as caught:
        decode_body(Kind.NODE, body)

    assert str(caught.value).isprintable()


def view(size: int = 384) -> bytes:
    return bytes(size)


CAPABILITY = {"id": "atmo:chat:x", "type": "chat", "description": "d"}
NODE = {"name": "n", "addresses": [], "mode": "m", "software": "s"}
NESTED_BODY = b"\x91" * 30_000 + b"\xc0"

BAD_BODIES = {
    "a key twice": (Kind.NODE, b"\x85" + msgpack.packb(NODE)[1:] + b"\xa4name\xa1m"),
    "a key twice in a descriptor": (
        Kind.CAPABILITY,
        b"\x93\x84" + msgpack.packb(CAPABILITY)[1:] + b"\xa2id\xa1y" + b"\xa1e" + b"\x91" + msgpack.packb(view()),
    ),
    "an unknown key": (Kind.NODE, msgpack.packb(NODE | {"colour": "red"})),
    "a missing key": (Kind.NODE, msgpack.packb({"name": "n"})),
    "a short view": (Kind.CAPABILITY, msgpack.packb([CAPABILITY, "e", [view(383)]])),
    "a long view": (Kind.CAPABILITY, msgpack.packb([CAPABILITY, "e", [view(385)]])),
    "no view": (Kind.CAPABILITY, msgpack.packb([CAPABILITY, "e", []])),
    "17 views": (Kind.CAPABILITY, msgpack.packb([CAPABILITY, "e", [view()] * 17])),
    "strength above one": (Kind.CAPABILITY, msgpack.packb([CAPABILITY | {"strength": 1.5}, "e", [view()]])),
    "a price that is no number": (
        Kind.CAPABILITY,
        msgpack.packb([CAPABILITY | {"price": float("nan")}, "e", [view()]]),
    ),
    "33 examples": (Kind.CAPABILITY, msgpack.packb([CAPABILITY | {"examples": ["x"] * 33}, "e", [view()]])),
    "an endless description": (
        Kind.CAPABILITY,
        msgpack.packb([CAPABILITY | {"description": "x" * 2001}, "e", [view()]]),
    ),
    "no id": (Kind.CAPABILITY, msgpack.packb([CAPABILITY | {"id": ""}, "e", [view()]])),
    "a body of another kind": (Kind.GRADIENT, msgpack.packb(NODE)),
    "negative load": (Kind.GRADIENT, msgpack.packb([[["x", -1, 4, 0, 1.0, 1.0, 1.0, True]]])),
    "endless speed": (Kind.GRADIENT, msgpack.packb([[["x", 0, 4, 0, 1.0, float("inf"), 1.0, True]]])),
    "trailing bytes": (Kind.NODE, msgpack.packb(NODE) + b"\xc0"),
    "nested deeply": (Kind.NODE, NESTED_BODY),
    "nothing": (Kind.NODE, b""),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused(name: str) -> None:
    kind, raw = BAD_BODIES[name]
    with pytest.raises(RemoteProtocolError, match="body does not decode"):
        decode_body(kind, raw)


HEADER: list[Any] = [b"m" * 32, b"o" * 32, 1, "", 1, 1, 1.75e9, 60.0, None]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, b"m" * 31),
        (1, b"o" * 33),
        (2, -1),
        (2, 256),
        (3, "k" * 201),
        (4, 0),
        (4, 1 << 53),
        (5, 0),
        (6, float("nan")),
        (6, float("inf")),
        (6, -1.0),
        (7, 0.0),
        (7, 3601.0),
        (7, float("nan")),
    ],
)
def test_a_row_header_outside_its_bounds_is_refused(place: int, value: object) -> None:
    header = [*HEADER[:place], value, *HEADER[place + 1 :]]
    with pytest.raises(RemoteProtocolError, match="row does not decode"):
        peek(SignedRow(msgpack.packb(header), bytes(64)))


def test_a_deeply_nested_row_is_refused_at_its_header() -> None:
    payload = b"\x99" + b"".join(msgpack.packb(item) for item in HEADER[:-1]) + NESTED_BODY
    with pytest.raises(RemoteProtocolError, match="nested too deeply"):
        peek(SignedRow(payload, bytes(64)))


@pytest.mark.parametrize(
    "message",
    [
        Part(b"too short", 0, 0, Piece("")),
        Part(bytes(16), -1, 0, Piece("")),
        Scores(bytes(16), 0, 0, (("x", float("nan")),)),
        Vectors(bytes(16), 0, 0, b""),
        Ask(bytes(16), 0, "x", Task((Turn("user", "x"),), Sampling(temperature=-1.0)), 1.0, 1, ()),
        Rows((SignedRow(b"", b""),)),
    ],
    ids=repr,
)
def test_this_node_does_not_send_what_it_would_not_accept(message: AnyMessage) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        encode(message)


def test_a_conversation_that_fits_no_frame_is_told_to_its_sender() -> None:
    ask = Ask(bytes(16), 0, "x", Task((Turn("user", "x" * MAX_MESSAGE_BYTES),)), 1.0, 1, ())
    with pytest.raises(FrameTooLarge, match="allowed"):
        encode(ask)


def mutate(data: bytes, rng: Random) -> bytes:
    """One to four of: a byte changed, a piece cut out, doubled or put in, a header that claims much."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if at < len(changed):
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randint(1, 16)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 64)]
            case 3:
                changed[at:at] = rng.choice([b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"])
            case _:
                changed[at:at] = struct.pack(">Bd", 0xCB, rng.choice([float("nan"), float("inf"), -1e308]))
    return bytes(changed)


def survive(data: bytes) -> None:
    """Decode as the core does, rows included."""
    try:
        message = decode(data)
        if isinstance(message, Rows | Push):
            for signed in message.rows:
                header = peek(signed)
                decode_body(Kind(header.kind) if header.kind in set(Kind) else Kind.NODE, header.body)
    except RemoteProtocolError:
        pass


def good_frames() -> list[bytes]:
    """One of every message, and of every kind of row."""
    rows = [VERSION + msgpack.packb([1, [[make.row(name).signed.payload, bytes(64)]]]) for name in make.BODIES]
    return [encode(message) for message in MESSAGES.values()] + rows


def test_twenty_thousand_mutated_frames_do_no_harm() -> None:
    """A million of them: test_soak.py."""
    rng, good = Random(20), good_frames()
    frames = [mutate(rng.choice(good), rng) for _ in range(20_000)]
    began_s = time.process_time()
    for data in frames:
        survive(data)
    assert (time.process_time() - began_s) / len(frames) < 200e-6  # faults: < 200 us each

    tracemalloc.start()
    for data in frames[::10]:
        survive(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_arbitrary_bytes_do_no_harm(data: bytes) -> None:
    survive(data)
    survive(VERSION + data)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.sampled_from([1, 2, 3, 4, *range(10, 19), *range(20, 26), *range(30, 34)]), st.lists(JSON_LIKE, max_size=8))
@settings(max_examples=200, deadline=None)
def test_arbitrary_fields_do_no_harm(tag: int, rest: list[Any]) -> None:
    survive(frame([tag, *rest]))


@given(
    st.builds(
        Part,
        st.binary(min_size=16, max_size=16),
        st.integers(0, 100),
        st.integers(0, (1 << 31) - 1),
        st.builds(Piece, st.text(), st.lists(st.integers(0, (1 << 31) - 1)).map(tuple)),
    )
)
def test_what_was_said_is_what_is_heard(message: Part) -> None:
    assert decode(encode(message)) == message

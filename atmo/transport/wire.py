"""The transport's own words: what two ends say to each other besides the frames they carry.

At the door: `magic, version, MessagePack of one of Introduce, Introduction, Refusal`. On a link, every frame begins
with one byte, its kind; HELLO then has a version byte. The version stands outside the MessagePack so that two ends that
understand nothing else of each other can still say which versions they speak.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from atmo.errors import RemoteProtocolError
from atmo.keys import Credential

PROTOCOL_VERSION = 1
MAGIC = b"atmo"
# An introduction is about 500 bytes; this leaves room for longer certificates.
MAX_DOOR_FRAME_BYTES = 4096
MAX_HELLO_BYTES = 1024

DATA = b"\x00"  # a frame of the layer above
GOSSIP = b"\x01"  # a gossip frame for a peer whose gossip socket cannot be reached (NAT) or does not flow yet
HELLO = b"\x02"  # version byte, Hello
PING = b"\x03"  # 8 bytes that come back in PONG
PONG = b"\x04"
ACK = b"\x05"  # u64: bytes of control frames read so far on this link
GRANT = b"\x06"  # u64: bulk bytes given back to the sender's window
WIDEN = b"\x08"  # u64: so many bytes more the receiver lets be in flight on the bulk lane
BYE = b"\x07"  # text: why the link ends
PLAIN = b"\x09"  # u16, text: the port of the plain lane and a ticket for one connection to it
NUMBER_BYTES = 8
_PLAIN_TICKET = re.compile(rb"[0-9a-f]{32}")

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Text = Annotated[str, msgspec.Meta(max_length=300)]


class _Word(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=True):
    pass


class Introduce(_Word, frozen=True, tag="introduce"):
    """A stranger says who it is. The credential is its proof of membership."""

    credential: Credential


class Introduction(_Word, frozen=True, tag="introduction"):
    """The answer: who answers, and at which ports its lanes listen (on the host that was dialled)."""

    credential: Credential
    control_port: _Port
    gossip_port: _Port
    bulk_port: _Port


class Refusal(_Word, frozen=True, tag="refusal"):
    """The other answer. `text` is a whole sentence for the stranger's user."""

    code: _Text
    text: _Text


class Hello(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """First frame both ways on a control connection, and from the dialling side on a bulk connection.

    `instance` changes with every start of the peer; `sequence` grows with every HELLO it sends, so that of two
    connections the newer one is known. `address` is where the peer can be dialled, None when it cannot.
    """

    peer: _Key
    instance: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    sequence: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    address: _Text | None
    gossip_port: _Port
    bulk_port: _Port


DoorWord = Introduce | Introduction | Refusal
_door_decoder: msgspec.msgpack.Decoder[DoorWord] = msgspec.msgpack.Decoder(DoorWord)
_hello_decoder = msgspec.msgpack.Decoder(Hello)
# msgspec lets Python's own errors through for bad UTF-8 and for deep nesting.
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.msgpack.Encoder()


class VersionMismatchError(RemoteProtocolError):
    """The other end speaks another version of this protocol."""

    def __init__(self, theirs: int) -> None:
        super().__init__(
            f"The peer speaks transport version {theirs}, this node version {PROTOCOL_VERSION}.",
            hint="Upgrade the older of the two.",
        )


def encode_door(word: DoorWord) -> bytes:
    return MAGIC + bytes([PROTOCOL_VERSION]) + _encoder.encode(word)


def decode_door(frame: bytes) -> DoorWord:
    """Raises RemoteProtocolError for bytes that are not ours, VersionMismatchError for another version's."""
    if len(frame) > MAX_DOOR_FRAME_BYTES or not frame.startswith(MAGIC) or len(frame) <= len(MAGIC):
        raise RemoteProtocolError("What was said at the door is not Atmosphere's protocol.")
    if frame[len(MAGIC)] != PROTOCOL_VERSION:
        raise VersionMismatchError(frame[len(MAGIC)])
    try:
        return _door_decoder.decode(frame[len(MAGIC) + 1 :])
    except _UNDECODABLE as exc:
        raise RemoteProtocolError(f"An introduction does not decode: {exc}.") from exc


def encode_hello(hello: Hello) -> bytes:
    return HELLO + bytes([PROTOCOL_VERSION]) + _encoder.encode(hello)


def decode_hello(frame: bytes) -> Hello:
    """Raises RemoteProtocolError for anything but a HELLO, VersionMismatchError for another version's."""
    if frame[:1] != HELLO or not 2 < len(frame) <= MAX_HELLO_BYTES:
        raise RemoteProtocolError("The peer did not begin with HELLO.")
    if frame[1] != PROTOCOL_VERSION:
        raise VersionMismatchError(frame[1])
    try:
        return _hello_decoder.decode(frame[2:])
    except _UNDECODABLE as exc:
        raise RemoteProtocolError(f"A HELLO does not decode: {exc}.") from exc


def encode_number(kind: bytes, number: int) -> bytes:
    return kind + number.to_bytes(NUMBER_BYTES, "big")


def decode_number(frame: bytes) -> int:
    """Raises RemoteProtocolError when there are not exactly eight bytes after the kind."""
    if len(frame) != 1 + NUMBER_BYTES:
        raise RemoteProtocolError(f"A number of {len(frame) - 1} bytes.")
    return int.from_bytes(frame[1:], "big")


def encode_plain(port: int, ticket: str) -> bytes:
    return PLAIN + port.to_bytes(2, "big") + ticket.encode()


def decode_plain(frame: bytes) -> tuple[int, str]:
    """Port and ticket. Raises RemoteProtocolError."""
    port, ticket = int.from_bytes(frame[1:3], "big"), frame[3:]
    if not port or _PLAIN_TICKET.fullmatch(ticket) is None:
        raise RemoteProtocolError("An invitation to the plain lane is none.")
    return port, ticket.decode()


def encode_bye(reason: str) -> bytes:
    return BYE + reason.encode()[:300]


def decode_bye(frame: bytes) -> str:
    return printable(frame[1:301].decode("utf-8", "replace"))


def printable(text: str) -> str:
    """A peer's words as they may be shown to a user: one line, no control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


LENGTH_BYTES = 2


def enclose(frame: bytes) -> bytes:
    """A door frame as it goes over the plain connection: its length, then itself."""
    return len(frame).to_bytes(LENGTH_BYTES, "big") + frame


class Unpacker:
    """Collects the bytes of one plain connection until its one frame is whole. Holds at most one frame."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, chunk: bytes) -> bytes | None:
        """The frame once it is whole. Raises RemoteProtocolError when it is too long or something follows it."""
        self._bytes += chunk[: MAX_DOOR_FRAME_BYTES + LENGTH_BYTES + 1]
        if len(self._bytes) < LENGTH_BYTES:
            return None
        length = int.from_bytes(self._bytes[:LENGTH_BYTES], "big")
        surplus = len(self._bytes) - LENGTH_BYTES - length
        if not 0 < length <= MAX_DOOR_FRAME_BYTES or surplus > 0:
            raise RemoteProtocolError("What was said at the door is not Atmosphere's protocol.")
        return self._bytes[LENGTH_BYTES:] if surplus == 0 else None

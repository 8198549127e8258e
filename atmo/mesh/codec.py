"""Messages to bytes and back. Bytes from a peer become a typed, bounded value here or a RemoteProtocolError.

A frame is one byte, the protocol's version, and one MessagePack array whose first element is the message's tag. Types
and bounds stand with the fields (messages.py, rows.py, capability.py, limits.py) and are checked while decoding.
Nothing is ever decoded without a type: 64 KiB of nested array headers would become 35 MB of objects.
"""

from __future__ import annotations

import msgspec

from atmo.errors import FrameTooLarge, LocalProtocolError, RemoteProtocolError
from atmo.mesh.limits import MAX_MESSAGE_BYTES
from atmo.mesh.messages import CHUNK_TAG, AnyMessage
from atmo.mesh.rows import reason

PROTOCOL_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_HEAD = bytes([PROTOCOL_VERSION])
_CHUNK_HEAD = bytes([0x94, CHUNK_TAG])  # an array of four: the tag and the three fields


def encode(message: AnyMessage) -> bytes:
    """The frame of a message.

    Raises FrameTooLarge above the limit of a control frame, and LocalProtocolError for a message that its receiver
    would refuse: better told here, where it was written, than by a peer that hangs up. The check costs half a
    microsecond for a piece of an answer (measured).
    """
    frame = encode_large(message)
    if len(frame) > MAX_MESSAGE_BYTES:
        raise FrameTooLarge(f"The message has {len(frame):,} bytes, {MAX_MESSAGE_BYTES:,} are allowed.")
    return frame


def encode_large(message: AnyMessage) -> bytes:
    """The same for a message that is cut before it is sent, of any size. Raises LocalProtocolError."""
    frame = _HEAD + _encoder.encode(message)
    try:
        decode_large(frame)
    except RemoteProtocolError as exc:
        raise LocalProtocolError(f"A {type(message).__name__} cannot be sent as it is. {exc.message}") from exc
    return frame


def chunk_head(root: bytes, chunk: int, length: int) -> bytes:
    """What stands before so many bytes in the frame of a `Chunk`. Its length depends on the chunk's number alone."""
    head = (_HEAD, _CHUNK_HEAD, _encoder.encode(root), _encoder.encode(chunk), b"\xc6", length.to_bytes(4, "big"))
    return b"".join(head)


def decode(frame: bytes) -> AnyMessage:
    """The message in a frame. Raises RemoteProtocolError, in one line."""
    if len(frame) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"A frame has {len(frame):,} bytes, {MAX_MESSAGE_BYTES:,} are allowed.")
    return decode_large(frame)


def decode_large(frame: bytes | memoryview) -> AnyMessage:
    """The same for bytes that came in pieces, whose number was bounded, or on the bulk lane, which bounds them."""
    if not frame or frame[0] != PROTOCOL_VERSION:
        theirs = frame[0] if frame else "none"
        raise RemoteProtocolError(
            f"A frame is of protocol version {theirs}, this node speaks {PROTOCOL_VERSION}.",
            hint="Upgrade the older of the two nodes.",
        )
    try:
        return _decoder.decode(memoryview(frame)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RemoteProtocolError(f"A frame does not decode: {reason(exc)}.") from exc

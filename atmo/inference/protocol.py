"""What a node and its engine worker say to each other over their socket pair: length-prefixed MessagePack frames.

Theory of operation. The parent numbers its requests; every answer carries the number of its request. `Chat` is
answered by any count of `Said` and one `Done`, every other request by one frame of its own; any request may be
answered by `Failed` instead, and after `Done`, `Failed` or `Cancel` its number is dead. `Load` and `Bye` have no
number: a worker loads once. A frame is four bytes of length, big-endian, and that many bytes of MessagePack. No IO
here: bytes in, frames out.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from atmo.errors import AtmoError, ProtocolError, UsageError, by_code
from atmo.generation import Finish, Piece, Task
from atmo.inference.engine import ModelFacts, ModelSpec

MAX_FRAME_BYTES = 64 * 1024 * 1024  # a guess: above any prompt or batch of vectors that is taken, far below memory
_PREFIX_BYTES = 4


class Load(msgspec.Struct, frozen=True, tag="load"):
    spec: ModelSpec
    socket_folder: str  # private folder in which the engine may make what it needs; the parent removes it


class Chat(msgspec.Struct, frozen=True, tag="chat"):
    id: int
    task: Task


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    id: int
    texts: tuple[str, ...]


class Classify(msgspec.Struct, frozen=True, tag="classify"):
    id: int
    text: str


class Look(msgspec.Struct, frozen=True, tag="look"):
    id: int
    image: bytes


class Count(msgspec.Struct, frozen=True, tag="count"):
    id: int
    text: str


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: int


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    id: int


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    """Stop at once; nothing is answered."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    facts: ModelFacts


class Said(msgspec.Struct, frozen=True, tag="said"):
    id: int
    piece: Piece


class Done(msgspec.Struct, frozen=True, tag="done"):
    id: int
    finish: Finish


class Vectors(msgspec.Struct, frozen=True, tag="vectors"):
    id: int
    vectors: list[list[float]]


class Labels(msgspec.Struct, frozen=True, tag="labels"):
    id: int
    labels: list[tuple[str, float]]


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    id: int
    tokens: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """id 0: the model could not be loaded."""

    id: int
    code: str
    message: str
    hint: str = ""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """rss_bytes: resident memory of the worker; cpu_s: processor time it has used since it began."""

    id: int
    rss_bytes: int
    cpu_s: float


ToWorker: TypeAlias = Load | Chat | Embed | Classify | Look | Count | Cancel | Ping | Bye
FromWorker: TypeAlias = Ready | Said | Done | Vectors | Labels | Counted | Failed | Pong
Frame: TypeAlias = ToWorker | FromWorker

_ENCODER = msgspec.msgpack.Encoder()


def encode(frame: Frame) -> bytes:
    """The frame with its length before it. Raises ProtocolError when it is too large, UsageError for a broken text."""
    try:
        body = _ENCODER.encode(frame)
    except UnicodeEncodeError as error:
        raise UsageError("The text holds half a character (a lone surrogate).", hint="Send valid Unicode.") from error
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(
            f"A message of {len(body)} bytes is too large for an engine; {MAX_FRAME_BYTES} are allowed.",
            hint="Send it in smaller parts.",
        )
    return len(body).to_bytes(_PREFIX_BYTES, "big") + body


class FrameBuffer:
    """Turns a stream of bytes, cut anywhere, into the bodies of whole frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """All frames that are complete with `data`. Raises ProtocolError when a length is beyond the limit."""
        self._pending += data
        found: list[bytes] = []
        at = 0
        while len(self._pending) - at >= _PREFIX_BYTES:
            size = int.from_bytes(self._pending[at : at + _PREFIX_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise ProtocolError(f"A frame of {size} bytes was announced; {MAX_FRAME_BYTES} are allowed.")
            end = at + _PREFIX_BYTES + size
            if len(self._pending) < end:
                break
            found.append(bytes(self._pending[at + _PREFIX_BYTES : end]))
            at = end
        del self._pending[:at]
        return found


_TO_WORKER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_FROM_WORKER: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def decode_to_worker(body: bytes) -> ToWorker:
    try:
        return _TO_WORKER.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"The node sent a frame that does not decode: {error}.") from error


def decode_from_worker(body: bytes) -> FromWorker:
    try:
        return _FROM_WORKER.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"The engine's worker sent a frame that does not decode: {error}.") from error


def failed(request_id: int, error: AtmoError) -> Failed:
    return Failed(request_id, error.code, error.message, error.hint)


def raised(frame: Failed) -> AtmoError:
    """The error a worker reported, to be raised on this side."""
    return by_code(frame.code, frame.message, hint=frame.hint)

"""Rows: what the mesh knows. Each is written and signed by one origin, and nobody else ever changes a byte of it.

A row is named by (origin, kind, key) and ordered by (generation, version): the generation grows with each start of the
origin, the version with each change. The origin signs domain, mesh, kind, key, order, date and body as the exact bytes
that travel; a receiver keeps those bytes and passes them on as they are.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from atmo.errors import LocalProtocolError, RemoteProtocolError
from atmo.ids import MeshId, PeerId
from atmo.keys import Certificate, Sealed
from atmo.keys import Verify as Verify
from atmo.mesh.capability import Capability, Descriptor, Load
from atmo.mesh.limits import (
    MAX_CHARGES,
    MAX_ROW_BYTES,
    Address,
    Big,
    Count,
    Key32,
    Labels,
    Name,
    Order,
    Positive,
    Signature,
    Ttl,
    Word,
)

ROW_DOMAIN = b"atmo/row/1"

Sign = Callable[[bytes, bytes], bytes]
"""sign(domain, payload) -> signature, 64 bytes."""


class Kind(enum.IntEnum):
    NODE = 1
    CAPABILITY = 2
    GRADIENT = 3
    SEED = 4
    CERT = 5
    SUSPECT = 7  # between them: kinds that are planned


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a NODE row. labels: such as `residency=eu`; memory in bytes; gpus: names. incarnation: raised by the
    node itself when it is accused of being dead (detector.py). certificate: what makes the origin a member (roll.py).
    """

    name: Name
    addresses: Annotated[tuple[Address, ...], Meta(max_length=16)]
    mode: Word
    software: Name
    labels: Labels = ()
    cpu: Name = ""
    cores: Count = 0
    memory_bytes: Big = 0
    gpus: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    gpu_memory_bytes: Big = 0
    incarnation: Big = 0
    certificate: Certificate | None = None


class Gradient(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a GRADIENT row: the load of each capability of the origin."""

    loads: Annotated[tuple[Load, ...], Meta(max_length=256)]


class Renewal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a CERT row: a new membership that the root signed for the member whom the row's key names."""

    membership: Sealed


class Charge(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An accusation: this life of a node seems to have ended."""

    peer: Key32
    generation: Order
    incarnation: Big


class Suspicion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a SUSPECT row: all nodes that its origin accuses at present."""

    charges: Annotated[tuple[Charge, ...], Meta(max_length=MAX_CHARGES)]


class Shape(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What tells how much memory a language model takes: layers, width of one, words it knows, tokens it was trained to
    hold, bytes of keys and values for each. Zeros where they are not known."""

    layers: Count = 0
    width: Count = 0
    vocabulary: Count = 0
    context: Big = 0
    kv_bytes_per_token: Big = 0


class Seed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a SEED row: its origin has the model that the row's key names by its root (hex), and gives it away.

    kind: what can load it, as in `ModelSpec`; descriptor: what it would be offered as; only: labels of the nodes that
    may have it, all where empty; complete: False while the origin is still fetching it, and gives what it has; source:
    the file of a hub that it says these bytes are, as `hf://org/repo@commit/file`, empty where it does not know. That
    is its word and nothing more.
    """

    size_bytes: Big
    kind: Word
    descriptor: Descriptor
    shape: Shape
    only: Labels
    complete: bool
    source: Address = ""


Body = NodeInfo | Capability | Gradient | Renewal | Suspicion | Seed
BODY_TYPES: dict[Kind, type[Body]] = {
    Kind.NODE: NodeInfo,
    Kind.CAPABILITY: Capability,
    Kind.GRADIENT: Gradient,
    Kind.SEED: Seed,
    Kind.CERT: Renewal,
    Kind.SUSPECT: Suspicion,
}


class RowId(NamedTuple):
    origin: PeerId
    kind: Kind
    key: str


class RowPayload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The signed bytes, decoded one level. body is None (MessagePack nil) in a withdrawal: the row is gone for good.

    issued_s: the origin's clock, seconds since 1970; ttl_s: how long the row may live without being renewed. kind is a
    plain number here: a kind that this node does not know yet is nobody's fault.
    """

    mesh: Key32
    origin: Key32
    kind: Annotated[int, Meta(ge=0, le=255)]
    key: Name
    generation: Order
    version: Order
    issued_s: Positive
    ttl_s: Ttl
    body: msgspec.Raw


class SignedRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What travels: the exact payload bytes and the origin's Ed25519 signature over them."""

    payload: Annotated[bytes, Meta(max_length=MAX_ROW_BYTES)]
    signature: Signature


class Row(NamedTuple):
    """A row that was checked and understood. `body` is None for a withdrawal."""

    id: RowId
    generation: int
    version: int
    issued_s: float
    ttl_s: float
    body: Body | None
    signed: SignedRow

    @property
    def order(self) -> tuple[int, int]:
        return self.generation, self.version


def seal(
    row_id: RowId, body: Body | None, *, mesh: MeshId, order: tuple[int, int], issued_s: float, ttl_s: float, sign: Sign
) -> Row:
    """Write and sign a row. Raises LocalProtocolError for one that its receivers would refuse."""
    raw = msgspec.Raw(msgspec.msgpack.encode(body))
    header = RowPayload(mesh, row_id.origin, row_id.kind, row_id.key, *order, issued_s, ttl_s, raw)
    payload = msgspec.msgpack.encode(header)
    signed = SignedRow(payload, sign(ROW_DOMAIN, payload))
    try:
        decode_body(row_id.kind, peek(signed).body)
    except RemoteProtocolError as exc:
        raise LocalProtocolError(f"The row {row_id.kind.name} {row_id.key!r} cannot be sent. {exc.message}") from exc
    return Row(row_id, *order, issued_s, ttl_s, body, signed)


def peek(signed: SignedRow) -> RowPayload:
    """Decode the header only, without trusting it. Raises RemoteProtocolError."""
    if len(signed.payload) > MAX_ROW_BYTES:
        raise RemoteProtocolError(f"A row has {len(signed.payload):,} bytes, {MAX_ROW_BYTES:,} are allowed.")
    try:
        return _PAYLOAD.decode(signed.payload)
    except _NOT_DECODABLE as exc:
        raise RemoteProtocolError(f"A row does not decode: {reason(exc)}.") from exc


def genuine(signed: SignedRow, payload: RowPayload, verify: Verify) -> bool:
    """True if the origin signed exactly these bytes."""
    return verify(payload.origin, ROW_DOMAIN, signed.payload, signed.signature)


def read(signed: SignedRow, payload: RowPayload) -> Row:
    """Understand a row whose signature was checked. Raises RemoteProtocolError, and ValueError for an unknown kind."""
    kind = Kind(payload.kind)
    row_id = RowId(PeerId(payload.origin), kind, payload.key)
    body = decode_body(kind, payload.body)
    return Row(row_id, payload.generation, payload.version, payload.issued_s, payload.ttl_s, body, signed)


def decode_body(kind: Kind, raw: msgspec.Raw) -> Body | None:
    """None for a withdrawal. Raises RemoteProtocolError."""
    try:
        body = _BODIES[kind].decode(raw)
        if isinstance(body, NodeInfo):
            _refuse_duplicate_keys(raw)
        elif isinstance(body, Capability):
            _refuse_duplicate_keys(_PARTS.decode(raw)[0])
        elif isinstance(body, Seed):
            _refuse_duplicate_keys(_PARTS.decode(raw)[2])
    except _NOT_DECODABLE as exc:
        raise RemoteProtocolError(f"A row's body does not decode: {reason(exc)}.") from exc
    return body


def reason(exc: Exception) -> str:
    """What a decoder found wrong, in one line. It may quote a peer's words: nothing unprintable, nothing long."""
    text = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


def _refuse_duplicate_keys(raw: msgspec.Raw) -> None:
    """A map that names a key twice means one thing to one reader and another to the next; msgspec takes the last."""
    data = memoryview(raw)
    head = data[0]
    claimed = head & 0x0F if head >> 4 == 0x8 else int.from_bytes(data[1:3] if head == 0xDE else data[1:5], "big")
    if claimed != len(_KEYS.decode(raw)):
        raise msgspec.ValidationError("A key stands twice in one map")


# UnicodeDecodeError and RecursionError are not msgspec's, but come out of its decoders.
_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PAYLOAD = msgspec.msgpack.Decoder(RowPayload)
_BODIES: dict[Kind, msgspec.msgpack.Decoder[Body | None]] = {
    kind: msgspec.msgpack.Decoder(body | None) for kind, body in BODY_TYPES.items()
}
_KEYS = msgspec.msgpack.Decoder(Annotated[dict[Word, msgspec.Raw], Meta(max_length=64)])
_PARTS = msgspec.msgpack.Decoder(tuple[msgspec.Raw, ...])

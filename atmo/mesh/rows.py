"""Rows: what the mesh knows. Each is written and signed by one origin, and nobody else ever changes a byte of it.

A row is named by (origin, kind, key) and ordered by (generation, version): the generation grows with each start of the
origin, the version with each change. The origin signs domain, mesh, kind, key, order, date and body as the exact bytes
that travel; a receiver keeps those bytes and passes them on as they are.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from atmo.errors import RemoteProtocolError
from atmo.ids import MeshId, PeerId
from atmo.mesh.capability import Capability, Load

ROW_DOMAIN = b"atmo/row/1"

Sign = Callable[[bytes, bytes], bytes]
"""sign(domain, payload) -> signature, 64 bytes."""
Verify = Callable[[bytes, bytes, bytes, bytes], bool]
"""verify(public key, domain, payload, signature) -> genuine?"""


class Kind(enum.IntEnum):
    NODE = 1
    CAPABILITY = 2
    GRADIENT = 3


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a NODE row. labels: such as `residency=eu`; memory in bytes; gpus: names."""

    name: str
    addresses: tuple[str, ...]
    mode: str
    software: str
    labels: tuple[tuple[str, str], ...] = ()
    cpu: str = ""
    cores: int = 0
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()
    gpu_memory_bytes: int = 0


class Gradient(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a GRADIENT row: the load of each capability of the origin."""

    loads: tuple[Load, ...]


Body = NodeInfo | Capability | Gradient
BODY_TYPES: dict[Kind, type[Body]] = {Kind.NODE: NodeInfo, Kind.CAPABILITY: Capability, Kind.GRADIENT: Gradient}


class RowId(NamedTuple):
    origin: PeerId
    kind: Kind
    key: str


class RowPayload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The signed bytes, decoded one level. body is None (MessagePack nil) in a withdrawal: the row is gone for good.

    issued_s: the origin's clock, seconds since 1970; ttl_s: how long the row may live without being renewed.
    """

    mesh: bytes
    origin: bytes
    kind: Kind
    key: str
    generation: int
    version: int
    issued_s: float
    ttl_s: float
    body: msgspec.Raw


class SignedRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What travels: the exact payload bytes and the origin's Ed25519 signature over them."""

    payload: bytes
    signature: bytes


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
    """Write and sign a row."""
    raw = msgspec.Raw(msgspec.msgpack.encode(body))
    payload = msgspec.msgpack.encode(RowPayload(mesh, row_id.origin, row_id.kind, row_id.key, *order, issued_s, ttl_s, raw))
    return Row(row_id, *order, issued_s, ttl_s, body, SignedRow(payload, sign(ROW_DOMAIN, payload)))


def peek(signed: SignedRow) -> RowPayload:
    """Decode the header only, without trusting it. Raises RemoteProtocolError."""
    try:
        return _PAYLOAD.decode(signed.payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RemoteProtocolError(f"A row does not decode: {exc}.") from exc


def unseal(signed: SignedRow, payload: RowPayload, verify: Verify) -> Row:
    """Check the signature, then the body. Raises RemoteProtocolError."""
    if not verify(payload.origin, ROW_DOMAIN, signed.payload, signed.signature):
        raise RemoteProtocolError("A row's signature is not its origin's.")
    try:
        body = msgspec.msgpack.decode(payload.body, type=BODY_TYPES[payload.kind] | None)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RemoteProtocolError(f"A row's body does not decode: {exc}.") from exc
    row_id = RowId(PeerId(payload.origin), payload.kind, payload.key)
    return Row(row_id, payload.generation, payload.version, payload.issued_s, payload.ttl_s, body, signed)


_PAYLOAD = msgspec.msgpack.Decoder(RowPayload)

"""Keys, and the two short documents that tie them together.

A node has two key pairs. Its Ed25519 *identity* signs what it says; its X25519 *curve* key encrypts its ZeroMQ links.
One is never converted into the other. Two signed documents connect them to a mesh:

- `Membership`, signed by the mesh's root: "this identity is a member until then".
- `CurveBinding`, signed by the identity: "my links use this curve key until then".

Both together are a `Credential`: public, small (about 350 bytes) and checkable offline by any member. What is signed is
always a domain name, a zero byte and the exact payload bytes, so a signature made for one purpose fits no other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from atmo.errors import ConfigError, RemoteProtocolError
from atmo.ids import KEY_BYTES, MeshId, PeerId, short

_T = TypeVar("_T")

SIGNATURE_BYTES = 64
# Clocks of members may differ by this much before a document counts as not yet valid. A guess: NTP keeps within 1 s,
# a machine that was never set is off by hours and should be told so.
CLOCK_TOLERANCE_S = 300
YEAR_S = 365 * 24 * 3600

# Points of small order, for which one signature fits many messages (RFC 8032 allows them, we refuse them), with their
# non-canonical encodings. From the eight torsion points of edwards25519.
_SMALL_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
)


class Identity:
    """An Ed25519 key pair. `public` is the peer id (or, for a mesh's root, the mesh id)."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.secret = secret
        self.public = PeerId(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Identity:
        return cls(os.urandom(KEY_BYTES))

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        return self._key.sign(domain + b"\0" + payload)

    def __repr__(self) -> str:
        return f"<Identity {short(self.public)}>"


def verify(public: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
    """True if `public` signed exactly this payload for this domain. False for small-order keys, whatever they
    signed."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES or public in _SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, domain + b"\0" + payload)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """An X25519 key pair for CurveZMQ, 32 bytes each."""

    public: bytes
    secret: bytes

    @classmethod
    def from_secret(cls, secret: bytes) -> CurveKeys:
        return cls(X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw(), secret)

    @classmethod
    def generate(cls) -> CurveKeys:
        return cls.from_secret(os.urandom(KEY_BYTES))

    def __repr__(self) -> str:
        return f"<CurveKeys {self.public.hex()[:8]}>"


class Membership(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Times are whole seconds since 1970, UTC; a later `serial` replaces an earlier one."""

    mesh: bytes
    peer: bytes
    serial: int
    not_before_s: int
    not_after_s: int


class CurveBinding(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    peer: bytes
    curve: bytes
    serial: int
    not_after_s: int


class Sealed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Bytes and a signature over them. Nobody re-encodes the payload: what was signed is what is passed on."""

    payload: bytes
    signature: bytes


class Credential(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    membership: Sealed
    binding: Sealed


@dataclass(frozen=True, slots=True)
class Passport:
    """What a verified credential says. Valid until `not_after_s` (seconds since 1970)."""

    mesh: MeshId
    peer: PeerId
    curve: bytes
    not_after_s: int


_MEMBERSHIP_DOMAIN = b"atmo/membership/1"
_BINDING_DOMAIN = b"atmo/curve-binding/1"


def issue_credential(
    root: Identity, member: Identity, curve: CurveKeys, *, wall_s: float, serial: int = 0, lifetime_s: int = YEAR_S
) -> Credential:
    """Root and member keys are both at hand only on the machine of the user who owns the mesh."""
    start, end = int(wall_s), int(wall_s) + lifetime_s
    membership = msgspec.msgpack.encode(Membership(root.public, member.public, serial, start, end))
    binding = msgspec.msgpack.encode(CurveBinding(member.public, curve.public, serial, end))
    return Credential(
        Sealed(membership, root.sign(_MEMBERSHIP_DOMAIN, membership)),
        Sealed(binding, member.sign(_BINDING_DOMAIN, binding)),
    )


def check_credential(credential: Credential, mesh: MeshId, wall_s: float) -> Passport:
    """Raises RemoteProtocolError that names the first thing that is wrong."""
    membership = _open(credential.membership, Membership)
    binding = _open(credential.binding, CurveBinding)
    if membership.mesh != mesh:
        raise RemoteProtocolError("The peer belongs to another mesh.", hint="Both nodes need the same mesh.")
    if membership.peer != binding.peer or len(binding.curve) != KEY_BYTES:
        raise RemoteProtocolError("The peer's certificate and its curve key belong to different peers.")
    if not verify(mesh, _MEMBERSHIP_DOMAIN, credential.membership.payload, credential.membership.signature):
        raise RemoteProtocolError("The peer's certificate was not signed by this mesh.")
    if not verify(binding.peer, _BINDING_DOMAIN, credential.binding.payload, credential.binding.signature):
        raise RemoteProtocolError("The peer did not sign its curve key.")
    _check_dates(membership, binding, wall_s)
    return Passport(mesh, PeerId(binding.peer), binding.curve, min(membership.not_after_s, binding.not_after_s))


def _check_dates(membership: Membership, binding: CurveBinding, wall_s: float) -> None:
    if wall_s > min(membership.not_after_s, binding.not_after_s):
        raise RemoteProtocolError("The peer's certificate has expired.", hint="Restart the peer to renew it.")
    if wall_s < membership.not_before_s - CLOCK_TOLERANCE_S:
        raise RemoteProtocolError("The peer's certificate is not valid yet.", hint="Compare the two machines' clocks.")


def _open(sealed: Sealed, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(sealed.payload, type=kind)
    except msgspec.DecodeError as exc:
        raise RemoteProtocolError(f"A certificate does not decode: {exc}.") from exc


def load_or_create_secret(path: Path) -> bytes:
    """The 32 secret bytes kept in `path` (mode 600), made when there are none yet.

    Two processes that start at once agree: the file is linked into place, and whoever comes second reads the first's.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise ConfigError(
            f"The key file {path} is damaged.", hint="Restore it from a backup, or delete it for a new key."
        )
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"The key file {path} can be read by others.", hint=f"Run: chmod 600 {path}")
    return secret

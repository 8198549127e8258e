"""Keys, and the short documents that tie them together.

A node has two key pairs. Its Ed25519 *identity* signs what it says; its X25519 *curve* key encrypts its ZeroMQ links.
One is never converted into the other. Signed documents connect them to a mesh:

- `Membership`, signed by the mesh's root or by an invite: "this identity is a member until then".
- `Invite`, signed by the root: "who holds this key may make members, so many, until then".
- `CurveBinding`, signed by the identity: "my links use this curve key until then".

A membership, with the invite if that signed it, is a `Certificate`: it says whose rows count. Together with the
binding it is a `Credential`: it says who may have a link. Both are public, small (150 to 500 bytes) and checkable
offline by any member, along the chain root -> (invite ->) identity (-> curve key). What is signed is always a domain
name, a zero byte and the exact payload bytes, so a signature made for one purpose fits no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from atmo.errors import ConfigError, RemoteProtocolError, Untrusted
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
    """Times are whole seconds since 1970, UTC. serial: for people, to tell two of them apart; invite: the public key of
    the invite that the member came by, also where the root signed (a renewal); empty if it came by none."""

    mesh: bytes
    peer: bytes
    serial: int
    not_before_s: int
    not_after_s: int
    invite: bytes


class Invite(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """key: the invite's own Ed25519 public key, whose secret half is in the token; uses: members it may make;
    lifetime_s: how long a membership made with it may last at most; renewable: the root's nodes may renew it."""

    mesh: bytes
    key: bytes
    not_before_s: int
    not_after_s: int
    uses: int
    lifetime_s: int
    renewable: bool


class Revocation(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """key: the public key of the member or invite that the root takes back; at_s: when, for people to read."""

    mesh: bytes
    key: bytes
    at_s: int


class CurveBinding(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """serial: grows with each start of the peer, so that a new curve key takes the place of the old one."""

    peer: bytes
    curve: bytes
    serial: int
    not_after_s: int


class Sealed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Bytes and a signature over them. Nobody re-encodes the payload: what was signed is what is passed on."""

    payload: bytes
    signature: bytes


class Certificate(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Proof of membership. invite: there if the invite's key signed the membership, None if the root did."""

    membership: Sealed
    invite: Sealed | None = None


class Credential(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    membership: Sealed
    binding: Sealed
    invite: Sealed | None = None

    @property
    def certificate(self) -> Certificate:
        return Certificate(self.membership, self.invite)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a verified certificate says, dates unchecked (seconds since 1970).

    invite: the public key of the invite that the member came by, empty if it came by none; invite_uses: how many
    members that may make, 0 where the root itself signed the membership, which is beyond counting.
    """

    mesh: MeshId
    peer: PeerId
    not_before_s: int
    not_after_s: int
    invite: bytes = b""
    invite_uses: int = 0

    def check_dates(self, wall_s: float) -> None:
        """Raises Untrusted."""
        if wall_s > self.not_after_s:
            raise Untrusted("The peer's certificate has expired.", why="expired", hint=_EXPIRED_HINT)
        if wall_s < self.not_before_s - CLOCK_TOLERANCE_S:
            raise Untrusted("The peer's certificate is not valid yet.", why="early", hint=_CLOCKS_HINT)


@dataclass(frozen=True, slots=True)
class Passport:
    """What a verified credential says. Valid until `not_after_s` (seconds since 1970). serial: that of the curve key.
    invite, invite_uses: see Standing."""

    mesh: MeshId
    peer: PeerId
    curve: bytes
    not_after_s: int
    invite: bytes = b""
    invite_uses: int = 0
    serial: int = 0


Verify = Callable[[bytes, bytes, bytes, bytes], bool]
"""verify(public key, domain, payload, signature) -> genuine?"""

_MESH_HINT = "Both nodes need the same mesh."
_EXPIRED_HINT = "Restart it if the mesh is its user's own; a guest needs a new token."
_CLOCKS_HINT = "Compare the two machines' clocks."
_INVITE_DOMAIN = b"atmo/invite/1"
_REVOCATION_DOMAIN = b"atmo/revocation/1"
_MEMBERSHIP_DOMAIN = b"atmo/membership/1"
_BINDING_DOMAIN = b"atmo/curve-binding/1"


def issue_invite(
    root: Identity,
    key: Identity,
    *,
    wall_s: float,
    valid_s: int,
    uses: int,
    lifetime_s: int = YEAR_S,
    renewable: bool = True,
) -> Sealed:
    """Allow the holder of `key` to make `uses` members within `valid_s` from now, each for `lifetime_s` at most."""
    start = int(wall_s)
    terms = Invite(root.public, key.public, start, start + valid_s, uses, lifetime_s, renewable)
    payload = msgspec.msgpack.encode(terms)
    return Sealed(payload, root.sign(_INVITE_DOMAIN, payload))


def issue_membership(
    issuer: Identity,
    member: PeerId,
    *,
    wall_s: float,
    serial: int,
    lifetime_s: int = YEAR_S,
    invite: Sealed | None = None,
    came_by: bytes = b"",
) -> Sealed:
    """By the mesh's root, or, with `invite`, by the invite's key. came_by: the key of the invite by which a member came
    whose membership the root renews. Raises RemoteProtocolError for a garbled invite."""
    mesh, start = bytes(issuer.public), int(wall_s)
    if invite is not None:
        terms = _open(invite, Invite)
        mesh, lifetime_s, came_by = terms.mesh, min(lifetime_s, terms.lifetime_s), terms.key
    payload = msgspec.msgpack.encode(Membership(mesh, member, serial, start, start + lifetime_s, came_by))
    return Sealed(payload, issuer.sign(_MEMBERSHIP_DOMAIN, payload))


def bind_curve(
    membership: Sealed, member: Identity, curve: CurveKeys, *, serial: int, invite: Sealed | None = None
) -> Credential:
    """Complete a membership with the curve key in use; valid as long as the membership is."""
    end_s = _open(membership, Membership).not_after_s
    binding = msgspec.msgpack.encode(CurveBinding(member.public, curve.public, serial, end_s))
    return Credential(membership, Sealed(binding, member.sign(_BINDING_DOMAIN, binding)), invite)


def issue_credential(
    root: Identity, member: Identity, curve: CurveKeys, *, wall_s: float, serial: int = 0, lifetime_s: int = YEAR_S
) -> Credential:
    """Root and member keys are both at hand only on the machine of the user who owns the mesh."""
    membership = issue_membership(root, member.public, wall_s=wall_s, serial=serial, lifetime_s=lifetime_s)
    return bind_curve(membership, member, curve, serial=serial)


def read_membership(sealed: Sealed) -> Membership:
    """What it says, unverified. Raises RemoteProtocolError if it does not decode."""
    return _open(sealed, Membership)


def check_credential(credential: Credential, mesh: MeshId, wall_s: float) -> Passport:
    """Raises Untrusted that names the first thing that is wrong.

    The chain of signatures is checked, and the dates that stand in it. Whether an invite was used too often or a member
    was revoked is not written in a credential: see `atmo.trust`.
    """
    membership = _open(credential.membership, Membership)
    binding = _open(credential.binding, CurveBinding)
    if membership.mesh != mesh:
        raise Untrusted("The peer belongs to another mesh.", why="mesh", hint=_MESH_HINT)
    if membership.peer != binding.peer or len(binding.curve) != KEY_BYTES:
        raise Untrusted("The peer's certificate and its curve key belong to different peers.")
    standing = check_certificate(credential.certificate, mesh)
    if not verify(binding.peer, _BINDING_DOMAIN, credential.binding.payload, credential.binding.signature):
        raise Untrusted("The peer did not sign its curve key.")
    standing.check_dates(wall_s)
    if wall_s > binding.not_after_s:
        raise Untrusted("The peer's curve key has expired.", why="expired", hint="Restart the peer to renew it.")
    until_s = min(standing.not_after_s, binding.not_after_s)
    invited = standing.invite, standing.invite_uses
    return Passport(mesh, standing.peer, binding.curve, until_s, *invited, serial=binding.serial)


def check_certificate(certificate: Certificate, mesh: MeshId, verify: Verify = verify) -> Standing:
    """What it says, if root, invite and membership are a chain. Raises Untrusted that names the first thing
    that is wrong. Dates are the caller's business; those of the invite are checked here, against the membership's."""
    membership = _open(certificate.membership, Membership)
    if membership.mesh != mesh:
        raise Untrusted("The peer belongs to another mesh.", why="mesh", hint=_MESH_HINT)
    if len(membership.peer) != KEY_BYTES or len(membership.invite) not in (0, KEY_BYTES):
        raise Untrusted("The peer's certificate is not in order.")
    invite = None if certificate.invite is None else check_invite(certificate.invite, mesh, verify)
    issuer = bytes(mesh) if invite is None else invite.key
    if not verify(issuer, _MEMBERSHIP_DOMAIN, certificate.membership.payload, certificate.membership.signature):
        raise Untrusted("The peer's certificate was not signed by this mesh.")
    if invite is not None:
        _check_invited(invite, membership)
    dates = membership.not_before_s, membership.not_after_s
    uses = 0 if invite is None else invite.uses
    return Standing(mesh, PeerId(membership.peer), *dates, membership.invite, uses)


def check_invite(sealed: Sealed, mesh: MeshId, verify: Verify = verify) -> Invite:
    """The invite, if the root of this mesh signed it. Raises RemoteProtocolError."""
    invite = _open(sealed, Invite)
    if invite.mesh != mesh or not verify(mesh, _INVITE_DOMAIN, sealed.payload, sealed.signature):
        raise Untrusted("The peer's invite was not signed by this mesh.")
    if len(invite.key) != KEY_BYTES or invite.uses < 1 or invite.lifetime_s < 0:
        raise Untrusted("The peer's invite is not in order.")
    return invite


def issue_revocation(root: Identity, key: bytes, wall_s: float) -> Sealed:
    """The root takes back a member, or an invite with everyone it made."""
    payload = msgspec.msgpack.encode(Revocation(root.public, key, int(wall_s)))
    return Sealed(payload, root.sign(_REVOCATION_DOMAIN, payload))


def check_revocation(statement: Sealed, mesh: MeshId) -> Revocation:
    """What it says, if the root of this mesh signed it. Raises RemoteProtocolError."""
    said = _open(statement, Revocation)
    if said.mesh != mesh or not verify(mesh, _REVOCATION_DOMAIN, statement.payload, statement.signature):
        raise RemoteProtocolError("A revocation was not signed by the root of this mesh.")
    return said


def _check_invited(invite: Invite, membership: Membership) -> None:
    """The joiner wrote the membership itself: it must lie within what the root allowed."""
    if membership.invite != invite.key:
        raise Untrusted("The peer's membership names another invite than the one that signed it.")
    if membership.not_before_s > invite.not_after_s:
        raise Untrusted("The peer's invite had expired when it was used.", why="used", hint="Ask for a new invite.")
    early = membership.not_before_s < invite.not_before_s - CLOCK_TOLERANCE_S
    if early or membership.not_after_s - membership.not_before_s > invite.lifetime_s:
        raise Untrusted("The peer's membership is not what its invite allows.")


def _open(sealed: Sealed, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(sealed.payload, type=kind)
    except msgspec.DecodeError as exc:
        raise Untrusted(f"A certificate does not decode: {exc}.") from exc


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

"""The token that `atmo mesh invite` prints and `atmo mesh join` takes.

It holds the invite (signed by the mesh's root), the invite's secret key, and where members can be dialled. Whoever has
it can join until it expires: it is a password, to be handed over like one. The joiner makes its own membership with
it, so nobody needs to be reachable to join, and every member can check the result.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from atmo.errors import AtmoError, UsageError
from atmo.ids import KEY_BYTES, MeshId, Multiaddr, parse_multiaddr
from atmo.keys import Identity, Invite, Sealed, check_invite

_PREFIX = "atmo1-"
_CHECK_BYTES = 4
MAX_ADDRESSES = 8


class Token(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """mesh: 32 bytes; secret: the invite's Ed25519 secret, 32 bytes; addresses: multiaddrs of members, at most 8."""

    mesh: bytes
    invite: Sealed
    secret: bytes
    addresses: tuple[str, ...]

    @property
    def terms(self) -> Invite:
        """What the root allowed. Raises RemoteProtocolError for an invite that it did not sign."""
        return check_invite(self.invite, MeshId(self.mesh))

    @property
    def key(self) -> Identity:
        return Identity(self.secret)

    @property
    def seeds(self) -> list[Multiaddr]:
        return [parse_multiaddr(text) for text in self.addresses]

    def __repr__(self) -> str:
        return f"<Token for mesh {self.mesh.hex()[:8]}>"


def write_token(token: Token) -> str:
    """One line of letters, digits, hyphens and underscores, with a checksum for those who copy it by hand."""
    payload = msgspec.msgpack.encode(token)
    return _PREFIX + base64.urlsafe_b64encode(payload + _checksum(payload)).decode().rstrip("=")


def read_token(text: str) -> Token:
    """Raises UsageError for a damaged token, and for one whose invite its mesh did not sign."""
    text = "".join(text.split())
    try:
        if not text.startswith(_PREFIX) or len(text) > 8192:
            raise ValueError("not a token")
        encoded = text.removeprefix(_PREFIX)
        data = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        payload, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        if check != _checksum(payload):
            raise ValueError("checksum")
        token = msgspec.msgpack.decode(payload, type=Token)
        if len(token.secret) != KEY_BYTES or len(token.addresses) > MAX_ADDRESSES:
            raise ValueError("sizes")
        terms, _ = token.terms, token.seeds
    except (ValueError, binascii.Error, msgspec.DecodeError, AtmoError) as exc:
        raise UsageError("This is not a whole token.", hint="Copy all of what `atmo mesh invite` printed.") from exc
    if terms.key != token.key.public:
        raise UsageError("The token's key does not belong to its invite.", hint="Ask for a new one.")
    return token


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:_CHECK_BYTES]

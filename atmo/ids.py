"""Names of things: peers, meshes, addresses.

A peer is its Ed25519 public key, 32 bytes. Written down it takes libp2p's form: the key inside a protobuf `PublicKey`,
inside an identity multihash, in base58btc (`12D3KooW...`; libp2p specs, peer-ids). An address is a multiaddr,
`/ip4/192.168.1.4/tcp/4600/p2p/12D3KooW...` (multiformats/multiaddr).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import NewType

from atmo.errors import UsageError

PeerId = NewType("PeerId", bytes)
"""The peer's Ed25519 public key, 32 bytes."""

MeshId = NewType("MeshId", bytes)
"""The Ed25519 public key of the mesh's root, 32 bytes."""

KEY_BYTES = 32
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_INDEX = {letter: value for value, letter in enumerate(_ALPHABET)}
# multihash "identity", 36 bytes long; protobuf field 1 (key type) = Ed25519, field 2 (data), 32 bytes
_PEER_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
# Compiled when it is needed: the command line waits for this module.
_HOST_NAME = r"(?=.{1,253}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*"


def base58_encode(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    leading_zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * leading_zeros + text


def base58_decode(text: str) -> bytes:
    """Raises ValueError for a letter outside the alphabet."""
    number = 0
    for letter in text:
        if letter not in _INDEX:
            raise ValueError(f"{letter!r} is not a base58 letter")
        number = number * 58 + _INDEX[letter]
    leading_zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * leading_zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


@functools.lru_cache(maxsize=4096)
def format_peer(peer: PeerId | MeshId) -> str:
    """`12D3KooW...`, 52 characters."""
    return base58_encode(_PEER_PREFIX + peer)


def parse_peer(text: str) -> PeerId:
    """Raises UsageError for anything that is not an Ed25519 peer id."""
    try:
        data = base58_decode(text) if len(text) < 80 else b""
    except ValueError:
        data = b""
    if len(data) != len(_PEER_PREFIX) + KEY_BYTES or not data.startswith(_PEER_PREFIX):
        raise UsageError(f"{text[:80]!r} is not a peer id.", hint="A peer id begins with 12D3KooW and has 52 letters.")
    return PeerId(data[len(_PEER_PREFIX) :])


def short(peer: PeerId | MeshId) -> str:
    """The last eight letters of the peer id: all begin alike, so the end tells them apart."""
    return format_peer(peer)[-8:]


@dataclass(frozen=True, slots=True)
class Multiaddr:
    """Where a peer can be dialled. `peer` is None when only host and port are known.

    `host` is an IPv4 or IPv6 address or a DNS name; `port` is TCP, 1 to 65535.
    """

    host: str
    port: int
    peer: PeerId | None = None

    def __str__(self) -> str:
        kind = _host_kind(self.host)
        tail = f"/p2p/{format_peer(self.peer)}" if self.peer is not None else ""
        return f"/{kind}/{self.host}/tcp/{self.port}{tail}"

    @property
    def zmq(self) -> str:
        """The same in ZeroMQ's notation, without the peer."""
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


def parse_multiaddr(text: str) -> Multiaddr:
    """Raises UsageError for anything but /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT[/p2p/PEER]."""
    parts = text.strip().split("/")
    if len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp" or (len(parts) == 7 and parts[5] != "p2p"):
        raise _bad_multiaddr(text)
    _, kind, host, _, port = parts[:5]
    if not _host_fits(kind, host) or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _bad_multiaddr(text)
    return Multiaddr(host, int(port), parse_peer(parts[6]) if len(parts) == 7 else None)


def _bad_multiaddr(text: str) -> UsageError:
    return UsageError(
        f"{text[:120]!r} is not an address.", hint="Write it as /ip4/192.168.1.4/tcp/4600/p2p/12D3KooW..."
    )


def _host_kind(host: str) -> str:
    try:
        return f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        return "dns"


def _host_fits(kind: str, host: str) -> bool:
    if kind in ("dns", "dns4", "dns6"):
        return re.fullmatch(_HOST_NAME, host) is not None
    return kind in ("ip4", "ip6") and _host_kind(host) == kind

"""Where a node is: a socket of this machine, found by itself, or a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from atmo.config import Config
from atmo.errors import AtmoError, NodeNotRunning, UsageError
from atmo.transport.neighbours import NodeCard, running

if TYPE_CHECKING:
    import ssl

PORTS = {"http": 80, "https": 443}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """socket: the node's Unix socket, which only its owner can open; else host, port and key of its API over TCP.
    secure: HTTPS; trust: whose certificates count, the system's if None."""

    socket: Path | None = None
    host: str = "localhost"
    port: int = 0
    path: str = ""
    key: str = ""
    secure: bool = False
    trust: ssl.SSLContext | None = None

    @property
    def shown(self) -> str:
        """For messages; without the key."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return str(self.socket or f"http{'s' * self.secure}://{name}:{self.port}{self.path}")

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{name}:{self.port}" if self.port else name

    def absent(self) -> NodeNotRunning:
        """Nobody listens there."""
        if self.socket is not None:
            return not_running()
        return NodeNotRunning(f"No node answers at {self.shown}.", hint="Is the URL right, and does the node run?")

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"


def address_of(url: str, key: str = "", trust: ssl.SSLContext | None = None) -> Address:
    """A node's URL with or without `/v1`, as OpenAI's clients take it. Raises UsageError."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"{url!r} is not a URL: {exc}.", hint="Such as http://desk.local:4680.") from exc
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(f"{url!r} is not the URL of a node.", hint="Such as http://desk.local:4680.")
    if not key.isascii() or not key.isprintable():
        raise UsageError("The API key has characters that no key has.", hint="`atmo keys create` makes one.")
    path = parts.path.rstrip("/").removesuffix("/v1")
    return Address(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        path=path,
        key=key,
        secure=parts.scheme == "https",
        trust=trust,
    )


def find_socket(config: Config, node: str = "") -> Path:
    """The socket of the node of that name; without a name the configured one, or any node of this user that runs."""
    cards = [card for card in running_nodes(config) if card.api_socket]
    wanted = node or config.node.name
    for card in cards:
        if card.name == wanted:
            return Path(card.api_socket)
    if node:
        names = ", ".join(card.name for card in cards) or "none"
        raise NodeNotRunning(f"No node named {node!r} is running.", hint=f"Running: {names}.")
    if not cards:
        raise not_running()
    return Path(cards[0].api_socket)


def running_nodes(config: Config) -> list[NodeCard]:
    """The nodes of this user that run on this machine, by name."""
    return sorted(running(config.runtime), key=lambda card: card.name)


def not_running() -> NodeNotRunning:
    return NodeNotRunning("No node is running on this machine.", hint="Start one: atmo node start")


def silent() -> NodeNotRunning:
    return NodeNotRunning("The node does not answer.", hint="See its log, or restart it: atmo node stop.")


def gone() -> NodeNotRunning:
    return NodeNotRunning("The node went away before it had answered.", hint="See `atmo node status`.")


def translated(exc: OSError, address: Address) -> AtmoError:
    """What an error of the operating system means."""
    if isinstance(exc, ConnectionRefusedError | FileNotFoundError):
        return address.absent()
    if isinstance(exc, TimeoutError):
        return silent()
    if isinstance(exc, ConnectionError):
        return gone()
    return NodeNotRunning(f"{address.shown} cannot be reached: {exc.strerror or exc}.", hint="See `atmo node status`.")

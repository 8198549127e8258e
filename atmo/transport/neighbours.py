"""Nodes of one user on one machine find each other through the user's runtime folder.

Each running node keeps a card, `<runtime>/nodes/<peer id>.json`, and an exclusive lock on it. The lock is the truth:
the kernel lets go of it when the process ends, however it ends, so a card that can be locked is stale and whoever sees
it removes it. A card is written beside its place, locked there, and moved into place, so nobody ever reads half of one
or finds it unlocked. The folder is the user's own (mode 700): who may write there may run the user's programs anyway.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from atmo.errors import AtmoError, ConfigError
from atmo.ids import MeshId, Multiaddr, PeerId, format_peer, parse_multiaddr, parse_peer

if TYPE_CHECKING:
    import asyncio

# How long a new neighbour stays unseen, as a rule. A guess.
POLL_S = 0.25
# Who died without a word leaves the folder's time as it was, and so does a card that comes in the same tick of the file
# system's clock as the last look. So every so many times the locks are looked at whatever that time says, which costs
# some hundred microseconds.
LOOK_EVERY = 4
MAX_CARD_BYTES = 16_384
MAX_CARDS = 256


@dataclass(frozen=True, slots=True)
class NodeCard:
    """A node that runs on this machine. `address` is None for one that keeps to itself; `api_socket` is where its API
    listens, empty if it has none."""

    peer: PeerId
    mesh: MeshId
    address: Multiaddr | None
    pid: int
    name: str
    api_socket: str


class _CardFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    peer: str
    mesh: str
    address: str
    pid: int
    name: str
    api_socket: str


class Neighbours:
    """The runtime folder, seen by one process. Raises ConfigError when the folder is not the user's alone."""

    def __init__(self, runtime: Path) -> None:
        self._folder = own_folder(own_folder(runtime) / "nodes")
        self._held: dict[PeerId, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._known: dict[PeerId, NodeCard] = {}

    def announce(self, card: NodeCard) -> None:
        """Show this card until `withdraw`, `close` or the end of the process. A second call replaces the first.

        Raises ConfigError when another process shows a card of the same peer: two nodes must not share one identity.
        """
        path = self._path(card.peer)
        if card.peer not in self._held and (other := _read(path)) is not None:
            raise ConfigError(
                f"This node runs already: process {other.pid} at {other.address}.",
                hint="Stop it with `atmo node stop`, or give the second node a home of its own.",
            )
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(handle, _encode(card))
            fresh.rename(path)
        except BaseException:
            os.close(handle)
            fresh.unlink(missing_ok=True)
            raise
        self._let_go(card.peer)
        self._held[card.peer] = handle

    def withdraw(self, peer: PeerId) -> None:
        if peer in self._held:
            self._path(peer).unlink(missing_ok=True)
            self._let_go(peer)

    def list(self) -> list[NodeCard]:
        """Every node of this user that runs now, own cards included, by peer id. Removes stale cards."""
        return _cards(self._folder)

    def watch(self, found: Callable[[NodeCard], None], lost: Callable[[NodeCard], None]) -> None:
        """From now on, call `found` for each other node that is there, comes or changes, and `lost` when it is gone."""
        import asyncio

        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._poll(found, lost))

    async def close(self) -> None:
        """Withdraw all own cards and stop watching. May be called twice."""
        import asyncio

        for peer in list(self._held):
            self.withdraw(peer)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _poll(self, found: Callable[[NodeCard], None], lost: Callable[[NodeCard], None]) -> None:
        import asyncio  # here, because the command line reads cards and must not pay for a loop

        changed_ns, turn = -1, 0
        while True:
            before_ns, changed_ns = changed_ns, _changed_ns(self._folder)
            if changed_ns != before_ns or turn % LOOK_EVERY == 0:
                self._look(found, lost)
            turn += 1
            await asyncio.sleep(POLL_S)

    def _look(self, found: Callable[[NodeCard], None], lost: Callable[[NodeCard], None]) -> None:
        cards = {card.peer: card for card in self.list() if card.peer not in self._held}
        before, self._known = self._known, cards
        for peer, card in before.items():
            if peer not in cards:
                lost(card)
        for peer, card in cards.items():
            if before.get(peer) != card:
                found(card)

    def _path(self, peer: PeerId) -> Path:
        return self._folder / f"{format_peer(peer)}.json"

    def _let_go(self, peer: PeerId) -> None:
        handle = self._held.pop(peer, None)
        if handle is not None:
            os.close(handle)

    def __repr__(self) -> str:
        return f"<Neighbours in {self._folder}, {len(self._known)} known>"


def running(runtime: Path) -> list[NodeCard]:
    """Every node of this user that runs now. Makes no folder; raises ConfigError for one that is not the user's
    alone."""
    return _cards(own_folder(runtime / "nodes")) if (runtime / "nodes").exists() else []


def _changed_ns(folder: Path) -> int:
    """When a card came or went, in nanoseconds of the file system's clock; 0 for a folder that is not there."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _cards(folder: Path) -> list[NodeCard]:
    paths = sorted(folder.glob("*.json"))[:MAX_CARDS]
    return [card for path in paths if (card := _read(path)) is not None]


def _read(path: Path) -> NodeCard | None:
    """The card if its node runs; a stale one is removed. What cannot be read is nobody's."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if _is_locked(handle):
            return _decode(os.read(handle, MAX_CARD_BYTES))
        if _same_file(handle, path):
            path.unlink(missing_ok=True)
        return None
    finally:
        os.close(handle)


def own_folder(path: Path) -> Path:
    """The folder, made if need be. Raises ConfigError unless it is this user's and closed to others."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = path.lstat()
    except OSError as exc:
        raise ConfigError(f"The runtime folder {path} cannot be used: {exc.strerror}.") from exc
    if not stat.S_ISDIR(seen.st_mode):
        raise ConfigError(f"The runtime folder {path} is not a folder.", hint="Remove it, or choose another.")
    if seen.st_uid != os.getuid():
        raise ConfigError(f"The runtime folder {path} belongs to another user.", hint="Choose another.")
    if seen.st_mode & 0o077:
        raise ConfigError(f"The runtime folder {path} is open to other users.", hint=f"Run: chmod 700 {path}")
    return path


def _is_locked(handle: int) -> bool:
    """True if a node holds it. Looking takes a shared lock: two who look do not mistake each other for a node."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _same_file(handle: int, path: Path) -> bool:
    """False if a node has moved a fresh card into place meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _encode(card: NodeCard) -> bytes:
    return msgspec.json.encode(
        _CardFile(
            format_peer(card.peer),
            format_peer(card.mesh),
            str(card.address or ""),
            card.pid,
            card.name,
            card.api_socket,
        )
    )


def _decode(data: bytes) -> NodeCard | None:
    try:
        card = msgspec.json.decode(data, type=_CardFile)
        return NodeCard(
            parse_peer(card.peer),
            MeshId(parse_peer(card.mesh)),
            parse_multiaddr(card.address) if card.address else None,
            card.pid,
            card.name,
            card.api_socket,
        )
    except (msgspec.DecodeError, UnicodeDecodeError, AtmoError):
        return None

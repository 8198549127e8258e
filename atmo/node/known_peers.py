"""Whom this node was linked to, so that it finds its mesh again after a restart where nothing else would: no local
network to search, no seed, no other node of this user.

What is kept is addresses and when they were last good, the latest first, in the file `peers` of the node's home, one
for each mesh that it was in. It is written some seconds after it changed and when the node stops; a crash costs those
seconds. Whoever can write the file can make this node dial: who answers is checked as always.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import structlog

from atmo.errors import UsageError
from atmo.ids import MeshId, Multiaddr, PeerId, parse_multiaddr, short

log = structlog.get_logger("atmo.node")

# Guesses, all of them. Peers that are remembered: as many as the overlay remembers (ViewSizes.remembered) ...
MAX_KNOWN = 64
# ... and for how long they are, without a link.
FORGET_S = 30 * 24 * 3600.0
# Links come up many at a time: the file is written once for all of them.
WRITE_DELAY_S = 2.0
# At a start so many are dialled at once, and the next ones where none of them was linked after this time. More would
# be a burden on a large mesh, each node of which remembers as many.
DIALS, DIALS_EVERY_S = 8, 5.0


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A peer's address as text, and the date (seconds since 1970) at which it was linked last."""

    address: Annotated[str, msgspec.Meta(max_length=300)]
    linked_s: float


class KnownPeers:
    """`start` redials and keeps the file, `linked` is told of each link, `close` writes. wall_s: the date."""

    def __init__(self, folder: Path, mesh: MeshId, wall_s: Callable[[], float]) -> None:
        self._file = folder / f"peers-{short(mesh)}"
        self._wall_s = wall_s
        self._known: dict[PeerId, tuple[Multiaddr, float]] = {}  # the latest last
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._read()

    def start(self, dial: Callable[[Multiaddr], None], linked: Callable[[], frozenset[PeerId]]) -> None:
        """Dial those that were linked last, a few at a time, until one answers; and keep the file from now on."""
        self._tasks = [asyncio.create_task(self._redial(dial, linked)), asyncio.create_task(self._keep())]

    def linked(self, peer: PeerId, address: Multiaddr | None) -> None:
        """A link came up. Who cannot be dialled is not worth remembering."""
        if address is not None:
            self._known.pop(peer, None)
            self._known[peer] = Multiaddr(address.host, address.port, peer), self._wall_s()
            while len(self._known) > MAX_KNOWN:
                self._known.pop(next(iter(self._known)))
            self._changed.set()

    def addresses(self) -> list[Multiaddr]:
        """The latest first."""
        return [address for address, _ in reversed(self._known.values())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._changed.is_set():
            self._write()

    async def _redial(self, dial: Callable[[Multiaddr], None], linked: Callable[[], frozenset[PeerId]]) -> None:
        addresses = self.addresses()
        for at in range(0, len(addresses), DIALS):
            if linked():
                return
            for address in addresses[at : at + DIALS]:
                dial(address)
            await asyncio.sleep(DIALS_EVERY_S)

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(WRITE_DELAY_S)
            self._changed.clear()
            await asyncio.to_thread(self._write)

    def _read(self) -> None:
        """A damaged file costs what was in it, and is said; it is written anew with the next link."""
        try:
            entries = msgspec.msgpack.decode(self._file.read_bytes(), type=list[_Entry])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("the known peers cannot be read and are forgotten", file=str(self._file), why=str(error))
            return
        now_s = self._wall_s()
        for entry in entries[-MAX_KNOWN:]:
            with suppress(UsageError):
                address = parse_multiaddr(entry.address)
                if address.peer is not None and now_s - entry.linked_s < FORGET_S:
                    self._known[address.peer] = address, entry.linked_s

    def _write(self) -> None:
        """So that a crash at any moment leaves the old or the new file; mode 600. A full disk is no reason to stop."""
        entries = [_Entry(str(address), linked_s) for address, linked_s in list(self._known.values())]
        fresh = self._file.with_name(f".{self._file.name}.new")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(msgspec.msgpack.encode(entries))
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(self._file)
        except OSError as error:
            log.warning("the known peers cannot be written", file=str(self._file), why=str(error))

    def __repr__(self) -> str:
        return f"<KnownPeers {len(self._known)} in {self._file}>"

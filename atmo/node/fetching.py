"""One model on its way here: the shell around `atmo.models.swarm.Download`.

Theory of operation. The manifest comes first, from any peer, and is right if it hashes to the root. From then on this
node is one of those who have some of the model: it tells every source what it has, hears what they have, asks as the
state machine says, and lets threads check and write what comes. A chunk stays where the socket put it until it is on
disk; only then may its sender send as much again, so a slow disk slows its sources down and memory stays bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from atmo.clock import Clock
from atmo.errors import AtmoError, BadChunk, Cancelled, PeerUnreachable, RemoteProtocolError
from atmo.ids import PeerId, short
from atmo.mesh.messages import (
    Bitmap,
    Chunk,
    DropChunks,
    Elsewhere,
    GetChunks,
    GetManifest,
    Have,
    ManifestPart,
    NotServed,
    SwarmMessage,
)
from atmo.models.manifest import MAX_MANIFEST_BYTES, Manifest
from atmo.models.partial import Partial
from atmo.models.swarm import CHUNK_BYTES, Ban, Download, Effect, Request, Save, Shuffle, Withdraw
from atmo.node.writers import Arrived, Writers

log = structlog.get_logger("atmo.fetch")

# How often lateness is looked at, and new sources are looked for.
TICK_S = 0.25
# News of chunks travels together: what comes within this time. A guess: below what a chunk takes over a slow line.
NEWS_S = 0.025
# A manifest's part may take so long.
MANIFEST_PATIENCE_S = 5.0
# Without any source that has what is missing, for so long, a transfer is given up. Guesses: several times what gossip
# and a link take; longer where there was one, since it may restart.
NO_SOURCE_S, LOST_SOURCE_S = 15.0, 60.0
# What stands before a chunk in its frame, at most.
CHUNK_HEAD_BYTES = 64
# Speed is that of the last moments.
SPEED_S = 3.0
# A source that refused is asked again after so long; one that only does not have it yet, sooner. Guesses.
REFUSED_S, UNKNOWN_S = 5.0, 0.5
# Sources at once. A guess: more add overhead and no speed.
MAX_SOURCES = 16


class Peers(Protocol):
    """What a fetch wants of the node's mesh."""

    def say(self, peer: PeerId, message: SwarmMessage) -> None: ...

    def want(self, peer: PeerId, needed: bool) -> None: ...

    def release(self, peer: PeerId, frame_bytes: int) -> None: ...

    def links(self) -> frozenset[PeerId]: ...

    def widen(self, peer: PeerId, window_bytes: int) -> None:
        """Let a source have so much in flight."""

    def seeders(self, root: bytes) -> Iterable[PeerId]:
        """Who says that it gives this model away, without this node."""

    def ban(self, peer: PeerId, why: str) -> None: ...

    def distrust_plain(self, peer: PeerId, what: str) -> None:
        """Something wrong came unencrypted, perhaps from somebody else: take nothing from this peer in that way."""

    def banned(self) -> set[PeerId]: ...


class Fetch:
    """open_partial: makes room for the model, called in a thread; changed: told when there is something to show.

    Everything runs on the event loop's thread but checking and writing, which `pool` does.
    """

    def __init__(
        self,
        root: bytes,
        model: str,
        *,
        peers: Peers,
        open_partial: Callable[[Manifest], Partial],
        pool: Executor,
        clock: Clock,
        rng: Shuffle,
        changed: Callable[[Fetch], None],
    ) -> None:
        self.root = root
        self.model = model
        self.state = "running"
        self.error: AtmoError | None = None
        self.received: dict[PeerId, int] = {}  # bytes that each source sent and that are on disk
        self.manifest: Manifest | None = None
        self.partial: Partial | None = None
        self.download: Download | None = None
        self.began_s = clock.now()
        self.resumed_bytes = 0
        self._size_bytes = 0
        self._peers = peers
        self._open_partial = open_partial
        self._pool = pool
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._parts: asyncio.Queue[tuple[PeerId, ManifestPart | NotServed]] = asyncio.Queue()
        self._data: dict[int, Arrived] = {}
        self._news: list[int] = []
        self._telling: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()
        self._wanted: set[PeerId] = set()
        self._greeted: set[PeerId] = set()
        self._refused: dict[PeerId, tuple[str, float]] = {}  # why, and until when that counts
        self._speed: deque[tuple[float, int]] = deque()
        self._source_s = clock.now()  # when all that is missing could last be had
        self._failure: AtmoError | None = None
        self._writers: Writers | None = None

    # For people

    @property
    def bytes_total(self) -> int:
        return self.manifest.size if self.manifest is not None else self._size_bytes

    @property
    def bytes_done(self) -> int:
        return min(self.bytes_total, self.resumed_bytes + sum(self.received.values()))

    @property
    def bytes_per_s(self) -> float:
        now_s = self._clock.now()
        while self._speed and now_s - self._speed[0][0] > SPEED_S:
            self._speed.popleft()
        if not self._speed:
            return 0.0
        return sum(size for _, size in self._speed) / max(0.1, min(SPEED_S, now_s - self.began_s))

    @property
    def elapsed_s(self) -> float:
        return self._clock.now() - self.began_s

    @property
    def eta_s(self) -> float | None:
        speed = self.bytes_per_s
        return (self.bytes_total - self.bytes_done) / speed if speed and self.state == "running" else None

    def expect(self, size_bytes: int) -> None:
        """As the mesh says, until the manifest is here."""
        self._size_bytes = size_bytes

    def __repr__(self) -> str:
        return f"<Fetch {self.model} {self.state}, {self.download or 'no manifest'!r}>"

    # The whole of it

    async def run(self) -> None:
        """Return when the model is in the store. Raises AtmoError; what is there is kept for the next try."""
        try:
            await self._transfer()
            self.state = "done"
        except AtmoError as error:
            self.state, self.error = "failed", error
            raise
        except asyncio.CancelledError:
            self.state, self.error = "failed", Cancelled("The transfer was stopped.")
            raise
        finally:
            await self._close()
            self._changed(self)

    async def _transfer(self) -> None:
        loop = asyncio.get_running_loop()
        self.manifest = manifest = await self._get_manifest()
        self.partial = await loop.run_in_executor(self._pool, self._open_partial, manifest)
        have = bools(self.partial.have, manifest.chunk_count)
        self.resumed_bytes = self.partial.done_bytes
        self._writers = Writers(self.partial, self._pool, self._saved)
        self.download = Download(have, self._rng)
        self._source_s = self._clock.now()
        self._greeted.clear()
        self._changed(self)
        while not self.download.done:
            self._look_for_sources()
            self._do(self.download.tick(self._clock.now()))
            self._check_hope()
            if not self.download.done:
                await self._pause(TICK_S)
        self._tell()
        await loop.run_in_executor(self._pool, self.partial.finish)

    async def _pause(self, wait_s: float) -> None:
        self._moved.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def _close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        if self.download is not None:
            for source in self.download.sources.values():
                if source.owed:
                    self._peers.say(source.peer, DropChunks(self.root, tuple(source.owed)))
        if self._writers is not None:
            await self._writers.close()
        for peer in self._wanted:
            self._peers.want(peer, False)
        held, self.partial = self.partial, None
        if held is not None:
            await asyncio.get_running_loop().run_in_executor(self._pool, _leave, held)

    # The manifest

    async def _get_manifest(self) -> Manifest:
        """From one peer after the other. Raises PeerUnreachable when nobody has a right one."""
        tried: set[PeerId] = set()
        while True:
            self._link()
            ready = [peer for peer in self._sources() if peer not in tried and peer in self._peers.links()]
            for peer in ready:
                found = await self._manifest_of(peer)
                tried.add(peer)
                if found is not None:
                    return found
            self._check_time(NO_SOURCE_S if not tried else 0.0 if self._all_tried(tried) else NO_SOURCE_S)
            await self._pause(TICK_S)

    def _all_tried(self, tried: set[PeerId]) -> bool:
        return set(self._sources()) <= tried

    async def _manifest_of(self, peer: PeerId) -> Manifest | None:
        data = bytearray()
        total = 1
        while len(data) < total:
            self._peers.say(peer, GetManifest(self.root, len(data)))
            part = await self._part_of(peer)
            if part is None or part.at != len(data) or (data and part.total != total):
                return None
            total = part.total
            data += part.data
        if len(data) != total or total > MAX_MANIFEST_BYTES:
            return None
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, partial(Manifest.decode, bytes(data), self.root))
        except RemoteProtocolError as error:
            self._peers.ban(peer, f"its manifest is not that of {self.root.hex()[:12]}: {error.message}")
            return None

    async def _part_of(self, peer: PeerId) -> ManifestPart | None:
        try:
            async with asyncio.timeout(MANIFEST_PATIENCE_S):
                while True:
                    teller, part = await self._parts.get()
                    if teller == peer:
                        return part if isinstance(part, ManifestPart) else None
        except TimeoutError:
            return None

    # Sources

    def _sources(self) -> list[PeerId]:
        banned = self._peers.banned()
        now_s = self._clock.now()
        resting = {peer for peer, (_, until_s) in self._refused.items() if until_s > now_s}
        return [peer for peer in self._peers.seeders(self.root) if peer not in banned | resting]

    def _link(self) -> None:
        for peer in self._sources()[:MAX_SOURCES]:
            if peer not in self._wanted:
                self._wanted.add(peer)
                self._peers.want(peer, True)

    def _look_for_sources(self) -> None:
        self._link()
        for peer in self._sources():
            if peer in self._peers.links() and peer not in self._greeted and len(self._greeted) < MAX_SOURCES:
                self._greet(peer, answer=True)

    def _greet(self, peer: PeerId, *, answer: bool) -> None:
        if self.partial is not None:
            self._greeted.add(peer)
            self._peers.say(peer, Bitmap(self.root, self.partial.have, answer))

    def _check_hope(self) -> None:
        """Raises what made the transfer fail, or PeerUnreachable when what is missing is nowhere for too long."""
        assert self.download is not None
        if self._failure is not None:
            raise self._failure
        if self.download.reachable() and self.download.sources:
            self._source_s = self._clock.now()
        self._check_time(LOST_SOURCE_S if self.received else NO_SOURCE_S)

    def _check_time(self, limit_s: float) -> None:
        if self._clock.now() - self._source_s <= limit_s:
            return
        why = "; ".join(f"{short(peer)}: {why}" for peer, (why, _) in self._refused.items())
        raise PeerUnreachable(
            f"No peer gives what is missing of {self.model}{f' ({why})' if why else ''}.",
            hint="Start a node that has it, or pull it from its hub; what is here is kept.",
        )

    # What peers say

    def linked(self, peer: PeerId) -> None:
        self._moved.set()

    def lost(self, peer: PeerId) -> None:
        self._greeted.discard(peer)
        self._refused.pop(peer, None)
        if self.download is not None:
            self._do(self.download.lost(peer, self._clock.now()))
        self._moved.set()

    def receive(self, peer: PeerId, message: SwarmMessage) -> None:
        now_s = self._clock.now()
        if isinstance(message, NotServed):
            rest_s = UNKNOWN_S if message.code == "unknown" else REFUSED_S
            self._refused[peer] = message.message[:200], now_s + rest_s
            self._greeted.discard(peer)
            self._parts.put_nowait((peer, message))
            self.lost_as_source(peer)
        elif self.download is None or self.manifest is None or peer in self._peers.banned():
            return
        elif isinstance(message, Bitmap):
            if message.answer:
                self._greet(peer, answer=False)
            if len(message.bits) == len(self._bits()):
                has = bools(message.bits, self.manifest.chunk_count)
                self._greeted.add(peer)
                self._do(self.download.source(peer, has, now_s))
        elif isinstance(message, Have):
            self._do(self.download.news(peer, message.chunks, now_s))
        elif isinstance(message, Elsewhere):
            self._do(self.download.deferred(peer, message.chunks, message.wait_s, now_s))
            if message.holder not in self._greeted and message.holder in self._peers.links():
                self._greet(message.holder, answer=True)

    def lost_as_source(self, peer: PeerId) -> None:
        if self.download is not None:
            self._do(self.download.lost(peer, self._clock.now()))

    def bulk(self, peer: PeerId, message: Chunk | ManifestPart, frame_bytes: int, *, plain: bool = False) -> None:
        if isinstance(message, ManifestPart):
            self._peers.release(peer, frame_bytes)
            self._parts.put_nowait((peer, message))
            return
        if self.download is None or self.state != "running":
            self._peers.release(peer, frame_bytes)
            return
        if plain and not self.download.expects(peer, message.chunk):
            self._peers.release(peer, frame_bytes)
            self._peers.distrust_plain(peer, f"chunk {message.chunk}, which nobody asked for")
            return
        self._data[message.chunk] = Arrived(peer, message.chunk, message.data, frame_bytes, plain)
        effects = self.download.arrived(peer, message.chunk, len(message.data), self._clock.now())
        source = self.download.sources.get(peer)
        if source is not None:
            self._peers.widen(peer, source.window * (CHUNK_BYTES + CHUNK_HEAD_BYTES))
        if not any(isinstance(effect, Save) for effect in effects):
            del self._data[message.chunk]
            self._peers.release(peer, frame_bytes)
        self._do(effects)

    # What is done about it

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Request):
                self._peers.say(effect.peer, GetChunks(self.root, effect.chunks))
            elif isinstance(effect, Withdraw):
                self._peers.say(effect.peer, DropChunks(self.root, effect.chunks))
            elif isinstance(effect, Save):
                assert self._writers is not None
                self._writers.add(self._data.pop(effect.chunk))
            elif isinstance(effect, Ban):
                self._peers.ban(effect.peer, effect.why)

    def _saved(self, each: Arrived, error: AtmoError | None) -> None:
        assert self.download is not None
        self._peers.release(each.peer, each.frame_bytes)
        now_s = self._clock.now()
        if error is None:
            size_bytes = len(each.data)
            self.received[each.peer] = self.received.get(each.peer, 0) + size_bytes
            self._speed.append((now_s, size_bytes))
            self._do(self.download.stored(each.chunk, now_s))
            self._announce(each.chunk)
            self._changed(self)
            if self.download.done:
                self._moved.set()
        elif not isinstance(error, BadChunk):
            self.download.unsaved(each.chunk)
            self._failure = self._failure or error
            self._moved.set()
        elif each.plain:
            self.download.unsaved(each.chunk)
            self._peers.distrust_plain(each.peer, f"wrong bytes as chunk {each.chunk}")
        else:
            self._do(self.download.corrupt(each.chunk, now_s))

    def _announce(self, chunk: int) -> None:
        self._news.append(chunk)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(NEWS_S, self._tell)

    def _tell(self) -> None:
        """What came to whoever may lack it."""
        self._telling = None
        assert self.download is not None
        news, self._news = tuple(self._news), []
        if news:
            for source in list(self.download.sources.values()):
                if not source.has.all():
                    self._peers.say(source.peer, Have(self.root, news))

    def _bits(self) -> bytes:
        assert self.manifest is not None
        return bytes((self.manifest.chunk_count + 7) // 8)


def bools(bits: bytes, count: int) -> NDArray[np.bool_]:
    """A bitmap, the highest bit of a byte first, as (count,) bool."""
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).astype(bool)


def _leave(held: Partial) -> None:
    """Keep what is there for the next try."""
    try:
        held.__exit__()
    except AtmoError as error:
        log.warning("a transfer's last chunks were not kept", why=error.message)

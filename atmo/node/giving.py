"""What this node gives away of its models: the shell around `atmo.models.uploads.Uploads`.

Each peer that waits for chunks has a few workers that read the next one in a thread and hand it to the transport, whose
credit windows they wait for; nothing is read before it can soon be sent.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

import structlog

from atmo.clock import Clock
from atmo.errors import AtmoError, StorageError, TransportError
from atmo.ids import PeerId, short
from atmo.mesh.codec import chunk_head, encode
from atmo.mesh.limits import MAX_MANIFEST_PART_BYTES
from atmo.mesh.messages import (
    Bitmap,
    DropChunks,
    Elsewhere,
    GetChunks,
    GetManifest,
    ManifestPart,
    NotServed,
    SwarmMessage,
)
from atmo.models.manifest import CHUNK_BYTES
from atmo.models.reading import Head
from atmo.models.uploads import ELSEWHERE_S, Bucket, Uploads, Wanted
from atmo.transport.base import Frame

log = structlog.get_logger("atmo.give")

# For each peer: one to send, one to read meanwhile.
WORKERS = 2
# Chunks that a worker reads at once where nothing bounds the speed: a thread that is woken for each costs as much as
# reading it does (measured). With more peers than that it reads one, so that memory stays bounded.
READ_CHUNKS, READ_PEERS = 3, 8
# Encoded manifests kept; one of a model of 100 GB has 3 MB.
MANIFESTS_KEPT = 2


class Library(Protocol):
    """What may be given away."""

    def refusal(self, root: bytes, peer: PeerId) -> tuple[str, str] | None:
        """Why the peer may not have it: code and sentence; None if it may."""

    def public(self, root: bytes) -> bool:
        """Whether any member may have it, so that it does not matter who else reads it on its way."""

    def manifest(self, root: bytes) -> bytes:
        """Encoded. In a thread. Raises AtmoError."""

    def bits(self, root: bytes) -> bytes:
        """Which chunks are here. Raises AtmoError."""

    def read(self, root: bytes, chunk: int, head: Head) -> memoryview:
        """A chunk behind its head. In a thread. Raises AtmoError, or KeyError for a chunk that is not here."""


class SendBulk(Protocol):
    def __call__(self, peer: PeerId, frame: Frame, *, plain: bool = False) -> Awaitable[None]: ...


class Giving:
    """say and send_bulk: of the mesh; told(peer, root, bytes) hears of each chunk that left; in_flight(peer): bytes
    that left and were not yet dealt with there."""

    def __init__(
        self,
        library: Library,
        say: Callable[[PeerId, SwarmMessage], None],
        send_bulk: SendBulk,
        told: Callable[[PeerId, bytes, int], None],
        *,
        own: PeerId,
        pool: Executor,
        clock: Clock,
        in_flight: Callable[[PeerId], int] = lambda peer: 0,
        bytes_per_s: float = 0.0,
    ) -> None:
        self.uploads = Uploads(self._on_way)
        self._library = library
        self._say = say
        self._send_bulk = send_bulk
        self._told = told
        self._own = own
        self._pool = pool
        self._clock = clock
        self._bucket = Bucket(bytes_per_s, clock.now())
        self._manifests: OrderedDict[bytes, bytes] = OrderedDict()
        self._in_flight = in_flight
        self._held: Counter[PeerId] = Counter()  # chunks that workers have taken and not sent
        self._workers: dict[PeerId, set[asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, peer: PeerId, message: SwarmMessage) -> None:
        if isinstance(message, DropChunks):
            self.uploads.drop(peer, message.root, message.chunks)
        elif isinstance(message, GetManifest | Bitmap | GetChunks):
            refusal = self._library.refusal(message.root, peer)
            if refusal is not None:
                self._say(peer, NotServed(message.root, *refusal))
            elif isinstance(message, GetManifest):
                self._spawn(self._send_manifest(peer, message))
            elif isinstance(message, GetChunks):
                self._ask(peer, message)

    def greeted(self, peer: PeerId, message: Bitmap, *, answer: bool) -> None:
        """A peer that has not all of it will pass on what it gets."""
        if b"\xff" * (len(message.bits) - 1) != message.bits[:-1]:
            self.uploads.shares(peer, message.root)
        if answer and message.answer and self._library.refusal(message.root, peer) is None:
            try:
                self._say(peer, Bitmap(message.root, self._library.bits(message.root), False))
            except AtmoError as error:
                self._say(peer, NotServed(message.root, "failed", error.message))

    def lost(self, peer: PeerId) -> None:
        self.uploads.lost(peer)
        self._held.pop(peer, None)
        for worker in self._workers.pop(peer, ()):
            worker.cancel()

    async def close(self) -> None:
        tasks = [*self._tasks, *(worker for workers in self._workers.values() for worker in workers)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask(self, peer: PeerId, message: GetChunks) -> None:
        answer = self.uploads.ask(peer, message.root, message.chunks, self._clock.now())
        for holder, chunks in answer.elsewhere:
            self._say(peer, Elsewhere(message.root, chunks, holder, ELSEWHERE_S))
        if answer.refused:
            self._say(peer, Elsewhere(message.root, answer.refused, self._own, ELSEWHERE_S))
        workers = self._workers.setdefault(peer, set())
        while len(workers) < min(WORKERS, self.uploads.waiting().get(peer, 0)):
            worker = asyncio.create_task(self._serve(peer), name=f"chunks for {short(peer)}")
            workers.add(worker)
            worker.add_done_callback(workers.discard)

    async def _serve(self, peer: PeerId) -> None:
        loop = asyncio.get_running_loop()
        while wanted := self._take(peer):
            self._held[peer] += len(wanted)
            for (root, chunk), frame in await loop.run_in_executor(self._pool, self._read, wanted):
                if isinstance(frame, AtmoError):
                    self._held[peer] -= 1
                    log.warning("a chunk was not sent", root=root.hex()[:12], chunk=chunk, why=frame.message)
                    self._say(peer, NotServed(root, "failed", frame.message[:1000]))
                    continue
                wait_s = self._bucket.take(len(frame), self._clock.now())
                if wait_s:
                    await asyncio.sleep(wait_s)
                try:
                    await self._send_bulk(peer, frame, plain=self._library.public(root))
                except TransportError:
                    return  # `lost` tells the rest
                self._held[peer] -= 1
                size_bytes = len(frame) - len(chunk_head(root, chunk, len(frame)))
                self.uploads.sent(peer, size_bytes)
                self._told(peer, root, size_bytes)

    def _on_way(self, peer: PeerId) -> int:
        """Chunks."""
        return self._held[peer] + math.ceil(self._in_flight(peer) / CHUNK_BYTES)

    def _take(self, peer: PeerId) -> list[Wanted]:
        """What to read for it next."""
        most = 1 if self._bucket.limited or len(self._workers) > READ_PEERS else READ_CHUNKS
        taken: list[Wanted] = []
        while len(taken) < most and (wanted := self.uploads.next(peer, self._clock.now())) is not None:
            taken.append(wanted)
        return taken

    def _read(self, wanted: list[Wanted]) -> list[tuple[Wanted, Frame | AtmoError]]:
        """Each in its frame, or why not. In a thread."""
        found: list[tuple[Wanted, Frame | AtmoError]] = []
        for root, chunk in wanted:
            try:
                frame: Frame | AtmoError = self._library.read(root, chunk, partial(chunk_head, root, chunk))
            except AtmoError as error:
                frame = error
            except KeyError:
                frame = StorageError(f"Chunk {chunk} is not here.")
            found.append(((root, chunk), frame))
        return found

    async def _send_manifest(self, peer: PeerId, wanted: GetManifest) -> None:
        try:
            data = await self._manifest(wanted.root)
            part = data[wanted.at : wanted.at + MAX_MANIFEST_PART_BYTES]
            if not part:
                self._say(peer, NotServed(wanted.root, "failed", "The manifest is shorter."))
                return
            await self._send_bulk(peer, encode(ManifestPart(wanted.root, wanted.at, len(data), part)))
        except TransportError:
            return
        except AtmoError as error:
            self._say(peer, NotServed(wanted.root, "failed", error.message))

    async def _manifest(self, root: bytes) -> bytes:
        if root not in self._manifests:
            loop = asyncio.get_running_loop()
            self._manifests[root] = await loop.run_in_executor(self._pool, self._library.manifest, root)
            while len(self._manifests) > MANIFESTS_KEPT:
                self._manifests.popitem(last=False)
        return self._manifests[root]

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def __repr__(self) -> str:
        return f"<Giving {self.uploads!r}>"

"""Models that travel: what this node fetches, what it gives away, and what it says of both.

Theory of operation. A model that its user shares is told to the mesh in a SEED row; who has which chunk of it is told
in pairs only, to those who ask. A fetch makes this node a seed of the same model at once, under the same terms: labels
that a receiver must carry go with the model.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import structlog

from atmo.clock import Clock
from atmo.config import Config
from atmo.errors import AtmoError, ModelNotFound, StorageError, UsageError
from atmo.ids import PeerId, format_peer, short
from atmo.mesh.messages import Bitmap, Bring, Brought, Chunk, GetManifest, ManifestPart, SwarmMessage
from atmo.mesh.node import MeshNode
from atmo.mesh.rows import Kind, NodeInfo, RowId, Seed
from atmo.models.manifest import Manifest
from atmo.models.partial import Partial
from atmo.models.reading import Head
from atmo.models.store import Store
from atmo.node.events import Journal
from atmo.node.fetching import Fetch
from atmo.node.giving import Giving
from atmo.node.seeding import seed_of
from atmo.transport.base import Frame

log = structlog.get_logger("atmo.transfers")

Json = dict[str, Any]

# Threads that read, check and write. A guess: two hash while others wait for the disk.
MAX_THREADS = 4
# What is shared is looked at so often: another process may have imported a model, or shared one.
LOOK_S = 2.0
# Models that are given away at most; each is a row. A guess.
MAX_SEEDS = 64
# Transfers that ended are shown so long, and news of one that runs come at most so often.
KEPT_S, PROGRESS_S = 600.0, 1.0
# A peer that sent wrong bytes is no source for so long. A guess: a disk that is failing is noticed in less.
BAN_S = 3600.0


class Given:
    """What left for one model. peers: bytes to each."""

    def __init__(self, now_s: float) -> None:
        self.peers: dict[PeerId, int] = {}
        self.began_s = self.last_s = now_s
        self.window: deque[tuple[float, int]] = deque(maxlen=400)


class Transfers:
    """Implements `Exchange`, and `Library` and `Peers` for the two halves."""

    def __init__(self, config: Config, mesh: MeshNode, store: Store, clock: Clock, journal: Journal) -> None:
        self.store = store
        self._config = config
        self._mesh = mesh
        self._clock = clock
        self._journal = journal
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, 1 + (os.cpu_count() or 1)), thread_name_prefix="chunks")
        self._rng = np.random.default_rng()
        self._fetches: dict[bytes, Fetch] = {}
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._told_s: dict[bytes, float] = {}
        self._ended: dict[bytes, float] = {}
        self._seeds: dict[bytes, Seed] = {}
        self._given: dict[bytes, Given] = {}
        self._banned: dict[PeerId, float] = {}
        self._looking: asyncio.Task[None] | None = None
        self.bringing: Callable[[PeerId, Bring | Brought], None] = lambda peer, message: None
        self.giving = Giving(
            self, mesh.say, self._send_bulk, self._gave, own=mesh.peer, pool=self._pool, clock=clock,
            in_flight=mesh.transport.bulk_in_flight,
            bytes_per_s=config.models.upload_mb_per_s * 1e6,
        )  # fmt: skip
        mesh.exchange = self

    async def start(self) -> None:
        self._looking = asyncio.create_task(self._look(), name="shared models")

    async def close(self) -> None:
        tasks = [*self._running.values(), *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.giving.close()
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)

    # Fetching

    def find(self, wanted: str) -> tuple[bytes, Seed]:
        """A model that peers give away, by name, capability, or root (six digits do).

        Raises ModelNotFound, UsageError.
        """
        found: dict[str, Seed] = {}
        for peer, root, seed in self._mesh.seeds():
            names = {seed.descriptor.model, seed.descriptor.id, seed.descriptor.id.rpartition(":")[2]}
            if peer != self._mesh.peer and (wanted in names or (len(wanted) >= 6 and root.startswith(wanted.lower()))):
                found[root] = seed
        if not found:
            known = sorted({seed.descriptor.model for _, _, seed in self._mesh.seeds()})
            hint = f"They give away: {', '.join(known[:20])}." if known else "Share one there: atmo models share NAME"
            raise ModelNotFound(f"No peer gives away a model {wanted!r}.", hint=hint)
        if len(found) > 1:
            roots = ", ".join(root[:12] for root in sorted(found))
            raise UsageError(f"Peers have several models {wanted!r}: {roots}.", hint="Name one by its root.")
        root, seed = found.popitem()
        return bytes.fromhex(root), seed

    def fetch(self, root: bytes, seed: Seed) -> Fetch:
        """Begin, or join what is under way. `wait` for it; `view` shows it."""
        running = self._fetches.get(root)
        if running is not None and running.state == "running":
            return running
        fetch = Fetch(
            root,
            seed.descriptor.model,
            peers=self,
            open_partial=lambda manifest: self._open(manifest, seed),
            pool=self._pool,
            clock=self._clock,
            rng=self._rng,
            changed=self._changed,
        )
        fetch.expect(seed.size_bytes)
        self._fetches[root] = fetch
        self._ended.pop(root, None)
        self._journal.record("transfer_began", **self._facts(fetch))
        self._running[root] = asyncio.create_task(self._run(fetch, seed), name=f"fetch {root.hex()[:12]}")
        return fetch

    async def wait(self, fetch: Fetch) -> None:
        """Until it is in the store. Raises what made it fail."""
        task = self._running.get(fetch.root)
        if task is not None:
            await asyncio.shield(asyncio.wait([task]))
        if fetch.error is not None:
            raise fetch.error

    def stop(self, root: bytes) -> bool:
        task = self._running.get(root)
        return task.cancel() if task is not None else False

    async def _run(self, fetch: Fetch, seed: Seed) -> None:
        try:
            await fetch.run()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._share, fetch.root, seed)
            self._journal.record("transfer_done", **self._facts(fetch))
        except AtmoError as error:
            self._journal.record("transfer_failed", **self._facts(fetch), detail=error.message)
            log.warning("transfer failed", model=fetch.model, why=error.message)
        except asyncio.CancelledError:
            self._journal.record("transfer_failed", **self._facts(fetch), detail="It was stopped.")
            raise
        finally:
            self._ended[fetch.root] = self._clock.now()
            self._running.pop(fetch.root, None)
            self._tell_seeds()

    def _open(self, manifest: Manifest, seed: Seed) -> Partial:
        """In a thread."""
        return self.store.partial(manifest, seed.descriptor.model, "peers")

    def _share(self, root: bytes, seed: Seed) -> None:
        """Whoever fetched a model gives it on, under the terms it came with. In a thread."""
        self.store.mark(root, shared=True, only=dict(seed.only))
        seen = seed_of(self.store.get(root))
        if seen is not None:
            self._seeds[root] = seen

    def _changed(self, fetch: Fetch) -> None:
        now_s = self._clock.now()
        if fetch.state != "running":
            return
        if fetch.partial is not None and fetch.root not in self._seeds:
            self._seeds_partly(fetch)
        if now_s - self._told_s.get(fetch.root, float("-inf")) >= PROGRESS_S:
            self._told_s[fetch.root] = now_s
            self._journal.record("transfer_progress", **self._facts(fetch))

    def _seeds_partly(self, fetch: Fetch) -> None:
        """Say that this node gives away what it has of a model that it is fetching."""
        told = next((seed for _, root, seed in self._mesh.seeds() if root == fetch.root.hex()), None)
        if told is not None:
            # Where a peer says that it is from is that peer's word, and not passed on as this node's.
            self._seeds[fetch.root] = msgspec.structs.replace(told, complete=False, source="")
            self._tell_seeds()

    # Seeding

    async def _look(self) -> None:
        """What is shared, again and again: other processes of this user change it, too."""
        while True:
            try:
                await self.refresh()
            except (AtmoError, OSError) as error:
                log.warning("the store cannot be read", why=str(error))
            await asyncio.sleep(LOOK_S)

    async def refresh(self) -> None:
        """Look at once. Raises AtmoError, OSError."""
        shared = await asyncio.get_running_loop().run_in_executor(None, self._shared)
        running = {root: seed for root, seed in self._seeds.items() if root in self._running}
        self._seeds = {**shared, **running}
        self._tell_seeds()

    def _shared(self) -> dict[bytes, Seed]:
        """In a thread."""
        self.store.close_unused()
        models = [model for model in self.store.models() if model.record.shared][:MAX_SEEDS]
        found: dict[bytes, Seed] = {}
        for model in models:
            told = self._seeds.get(model.root)
            seed = told if told is not None and told.complete else seed_of(model)
            if seed is not None:
                only = tuple(sorted(model.record.only.items()))
                found[model.root] = msgspec.structs.replace(seed, only=only)
        return found

    def stored_seeds(self) -> list[tuple[str, Seed]]:
        """Models in the store here, shared or not: root in hex, and what would be said of each."""
        return [(model.root.hex(), seed) for model in self.store.models() if (seed := seed_of(model)) is not None]

    def offered(self) -> list[tuple[str, Seed]]:
        """Models that peers give away and this node may have: root in hex, and what is said of each."""
        own = set(self._config.node.labels.items())
        found = self._mesh.seeds()
        return [(root, seed) for peer, root, seed in found if peer != self._mesh.peer and set(seed.only) <= own]

    def _tell_seeds(self) -> None:
        told = {root for peer, root, _ in self._mesh.seeds() if peer == self._mesh.peer}
        for root, seed in self._seeds.items():
            self._mesh.seed(root.hex(), seed)
        for gone in told - {root.hex() for root in self._seeds}:
            self._mesh.seed(gone, None)

    def _gave(self, peer: PeerId, root: bytes, size_bytes: int) -> None:
        now_s = self._clock.now()
        given = self._given.get(root)
        if given is None or now_s - given.last_s > KEPT_S:
            given = self._given[root] = Given(now_s)
        given.peers[peer] = given.peers.get(peer, 0) + size_bytes
        given.last_s = now_s
        given.window.append((now_s, size_bytes))

    async def _send_bulk(self, peer: PeerId, frame: Frame, *, plain: bool = False) -> None:
        await self._mesh.transport.send_bulk(peer, frame, plain=plain)

    # Library

    def refusal(self, root: bytes, peer: PeerId) -> tuple[str, str] | None:
        seed = self._seeds.get(root)
        if seed is None:
            return "unknown", f"The model {root.hex()[:12]} is not given away here."
        if not set(seed.only) <= self._labels(peer):
            needed = ", ".join(f"{key}={value}" for key, value in seed.only)
            return "private", f"The model {seed.descriptor.model} is for nodes with {needed} only."
        return None

    def public(self, root: bytes) -> bool:
        seed = self._seeds.get(root)
        return seed is not None and not seed.only

    def manifest(self, root: bytes) -> bytes:
        fetch = self._fetches.get(root)
        if fetch is not None and fetch.manifest is not None:
            return fetch.manifest.encode()
        return self.store.manifest(root).encode()

    def bits(self, root: bytes) -> bytes:
        fetch = self._fetches.get(root)
        if fetch is not None and fetch.partial is not None:
            return fetch.partial.have
        count = self.store.manifest(root).chunk_count
        return np.packbits(np.ones(count, dtype=bool)).tobytes()

    def read(self, root: bytes, chunk: int, head: Head) -> memoryview:
        fetch = self._fetches.get(root)
        held = fetch.partial if fetch is not None else None
        if held is not None:
            try:
                return held.read(chunk, head)
            except (KeyError, StorageError):
                if not self.store.has(root):
                    raise
        return self.store.read(root, chunk, head)

    def _labels(self, peer: PeerId) -> set[tuple[str, str]]:
        row = self._mesh.core.store.get(RowId(peer, Kind.NODE, ""))
        return set(row.body.labels) if row is not None and isinstance(row.body, NodeInfo) else set()

    # Peers

    def say(self, peer: PeerId, message: SwarmMessage) -> None:
        self._mesh.say(peer, message)

    def want(self, peer: PeerId, needed: bool) -> None:
        self._mesh.want(peer, needed)

    def release(self, peer: PeerId, frame_bytes: int) -> None:
        self._mesh.transport.release_bulk(peer, frame_bytes)

    def widen(self, peer: PeerId, window_bytes: int) -> None:
        self._mesh.transport.widen_bulk(peer, window_bytes)

    def links(self) -> frozenset[PeerId]:
        return self._mesh.transport.linked()

    def seeders(self, root: bytes) -> Iterable[PeerId]:
        wanted = root.hex()
        found = [(seed.complete, peer) for peer, of, seed in self._mesh.seeds() if of == wanted]
        return [peer for _, peer in sorted(found, reverse=True) if peer != self._mesh.peer]

    def ban(self, peer: PeerId, why: str) -> None:
        """What was on its way when it was banned may be wrong as well, and is no news."""
        if peer in self.banned():
            return
        self._banned[peer] = self._clock.now() + BAN_S
        self._journal.about("banned", peer, self._mesh.name_of(peer), why)
        log.warning("source banned", peer=short(peer), why=why)
        for fetch in self._fetches.values():
            fetch.lost_as_source(peer)

    def distrust_plain(self, peer: PeerId, what: str) -> None:
        log.warning("the plain lane was tampered with, it is not used with this peer any more", peer=short(peer))
        self._mesh.distrust_plain(peer, what)

    def banned(self) -> set[PeerId]:
        now_s = self._clock.now()
        return {peer for peer, until_s in self._banned.items() if until_s > now_s}

    # Exchange

    def receive(self, peer: PeerId, message: SwarmMessage | Bring | Brought) -> None:
        if isinstance(message, Bring | Brought):
            self.bringing(peer, message)
            return
        fetch = self._fetches.get(message.root)
        running = fetch if fetch is not None and fetch.state == "running" else None
        if isinstance(message, Bitmap):
            self.giving.greeted(peer, message, answer=running is None)
        if running is not None and not isinstance(message, GetManifest):
            running.receive(peer, message)
        self.giving.receive(peer, message)

    def bulk(self, peer: PeerId, message: Chunk | ManifestPart, frame_bytes: int, *, plain: bool) -> None:
        fetch = self._fetches.get(message.root)
        if fetch is None:
            self.release(peer, frame_bytes)
        else:
            fetch.bulk(peer, message, frame_bytes, plain=plain)

    def linked(self, peer: PeerId) -> None:
        for fetch in self._fetches.values():
            fetch.linked(peer)

    def lost(self, peer: PeerId) -> None:
        for fetch in self._fetches.values():
            fetch.lost(peer)
        self.giving.lost(peer)

    # For people

    def view(self) -> list[Json]:
        """What runs and what ended lately."""
        now_s = self._clock.now()
        for root in [root for root, ended_s in self._ended.items() if now_s - ended_s > KEPT_S]:
            self._fetches.pop(root, None)
            del self._ended[root]
        shown = [self.show(fetch) for fetch in self._fetches.values()]
        return shown + [self._out(root, given) for root, given in self._given.items() if now_s - given.last_s < KEPT_S]

    def show(self, fetch: Fetch) -> Json:
        return {
            "root": fetch.root.hex(),
            "model": fetch.model,
            "direction": "in",
            "bytes_done": fetch.bytes_done,
            "bytes_total": fetch.bytes_total,
            "bytes_per_s": round(fetch.bytes_per_s),
            "sources": self._sources(fetch.received.items()),
            "state": fetch.state,
            "eta_s": round(fetch.eta_s, 1) if fetch.eta_s is not None else None,
            "error": str(fetch.error) if fetch.error is not None else "",
        }

    def _out(self, root: bytes, given: Given) -> Json:
        seed = self._seeds.get(root)
        now_s = self._clock.now()
        moved = sum(size for at_s, size in given.window if now_s - at_s < 3.0)
        return {
            "root": root.hex(),
            "model": seed.descriptor.model if seed is not None else root.hex()[:12],
            "direction": "out",
            "bytes_done": sum(given.peers.values()),
            "bytes_total": (seed.size_bytes if seed is not None else 0) * len(given.peers),
            "bytes_per_s": round(moved / 3.0),
            "sources": self._sources(given.peers.items()),
            "state": "running" if moved else "done",
            "eta_s": None,
            "error": "",
        }

    def _sources(self, sent: Iterable[tuple[PeerId, int]]) -> Sequence[Json]:
        return [
            {"peer": format_peer(peer), "name": self._mesh.name_of(peer), "bytes": size}
            for peer, size in sorted(sent, key=lambda each: -each[1])
        ]

    def _facts(self, fetch: Fetch) -> Json:
        shown = self.show(fetch)
        return {
            name: shown[name] for name in ("root", "model", "direction", "bytes_done", "bytes_total", "bytes_per_s")
        }

    def __repr__(self) -> str:
        return f"<Transfers {len(self._running)} running, {len(self._seeds)} seeds>"

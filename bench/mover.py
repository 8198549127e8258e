"""A node that does nothing but move models, without engines: in this process (`start`), or as one of its own.

As a process it talks JSON lines with its parent. First comes `{"root": hex, "home": path, "name": text}`, perhaps with
`labels` and `models` (its `[models]` section); then commands, `do` being one of dial (address), share (path), await
(model, links: until so many are there and somebody seeds it), fetch (model, seeders), usage. It says `ready` (address,
peer), `shared` (model), `linked`, `usage` (cpu_s since its start), and of each fetch `fetched` (s, bytes, plain_bytes,
cpu_s, sources by name, wasted_chunks, peak_rss_bytes, rest_rss_bytes). When its input ends it leaves the mesh and
exits.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from atmo.clock import SystemClock
from atmo.config import Config, ModelsSection
from atmo.heap import keep_freed
from atmo.ids import MeshId, PeerId, format_peer, parse_multiaddr
from atmo.keys import CurveKeys, Identity, issue_credential
from atmo.mesh.node import MeshNode
from atmo.mesh.rows import NodeInfo
from atmo.models.store import Store
from atmo.node.events import Journal
from atmo.node.fetching import Fetch
from atmo.node.transfers import Transfers
from atmo.transport.zeromq import ZmqTransport

Json = dict[str, Any]


@dataclass
class Mover:
    """One node."""

    name: str
    mesh: MeshNode
    transfers: Transfers
    journal: Journal

    @property
    def peer(self) -> PeerId:
        return self.mesh.peer

    @property
    def store(self) -> Store:
        return self.transfers.store

    @property
    def address(self) -> str:
        return str(self.mesh.transport.address)

    async def share(self, path: Path, name: str = "", **only: str) -> bytes:
        """Put a model into the store and give it away; its root."""
        model = await asyncio.to_thread(self.store.import_, path, name)
        self.store.mark(model.root, shared=True, only=only)
        await self.transfers.refresh()
        return model.root

    def seeders(self, root: bytes) -> set[PeerId]:
        return {peer for peer, of, _ in self.mesh.seeds() if of == root.hex()}

    def fetch(self, root: bytes) -> Fetch:
        seed = next(seed for _, of, seed in self.mesh.seeds() if of == root.hex())
        return self.transfers.fetch(root, seed)

    async def close(self) -> None:
        await self.transfers.close()
        await self.mesh.stop()
        self.journal.close()


async def start(
    home: Path, name: str, root: Identity, labels: dict[str, str], models: ModelsSection, host: str = "127.0.0.1"
) -> Mover:
    """A member of the mesh whose key `root` is. host: the address it binds."""
    identity, curve, clock = Identity.generate(), CurveKeys.generate(), SystemClock()
    credential = issue_credential(root, identity, curve, wall_s=clock.wall())
    mesh_id = MeshId(root.public)
    transport = ZmqTransport(
        identity.public, curve, credential, mesh_id, host=host, clock=clock, plain_lane=models.plain_lane
    )
    journal = Journal(clock)
    mesh = MeshNode(
        identity=identity,
        mesh=mesh_id,
        certificate=credential.certificate,
        generation=1,
        transport=transport,
        clock=clock,
        rng=random.Random(name),
        on_event=journal.about,
    )
    config = Config(home=home, runtime=home, models=models)
    transfers = Transfers(config, mesh, Store(config.model_store), clock, journal)
    await mesh.start()
    address = (str(transport.address),)
    mesh.introduce(NodeInfo(name=name, addresses=address, mode="provider", software="-", labels=tuple(labels.items())))
    await transfers.start()
    return Mover(name, mesh, transfers, journal)


async def live() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    mover = await start(
        Path(first["home"]),
        first["name"],
        Identity(bytes.fromhex(first["root"])),
        first.get("labels", {}),
        ModelsSection(**first.get("models", {})),
        first.get("host", "127.0.0.1"),
    )
    gc.collect()
    gc.freeze()  # as a node does
    say({"event": "ready", "address": mover.address, "peer": format_peer(mover.peer)})
    try:
        while line := await reader.readline():
            await _obey(mover, json.loads(line))
    finally:
        await mover.close()


async def _obey(mover: Mover, command: Json) -> None:
    if command["do"] == "dial":
        mover.mesh.discovered(parse_multiaddr(command["address"]))
    elif command["do"] == "share":
        root = await mover.share(Path(command["path"]))
        say({"event": "shared", "model": root.hex()})
    elif command["do"] == "await":
        root = bytes.fromhex(command["model"])
        while len(mover.mesh.transport.linked()) < command["links"] or not mover.seeders(root):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        say({"event": "linked"})
    elif command["do"] == "usage":
        say({"event": "usage", "cpu_s": time.process_time()})
    else:
        await _fetch(mover, bytes.fromhex(command["model"]), command["seeders"])


async def _fetch(mover: Mover, root: bytes, seeders: int) -> None:
    while not mover.seeders(root) <= mover.mesh.transport.linked() or len(mover.seeders(root)) < seeders:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    rest_rss_bytes = _rss_bytes()
    began_s, cpu_s = time.monotonic(), time.process_time()
    fetch = mover.fetch(root)
    await mover.transfers.wait(fetch)
    named = {mover.mesh.name_of(peer): size for peer, size in fetch.received.items()}
    say(
        {
            "event": "fetched",
            "s": time.monotonic() - began_s,
            "bytes": sum(fetch.received.values()),
            "plain_bytes": sum(link.plain.bytes_in for link in mover.mesh.transport.stats().values()),
            "cpu_s": time.process_time() - cpu_s,
            "sources": named,
            "wasted_chunks": fetch.download.wasted_chunks if fetch.download is not None else 0,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "rest_rss_bytes": rest_rss_bytes,
        }
    )


def _rss_bytes() -> int:
    """What of this process is in memory now; where that cannot be told, the most that ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def say(event: Json) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    keep_freed()
    uvloop.run(live())

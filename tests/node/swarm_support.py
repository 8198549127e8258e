"""Nodes that do nothing but move models: real sockets, real disks, no engines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmo.clock import SystemClock
from atmo.config import Config, ModelsSection
from atmo.ids import MeshId, PeerId
from atmo.keys import CurveKeys, Identity, issue_credential
from atmo.mesh.node import MeshNode
from atmo.mesh.rows import NodeInfo
from atmo.models.store import Store
from atmo.node.events import Journal
from atmo.node.fetching import Fetch
from atmo.node.transfers import Transfers
from atmo.transport.zeromq import ZmqTransport

MIB = 1 << 20
PATIENCE_S = 20.0


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

    async def share(self, path: Path, name: str = "", **only: str) -> bytes:
        """Put a model into the store and give it away; its root."""
        model = await asyncio.to_thread(self.store.import_, path, name)
        self.store.mark(model.root, shared=True, only=only)
        await self.transfers.refresh()
        return model.root

    async def knows(self, root: bytes, *peers: Mover) -> None:
        wanted = {mover.peer for mover in peers}
        await until(
            lambda: wanted <= {peer for peer, of, _ in self.mesh.seeds() if of == root.hex()}, "its seeds are known"
        )

    def fetch(self, root: bytes) -> Fetch:
        seed = next(seed for _, of, seed in self.mesh.seeds() if of == root.hex())
        return self.transfers.fetch(root, seed)

    async def get(self, root: bytes) -> Fetch:
        """Fetch a model and wait until it is here, verified."""
        fetch = self.fetch(root)
        await asyncio.wait_for(self.transfers.wait(fetch), 60.0)
        return fetch

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in self.journal.since() if event["event"] in kinds]


async def until(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until it is so; returns what made it so."""
    ends_s = time.monotonic() + patience_s
    while not (value := true()):
        assert time.monotonic() < ends_s, f"waited {patience_s:g} s in vain: {what}"
        await asyncio.sleep(0.01)
    return value


@asynccontextmanager
async def movers(
    folder: Path,
    *names: str,
    labels: dict[str, dict[str, str]] | None = None,
    root: Identity | None = None,
    **models: Any,
) -> AsyncIterator[list[Mover]]:
    """So many nodes, all linked to all. labels: of each, by name; root: the mesh's; models: the `[models]` section."""
    root = root or Identity.generate()
    made: list[Mover] = []
    try:
        for name in names:
            made.append(
                await start_mover(folder / name, name, root, (labels or {}).get(name, {}), ModelsSection(**models))
            )
        for mover in made[1:]:
            assert made[0].mesh.transport.address is not None
            mover.mesh.discovered(made[0].mesh.transport.address)
        everyone = len(made)
        await until(
            lambda: all(
                len(mover.mesh.transport.linked()) == everyone - 1 and len(mover.mesh.table.peers.info) == everyone
                for mover in made
            ),
            "everyone is linked to everyone",
        )
        yield made
    finally:
        for mover in made:
            await mover.transfers.close()
            await mover.mesh.stop()
            mover.journal.close()


async def start_mover(home: Path, name: str, root: Identity, labels: dict[str, str], models: ModelsSection) -> Mover:
    identity, curve, clock = Identity.generate(), CurveKeys.generate(), SystemClock()
    credential = issue_credential(root, identity, curve, wall_s=clock.wall())
    mesh_id = MeshId(root.public)
    transport = ZmqTransport(identity.public, curve, credential, mesh_id, clock=clock)
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


def write_model(path: Path, size_bytes: int, seed: int = 1) -> Path:
    """A file that is no model to any engine, but moves like one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    with path.open("wb") as file:
        while size_bytes > 0:
            size_bytes -= file.write(chance.randbytes(min(MIB, size_bytes)))
    return path


def bytes_of(mover: Mover, root: bytes) -> bytes:
    """The model as it lies in the store."""
    model = mover.store.get(root)
    return b"".join((model.folder / path).read_bytes() for path in model.files)

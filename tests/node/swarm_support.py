"""Nodes that do nothing but move models: real sockets, real disks, no engines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bench.mover
from atmo.config import ModelsSection
from atmo.keys import Identity
from atmo.node.fetching import Fetch

MIB = 1 << 20
PATIENCE_S = 20.0


class Mover(bench.mover.Mover):
    """The same, with what tests wait for."""

    async def knows(self, root: bytes, *peers: bench.mover.Mover) -> None:
        wanted = {mover.peer for mover in peers}
        await until(lambda: wanted <= self.seeders(root), "its seeds are known")

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
            await mover.close()


async def start_mover(home: Path, name: str, root: Identity, labels: dict[str, str], models: ModelsSection) -> Mover:
    made = await bench.mover.start(home, name, root, labels, models)
    return Mover(made.name, made.mesh, made.transfers, made.journal)


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

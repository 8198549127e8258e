"""kill -9 in mid-transfer: what was journalled stays, at most the window is fetched again, and the hash is right."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from atmo.keys import Identity
from atmo.models.partial import WINDOW_CHUNKS
from atmo.models.store import Store
from tests.node.swarm_support import MIB, bytes_of, movers, write_model

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).parents[2]
CHUNKS = 96


async def _child(home: Path, root: Identity, address: str, model: bytes) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.node.fetch_child", str(home), root.secret.hex(), address, model.hex(),
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip


async def _said(child: asyncio.subprocess.Process) -> tuple[str, int]:
    assert child.stdout is not None
    word, _, number = (await asyncio.wait_for(child.stdout.readline(), 60.0)).decode().strip().partition(" ")
    return word, int(number or 0)


async def _kills(tmp_path: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    path = write_model(tmp_path / "m.bin", CHUNKS * MIB - 1000, seed)
    root, home = Identity.generate(), tmp_path / "child"
    async with movers(tmp_path, "origin", root=root, upload_mb_per_s=150.0) as (origin,):
        model = await origin.share(path)
        address = str(origin.mesh.transport.address)
        stored = 0
        for _ in range(count):
            child = await _child(home, root, address, model)
            word, resumed = await _said(child)
            assert (word, resumed >= stored - WINDOW_CHUNKS) == ("resumed", True), (
                f"{stored} were stored, {resumed} kept"
            )
            until = resumed + chance.randrange(1, max(2, CHUNKS - resumed))
            while stored < until and word != "done":
                word, number = await _said(child)
                stored = max(stored, number) if word == "stored" else stored
            if word == "done":
                assert await child.wait() == 0
                break
            child.kill()
            await child.wait()
            stored = await _last_word(child, stored)
        else:
            child = await _child(home, root, address, model)
            while (await _said(child))[0] != "done":
                pass
            assert await child.wait() == 0
        store = Store(home / "models" / "store")
        assert store.verify(model) == []
        found = store.get(model)
        assert (found.folder / found.files[0]).read_bytes() == bytes_of(origin, model)


async def _last_word(child: asyncio.subprocess.Process, stored: int) -> int:
    """What it had said and was not read yet."""
    assert child.stdout is not None
    for line in (await child.stdout.read()).decode().splitlines():
        word, _, number = line.partition(" ")
        stored = max(stored, int(number)) if word == "stored" and number else stored
    return stored


async def test_killed_twice_at_random_a_transfer_goes_on_where_it_was(tmp_path: Path) -> None:
    await _kills(tmp_path, 2, seed=1)


@pytest.mark.soak
async def test_killed_fifty_times_at_random_every_transfer_ends_exact(tmp_path: Path) -> None:
    for seed in range(25):
        folder = tmp_path / str(seed)
        folder.mkdir()
        await _kills(folder, 2, seed)

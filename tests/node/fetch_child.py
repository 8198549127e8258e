"""A process that fetches one model and says how far it is: to be killed at any moment.

`python -m tests.node.fetch_child HOME ROOT_KEY ADDRESS MODEL` prints `resumed N`, `stored N` again and again, `done`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import structlog

from atmo.config import ModelsSection
from atmo.ids import parse_multiaddr
from atmo.keys import Identity
from tests.node.swarm_support import start_mover, until


async def fetch(home: Path, root_key: bytes, address: str, model: bytes) -> None:
    mover = await start_mover(home, "child", Identity(root_key), {}, ModelsSection())
    mover.mesh.discovered(parse_multiaddr(address))
    await until(lambda: any(root == model.hex() for _, root, _ in mover.mesh.seeds()), "the model is on offer")
    fetch = mover.fetch(model)
    await until(lambda: fetch.download is not None, "the transfer has begun")
    download = fetch.download
    assert download is not None
    print("resumed", download.chunks - download.missing, flush=True)
    ending = asyncio.create_task(mover.transfers.wait(fetch))
    while not ending.done():
        print("stored", download.chunks - download.missing, flush=True)
        await asyncio.wait([ending], timeout=0.02)
    await ending
    print("done", flush=True)
    await mover.close()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    where, key, whom, what = sys.argv[1:]
    asyncio.run(fetch(Path(where), bytes.fromhex(key), whom, bytes.fromhex(what)))

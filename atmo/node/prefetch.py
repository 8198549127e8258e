"""Fetching by demand, for nodes whose user wants it (`models.prefetch`): what is asked for here again and again, and is
served elsewhere or nowhere, is brought into the store in quiet moments, within the quota."""

from __future__ import annotations

import asyncio

import structlog

from atmo.clock import Clock
from atmo.config import ModelsSection
from atmo.errors import AtmoError
from atmo.models.collecting import own_bytes
from atmo.models.demand import Demand
from atmo.node.transfers import Transfers

log = structlog.get_logger("atmo.prefetch")

# How often it is looked at. A guess: nobody waits for it.
LOOK_S = 60.0


class Prefetch:
    def __init__(self, section: ModelsSection, transfers: Transfers, clock: Clock) -> None:
        self.demand = Demand()
        self._section = section
        self._transfers = transfers
        self._clock = clock
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._section.prefetch:
            self._looking = asyncio.create_task(self._run(), name="prefetch")

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def asked(self, root: str) -> None:
        """A model was wanted; it counts where it is not here."""
        if self._section.prefetch and root and not self._transfers.store.has(bytes.fromhex(root)):
            self.demand.asked(root, self._clock.now())

    async def look(self) -> str | None:
        """Fetch the model that is most worth it: its root, None where there is none."""
        to_be_had = {root: seed for root, seed in self._transfers.offered() if seed.complete}
        room_bytes = await asyncio.get_running_loop().run_in_executor(None, self._room)
        sizes = {root: seed.size_bytes for root, seed in to_be_had.items()}
        root = self.demand.choose(sizes, room_bytes, self._clock.now())
        if root is None:
            return None
        self.demand.forget(root)
        log.info("fetched by demand", model=to_be_had[root].descriptor.model)
        await self._transfers.wait(self._transfers.fetch(bytes.fromhex(root), to_be_had[root]))
        return root

    def _room(self) -> int:
        """What may be added without anything having to go. In a thread."""
        folder = self._transfers.store.folder
        used = own_bytes(folder) if folder.exists() else 0
        return int(self._section.quota_gb * 1e9) - used

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (AtmoError, OSError) as error:
                log.warning("not fetched by demand", why=str(error))

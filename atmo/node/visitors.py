"""Models that came for the sake of a request and are not kept (`models.keep_migrated = false`): they go when no request
needs them any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from atmo.errors import AtmoError
from atmo.ids import PeerId, short

if TYPE_CHECKING:
    from atmo.node.node import Node

log = structlog.get_logger("atmo.visitors")

# What was brought for another node's request goes when nobody asked it for so long. A guess: its asker asks at once.
IDLE_S = 60.0


class Visitors:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._using: Counter[bytes] = Counter()
        self._came: set[bytes] = set()
        self._going: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        for task in self._going.values():
            task.cancel()
        await asyncio.gather(*self._going.values(), return_exceptions=True)

    @contextmanager
    def used(self, root: bytes) -> Iterator[None]:
        """A request of this node needs it."""
        self._using[root] += 1
        try:
            yield
        finally:
            self._using[root] -= 1

    async def leave(self, root: bytes, capability: str, *, came: bool) -> None:
        """A request is over: let the model go, if it came for it or another one that is over, unless it is kept or in
        use. capability: "" for a model that did not load. Raises nothing."""
        node = self._node
        if node.config.models.keep_migrated:
            return
        self._came |= {root} if came else set()
        if self._using[root] or root not in self._came:
            return
        self._came.discard(root)
        try:
            await node.dismiss(capability)
            await asyncio.get_running_loop().run_in_executor(None, node.transfers.store.remove, root)
        except AtmoError as error:
            log.warning("a model that came for a request stays", model=capability, why=error.message)

    def leave_when_idle(self, root: bytes, capability: str, asker: PeerId) -> None:
        """It was brought for another node, which does not say when it is done."""
        if self._node.config.models.keep_migrated or capability in self._going:
            return
        task = asyncio.create_task(self._watch(root, capability), name=f"{capability} for {short(asker)}")
        self._going[capability] = task
        task.add_done_callback(lambda _: self._going.pop(capability, None))

    async def _watch(self, root: bytes, capability: str) -> None:
        clock = self._node.clock
        busy_s = clock.now()
        while clock.now() - busy_s < IDLE_S:
            await asyncio.sleep(min(1.0, IDLE_S / 4))
            service = self._node.services.get(capability)
            if service is None:
                return
            if service.load().in_flight or self._using[root]:
                busy_s = clock.now()
        await self.leave(root, capability, came=True)

    def __repr__(self) -> str:
        return f"<Visitors {sum(self._using.values())} in use, {len(self._going)} to go>"

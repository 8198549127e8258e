"""Chunks from where the socket put them to the disk: a few threads, each with several at once where they wait.

Being woken, and waking the loop, costs a quarter of what checking and writing a chunk does (measured); under load, when
chunks wait, it is paid once for up to `BATCH_CHUNKS`. Where none waits each goes at once, alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from atmo.errors import AtmoError, Cancelled
from atmo.ids import PeerId
from atmo.models.partial import Partial

WRITERS, BATCH_CHUNKS = 3, 4
Outcomes: TypeAlias = "list[AtmoError | None]"


@dataclass(frozen=True, slots=True)
class Arrived:
    """A chunk where the socket put it. frame_bytes: of credit; plain: it came unencrypted."""

    peer: PeerId
    chunk: int
    data: memoryview
    frame_bytes: int
    plain: bool


class Writers:
    """Of one model. done is told of each chunk, on the loop's thread: None once it is written and counts, BadChunk,
    another error of the disk, or Cancelled for what was not tried any more."""

    def __init__(self, held: Partial, pool: Executor, done: Callable[[Arrived, AtmoError | None], None]) -> None:
        self._held = held
        self._pool = pool
        self._done = done
        self._waiting: deque[Arrived] = deque()
        self._writing: set[asyncio.Future[Outcomes]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Chunks that no thread has taken yet."""
        return len(self._waiting)

    def add(self, arrived: Arrived) -> None:
        self._waiting.append(arrived)
        self._go_on()

    async def close(self) -> None:
        """Returns when no thread writes any more."""
        self._closed = True
        if self._writing:
            await asyncio.wait(self._writing)
        while self._waiting:
            self._done(self._waiting.popleft(), _stopped())

    def _go_on(self) -> None:
        """Give threads that are free what waits, an equal share each."""
        while self._waiting and len(self._writing) < WRITERS and not self._closed:
            share = len(self._waiting) // (WRITERS - len(self._writing))
            batch = [self._waiting.popleft() for _ in range(max(1, min(BATCH_CHUNKS, share)))]
            writing = asyncio.get_running_loop().run_in_executor(self._pool, self._write, batch)
            self._writing.add(writing)
            writing.add_done_callback(partial(self._wrote, batch))

    def _write(self, batch: list[Arrived]) -> Outcomes:
        """In a thread."""
        outcomes: Outcomes = []
        for each in batch:
            try:
                self._held.write(each.chunk, each.data)
                outcomes.append(None)
            except AtmoError as error:
                outcomes.append(error)
        return outcomes

    def _wrote(self, batch: list[Arrived], writing: asyncio.Future[Outcomes]) -> None:
        self._writing.discard(writing)
        if writing.cancelled() or writing.exception() is not None:
            outcomes: Outcomes = [_stopped() for _ in batch]
        else:
            outcomes = writing.result()
        for each, outcome in zip(batch, outcomes, strict=True):
            self._done(each, outcome)
        self._go_on()

    def __repr__(self) -> str:
        return f"<Writers {len(self._writing)} at work, {len(self._waiting)} chunks wait>"


def _stopped() -> Cancelled:
    return Cancelled("The node stops.")

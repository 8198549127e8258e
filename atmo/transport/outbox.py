"""Bulk frames on the event loop's side: each waits its turn for credit, and none overtakes another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from atmo.errors import PeerUnreachable
from atmo.transport.base import BULK_WINDOW_BYTES, MAX_BULK_WINDOW_BYTES, Frame
from atmo.transport.credit import CreditWindow


class BulkOutbox:
    """Of one link. A frame is handed to `put` as soon as the receiver's window has room for it."""

    def __init__(self) -> None:
        self._credit = CreditWindow(BULK_WINDOW_BYTES)
        self._waiting: deque[tuple[Frame, asyncio.Future[None], Callable[[Frame], None]]] = deque()

    async def send(self, frame: Frame, put: Callable[[Frame], None]) -> None:
        """Returns when the frame was put. A cancelled wait sends nothing. Raises what `end` is given."""
        if not self._waiting and self._credit.try_take(len(frame)):
            put(frame)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((frame, turn, put))
        await turn

    @property
    def in_flight(self) -> int:
        return self._credit.in_flight

    def refill(self, size_bytes: int) -> None:
        """Raises RemoteProtocolError when more is given back than was spent."""
        self._credit.refill(size_bytes)
        while self._waiting:
            frame, turn, put = self._waiting[0]
            if not turn.done():
                if not self._credit.try_take(len(frame)):
                    return
                put(frame)
                turn.set_result(None)
            self._waiting.popleft()

    def widen(self, size_bytes: int) -> None:
        """Raises RemoteProtocolError beyond the largest window there is."""
        self._credit.widen(size_bytes, MAX_BULK_WINDOW_BYTES)
        self.refill(0)

    def end(self, error: PeerUnreachable) -> None:
        """The link is gone: everyone who waits gets this error."""
        for _, turn, _ in self._waiting:
            if not turn.done():
                turn.set_exception(error)
        self._waiting.clear()

    def __repr__(self) -> str:
        return f"<BulkOutbox {len(self._waiting)} wait, {self._credit!r}>"

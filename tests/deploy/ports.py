"""Ports that the kernel says are free, and that it gives to nobody else meanwhile."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from atmo.config import LANES


class Ports:
    """Each is kept bound, without listening and with SO_REUSEADDR, until `close`: who asks for it by its number may
    listen there as nodes do, again and again; to who asks for any port, or connects, it is not given."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def one(self) -> int:
        return self._hold(0)

    def lanes(self) -> int:
        """The first of as many in a row as a node has lanes."""
        while True:
            first = self.one()
            try:
                for port in range(first + 1, first + LANES):
                    self._hold(port)
            except (OSError, OverflowError):
                continue
            return first

    def close(self) -> None:
        self._held.close()

    def _hold(self, port: int) -> int:
        held = self._held.enter_context(socket.socket())
        held.bind(("127.0.0.1", port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # only now: it must be nobody's
        return int(held.getsockname()[1])

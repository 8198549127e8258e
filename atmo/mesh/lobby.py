"""Rows that wait for their origin's certificate.

Rows of a newcomer may overtake its NODE row, which carries the certificate: a small one is flooded while a large one
comes along the tree. Refusing them would lose nothing for good, since tables are compared, but that takes a while. So
they wait here, unread and bounded, until the NODE row comes; what was waiting too long is the first to go. A member
that invents origins fills this room and nothing else.
"""

from __future__ import annotations

from atmo.ids import PeerId
from atmo.mesh.rows import SignedRow

# Guesses: what fifty nodes that join at once say before their NODE rows arrive.
MAX_WAITING = 512
MAX_WAITING_BYTES = 1 << 20

Waiting = tuple[PeerId, SignedRow]
"""Who brought it, and the row."""


class Lobby:
    """First in, first out where there is no more room."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[PeerId, Waiting]] = {}  # by payload: a row waits once, whoever brings it
        self._bytes = 0

    def wait(self, origin: PeerId, teller: PeerId, signed: SignedRow) -> None:
        if signed.payload in self._waiting:
            return
        self._waiting[signed.payload] = origin, (teller, signed)
        self._bytes += len(signed.payload)
        while len(self._waiting) > MAX_WAITING or self._bytes > MAX_WAITING_BYTES:
            self._drop(next(iter(self._waiting)))

    def admit(self, origin: PeerId) -> list[Waiting]:
        """The origin has shown its certificate: its rows, in the order in which they came. They wait no more."""
        found = {payload: waiting for payload, (whose, waiting) in self._waiting.items() if whose == origin}
        for payload in found:
            self._drop(payload)
        return list(found.values())

    def _drop(self, payload: bytes) -> None:
        del self._waiting[payload]
        self._bytes -= len(payload)

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<Lobby {len(self)} rows, {self._bytes} bytes>"

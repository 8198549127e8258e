"""What the table of rows remembers of one origin (rowstore.py)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from atmo.mesh.limits import MAX_ORIGINS
from atmo.mesh.rows import Kind, Row, SignedRow

SUM_MASK = (1 << 53) - 1

Slot = tuple[Kind, str]
"""What names a row among those of its origin."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the table holds at most. Guesses: many times what a mesh of a few thousand nodes needs."""

    rows_per_origin: int = 256
    marks_per_origin: int = 1024
    origins: int = MAX_ORIGINS
    proofs: int = 64


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest that was accepted for a slot. signed: None once the row expired, when no rival could be proven."""

    version: int
    digest: bytes
    forget_s: float
    signed: SignedRow | None


@dataclass(frozen=True, slots=True)
class Held:
    """renewed_s: when it came, if it says what was here before; long ago if it is news."""

    row: Row
    expires_s: float
    renewed_s: float = float("-inf")


@dataclass(slots=True)
class Record:
    """One origin's newest generation. Every row has its mark; a mark without a row is a tombstone."""

    generation: int
    newest: Row  # the highest version of all its slots: shown to an origin that forgot how far it had counted
    rows: dict[Slot, Held] = field(default_factory=dict)
    marks: dict[Slot, Mark] = field(default_factory=dict)
    sum: int = 0  # of the rows' digests, 53 bits; adding and taking away keeps it current
    buried: int | None = None  # the incarnation in which it is taken for dead

    def hold(self, slot: Slot, held: Held) -> None:
        self.rows[slot] = held
        self.sum = (self.sum + short_digest(self.marks[slot].digest)) & SUM_MASK

    def release(self, slot: Slot) -> Row | None:
        """The row that was there, if one was. Its mark must still be there too."""
        held = self.rows.pop(slot, None)
        if held is None:
            return None
        self.sum = (self.sum - short_digest(self.marks[slot].digest)) & SUM_MASK
        return held.row


def digest(signed: SignedRow) -> bytes:
    """SHA-256 of the payload, 32 bytes. The signature is left out: one payload may have several that are genuine."""
    return hashlib.sha256(signed.payload).digest()


def short_digest(of: bytes) -> int:
    return int.from_bytes(of[:8], "big") & SUM_MASK

"""What became of a row: applied, with the changes that caused, or rejected, with the reason."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from atmo.ids import PeerId, short
from atmo.mesh.rows import Row, RowId, SignedRow


class Reason(enum.Enum):
    """Why a row was not taken."""

    MALFORMED = "does not decode"
    FOREIGN_MESH = "belongs to another mesh"
    UNKNOWN_KIND = "is of a kind this node does not know"
    DUPLICATE = "is known already"
    STALE = "is older than what is known"
    EXPIRED = "is past its date"
    FUTURE = "is dated in the future"
    FORGED = "does not carry its origin's signature"
    OWN = "bears this node's name, but this node did not write it"
    EQUIVOCATES = "contradicts another one of the same version"
    FULL = "finds no room"
    UNCERTIFIED = "comes with a certificate that is not its origin's, or with none"
    UNKNOWN_ORIGIN = "is of an origin that has not shown its certificate yet"
    LAPSED = "is of an origin whose certificate has expired or is not valid yet"
    OVERUSED = "is of an origin whose invite was used up by others"
    REVOKED = "comes from a peer that was revoked"
    DEAD = "comes from a node that is taken for dead"

    @property
    def culpable(self) -> bool:
        """True if no honest peer sends such a row: it would have refused it itself."""
        return self in _CULPABLE


_CULPABLE = frozenset({Reason.MALFORMED, Reason.FOREIGN_MESH, Reason.FORGED, Reason.UNCERTIFIED})


@dataclass(frozen=True, slots=True)
class Change:
    """One row is new, replaced (`old` is what it replaced) or gone (`row` is None: withdrawn, expired or voided)."""

    id: RowId
    row: Row | None
    old: Row | None

    @property
    def renewal(self) -> bool:
        """True if the row says what it said before, only later."""
        return self.row is not None and self.old is not None and self.row.body == self.old.body


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two rows that one origin signed under the same version: proof that it, or a copy of its key, is not honest."""

    kept: SignedRow
    dropped: SignedRow


@dataclass(frozen=True, slots=True)
class Rejected:
    """The row changes nothing. `origin` and `order` are claims unless the reason implies a checked signature."""

    reason: Reason
    origin: PeerId | None = None
    order: tuple[int, int] | None = None
    detail: str = ""
    equivocation: Equivocation | None = None

    def __str__(self) -> str:
        whose = f" of {short(self.origin)}" if self.origin else ""
        return self.detail or f"A row{whose} {self.reason.value}."


@dataclass(frozen=True, slots=True)
class Applied:
    """The row was taken. `changes` is what that did: empty for the withdrawal of a row that was not there."""

    row: Row
    changes: tuple[Change, ...]
    equivocation: Equivocation | None = None

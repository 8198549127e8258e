"""The roll: whose rows count.

Theory of operation. A link proves that its two ends are members, but rows are passed on by others, and a member that
lies could invent origins: keys that nobody ever admitted, with rows that bear genuine signatures of those keys. So a
NODE row carries its origin's certificate, the chain root -> (invite ->) origin, and no row of an origin counts before
its certificate was seen and found in order. The chain is checked once, when it is first shown or has changed; what
remains for each row is a look into a table.

An origin has a *standing* here from its first NODE row until nothing is remembered of it. The standing has dates, its
invite has a number of uses, and the root may revoke the origin or the invite: each is asked for at every row. Rows do
not outlive the certificate of their origin (rowstore.py).

Invariant: every origin in the table but the own one stands on the roll, so the roll is no larger than the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from atmo.errors import RemoteProtocolError
from atmo.ids import PeerId
from atmo.keys import CLOCK_TOLERANCE_S, Certificate, Standing
from atmo.mesh.verdict import Reason

Check = Callable[[Certificate], Standing]
"""What a certificate says, if its chain of signatures is in order. Raises RemoteProtocolError."""
Welcomes = Callable[[Standing], bool]
"""False for one member more than its invite may make."""


@dataclass(frozen=True, slots=True)
class _Entry:
    certificate: Certificate
    standing: Standing


class Roll:
    """`check` reads certificates, `welcomes` counts the members of each invite."""

    def __init__(self, check: Check, welcomes: Welcomes) -> None:
        self._check = check
        self._welcomes = welcomes
        self._entries: dict[PeerId, _Entry] = {}
        self._struck: set[bytes] = set()

    def show(self, origin: PeerId, certificate: Certificate | None, wall_s: float) -> Reason | None:
        """A genuine NODE row of the origin carries this certificate. None if its rows count from now on."""
        known = self._entries.get(origin)
        if known is not None and known.certificate == certificate:
            return self.bars(origin, wall_s)
        if certificate is None:
            return Reason.UNCERTIFIED
        try:
            standing = self._check(certificate)
        except RemoteProtocolError:
            return Reason.UNCERTIFIED
        if standing.peer != origin:
            return Reason.UNCERTIFIED
        refused = self._bars(standing, wall_s)
        if refused is None and not self._welcomes(standing):
            refused = Reason.OVERUSED
        if refused is None:
            self._entries[origin] = _Entry(certificate, standing)
        return refused

    def bars(self, origin: PeerId, wall_s: float) -> Reason | None:
        """Why rows of the origin do not count; None if they do."""
        entry = self._entries.get(origin)
        return Reason.UNKNOWN_ORIGIN if entry is None else self._bars(entry.standing, wall_s)

    def left_s(self, origin: PeerId, wall_s: float) -> float:
        """How long the origin's certificate lasts from now. Endless for one that needs none: the own."""
        entry = self._entries.get(origin)
        return float("inf") if entry is None else entry.standing.not_after_s - wall_s

    def is_struck(self, key: bytes) -> bool:
        return key in self._struck

    def strike(self, key: bytes) -> list[PeerId]:
        """The root took this member or invite back: whose rows go."""
        self._struck.add(key)
        found = [origin for origin, entry in self._entries.items() if key in (origin, entry.standing.invite)]
        for origin in found:
            del self._entries[origin]
        return found

    def forget(self, origin: PeerId) -> None:
        """Nothing is remembered of the origin any more."""
        self._entries.pop(origin, None)

    def standing(self, origin: PeerId) -> Standing | None:
        entry = self._entries.get(origin)
        return entry.standing if entry is not None else None

    def __iter__(self) -> Iterator[PeerId]:
        return iter(list(self._entries))

    def _bars(self, standing: Standing, wall_s: float) -> Reason | None:
        if standing.peer in self._struck or standing.invite in self._struck:
            return Reason.REVOKED
        if wall_s > standing.not_after_s or wall_s < standing.not_before_s - CLOCK_TOLERANCE_S:
            return Reason.LAPSED
        return None

    def __contains__(self, origin: object) -> bool:
        return origin in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Roll of {len(self)} origins, {len(self._struck)} struck>"

"""The passive view: contacts to fall back on, who was lost, and the exchange of samples that keeps both up to date.

Theory of operation: see overlay.py. A contact is known by hearsay (walks and shuffles) and nobody has dialled it, or it
was a neighbour and gave way. Who was a neighbour and is gone, or could not be dialled, is not handed on: it is among
the lost, and tried now and then.

Invariants (`validate`): neither holds this node; both keep their sizes; a lost contact enters by no exchange.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from atmo.ids import PeerId
from atmo.mesh.agenda import Chance
from atmo.mesh.messages import Contact
from atmo.mesh.overlay_terms import ViewSizes

T = TypeVar("T")


@dataclass(slots=True)
class PassiveView:
    """`known`: the contacts; `lost`: who was here and cannot be reached."""

    own: PeerId
    sizes: ViewSizes
    rng: Chance
    known: dict[PeerId, Contact] = field(default_factory=dict)
    lost: dict[PeerId, Contact] = field(default_factory=dict)
    _sent: tuple[Contact, ...] | None = None  # to be exchanged, while the answer is awaited

    def keep(self, contacts: Iterable[Contact], active: Container[PeerId], sent: Iterable[Contact] = ()) -> None:
        """Put contacts in, but for neighbours. What was sent away leaves first, then whoever chance picks."""
        leaving = [contact.peer for contact in sent]
        for contact in contacts:
            peer = contact.peer
            if peer == self.own or peer in active or not contact.addresses or peer in self.lost:
                continue
            self.known.pop(peer, None)
            while len(self.known) >= self.sizes.passive:
                gone = next((old for old in leaving if old in self.known), None)
                self.known.pop(gone if gone is not None else self.pick(list(self.known)))
            self.known[peer] = contact

    def drop(self, peer: PeerId) -> None:
        """It is a neighbour now, or nobody to fall back on."""
        self.known.pop(peer, None)

    def remember(self, contact: Contact) -> None:
        """It was here and cannot be reached."""
        if contact.addresses and contact.peer != self.own:
            self.lost.pop(contact.peer, None)
            while len(self.lost) >= self.sizes.remembered:
                self.lost.pop(self.pick(list(self.lost)))
            self.lost[contact.peer] = contact

    def back(self, peer: PeerId) -> None:
        """It is linked."""
        self.lost.pop(peer, None)

    def some(self, n: int, but: Container[PeerId]) -> list[Contact]:
        return self.sample([contact for contact in self.known.values() if contact.peer not in but], n)

    def someone_lost(self) -> Contact | None:
        return self.pick(list(self.lost.values())) if self.lost else None

    # Exchange

    def offer(self, contacts: tuple[Contact, ...]) -> None:
        """These are sent to be exchanged."""
        self._sent = contacts

    def exchange(self, theirs: tuple[Contact, ...], active: Container[PeerId]) -> tuple[Contact, ...]:
        """Keep what somebody sent; returns as many of one's own for it."""
        mine = tuple(self.sample(self.known.values(), len(theirs)))
        self.keep(theirs, active, mine)
        return mine

    def answered(self, theirs: tuple[Contact, ...], active: Container[PeerId]) -> None:
        """What came for what was offered. Nothing counts that was not asked for."""
        if self._sent is not None:
            self.keep(theirs, active, self._sent)
            self._sent = None

    # Chance

    def pick(self, among: list[T]) -> T:
        return among[int(self.rng.random() * len(among))]

    def sample(self, among: Iterable[T], n: int) -> list[T]:
        """Up to n of them, each at most once, all equally likely."""
        left = list(among)
        found = []
        for _ in range(min(n, len(left))):
            at = int(self.rng.random() * len(left))
            left[at], left[-1] = left[-1], left[at]
            found.append(left.pop())
        return found

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert self.own not in self.known, "a node falls back on itself"
        assert len(self.known) <= self.sizes.passive, "the passive view is too large"
        assert len(self.lost) <= self.sizes.remembered, "too many are remembered"
        assert all(contact.peer == peer for peer, contact in self.known.items()), "a contact of another peer"

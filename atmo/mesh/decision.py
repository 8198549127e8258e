"""What a routing decision is: the choice and everything it rests on, as data. explain.py turns it into words."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from atmo.ids import PeerId
from atmo.mesh.classes import ClassIndex
from atmo.mesh.field import FieldTerms
from atmo.mesh.table import RoutingTable


class Route(NamedTuple):
    """A place that can serve the request."""

    peer: PeerId
    capability: str


class Terms(msgspec.Struct, frozen=True):
    """One candidate with every term of its potential, in the order of field.TERMS.

    age_s is inf where the node never told its load.
    """

    peer: PeerId
    capability: str
    node: str
    relevance: float
    latency_s: float
    service_s: float
    in_flight: float
    own: float
    slots: float
    age_s: float
    weight: float
    phi_s: float
    p75_s: float
    failures: float
    potential_s: float
    why: str

    @property
    def route(self) -> Route:
        return Route(self.peer, self.capability)


class ClassTerms(msgspec.Struct, frozen=True):
    """One class that was compared by fitness = - gap + strength - price - time + version, each already weighted.

    relevance: as in views.py; gap: how far it lies behind the best, in margins; expected_s: the median potential of
    its candidates; nodes: candidates that were looked at.
    """

    capability: str
    relevance: float
    gap: float
    strength: float
    price: float
    time: float
    version: float
    fitness: float
    expected_s: float
    nodes: int


class Passed(msgspec.Struct, frozen=True):
    """A capability that was not chosen, and why."""

    capability: str
    relevance: float
    why: str


class Excluded(msgspec.Struct, frozen=True):
    """How many of the rows that were looked at broke a condition."""

    reason: str
    rows: int


class Decision(msgspec.Struct, frozen=True):
    """Where the request goes and why.

    chosen; runners: other candidates of the same class, best first, each with why it lost; classes: all that were
    compared, the winner first; passed: capabilities that did not come into play; excluded: counts by reason;
    alternatives: where to turn next if the chosen one fails, in order. fallback: nothing fits the text, so a general
    chat answers; explored: drawn evenly to learn; sure: no other class comes near in relevance; by_text: False where a
    pinned model or type decided. elapsed_s: filled in by whoever holds a clock. probability: that this capability is
    the right one for the text, as calibrated; 1 where the text had no say.
    """

    chosen: Terms
    runners: tuple[Terms, ...]
    classes: tuple[ClassTerms, ...]
    passed: tuple[Passed, ...]
    excluded: tuple[Excluded, ...]
    alternatives: tuple[Route, ...]
    by_text: bool
    fallback: bool
    explored: bool
    sure: bool
    rows_read: int
    rows_known: int
    elapsed_s: float = 0.0
    probability: float = 1.0

    @property
    def route(self) -> Route:
        return self.chosen.route

    @property
    def peer(self) -> PeerId:
        return self.chosen.peer

    @property
    def capability(self) -> str:
        return self.chosen.capability


def terms_of(
    table: RoutingTable, terms: FieldTerms, places: list[int], relevance: float, why: list[str]
) -> list[Terms]:
    """The terms of some candidates out of the arrays. places: positions in `terms`; why: a reason for each."""
    numbers = terms.values[:, places].T.tolist()
    told = []
    for row, values, reason in zip(terms.rows[places].tolist(), numbers, why, strict=True):
        fields: list[Any] = [*table.place_of(row), table.node_name(row), relevance, *values, reason]
        told.append(Terms(*fields))
    return told


def capability_id(classes: ClassIndex, klass: int) -> str:
    return classes.capability[klass].descriptor.id

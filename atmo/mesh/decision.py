"""What a routing decision is: the choice and everything it rests on, as data. explain.py turns it into words.

Thousands of decisions a second are made and hardly one is read, so a `Decision` keeps what it rests on (`Grounds`:
arrays and references, nothing that changes later) and works out its account only when somebody asks. Invariant: the
account says the same whenever it is asked for, however the table has changed since.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from atmo.ids import PeerId, short
from atmo.mesh.fitness import ClassTerms, Compared, class_terms
from atmo.mesh.query import Query
from atmo.mesh.ranking import Ranking
from atmo.mesh.reasons import Reason, verdict
from atmo.mesh.rows import NodeInfo

RUNNERS = 5  # candidates whose terms are kept
ALTERNATIVES = 6
PASSED = 5
KEPT = max(RUNNERS, ALTERNATIVES) + 1  # candidates of each class that an account may need, besides those drawn


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


class Passed(msgspec.Struct, frozen=True):
    """A capability that was not chosen, and why."""

    capability: str
    relevance: float
    why: str


class Excluded(msgspec.Struct, frozen=True):
    """How many of the rows that were looked at broke a condition."""

    reason: str
    rows: int


class Account(msgspec.Struct, frozen=True):
    """Where the request goes and why.

    chosen; runners: other candidates of the same class, best first, each with why it lost; classes: all that were
    compared, the winner first; passed: capabilities that did not come into play; excluded: counts by reason;
    alternatives: where to turn next if the chosen one fails, in order. fallback: nothing fits the text, so a general
    chat answers, or what can read the image; explored: drawn evenly to learn; sure: no other class comes near in
    relevance; by_text: False where a pinned model or type decided. elapsed_s: filled in by whoever holds a clock.
    probability: that this capability is the right one for the text, as calibrated; 1 where the text had no say. unfit:
    the relevance below which nothing would have fitted, for as many capabilities as there were to choose from.
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
    unfit: float = 0.0


class Place(NamedTuple):
    """A node as it was when the decision was made. info: None where its NODE row was missing."""

    peer: PeerId
    info: NodeInfo | None

    @property
    def name(self) -> str:
        return self.info.name if self.info is not None and self.info.name else short(self.peer)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A class with at least one feasible node. places: those of the lowest potential, then others that were drawn;
    values: their terms, (len(TERMS), len(places))."""

    compared: Compared
    places: tuple[Place, ...]
    values: NDArray[np.float64]

    def terms(self, at: int, why: str) -> Terms:
        """Of the place at this position."""
        place, numbers = self.places[at], self.values[:, at].tolist()
        told: list[Any] = [place.peer, self.compared.descriptor.id, place.name, self.compared.relevance, *numbers, why]
        return Terms(*told)


@dataclass(slots=True, eq=False)
class Grounds:
    """What an account is made of. best: the candidates in the order of fitness; drawn: positions in the first one's
    places, the chosen one first; fitness: terms of each candidate, or empty while there is only one; barred: masks of
    Reason, one array for each class whose rows were not all feasible."""

    query: Query
    names: Sequence[str]
    ranking: Ranking
    best: list[Candidate] = field(default_factory=list)
    fitness: list[ClassTerms] = field(default_factory=list)
    drawn: tuple[int, ...] = ()
    passed: list[Passed] = field(default_factory=list)
    barred: list[NDArray[np.int64]] = field(default_factory=list)
    late: int = 0  # rows over max_latency_ms
    rows_read: int = 0


class Decision:
    """Where the request goes and why: see `Account`, whose fields it has. probes: whose load should be asked for,
    because what is known of it is old."""

    __slots__ = (
        "__dict__",
        "_grounds",
        "by_text",
        "chosen",
        "elapsed_s",
        "explored",
        "fallback",
        "probes",
        "rows_known",
        "sure",
    )

    def __init__(
        self,
        chosen: Terms,
        grounds: Grounds,
        *,
        by_text: bool,
        fallback: bool,
        explored: bool,
        sure: bool,
        known: int,
        probes: tuple[Route, ...],
    ) -> None:
        self.chosen = chosen
        self.by_text = by_text
        self.fallback = fallback
        self.explored = explored
        self.sure = sure
        self.rows_known = known
        self.probes = probes
        self.elapsed_s = 0.0
        self._grounds = grounds

    def __repr__(self) -> str:
        return f"<Decision {self.chosen.capability} at {self.chosen.node}: {self.chosen.why}>"

    @property
    def route(self) -> Route:
        return self.chosen.route

    @property
    def peer(self) -> PeerId:
        return self.chosen.peer

    @property
    def capability(self) -> str:
        return self.chosen.capability

    @property
    def rows_read(self) -> int:
        return self._grounds.rows_read

    @functools.cached_property
    def account(self) -> Account:
        """All of it as plain data."""
        return Account(
            self.chosen,
            self.runners,
            self.classes,
            self.passed,
            self.excluded,
            self.alternatives,
            self.by_text,
            self.fallback,
            self.explored,
            self.sure,
            self.rows_read,
            self.rows_known,
            self.elapsed_s,
            self.probability,
            self.unfit,
        )

    @functools.cached_property
    def probability(self) -> float:
        """That the chosen capability is the right one for the text; 1 where the text had no say."""
        if not self.by_text:
            return 1.0
        shares, _ = self._grounds.ranking.probabilities
        return dict(zip(self._grounds.names, shares, strict=False)).get(self.chosen.capability, 0.0)

    @property
    def unfit(self) -> float:
        """The relevance below which nothing would have fitted the text; 0 where it had no say."""
        return self._grounds.ranking.unfit if self.by_text else 0.0

    @functools.cached_property
    def runners(self) -> tuple[Terms, ...]:
        """The others that were drawn, then those of the lowest potential."""
        grounds, best = self._grounds, self._grounds.best[0]
        chosen, *drawn = grounds.drawn
        others = [at for at in range(len(best.places)) if at not in grounds.drawn]
        return tuple(
            best.terms(at, "drawn too, with a higher potential" if at in drawn else "not drawn")
            for at in [at for at in [*drawn, *others] if at != chosen][:RUNNERS]
        )

    @functools.cached_property
    def classes(self) -> tuple[ClassTerms, ...]:
        grounds = self._grounds
        return tuple(grounds.fitness or class_terms([each.compared for each in grounds.best], grounds.query))

    @functools.cached_property
    def passed(self) -> tuple[Passed, ...]:
        """Classes without a feasible node, then those that were not compared because others fit better."""
        grounds = self._grounds
        known = {passed.capability for passed in grounds.passed} | {
            each.compared.descriptor.id for each in grounds.best
        }
        best = max(each.compared.relevance for each in grounds.best)
        less = [
            Passed(name, score, f"fits less: {score:.3f} against {best:.3f}")
            for name, score in zip(grounds.names, grounds.ranking.scores, strict=False)
            if name not in known
        ]
        return tuple([*grounds.passed, *less][:PASSED])

    @functools.cached_property
    def excluded(self) -> tuple[Excluded, ...]:
        grounds, counts = self._grounds, Counter[Reason]()
        for mask in (int(mask) for bits in grounds.barred for mask in bits if mask):
            counts.update(Reason(mask))
        if grounds.late:
            counts[Reason.MAX_LATENCY] += grounds.late
        return tuple(Excluded(verdict(reason, grounds.query), rows) for reason, rows in counts.most_common())

    @functools.cached_property
    def alternatives(self) -> tuple[Route, ...]:
        """Other feasible places, the same class first, each class by potential; never the chosen peer again."""
        found = [
            Route(place.peer, candidate.compared.descriptor.id)
            for candidate in self._grounds.best
            for place in candidate.places[:KEPT]
            if place.peer != self.chosen.peer
        ]
        return tuple(found[:ALTERNATIVES])

"""The routing decision: from a request to the node that shall serve it, with every term on the table.

Pure: a function of the table, the field, the query, the time and a source of chance. Five steps:

1. Which classes may serve it at all (one bit per broken condition; constraints.py)?
2. How well does each fit the text? One product over all classes, the best few read again (ranking.py, views.py).
3. Classes within a margin of the best are compared by fitness: relevance, strength, price, expected time.
4. Within the class that wins, the node: a few are drawn at random, in proportion to the work they get done, and the
   one of the lowest potential is taken: two when reports are old (power of two choices), up to five when they are
   fresh. EXPLORE of the decisions draw one evenly instead. Never the table's minimum: nodes that share old numbers
   would all run to the same place.
5. A `Decision` that holds every term, or `NoRoute` that says which condition excluded whom.

Only rows of classes in play are read. Where none of them is feasible, the next best classes are asked, down to those
that do not fit any more; a text that fits nothing goes to a general chat, flagged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atmo.mesh.constraints import Bits, row_bits
from atmo.mesh.decision import (
    ClassTerms,
    Decision,
    Excluded,
    Passed,
    Route,
    Terms,
    capability_id,
    terms_of,
)
from atmo.mesh.field import FieldTerms, GradientField, nearest_rank, work_units
from atmo.mesh.query import Query
from atmo.mesh.ranking import MARGIN, Ranking, Round, rank, rounds
from atmo.mesh.reasons import Reason, verdict
from atmo.mesh.refusal import no_route
from atmo.mesh.table import RoutingTable
from atmo.mesh.versions import satisfies

EXPLORE = 0.02  # share of decisions that only learn; design choice, near Prequal's probing of stale replicas
# Rows that are looked at, shared by the classes that are compared, and the least for each. Guesses: more than enough to
# draw from.
WINDOW, LEAST_WINDOW = 64, 20
# Draws by the age of the reports in service times. Measured in a simulation of 10 and 50 routers, docs/routing.md: more
# draws are better while reports are fresh and herd when they are old.
DRAWS = ((0.5, 5), (1.0, 3), (float("inf"), 2))
SURE = 0.15  # lead in relevance from which the first class is right in two cases of three; see docs/routing.md
RUNNERS = 5  # candidates whose terms are kept
ALTERNATIVES = 6
PASSED = 5

STRENGTH_WEIGHT = 0.5  # the weights of fitness are guesses; a full margin of relevance counts 1
PRICE_WEIGHT = 0.5
TIME_WEIGHT = 0.25  # for each doubling of the expected time
HURRY = 4.0  # factor of TIME_WEIGHT, and strength and price count nothing, when latency_critical
VERSION_WEIGHT = 1.0

__all__ = ["Decision", "Query", "decide"]


@dataclass(slots=True)
class _Search:
    """What a decision gathers on its way."""

    table: RoutingTable
    query: Query
    ranking: Ranking
    passed: list[Passed] = field(default_factory=list)
    excluded: dict[Reason, int] = field(default_factory=dict)
    rows_read: int = 0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A class with at least one feasible node."""

    klass: int
    relevance: float
    terms: FieldTerms


def decide(table: RoutingTable, field: GradientField, query: Query, now: float, rng: np.random.Generator) -> Decision:
    """Choose where the request goes. now: monotonic seconds. Raises NoRoute, and UsageError for a malformed version."""
    search = _Search(table, query, rank(table, query))
    for group in rounds(table, query, search.ranking):
        candidates = _candidates(search, field, group, now, rng)
        if candidates:
            return _decision(search, candidates, group.fallback, rng)
    raise no_route(table, field, query, now, search.ranking)


def _candidates(
    search: _Search, field: GradientField, group: Round, now: float, rng: np.random.Generator
) -> list[_Candidate]:
    """The classes of the group that have feasible nodes; the others are noted as passed over."""
    found = []
    units = work_units(search.query.prompt_tokens, search.query.expected_output_tokens)
    window = max(LEAST_WINDOW, WINDOW // len(group.classes))
    for klass, relevance in zip(group.classes, group.scores, strict=True):
        rows = _feasible(search, klass, window, now, rng)
        terms = field.terms(rows, units, search.query.local, now) if len(rows) else None
        limit_ms = search.query.constraints.max_latency_ms
        if terms is not None and limit_ms is not None:
            terms = _in_time(search, terms, limit_ms / 1e3)
        if terms is not None:
            found.append(_Candidate(klass, relevance, terms))
        else:
            search.passed.append(
                Passed(capability_id(search.table.classes, klass), relevance, "none of its nodes can serve this now")
            )
    return found


def _feasible(search: _Search, klass: int, window: int, now: float, rng: np.random.Generator) -> NDArray[np.int32]:
    """(n,) feasible rows of the class: of a random window of its members, or of all where the window has none."""
    members = search.table.classes.members[klass].view()
    rows = members
    if len(members) > window:
        start = int(rng.integers(len(members)))
        rows = members[start : start + window]
        if len(rows) < window:
            rows = np.concatenate((rows, members[: window - len(rows)]))
    bits = row_bits(search.table, search.query, rows, now)
    if len(members) > window and bits.all():
        rows, bits = members, row_bits(search.table, search.query, members, now)
    search.rows_read += len(rows)
    if bits.any():
        _count(search, bits)
        free = bits == 0
        if not free.any():
            free = bits == Reason.EJECTED  # better a node that rests than nobody
        rows = rows[free]
    return rows


def _count(search: _Search, bits: Bits) -> None:
    values, counts = np.unique(bits, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        for reason in Reason(value):
            search.excluded[reason] = search.excluded.get(reason, 0) + count


def _in_time(search: _Search, terms: FieldTerms, limit_s: float) -> FieldTerms | None:
    in_time = terms.potential_s <= limit_s
    late = len(in_time) - int(np.count_nonzero(in_time))
    if not late:
        return terms
    search.excluded[Reason.MAX_LATENCY] = search.excluded.get(Reason.MAX_LATENCY, 0) + late
    return terms.only(in_time) if late < len(in_time) else None


def _decision(search: _Search, candidates: list[_Candidate], fallback: bool, rng: np.random.Generator) -> Decision:
    compared = _compare(search, candidates)
    order = sorted(range(len(candidates)), key=lambda at: -compared[at].fitness)
    best = candidates[order[0]]
    at, drawn, explored = pick(best.terms, rng)
    by_potential = np.argsort(best.terms.potential_s, kind="stable")
    [chosen] = terms_of(search.table, best.terms, [at], best.relevance, [_why_chosen(best, explored)])
    return Decision(
        chosen=chosen,
        runners=_runners(search.table, best, at, drawn, by_potential),
        classes=tuple(compared[place] for place in order),
        passed=tuple(search.passed + _less_relevant(search, candidates))[:PASSED],
        excluded=tuple(
            Excluded(verdict(reason, search.query), rows)
            for reason, rows in sorted(search.excluded.items(), key=lambda item: -item[1])
        ),
        alternatives=_alternatives(search.table, [candidates[place] for place in order], chosen, by_potential),
        by_text=search.ranking.by_text,
        fallback=fallback,
        explored=explored,
        sure=not fallback and search.ranking.lead >= SURE,
        rows_read=search.rows_read,
        rows_known=len(search.table),
        probability=search.ranking.probability(best.klass),
    )


def _compare(search: _Search, candidates: list[_Candidate]) -> list[ClassTerms]:
    """Step 3: the fitness of each class and its terms."""
    wanted, classes = search.query.constraints, search.table.classes
    expected = [nearest_rank(candidate.terms.potential_s, 0.5) for candidate in candidates]
    best = max(candidate.relevance for candidate in candidates)
    quickest = min(expected)
    calm, time_weight = (0.0, TIME_WEIGHT * HURRY) if wanted.latency_critical else (1.0, TIME_WEIGHT)
    compared = []
    for candidate, expected_s in zip(candidates, expected, strict=True):
        klass = candidate.klass
        price = float(classes.price[klass])
        version = classes.capability[klass].descriptor.version
        preferred = bool(wanted.prefer_version) and satisfies(version, wanted.prefer_version)
        terms = {
            "gap": (best - candidate.relevance) / MARGIN,
            "strength": calm * STRENGTH_WEIGHT * float(classes.strength[klass]),
            "price": calm * PRICE_WEIGHT * price / (1.0 + price),
            "time": time_weight * float(np.log2(expected_s / quickest)),
            "version": VERSION_WEIGHT * preferred,
        }
        fitness = terms["strength"] + terms["version"] - terms["gap"] - terms["price"] - terms["time"]
        compared.append(
            ClassTerms(
                capability=capability_id(classes, klass),
                relevance=candidate.relevance,
                fitness=fitness,
                expected_s=expected_s,
                nodes=len(candidate.terms),
                **terms,
            )
        )
    return compared


def pick(terms: FieldTerms, rng: np.random.Generator) -> tuple[int, tuple[int, ...], bool]:
    """Step 4: the position chosen, the positions drawn, and whether this was an exploration.

    Positions are drawn without replacement, each with probability proportional to its k / (S + L): the draw takes the
    smallest of Exp(1) / weight, which is the same (Efraimidis and Spirakis, 2006).
    """
    n = len(terms)
    if n == 1:
        return 0, (0,), False
    if rng.random() < EXPLORE:
        at = int(rng.integers(n))
        return at, (at,), True
    latency_s, service_s, slots = terms.term("latency_s"), terms.term("service_s"), terms.term("slots")
    draws = draws_for(nearest_rank(terms.term("age_s"), 0.5) / nearest_rank(service_s, 0.5))
    drawn = tuple(range(n))
    if n > draws:
        keys = rng.standard_exponential(n) * (service_s + latency_s) / slots
        drawn = tuple(np.argpartition(keys, draws - 1)[:draws].tolist())
    potential_s = terms.potential_s
    return min(drawn, key=lambda at: float(potential_s[at])), drawn, False


def draws_for(age: float) -> int:
    """How many candidates to draw when their reports are so old, in service times."""
    return next(draws for limit, draws in DRAWS if age <= limit)


def _why_chosen(best: _Candidate, explored: bool) -> str:
    if len(best.terms) == 1:
        return "the only node of its class that can serve this"
    return "drawn evenly, to keep learning about every node" if explored else "the lowest potential of those drawn"


def _runners(
    table: RoutingTable, best: _Candidate, chosen: int, drawn: tuple[int, ...], order: NDArray[np.intp]
) -> tuple[Terms, ...]:
    """The others that were drawn, then those of the lowest potential."""
    places = [at for at in drawn if at != chosen]
    places += [at for at in order[: RUNNERS + 1].tolist() if at != chosen and at not in places]
    places = places[:RUNNERS]
    why = ["drawn too, with a higher potential" if at in drawn else "not drawn" for at in places]
    return tuple(terms_of(table, best.terms, places, best.relevance, why))


def _less_relevant(search: _Search, candidates: list[_Candidate]) -> list[Passed]:
    """Ranked classes that were not compared, because others fit better."""
    classes, known = search.table.classes, {passed.capability for passed in search.passed}
    known |= {capability_id(classes, candidate.klass) for candidate in candidates}
    best = max(candidate.relevance for candidate in candidates)
    ranked = zip(search.ranking.classes, search.ranking.scores, strict=True)
    return [
        Passed(name, score, f"fits less: {score:.3f} against {best:.3f}")
        for name, score in ((capability_id(classes, klass), score) for klass, score in ranked)
        if name not in known
    ][:PASSED]


def _alternatives(
    table: RoutingTable, candidates: list[_Candidate], chosen: Terms, by_potential: NDArray[np.intp]
) -> tuple[Route, ...]:
    """Other feasible places, the same class first, each class by potential; never the chosen peer again."""
    found: list[Route] = []
    for number, candidate in enumerate(candidates):
        order = by_potential if number == 0 else np.argsort(candidate.terms.potential_s, kind="stable")
        routes = (Route(*table.place_of(row)) for row in candidate.terms.rows[order[: ALTERNATIVES + 1]].tolist())
        found += [route for route in routes if route.peer != chosen.peer]
        if len(found) >= ALTERNATIVES:
            break
    return tuple(found[:ALTERNATIVES])

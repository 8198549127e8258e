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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atmo.mesh.choice import Choice, choose
from atmo.mesh.constraints import bits_of_one, row_bits
from atmo.mesh.decision import KEPT, Candidate, Decision, Grounds, Passed, Place, Route
from atmo.mesh.field import FieldTerms, GradientField, nearest_rank
from atmo.mesh.fitness import UNREAD, Compared, class_terms
from atmo.mesh.pace import size_of
from atmo.mesh.query import Query
from atmo.mesh.ranking import Round
from atmo.mesh.reasons import Reason
from atmo.mesh.refusal import no_route
from atmo.mesh.table import RoutingTable

# Rows that are looked at, shared by the classes that are compared, and the least for each. Guesses: more than enough to
# draw from.
WINDOW, LEAST_WINDOW = 64, 20
WIDER = 8  # a window without a feasible row is widened by so much
SURE = 0.18  # lead in relevance from which the first class is right in 97%; see docs/routing.md

__all__ = ["Decision", "Query", "decide"]


@dataclass(frozen=True, slots=True)
class _Class:
    """A class with at least one feasible node."""

    klass: int
    compared: Compared
    terms: FieldTerms


def decide(table: RoutingTable, field: GradientField, query: Query, now: float, rng: np.random.Generator) -> Decision:
    """Choose where the request goes. now: monotonic seconds. Raises NoRoute, and UsageError for a malformed version."""
    ranked = field.rankings.of(query)
    ranking = ranked.ranking
    grounds = Grounds(query, ranked.names, ranking)
    for group in ranked.rounds():
        found = _feasible_classes(field, grounds, group, now, rng)
        if not found:
            continue
        best, *others = found
        if others:
            found = _by_fitness(found, grounds)
            best = found[0]
        choice = choose(best.terms, rng)
        grounds.best = [_snapshot(table, best, choice.drawn, grounds)]
        grounds.best += [_snapshot(table, other, (), None) for other in found[1:]]
        return Decision(
            grounds.best[0].terms(grounds.drawn[0], _why_chosen(best, choice)),
            grounds,
            by_text=ranking.by_text,
            fallback=group.fallback,
            explored=choice.explored,
            sure=not group.fallback and ranking.lead >= SURE,
            known=len(table),
            probes=_routes(table, best, choice.probes),
        )
    raise no_route(table, field, query, now, ranking)


def _feasible_classes(
    field: GradientField, grounds: Grounds, group: Round, now: float, rng: np.random.Generator
) -> list[_Class]:
    """The classes of the group that have feasible nodes; the others are noted as passed over."""
    table, query, capability = field.table, grounds.query, field.table.classes.capability
    window = max(LEAST_WINDOW, WINDOW // len(group.classes))
    looked_at = [_feasible(table, grounds, klass, window, now, rng) for klass in group.classes]
    size = size_of(query.prompt_tokens, query.expected_output_tokens)
    able = [rows for rows in looked_at if len(rows)]
    terms_of = iter(field.terms_of_each(able, size, query.local, now) if able else ())
    limit_ms = query.constraints.max_latency_ms
    found = []
    for klass, relevance, rows in zip(group.classes, group.scores, looked_at, strict=True):
        descriptor = capability[klass].descriptor
        terms = next(terms_of) if len(rows) else None
        if terms is not None and limit_ms is not None:
            terms = _in_time(grounds, terms, limit_ms / 1e3)
        if terms is not None:
            expected_s = float(terms.values[-1, 0]) if len(terms) == 1 else nearest_rank(terms.potential_s, 0.5)
            readings = grounds.ranking.readings.get(klass, UNREAD)
            found.append(_Class(klass, Compared(descriptor, relevance, expected_s, len(terms), readings), terms))
        else:
            grounds.passed.append(Passed(descriptor.id, relevance, "none of its nodes can serve this now"))
    return found


def _feasible(
    table: RoutingTable, grounds: Grounds, klass: int, window: int, now: float, rng: np.random.Generator
) -> NDArray[np.int32]:
    """(n,) feasible rows of the class: of a random window of its members, of a wider one where that has none."""
    members = table.classes.members[klass].view()
    if len(members) == 1 and not grounds.query.exclude and not grounds.query.constraints.of_nodes:
        return _only(table, grounds, members, now)
    start = int(rng.random() * len(members)) if len(members) > window else 0
    while True:
        rows = members
        if len(members) > window:
            rows = members[start : start + window]
            if len(rows) < window:
                rows = np.concatenate((rows, members[: window - len(rows)]))
        bits = row_bits(table, grounds.query, rows, now)
        barred = np.count_nonzero(bits)
        if barred < len(rows) or len(rows) == len(members):
            break
        window *= WIDER
    grounds.rows_read += len(rows)
    if barred:
        grounds.barred.append(bits)
        free = bits == (0 if barred < len(rows) else Reason.EJECTED)  # better a node that rests than nobody
        rows = rows[free]
    return rows


def _only(table: RoutingTable, grounds: Grounds, members: NDArray[np.int32], now: float) -> NDArray[np.int32]:
    """The same for the only member of its class: most classes of a small mesh have one."""
    grounds.rows_read += 1
    broken = bits_of_one(table, int(members[0]), now)
    if broken:
        grounds.barred.append(np.array([broken], dtype=np.int64))
    return members if broken in (0, Reason.EJECTED) else members[:0]


def _in_time(grounds: Grounds, terms: FieldTerms, limit_s: float) -> FieldTerms | None:
    in_time = terms.potential_s <= limit_s
    late = len(in_time) - int(np.count_nonzero(in_time))
    grounds.late += late
    if not late:
        return terms
    return terms.only(in_time) if late < len(in_time) else None


def _by_fitness(found: list[_Class], grounds: Grounds) -> list[_Class]:
    """Step 3: the fittest first, with the terms of each in the grounds."""
    judged = class_terms([each.compared for each in found], grounds.query)
    order = sorted(range(len(found)), key=lambda at: -judged[at].fitness)
    grounds.fitness = [judged[at] for at in order]
    return [found[at] for at in order]


def _snapshot(table: RoutingTable, found: _Class, drawn: tuple[int, ...], grounds: Grounds | None) -> Candidate:
    """What an account needs of the class: its best places and those that were drawn. Sets `grounds.drawn`."""
    terms = found.terms
    ids, infos = table.peers.id, table.peers.info
    if len(terms) == 1:
        if grounds is not None:
            grounds.drawn = drawn
        peer = int(table.rows.peer[terms.rows[0]])
        return Candidate(found.compared, (Place(ids[peer], infos.get(peer)),), terms.values)
    places: list[int] = terms.potential_s.argsort(kind="stable")[:KEPT].tolist()
    places += [at for at in drawn if at not in places]
    if grounds is not None:
        grounds.drawn = tuple([places.index(at) for at in drawn])
    peers = table.rows.peer.take(terms.rows.take(places)).tolist()
    told = tuple([Place(ids[peer], infos.get(peer)) for peer in peers])
    return Candidate(found.compared, told, terms.values.take(places, axis=1))


def _routes(table: RoutingTable, found: _Class, places: tuple[int, ...]) -> tuple[Route, ...]:
    """Places of the class, by their positions among its candidates."""
    if not places:
        return ()
    ids, capability = table.peers.id, found.compared.descriptor.id
    peers = table.rows.peer.take(found.terms.rows.take(places)).tolist()
    return tuple([Route(ids[peer], capability) for peer in peers])


def _why_chosen(best: _Class, choice: Choice) -> str:
    if len(best.terms) == 1:
        return "the only node of its class that can serve this"
    if choice.explored:
        return "drawn evenly, to keep learning about every node"
    return "the lowest potential of those with fresh news" if choice.pooled else "the lowest potential of those drawn"

"""Why nobody can serve a request, in one line: which condition excluded whom, and the least to change."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from atmo.errors import NoRoute
from atmo.mesh.constraints import Bits, class_bits, row_bits
from atmo.mesh.field import GradientField
from atmo.mesh.pace import size_of
from atmo.mesh.query import Query
from atmo.mesh.ranking import Ranking, names_what_it_wants, rank
from atmo.mesh.reasons import WORDS, Reason, rule
from atmo.mesh.table import RoutingTable

NAMED = 3  # nodes named for one reason


def full_bits(table: RoutingTable, field: GradientField, query: Query, rows: NDArray[np.int32], now: float) -> Bits:
    """(n_rows,) every condition that each row breaks. O(rows): for explanations, not for decisions."""
    bits = class_bits(table, query)[table.rows.klass[rows]] | row_bits(table, query, rows, now)
    limit_ms = query.constraints.max_latency_ms
    if limit_ms is None:
        return bits
    size = size_of(query.prompt_tokens, query.expected_output_tokens)
    free = np.flatnonzero(bits == 0)
    for klass in np.unique(table.rows.klass[rows[free]]).tolist():
        members = free[table.rows.klass[rows[free]] == klass]
        late = field.terms(rows[members], size, query.local, now).potential_s * 1e3 > limit_ms
        bits[members[late]] |= Reason.MAX_LATENCY
    return bits


def no_route(table: RoutingTable, field: GradientField, query: Query, now: float, ranking: Ranking) -> NoRoute:
    """The error to raise when no candidate is left."""
    known = table.rows.live()
    if not len(known):
        return NoRoute(
            "No node offers anything yet, this one included.", hint="Start one with a model: `atmo node start`."
        )
    rows, which = _fitting(table, query, ranking, known)
    bits = full_bits(table, field, query, rows, now)
    if not bits.all():
        return _nothing_fits(table, ranking)
    return NoRoute(
        f"No node can serve this. {_excluded(table, query, rows, bits, which)}",
        hint=_least(table, field, query, now, rows, bits),
    )


def _excluded(table: RoutingTable, query: Query, rows: NDArray[np.int32], bits: Bits, which: str) -> str:
    """Which condition excludes how many, and whose they are."""
    counts = {reason: int(np.count_nonzero(bits & reason)) for reason in Reason}
    broken = sorted((reason for reason in counts if counts[reason]), key=lambda reason: -counts[reason])
    if len(rows) == 1:
        only = which.replace("offers", "offer").replace("fit", "fits")
        rules = ", ".join(rule(reason, query) for reason in broken)
        return f"The only {only} ({_names(table, rows)}) is excluded by {rules}."
    parts = (
        f"{rule(reason, query)} excludes {counts[reason]} ({_names(table, rows[(bits & reason) != 0])})"
        for reason in broken
    )
    return f"Of {len(rows)} {which}, {', '.join(parts)}."


def _fitting(
    table: RoutingTable, query: Query, ranking: Ranking, known: NDArray[np.int32]
) -> tuple[NDArray[np.int32], str]:
    """The offers to speak of, and their name: those that fit the text if some do, however they break conditions."""
    if ranking.by_text and not names_what_it_wants(query.constraints):
        free = rank(table, Query(query.local, query.vector, expected_output_tokens=0, tokens=query.tokens))
        fit = [klass for klass, score in zip(free.classes, free.scores, strict=True) if free.fits(score)]
        if fit:
            return known[np.isin(table.rows.klass[known], fit)], "offers that fit the text"
    return known, "offers"


def _least(
    table: RoutingTable, field: GradientField, query: Query, now: float, rows: NDArray[np.int32], bits: Bits
) -> str:
    """The offer with the fewest broken conditions, and what would have to change for it, by how much."""
    broken = np.bitwise_count(bits)
    values, counts = np.unique(bits[broken == broken.min()], return_counts=True)
    least = Reason(int(values[np.argmax(counts)]))
    nearest = rows[bits == least]
    changes = [WORDS[reason].relax + _enough(table, query, nearest, reason) for reason in least]
    if least == Reason.MAX_LATENCY:
        size = size_of(query.prompt_tokens, query.expected_output_tokens)
        quickest_ms = float(field.terms(nearest, size, query.local, now).potential_s.min()) * 1e3
        changes = [f"{WORDS[least].relax} to {math.ceil(quickest_ms)}"]
    return f"Least to change: {' and '.join(changes)}; then {_names(table, nearest)} could serve it."


def _enough(table: RoutingTable, query: Query, rows: NDArray[np.int32], reason: Reason) -> str:
    """The value at which the first of these rows would do, for conditions that are numbers."""
    columns, classes = table.rows, table.classes
    klass = columns.klass[rows]
    if reason == Reason.MIN_CONTEXT:
        return f" to {int(classes.context[klass].max())}"
    if reason == Reason.COST:
        return f" to {float(classes.price[klass].min()) * query.expected_output_tokens / 1e6:.6g}"
    if reason == Reason.MIN_TPS:
        return f" to {float(columns.decode_tps[rows].max()):.6g}"
    if reason == Reason.MAX_LOAD:
        return f" to {float(((columns.in_flight[rows] + columns.own[rows]) / columns.slots[rows]).min()):.6g}"
    if reason == Reason.CONTEXT:
        return f" to {int(classes.context[klass].max())} tokens in all"
    return ""


def _nothing_fits(table: RoutingTable, ranking: Ranking) -> NoRoute:
    best = ""
    if ranking.classes:
        best = (
            f"; the nearest is {table.classes.capability[ranking.classes[0]].descriptor.id} at {ranking.scores[0]:.2f}"
        )
    return NoRoute(
        f"Nothing that is offered fits this text{best}.",
        hint="Name a model with --model, or add a node with a general chat.",
    )


def _names(table: RoutingTable, rows: NDArray[np.int32]) -> str:
    _, first = np.unique(table.rows.peer[rows], return_index=True)
    names = sorted(table.node_name(row) for row in rows[first[:NAMED]].tolist())
    more = f" and {len(first) - NAMED} more" if len(first) > NAMED else ""
    return ", ".join(names) + more

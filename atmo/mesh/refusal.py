"""Why nobody can serve a request, in one line: which condition excluded whom, and the least to change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atmo.errors import NoRoute
from atmo.mesh.constraints import Bits, class_bits, row_bits
from atmo.mesh.decision import capability_id
from atmo.mesh.field import GradientField, work_units
from atmo.mesh.query import Query
from atmo.mesh.ranking import Ranking
from atmo.mesh.reasons import WORDS, Reason, rule
from atmo.mesh.table import RoutingTable

NAMED = 3  # nodes named for one reason


def full_bits(table: RoutingTable, field: GradientField, query: Query, rows: NDArray[np.int32], now: float) -> Bits:
    """(n_rows,) every condition that each row breaks. O(rows): for explanations, not for decisions."""
    bits = class_bits(table, query)[table.rows.klass[rows]] | row_bits(table, query, rows, now)
    limit_ms = query.constraints.max_latency_ms
    if limit_ms is not None and len(rows):
        units = work_units(query.prompt_tokens, query.expected_output_tokens)
        late = field.terms(rows, units, query.local, now).potential_s * 1e3 > limit_ms
        bits[late] |= Reason.MAX_LATENCY
    return bits


def no_route(table: RoutingTable, field: GradientField, query: Query, now: float, ranking: Ranking) -> NoRoute:
    """The error to raise when no candidate is left."""
    rows = table.rows.live()
    if not len(rows):
        return NoRoute(
            "No node offers anything yet, this one included.", hint="Start one with a model: `atmo node start`."
        )
    bits = full_bits(table, field, query, rows, now)
    if not bits.all():
        return _nothing_fits(table, ranking)
    counts = {reason: int(np.count_nonzero(bits & reason)) for reason in Reason}
    parts = [
        f"{rule(reason, query)} excludes {counts[reason]} ({_names(table, rows[(bits & reason) != 0])})"
        for reason in sorted(counts, key=lambda reason: -counts[reason])
        if counts[reason]
    ]
    return NoRoute(
        f"No node can serve this. Of {len(rows)} offers, {', '.join(parts)}.", hint=_least(table, rows, bits)
    )


def _least(table: RoutingTable, rows: NDArray[np.int32], bits: Bits) -> str:
    """The offer with the fewest broken conditions, and what would have to change for it."""
    broken = np.bitwise_count(bits)
    values, counts = np.unique(bits[broken == broken.min()], return_counts=True)
    least = Reason(int(values[np.argmax(counts)]))
    changes = " and ".join(WORDS[reason].relax for reason in least)
    return f"Least to change: {changes}; then {_names(table, rows[bits == least])} could serve it."


def _nothing_fits(table: RoutingTable, ranking: Ranking) -> NoRoute:
    best = ""
    if ranking.classes:
        best = f"; the nearest is {capability_id(table.classes, ranking.classes[0])} at {ranking.scores[0]:.2f}"
    return NoRoute(
        f"Nothing that is offered fits this text{best}.",
        hint="Name a model with --model, or add a node with a general chat.",
    )


def _names(table: RoutingTable, rows: NDArray[np.int32]) -> str:
    names = sorted({table.node_name(row) for row in rows[:1000].tolist()})
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more

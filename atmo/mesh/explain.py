"""A decision in words and as plain data, so that a reader can redo the sum by hand.

`as_dict` is what JSON shows, `lines` what a terminal shows. `survey` looks at every row that is known, not only at
those a decision had to read, and says what speaks against each. No colour and no layout here: that is the view's.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from atmo.ids import PeerId, format_peer
from atmo.mesh.capability import CHAT
from atmo.mesh.decision import Decision, Excluded, Terms
from atmo.mesh.field import FieldSettings, GradientField
from atmo.mesh.query import Query
from atmo.mesh.reasons import Reason, verdict
from atmo.mesh.refusal import full_bits
from atmo.mesh.table import RoutingTable
from atmo.mesh.views import SECOND_WEIGHT

SURVEYED = 200  # offers that a survey tells one by one


class Offer(msgspec.Struct, frozen=True):
    """One offer of one node, and what speaks against it: nothing where `reasons` is empty."""

    node: str
    capability: str
    reasons: tuple[str, ...]


class Survey(msgspec.Struct, frozen=True):
    """Every offer that is known. offers: the first SURVEYED of them, those that could serve first."""

    offers: tuple[Offer, ...]
    excluded: tuple[Excluded, ...]
    known: int
    feasible: int


def survey(table: RoutingTable, field: GradientField, query: Query, now: float) -> Survey:
    """Ask every condition of every row. O(rows): for people, not for requests."""
    rows = table.rows.live()
    bits = full_bits(table, field, query, rows, now)
    order = np.argsort(np.bitwise_count(bits), kind="stable")[:SURVEYED]
    offers = tuple(
        Offer(
            table.node_name(int(rows[at])),
            table.capability_id[int(rows[at])],
            tuple(verdict(reason, query) for reason in Reason(int(bits[at]))),
        )
        for at in order.tolist()
    )
    counts = [(int(np.count_nonzero(bits & reason)), reason) for reason in Reason]
    excluded = tuple(Excluded(verdict(reason, query), count) for count, reason in sorted(counts, reverse=True) if count)
    return Survey(offers, excluded, len(rows), int(np.count_nonzero(bits == 0)))


def as_dict(decision: Decision) -> dict[str, Any]:
    """JSON-ready: peer ids in their written form, numbers that JSON lacks as None."""
    plain = msgspec.to_builtins(decision.account, builtin_types=(bytes,))
    cleaned: dict[str, Any] = _clean(plain)
    return cleaned


def lines(decision: Decision) -> list[str]:
    """The decision as text, one statement a line."""
    chosen = decision.chosen
    told = [f"{chosen.node} serves this with {chosen.capability}: {chosen.why}."]
    if decision.fallback:
        told.append(f"No capability fits the text; {_stand_in(chosen.capability)} answers instead.")
    elif decision.by_text:
        lead = "clearly" if decision.sure else "narrowly"
        told.append(f"Relevance {chosen.relevance:.3f}: {lead} the best fit, right in {decision.probability:.0%}.")
        told.append(f"Below a relevance of {decision.unfit:.3f} nothing would have fitted.")
    told += [
        f"{terms.capability}: relevance {terms.relevance:.3f} = {1 - SECOND_WEIGHT:g} x {terms.first:.3f} first reading"
        f" + {SECOND_WEIGHT:g} x {terms.second:.3f} second reading"
        for terms in decision.classes
        if not math.isnan(terms.second)
    ]
    told.append(arithmetic(chosen))
    told += [f"Not {runner.node} ({runner.why}): {arithmetic(runner)}" for runner in decision.runners]
    if len(decision.classes) > 1:
        told += [
            f"{terms.capability}: fitness {terms.fitness:+.3f}"
            f" = {terms.strength:.3f} strength + {terms.version:.3f} version"
            f" - {terms.gap:.3f} relevance gap - {terms.price:.3f} price - {terms.time:.3f} time"
            for terms in decision.classes
        ]
    told += [f"Not {passed.capability} ({passed.relevance:.3f}): {passed.why}." for passed in decision.passed]
    told += [f"Out of the question: {excluded.rows} that {excluded.reason}." for excluded in decision.excluded]
    told.append(f"{decision.rows_read} of {decision.rows_known} offers read in {decision.elapsed_s * 1e3:.2f} ms.")
    return told


def _stand_in(capability: str) -> str:
    return "a general chat" if f":{CHAT}:" in capability else "what can read all of the request"


def arithmetic(terms: Terms) -> str:
    """The potential as a sum that a reader can redo."""
    queue = max(0.0, terms.in_flight + terms.own + 1 - terms.slots)
    text = (
        f"{_ms(terms.latency_s)} path + {_ms(terms.service_s)} service x (1 + {queue:g}/{terms.slots:g})"
        f" = {_ms(terms.phi_s)}"
    )
    if terms.weight < 0.995:
        age = f"{terms.age_s:.1f} s old" if math.isfinite(terms.age_s) else "never told"
        text += f"; its load is {age}, so {terms.weight:.3f} of that + {1 - terms.weight:.3f} of {_ms(terms.p75_s)}"
    if terms.failures > 0.005:
        text += f"; x (1 + {FieldSettings().failure_weight:g} x {terms.failures:.3f} recent failures)"
    return f"{text}; potential {_ms(terms.potential_s)}."


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.3f} ms"


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, bytes):
        return format_peer(PeerId(value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

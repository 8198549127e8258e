"""Which node of a class: a draw among the likely ones, the lowest potential of those drawn.

Nodes that share old numbers must not all run to the same place, so the minimum of the table is never taken as such. A
few candidates are drawn, each with a probability in proportion to k / (S + L), the requests a second it gets done; the
one of the lowest potential is taken: two of them when reports are old (the power of two choices; Mitzenmacher, 2001),
up to five when they are fresh. EXPLORE of the decisions draw one evenly instead, to keep learning.

Reports that are older than a request takes say little, so fresh ones are asked for (Prequal; Wydrowski et al., NSDI
2024): each decision names PROBES places whose load should be asked for, beside the request and not before it. The
answers make a pool of candidates with fresh news, of its own for each router; while it holds POOL_LEAST of them, the
choice is made among these, up to POOL_MOST of the freshest. Own requests sent there since are counted in the potential,
so a place grows less attractive with each use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atmo.mesh.field import FieldTerms, Floats, nearest_rank

EXPLORE = 0.02  # share of decisions that only learn; design choice, near Prequal's probing of stale replicas
# Draws by the age of the reports in service times. Measured with `bench balance`: more draws are better while reports
# are fresh and herd when they are old.
DRAWS = ((0.5, 5), (float("inf"), 2))
STALE = 0.5  # age in service times above which reports are old
PROBES = 5  # Prequal, figure 8: three probes a request are enough
POOL_LEAST = 2
POOL_MOST = 16  # Prequal, section 4.1
POOL_AGE = 0.25  # service times for which news are fresh enough to choose by


class Choice(NamedTuple):
    """drawn: positions of the candidates it was between, the chosen one first; probes: positions to ask for their load;
    explored: drawn evenly; pooled: among those with fresh news."""

    drawn: tuple[int, ...]
    probes: tuple[int, ...] = ()
    explored: bool = False
    pooled: bool = False


def choose(terms: FieldTerms, rng: np.random.Generator) -> Choice:
    """terms: of at least one candidate."""
    n = len(terms)
    if n == 1:
        return Choice((0,))
    service_s, age_s = terms.term("service_s"), terms.term("age_s")
    usual_s = nearest_rank(service_s, 0.5)
    age = nearest_rank(age_s, 0.5) / usual_s
    stale = age > STALE
    explore = rng.random() < EXPLORE
    if explore and not stale:
        return Choice((int(rng.random() * n),), explored=True)
    draws = draws_for(age)
    if n <= draws:
        order = list(range(n))
    else:
        # The smallest of Exp(1) / weight are a draw by weight without replacement (Efraimidis and Spirakis, 2006).
        keys = rng.standard_exponential(n) * (service_s + terms.term("latency_s")) / terms.term("slots")
        order = keys.argsort().tolist() if stale else keys.argpartition(draws - 1)[:draws].tolist()
    if not stale:
        return Choice(_best_first(order, terms.potential_s))
    old = (age_s > POOL_AGE * usual_s).tolist()
    if explore:
        order.insert(0, int(rng.random() * n))  # looked at, and taken if it is no worse
    probes = tuple(dict.fromkeys(at for at in order[:PROBES] if old[at]))
    pool = np.flatnonzero(age_s <= POOL_AGE * usual_s)
    if len(pool) < POOL_LEAST:
        return Choice(_best_first(order[:draws], terms.potential_s), probes)
    if len(pool) > POOL_MOST:
        pool = pool[np.argpartition(age_s[pool], POOL_MOST - 1)[:POOL_MOST]]
    return Choice(_best_first(pool.tolist(), terms.potential_s), probes, pooled=True)


def draws_for(age: float) -> int:
    """How many candidates to draw when their reports are so old, in service times."""
    return next(draws for limit, draws in DRAWS if age <= limit)


def _best_first(drawn: list[int], potential_s: Floats) -> tuple[int, ...]:
    best = min(drawn, key=potential_s.item)
    return (best, *(at for at in drawn if at != best))

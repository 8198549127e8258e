"""Which of several capabilities that fit a text about equally well shall answer it.

    fitness = strength + version - gap - price - time

each term weighted already. Strength and price are what the capability says of itself; time is how long its nodes would
take now, on a logarithmic scale, against the quickest of those compared; the gap is how far its relevance lies behind
the best, in margins; version is a wish of the caller's. Where speed is critical, strength and price count nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from atmo.mesh.capability import Descriptor
from atmo.mesh.classes import MAX_PRICE, bounded
from atmo.mesh.query import Query
from atmo.mesh.ranking import MARGIN
from atmo.mesh.versions import satisfies

STRENGTH_WEIGHT = 0.5  # the weights of fitness are guesses; a full margin of relevance counts 1
PRICE_WEIGHT = 0.5
TIME_WEIGHT = 0.25  # for each doubling of the expected time
HURRY = 4.0  # factor of TIME_WEIGHT, and strength and price count nothing, when latency_critical
VERSION_WEIGHT = 1.0


class ClassTerms(msgspec.Struct, frozen=True):
    """One class that was compared by fitness = - gap + strength - price - time + version, each already weighted.

    relevance, first, second: as in views.py, the two readings nan where there were none; gap: how far it lies behind
    the best, in margins; expected_s: the median potential of its candidates; nodes: candidates that were looked at.
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
    first: float = math.nan
    second: float = math.nan


UNREAD = (math.nan, math.nan)


class Compared(NamedTuple):
    """A class as it enters the comparison. expected_s: median potential of the `nodes` candidates looked at."""

    descriptor: Descriptor
    relevance: float
    expected_s: float
    nodes: int
    readings: tuple[float, float] = UNREAD


def class_terms(compared: Sequence[Compared], query: Query) -> list[ClassTerms]:
    """The fitness of each, in the same order."""
    wanted = query.constraints
    calm, time_weight = (0.0, TIME_WEIGHT * HURRY) if wanted.latency_critical else (1.0, TIME_WEIGHT)
    best, quickest_s = max(each.relevance for each in compared), min(each.expected_s for each in compared)
    judged = []
    for told, relevance, expected_s, nodes, readings in compared:
        asked = bounded(told.price, MAX_PRICE)
        gap = (best - relevance) / MARGIN
        strength = calm * STRENGTH_WEIGHT * bounded(told.strength, 1.0)
        price = calm * PRICE_WEIGHT * asked / (1.0 + asked)
        time = time_weight * math.log2(expected_s / quickest_s)
        wished = bool(wanted.prefer_version) and satisfies(told.version, wanted.prefer_version)
        version = VERSION_WEIGHT * wished
        fitness = strength + version - gap - price - time
        terms = (gap, strength, price, time, version, fitness, expected_s)
        judged.append(ClassTerms(told.id, relevance, *terms, nodes, *readings))
    return judged

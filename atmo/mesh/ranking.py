"""Which capability classes may serve a request, and how well each fits its text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atmo.mesh.capability import CHAT, TEXT
from atmo.mesh.classes import TOKEN_SCALE
from atmo.mesh.constraints import Constraints, class_bits
from atmo.mesh.query import Query
from atmo.mesh.table import RoutingTable
from atmo.mesh.views import first_reading, relevance, second_reading

# Classes read in full, twice. A guess: of 40 classes the right one is among the best three in 93%.
SHORTLIST = 8
# Classes so near to the best count as equally fit. Measured, docs/routing.md: of the classes within it 49% are right,
# of the best ones 57%; within 0.05 it is 37%.
MARGIN = 0.02
# Of classes so near to each other so many are compared; each costs an eighth of a millisecond. A guess: a text that
# fits four equally well is in good hands with any three of them.
COMPARED = 3
# Below it nothing fits: that of one capability alone, how much it grows each time there are e times as many, because
# the best of many wrong ones lies higher, and up to how many that was measured. Fitted on held-out capabilities,
# docs/routing.md.
UNFIT_OF_ONE, UNFIT_GROWTH, UNFIT_MOST = 0.30, 0.03, 75
# Of the softmax that turns relevance into a probability. Fitted with these.
TEMPERATURE = 0.04


@dataclass(frozen=True, slots=True)
class Ranking:
    """Classes that break no condition, best first, with their relevance (1.0 where the text does not matter).

    readings: of what it is made, for each class the first and the second reading (views.py); empty where the first one
    counts alone. among: how many classes broke no condition, these included.
    """

    classes: list[int]
    scores: list[float]
    by_text: bool
    readings: dict[int, tuple[float, float]] = field(default_factory=dict)
    among: int = 1

    @property
    def unfit(self) -> float:
        """The relevance below which a class does not fit the text."""
        return unfit(self.among)

    def fits(self, score: float) -> bool:
        """Whether a class of this relevance serves the text at all."""
        return score >= self.unfit

    @property
    def lead(self) -> float:
        """How far the best class is ahead of the second; inf where there is no second."""
        return self.scores[0] - self.scores[1] if len(self.scores) > 1 else float("inf")

    @property
    def probabilities(self) -> tuple[list[float], float]:
        """Of the text's classes, in this order, and of "nothing fits"."""
        return probabilities(self.scores, self.unfit)

    def probability(self, klass: int) -> float:
        """That this class is the right one for the text, see `probabilities`; 0 for one that was not read in full."""
        if not self.by_text:
            return 1.0
        shares, _ = self.probabilities
        return dict(zip(self.classes, shares, strict=True)).get(klass, 0.0)


def unfit(among: int) -> float:
    """The relevance below which nothing fits, where so many classes are to choose from."""
    return UNFIT_OF_ONE + UNFIT_GROWTH * math.log(min(max(among, 1), UNFIT_MOST))


def probabilities(scores: Sequence[float], nothing: float) -> tuple[list[float], float]:
    """How likely each of the ranked classes is the right one, and how likely none is; together they make 1.

    A softmax over the scores, with "nothing fits" as one more of the score `nothing`: so it is the likeliest just where
    the best class does not fit.
    """
    weights = np.exp((np.array([*scores, nothing]) - max(*scores, nothing)) / TEMPERATURE)
    *shares, none = (weights / weights.sum()).tolist()
    return shares, none


@dataclass(frozen=True, slots=True)
class Round:
    """Classes to be compared with each other. fallback: they do not fit the text, but nothing does."""

    classes: list[int]
    scores: list[float]
    fallback: bool = False


def rank(table: RoutingTable, query: Query) -> Ranking:
    """The best SHORTLIST classes by the text, or all that are allowed where the text does not matter."""
    allowed = np.flatnonzero(class_bits(table, query) == 0)
    if not len(allowed):
        return Ranking([], [], query.vector is not None)
    if query.vector is None:
        return Ranking(allowed.tolist(), [1.0] * len(allowed), by_text=False)
    classes, linear = _shortlist(table, query.vector, allowed)
    views = [table.classes.views[klass] for klass in classes.tolist()]
    sizes = np.fromiter((len(view) for view in views), dtype=np.intp, count=len(views))
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    scores = first = first_reading(np.concatenate(views), starts, linear, query.vector)
    readings: dict[int, tuple[float, float]] = {}
    if query.tokens is not None and table.classes.reader is not None:
        second = _second_reading(table, classes, query.tokens)
        scores = relevance(first, second)
        readings = dict(zip(classes.tolist(), zip(first.tolist(), second.tolist(), strict=True), strict=True))
    order = np.argsort(-scores, kind="stable")
    return Ranking(classes[order].tolist(), scores[order].tolist(), by_text=True, readings=readings, among=len(allowed))


def _second_reading(table: RoutingTable, classes: NDArray[np.intp], asked: NDArray[np.float32]) -> NDArray[np.float32]:
    tokens = [table.classes.tokens(klass) for klass in classes.tolist()]
    starts = np.cumsum([0, *map(len, tokens[:-1])])
    offered = np.concatenate(tokens).astype(np.float32)
    return second_reading(offered, starts, asked) / np.float32(TOKEN_SCALE)  # linear in what is offered


def rounds(table: RoutingTable, query: Query, ranking: Ranking) -> Iterator[Round]:
    """Groups of classes in the order in which they should be asked: each spans MARGIN of relevance from its best, and
    holds at most COMPARED classes where the text decides.

    Classes that do not fit are not asked, unless the caller named a model or a type other than chat; after them come
    the general chats, then any chat, as a fallback, unless the caller is strict. Of a request that holds more than
    text, such as an image, the text is the smaller part: whatever takes the image comes last, rather than nobody.
    """
    wanted = query.constraints
    pinned = names_what_it_wants(wanted) or not ranking.by_text
    at = 0
    while at < len(ranking.classes) and (pinned or ranking.fits(ranking.scores[at])):
        end = _end(ranking, at)
        yield Round(ranking.classes[at:end], ranking.scores[at:end])
        at = end
    if pinned or wanted.strict or query.vector is None:
        return
    chats = table.classes.type_id[: table.classes.used] == table.classes.types.find(CHAT)
    chats &= class_bits(table, query) == 0
    general = chats & table.classes.general[: table.classes.used]
    for group in (np.flatnonzero(general), np.flatnonzero(chats & ~general)):
        if len(group):
            scores = table.classes.coarse[group] @ query.vector
            order = np.argsort(-scores, kind="stable")[:SHORTLIST]
            yield Round(group[order].tolist(), scores[order].tolist(), fallback=True)
    while wanted.modality not in ("", TEXT) and at < len(ranking.classes):
        end = _end(ranking, at)
        yield Round(ranking.classes[at:end], ranking.scores[at:end], fallback=True)
        at = end


def _end(ranking: Ranking, at: int) -> int:
    """Where the round ends that begins with this class."""
    most = COMPARED if ranking.by_text else len(ranking.classes)
    end = at + 1
    while end < min(len(ranking.classes), at + most) and ranking.scores[end] >= ranking.scores[at] - MARGIN:
        end += 1
    return end


def names_what_it_wants(wanted: Constraints) -> bool:
    """Did the caller name a model, or a type in which the text has no say?"""
    return bool(wanted.model) or wanted.type not in ("", CHAT)


def _shortlist(
    table: RoutingTable, vector: NDArray[np.float32], allowed: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The allowed classes that the linear part of relevance puts first, with that part."""
    used = table.classes.used
    if len(allowed) * 2 < used:
        linear = table.classes.coarse[allowed] @ vector
    else:
        linear = (table.classes.coarse[:used] @ vector)[allowed]
    if len(allowed) <= SHORTLIST:
        return allowed, linear
    top = np.argpartition(-linear, SHORTLIST)[:SHORTLIST]
    return allowed[top], linear[top]

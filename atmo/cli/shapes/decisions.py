"""Where a request goes, and why."""

from __future__ import annotations

from atmo.cli.shapes.shape import Shape


class Term(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An offer and what its potential (expected delay) is made of; see docs/routing.md."""

    peer: str
    capability: str
    node: str
    relevance: float
    latency_s: float | None
    service_s: float | None
    in_flight: float
    own: float
    slots: float
    age_s: float | None
    weight: float
    phi_s: float | None
    p75_s: float | None
    failures: float
    potential_s: float | None
    why: str


class Class(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability among the best that fit, and its fitness."""

    capability: str
    relevance: float
    gap: float
    strength: float
    price: float
    time: float
    version: float
    fitness: float
    expected_s: float | None
    nodes: int
    first: float | None
    second: float | None


class Passed(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability that fits less, and why."""

    capability: str
    relevance: float
    why: str


class Excluded(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many offers a condition excluded."""

    reason: str
    rows: int


class Decision(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a request goes, with every term. request_id: empty when nothing was asked; by_text: the text's meaning
    decided; fallback: nothing fits, a general chat answers, or what can read the image; explored: chosen to learn
    how it is; alternatives: peer and capability to turn to if this one fails; unfit: the relevance below which nothing
    would have fitted, 0 where the text had no say; lines: all of it in words."""

    request_id: str
    asked_at: str
    chosen: Term
    runners: list[Term]
    classes: list[Class]
    passed: list[Passed]
    excluded: list[Excluded]
    alternatives: list[tuple[str, str]]
    by_text: bool
    fallback: bool
    explored: bool
    sure: bool
    rows_read: int
    rows_known: int
    elapsed_s: float
    probability: float
    unfit: float
    lines: list[str]


class SurveyedOffer(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """reasons: why it is out of the question, empty if it is not."""

    node: str
    capability: str
    reasons: list[str]


class Survey(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every offer that is known, those that could serve first."""

    offers: list[SurveyedOffer]
    excluded: list[Excluded]
    known: int
    feasible: int


class Route(Decision, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The decision, and why each other offer was not chosen."""

    survey: Survey

"""What was measured."""

from __future__ import annotations

from atmo.cli.shapes.shape import Shape


class Spread(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of all requests."""

    median: float
    least: float
    most: float


class Measured(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """first_ms: until the first word; added_ms: of that, what was not the engine's; tokens_per_s: from then on."""

    node: str
    capability: str
    first_ms: Spread
    added_ms: Spread
    total_ms: Spread
    tokens_per_s: Spread | None
    tokens: int


class Hop(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much later the first word comes from another node, request by request."""

    to: str
    first_ms: Spread


class Bench(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """nodes: this one, and the other one where there is one."""

    requests: int
    max_tokens: int
    nodes: list[Measured]
    hop: Hop | None


class Share(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the intents that nothing serves. Null where there is none."""

    n: int
    recall: float | None
    precision: float | None


class Score(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well a capability fits a text."""

    id: str
    relevance: float
    probability: float


class Miss(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text that found another capability than expected. chosen: empty for nothing."""

    text: str
    expect: list[str]
    hard: bool
    chosen: str
    probability: float
    best: list[Score]


class Relevance(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ms: what one decision took, p50, p95 and p99."""

    encoder: str
    n: int
    accuracy: float
    hard_n: int
    accuracy_hard: float | None
    nothing_fits: Share
    calibration_error: float
    ms: dict[str, float]
    misses: list[Miss]

"""What was answered, by whom, how fast."""

from __future__ import annotations

from typing import Any

from atmo.cli.shapes.decisions import Decision
from atmo.cli.shapes.shape import Shape


class Done(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answered and how long it took. finish: `stop`, `length` or `tool_calls`; local: this node; first_s, total_s:
    until the first and the last word, as the asked node saw it; queue_s, prefill_s, decode_s: as the engine did."""

    request_id: str
    node: str
    peer: str
    local: bool
    capability: str
    finish: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    first_s: float
    total_s: float
    decision_s: float


class Retry(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another node was asked. resumed: an answer that had begun goes on there; other_model: with another model."""

    because: str
    resumed: bool
    other_model: bool


class Answer(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """answer: text; of an embedding model a list of numbers; of a classifier pairs of label and share. plan, transfer,
    loading, receipt: only with `--private`: the model that came for it, and the signed receipt."""

    answer: str | list[float | list[Any]]
    retries: list[Retry]
    route: Decision
    done: Done
    plan: dict[str, Any] | None = None
    transfer: dict[str, Any] | None = None
    loading: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = None


class Said(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One object for each question that was piped in."""

    question: str
    answer: str
    done: Done

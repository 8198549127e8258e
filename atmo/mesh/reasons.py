"""Why an offer cannot serve a request: one bit for each condition, and the words for it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from atmo.mesh.query import Query


class Reason(enum.IntFlag):
    """Why an offer is out of the question; `WORDS` has the words for each."""

    TYPE = 1 << 0
    MODEL = 1 << 1
    MODALITY = 1 << 2
    CONTEXT = 1 << 3
    MIN_CONTEXT = 1 << 4
    COST = 1 << 5
    VERSION = 1 << 6
    LABELS = 1 << 7
    RESIDENCY = 1 << 8
    LOCAL_ONLY = 1 << 9
    ALLOW = 1 << 10
    DENY = 1 << 11
    TRIED = 1 << 12
    LOST = 1 << 13
    READY = 1 << 14
    EJECTED = 1 << 15
    MIN_TPS = 1 << 16
    MAX_LOAD = 1 << 17
    MAX_LATENCY = 1 << 18


class Words(NamedTuple):
    """What to say of a broken condition; `{c}` are the constraints.

    verdict goes on after "a node that"; rule names the condition itself; relax is what the caller could do.
    """

    verdict: str
    rule: str
    relax: str


WORDS: dict[Reason, Words] = {
    Reason.TYPE: Words("is not of type {c.type}", "type {c.type}", "ask for another type"),
    Reason.MODEL: Words("does not serve {c.model}", "model {c.model}", "name another model or none"),
    Reason.MODALITY: Words("does not take {c.modality}", "modality {c.modality}", "add a node that takes it"),
    Reason.CONTEXT: Words(
        "holds fewer than the {needed} tokens of prompt and answer",
        "the size of {needed} tokens",
        "shorten the prompt or the wanted answer",
    ),
    Reason.MIN_CONTEXT: Words(
        "has a context below {c.min_context} tokens", "min_context {c.min_context}", "lower min_context"
    ),
    Reason.COST: Words("costs more than {c.max_cost} dollars", "max_cost {c.max_cost}", "raise max_cost"),
    Reason.VERSION: Words("is not of version {c.version}", "version {c.version}", "widen the version"),
    Reason.LABELS: Words("lacks one of the labels {labels}", "labels {labels}", "drop a label"),
    Reason.RESIDENCY: Words(
        "does not carry residency {homes}",
        "data_residency {homes}",
        "allow another data_residency, or start a node there",
    ),
    Reason.LOCAL_ONLY: Words("is another node than this one", "local_only", "drop local_only"),
    Reason.ALLOW: Words("is not among the allowed nodes", "allow_nodes", "allow more nodes"),
    Reason.DENY: Words("is among the denied nodes", "deny_nodes", "deny fewer nodes"),
    Reason.TRIED: Words("was tried for this request and failed", "an earlier attempt that failed", "try again later"),
    Reason.LOST: Words("has no link at the moment", "a missing link", "wait for the link, or run `atmo doctor`"),
    Reason.READY: Words("is still loading or restarting", "loading or restarting", "wait until it is ready"),
    Reason.EJECTED: Words("failed several times in a row and rests", "a rest after failures", "wait a moment"),
    Reason.MIN_TPS: Words("is not known to reach {c.min_tps} tokens/s", "min_tps {c.min_tps}", "lower min_tps"),
    Reason.MAX_LOAD: Words("has more than {c.max_load} requests a slot", "max_load {c.max_load}", "raise max_load"),
    Reason.MAX_LATENCY: Words(
        "is expected to take longer than {c.max_latency_ms} ms",
        "max_latency_ms {c.max_latency_ms}",
        "raise max_latency_ms",
    ),
}


def verdict(reason: Reason, query: Query) -> str:
    """What one bit means for an offer, to go on after "a node that"."""
    return _fill(WORDS[reason].verdict, query)


def rule(reason: Reason, query: Query) -> str:
    """The condition by its name and value."""
    return _fill(WORDS[reason].rule, query)


def _fill(text: str, query: Query) -> str:
    wanted = query.constraints
    return text.format(
        c=wanted,
        needed=query.prompt_tokens + query.expected_output_tokens,
        homes=" or ".join(wanted.data_residency),
        labels=", ".join(f"{key}={value}" for key, value in wanted.labels),
    )

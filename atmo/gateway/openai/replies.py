"""What OpenAI's API answers, as types, and how events become it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from atmo.gateway.handle import Json
from atmo.gateway.trace import Trace


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Base: fields that are None are told as null."""


class FunctionCall(_Reply, frozen=True, kw_only=True):
    name: str
    arguments: str


class ToolCall(_Reply, frozen=True, kw_only=True):
    id: str
    type: str = "function"
    function: FunctionCall


class TopScore(_Reply, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]


class Score(TopScore, frozen=True, kw_only=True):
    top_logprobs: list[TopScore]


class ChatScores(_Reply, frozen=True, kw_only=True):
    content: list[Score]
    refusal: None = None


class TextScores(_Reply, frozen=True, kw_only=True):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class AssistantMessage(_Reply, frozen=True, kw_only=True):
    role: str = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET


class ChatChoice(_Reply, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    logprobs: ChatScores | None = None
    finish_reason: str


class TextChoice(_Reply, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: TextScores | None = None
    finish_reason: str | None


class CachedTokens(_Reply, frozen=True, kw_only=True):
    cached_tokens: int


class Usage(_Reply, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int | msgspec.UnsetType = msgspec.UNSET
    total_tokens: int
    prompt_tokens_details: CachedTokens | msgspec.UnsetType = msgspec.UNSET


class ChatReply(_Reply, frozen=True, kw_only=True):
    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    atmo: Json | msgspec.UnsetType = msgspec.UNSET


class TextReply(_Reply, frozen=True, kw_only=True):
    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    atmo: Json | msgspec.UnsetType = msgspec.UNSET


class Embedding(_Reply, frozen=True, kw_only=True):
    object: str = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingReply(_Reply, frozen=True, kw_only=True):
    object: str = "list"
    data: list[Embedding]
    model: str
    usage: Usage
    atmo: Json | msgspec.UnsetType = msgspec.UNSET


class Model(_Reply, frozen=True, kw_only=True):
    """atmo: what the mesh knows of it beyond OpenAI's fields."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    atmo: Json | msgspec.UnsetType = msgspec.UNSET


class ModelList(_Reply, frozen=True, kw_only=True):
    object: str = "list"
    data: list[Model]


class ErrorBody(_Reply, frozen=True, kw_only=True):
    """plan: of the model that could come, where nothing else can serve the request."""

    message: str
    type: str
    param: str | None
    code: str | None
    plan: Json | msgspec.UnsetType = msgspec.UNSET


class ErrorReply(_Reply, frozen=True, kw_only=True):
    error: ErrorBody


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Gathered:
    """One choice, gathered from its events."""

    texts: list[str] = field(default_factory=list)
    scores: list[Json] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    finish: str = "stop"

    def add(self, event: Json) -> None:
        what = event["event"]
        if what == "text":
            self.texts.append(event["text"])
            self.scores += event.get("scores", ())
            for delta in event.get("calls", ()):
                call = self.calls.setdefault(delta["index"], _Call())
                call.id, call.name = delta["id"] or call.id, delta["name"] or call.name
                call.arguments.append(delta["arguments"])
        elif what == "labels":
            self.texts.append(label_text(event))
        elif what == "done":
            self.finish = event["finish"]

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def tool_calls(self) -> list[ToolCall]:
        return [
            ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments="".join(call.arguments)))
            for _, call in sorted(self.calls.items())
        ]


def label_text(event: Json) -> str:
    """A classifier's answer as text: its likeliest label."""
    return str(event["labels"][0][0]) if event["labels"] else ""


def chat_choice(index: int, one: Gathered, *, scored: bool) -> ChatChoice:
    calls = one.tool_calls()
    message = AssistantMessage(content=one.text or (None if calls else ""), tool_calls=calls or msgspec.UNSET)
    scores = chat_scores(one.scores) if scored else None
    return ChatChoice(index=index, message=message, logprobs=scores, finish_reason=one.finish)


def text_choice(index: int, one: Gathered, before: str, *, scored: bool) -> TextChoice:
    """before: what is echoed ahead of the answer."""
    scores = text_scores(one.scores, len(before)) if scored else None
    return TextChoice(index=index, text=before + one.text, logprobs=scores, finish_reason=one.finish)


def chat_scores(scores: list[Json]) -> ChatScores:
    return ChatScores(
        content=[
            Score(
                token=score["text"],
                logprob=score["logprob"],
                bytes=list(score["text"].encode()),
                top_logprobs=[
                    TopScore(token=text, logprob=logprob, bytes=list(text.encode())) for text, logprob in score["top"]
                ],
            )
            for score in scores
        ]
    )


def text_scores(scores: list[Json], offset: int) -> TextScores:
    """offset: characters before the first token."""
    offsets = []
    for score in scores:
        offsets.append(offset)
        offset += len(score["text"])
    return TextScores(
        tokens=[score["text"] for score in scores],
        token_logprobs=[score["logprob"] for score in scores],
        top_logprobs=[dict(score["top"]) for score in scores],
        text_offset=offsets,
    )


def usage(trace: Trace) -> Usage:
    return Usage(
        prompt_tokens=trace.prompt_tokens,
        completion_tokens=trace.output_tokens,
        total_tokens=trace.prompt_tokens + trace.output_tokens,
        prompt_tokens_details=CachedTokens(cached_tokens=trace.cached_tokens),
    )

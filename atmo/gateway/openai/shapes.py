"""What clients of OpenAI's API may send, as types: bounds are checked while the JSON is decoded.

What stands here is understood, or ignored on purpose (see docs/api.md). Anything else is refused by its name; only
inside messages, where clients keep notes of their own, are unknown fields passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from atmo.generation import MAX_STOPS, MAX_TOP_SCORES, MAX_TURNS, Bias, Name, Penalty, Share

# OpenAI's own limits where it has one.
MAX_CHOICES = 16
MAX_TEXTS = 2048
MAX_TOOLS = 128

Text = str
TokenId = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
MaxTokens = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Stops = Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=MAX_STOPS)]
Model = Annotated[str, Meta(max_length=200)]
Timeout = Annotated[float, Meta(gt=0.0, le=86400.0)]


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what stands inside messages: unknown fields are passed over."""


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of requests: an unknown field is an error."""


class ImageUrl(_Message, frozen=True, kw_only=True):
    url: str
    detail: str | None = None


class ContentPart(_Message, frozen=True, kw_only=True):
    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class CalledFunction(_Message, frozen=True, kw_only=True):
    name: Name
    arguments: str = "{}"


class MadeCall(_Message, frozen=True, kw_only=True):
    function: CalledFunction
    id: Name = ""
    type: str = "function"


class ChatMessage(_Message, frozen=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[MadeCall], Meta(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Name | None = None


class Function(_Request, frozen=True, kw_only=True, omit_defaults=True):
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Request, frozen=True, kw_only=True):
    type: Literal["function"]
    function: Function


class FunctionName(_Request, frozen=True, kw_only=True):
    name: Name


class ToolChoice(_Request, frozen=True, kw_only=True):
    type: Literal["function"]
    function: FunctionName


class JsonSchema(_Request, frozen=True, kw_only=True):
    name: Name
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(_Request, frozen=True, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Request, frozen=True, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Hints(_Request, frozen=True, kw_only=True):
    """Where the request may go. constraints: as in docs/routing.md; type: of the capability; timeout_s: until it is
    given up; explain: put the whole decision into the reply; private: it stays where this node is; migrate: may a model
    come that could serve it, where nothing else can."""

    constraints: dict[str, Any] = {}
    type: Annotated[str, Meta(max_length=64)] = ""
    timeout_s: Timeout | None = None
    explain: bool = False
    private: bool = False
    migrate: Literal["", "ask", "yes", "no"] = ""


class _Ignored(_Request, frozen=True, kw_only=True):
    """Taken and not acted upon: accounting and hints that mean nothing here."""

    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None


class _Sampled(_Ignored, frozen=True, kw_only=True):
    """What chat and completion have in common. Null is the same as left out."""

    model: Model = "auto"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=(1 << 31) - 1)] | None = None
    min_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: MaxTokens | None = None
    stop: Annotated[str, Meta(max_length=200)] | Stops | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    grammar: str | None = None
    atmo: Hints | None = None


class ChatRequest(_Sampled, frozen=True, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_TURNS)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_SCORES)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


class CompletionRequest(_Sampled, frozen=True, kw_only=True):
    prompt: str | list[Any]
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_SCORES)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=1)] | None = None
    suffix: Annotated[str, Meta(max_length=0)] | None = None


class EmbeddingRequest(_Ignored, frozen=True, kw_only=True):
    input: str | list[Any]
    model: Model = "auto"
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    atmo: Hints | None = None

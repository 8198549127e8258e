"""Anthropic's API. API: docs.anthropic.com, messages, streaming and models, version 2023-06-01."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from atmo.errors import Overloaded, UsageError
from atmo.generation import CallDelta, Finish, Piece, Task, Turn
from atmo.inference.engines.http_model import (
    FoundModel,
    broken_off,
    cannot_go_on,
    parsed_tools,
    refuse,
)
from atmo.inference.engines.http_upstream import Access, Upstream
from atmo.inference.engines.pictures import base64_of, image_type

_VERSION = "2023-06-01"
_MAX_TOKENS = 4096  # the API wants a number; as many as its oldest models can give
_BUSY_S = 1.0  # a guess, as for a 429 without a pause
_REASONS = {"max_tokens": "length", "tool_use": "tool_calls", "model_context_window_exceeded": "length"}


class Anthropic:
    """A Dialect."""

    def __init__(self, access: Access) -> None:
        headers = {"anthropic-version": _VERSION}
        self._upstream = Upstream(access, key_header="x-api-key", key_form="{}", headers=headers)
        self._root = "" if access.url.rstrip("/").endswith("/v1") else "/v1"

    async def models(self) -> list[FoundModel]:
        data = (await self._upstream.get(f"{self._root}/models?limit=1000")).get("data")
        if not isinstance(data, list):
            raise self._upstream.nonsense("a list of models that is none")
        names = [each["id"] for each in data if isinstance(each, dict) and isinstance(each.get("id"), str)]
        return [FoundModel(name[:200], vision=True) for name in names]

    async def chat(self, model: str, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        sampling, form = task.sampling, task.form
        refuse(
            "Anthropic's",
            (form.raw, "a plain completion"),
            (bool(form.grammar), "a grammar"),
            (bool(form.schema), "a JSON schema"),
            (form.logprobs >= 0, "probabilities of tokens"),
            (bool(sampling.logit_bias), "logit_bias"),
            (bool(sampling.presence_penalty or sampling.frequency_penalty), "penalties"),
            (bool(sampling.min_p), "min_p"),
        )
        if task.prefix.text:  # "This model does not support assistant message prefill", say those since Claude 4.6
            raise cannot_go_on(self._upstream.access.host)
        reading = _Reading(self._upstream)
        async with self._upstream.events(f"{self._root}/messages", _payload(model, task)) as events:
            async for event in events:
                for piece in reading.pieces(event):
                    yield piece
        yield reading.finish()

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError(f"{model} makes no embeddings.", hint="Ask an embedding model.")

    async def close(self) -> None:
        await self._upstream.close()


def _payload(model: str, task: Task) -> dict[str, Any]:
    sampling, form = task.sampling, task.form
    system = "\n\n".join(turn.content for turn in task.turns if turn.role == "system")
    turns = [turn for turn in task.turns if turn.role != "system"]
    asked: dict[str, Any] = {"model": model, "stream": True, "messages": [_message(turn) for turn in turns]}
    asked |= {"max_tokens": sampling.max_tokens or _MAX_TOKENS, "temperature": min(1.0, sampling.temperature)}
    optional = {"system": system, "stop_sequences": list(sampling.stop), "top_k": sampling.top_k}
    asked |= {name: value for name, value in optional.items() if value}
    if sampling.top_p < 1.0:
        asked["top_p"] = sampling.top_p
    if form.tools and form.tool_choice != "none":
        asked["tools"] = [_tool(each) for each in parsed_tools(task)]
        kinds = {"auto": {"type": "auto"}, "required": {"type": "any"}}
        asked["tool_choice"] = kinds.get(form.tool_choice, {"type": "tool", "name": form.tool_choice})
    return asked


def _tool(entry: dict[str, Any]) -> dict[str, Any]:
    function = entry.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UsageError("A tool is not a function with a name.")
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {"name": function["name"], "description": str(function.get("description", "")), "input_schema": schema}


def _message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        result = {"type": "tool_result", "tool_use_id": turn.call_id, "content": turn.content}
        return {"role": "user", "content": [result]}
    parts: list[dict[str, Any]] = [{"type": "text", "text": turn.content}] if turn.content else []
    for image in turn.images:
        source = {"type": "base64", "media_type": image_type(image), "data": base64_of(image)}
        parts.append({"type": "image", "source": source})
    for call in turn.calls:
        parts.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)})
    return {"role": turn.role, "content": parts}


def _input(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise UsageError("The arguments of an earlier tool call are no JSON object.") from error


class _Reading:
    """Turns the events of one answer into pieces and, at its end, a finish."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._calls: dict[int, int] = {}  # content block -> which call it is
        self._reason = ""
        self._usage: dict[str, Any] = {}
        self._ended = False

    def pieces(self, event: dict[str, Any]) -> list[Piece]:
        try:
            return self._pieces(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._upstream.nonsense("a piece of an answer that is none") from error

    def _pieces(self, event: dict[str, Any]) -> list[Piece]:
        kind = event.get("type")
        if kind == "error":
            raise self._failed(event.get("error") or {})
        if kind == "message_start":
            self._usage |= event["message"].get("usage") or {}
        elif kind == "message_delta":
            self._reason = event["delta"].get("stop_reason") or self._reason
            self._usage |= event.get("usage") or {}
        elif kind == "message_stop":
            self._ended = True
        elif kind == "content_block_start" and event["content_block"]["type"] == "tool_use":
            block = event["content_block"]
            self._calls[event["index"]] = at = len(self._calls)
            return [Piece("", calls=(CallDelta(at, str(block["id"]), str(block["name"])),))]
        elif kind == "content_block_delta":
            return self._delta(event["delta"], event["index"])
        return []

    def _delta(self, delta: dict[str, Any], index: int) -> list[Piece]:
        if delta["type"] == "text_delta":
            return [Piece(str(delta["text"]))]
        if delta["type"] == "input_json_delta" and delta["partial_json"]:
            return [Piece("", calls=(CallDelta(self._calls[index], arguments=str(delta["partial_json"])),))]
        return []

    def _failed(self, error: dict[str, Any]) -> Exception:
        if error.get("type") == "overloaded_error":
            return Overloaded(f"{self._upstream.access.host} is busy.", retry_after_s=_BUSY_S)
        return self._upstream.failed(error.get("message", error.get("type", "")))

    def finish(self) -> Finish:
        """Raises EngineUnavailable when the answer has no end."""
        if not self._ended:
            raise broken_off(self._upstream.access.host)
        cached = int(self._usage.get("cache_read_input_tokens") or 0)
        fresh = int(self._usage.get("input_tokens") or 0) + int(self._usage.get("cache_creation_input_tokens") or 0)
        return Finish(
            reason=_REASONS.get(self._reason, "stop"),
            prompt_tokens=fresh + cached,
            output_tokens=int(self._usage.get("output_tokens") or 0),
            cached_tokens=cached,
        )

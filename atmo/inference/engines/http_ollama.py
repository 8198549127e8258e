"""Ollama's own API. API: github.com/ollama/ollama, docs/api.md."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from atmo.errors import AtmoError, UsageError
from atmo.generation import CallDelta, Finish, Piece, Task, Turn
from atmo.inference.engines.calls import new_call_id
from atmo.inference.engines.http_model import (
    FoundModel,
    broken_off,
    parsed_schema,
    parsed_tools,
    refuse,
)
from atmo.inference.engines.http_upstream import Access, Upstream
from atmo.inference.engines.pictures import base64_of

_MAX_MODELS = 200  # looked at in one listing; a guess
_NS = 1e-9


class Ollama:
    """A Dialect."""

    def __init__(self, access: Access) -> None:
        self._upstream = Upstream(access)
        self._known: dict[tuple[str, str], FoundModel] = {}  # by name and digest: what was asked for once

    async def models(self) -> list[FoundModel]:
        tags = (await self._upstream.get("/api/tags")).get("models")
        if not isinstance(tags, list):
            raise self._upstream.nonsense("a list of models that is none")
        entries = [each for each in tags[:_MAX_MODELS] if isinstance(each, dict) and isinstance(each.get("name"), str)]
        return [await self._model(each["name"], str(each.get("digest", ""))) for each in entries]

    async def _model(self, name: str, digest: str) -> FoundModel:
        if (name, digest) not in self._known:
            try:
                shown = await self._upstream.post("/api/show", {"model": name})
            except AtmoError:
                shown = {}  # it goes without what is not told
            self._known[name, digest] = _found(name, shown)
        return self._known[name, digest]

    async def chat(self, model: str, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        form = task.form
        refuse(
            "Ollama",
            (bool(form.grammar), "a grammar"),
            (form.logprobs >= 0, "probabilities of tokens"),
            (bool(task.sampling.logit_bias), "logit_bias"),
            (bool(form.tools) and form.tool_choice not in ("auto", "none"), "a call of a tool that is required"),
        )
        path, calls, last = ("/api/generate" if form.raw else "/api/chat"), 0, dict[str, Any]()
        async with self._upstream.lines(path, _payload(model, task)) as lines:
            async for line in lines:
                event = self._upstream.decoded(line) if line else {}
                if event.get("error"):
                    raise self._upstream.failed(event["error"])
                piece = self._piece(event, calls)
                calls += len(piece.calls)
                if piece.text or piece.calls:
                    yield piece
                last = event if event.get("done") else last
        if not last:
            raise broken_off(self._upstream.access.host)
        yield _finish(last, calls)

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        answer = await self._upstream.post("/api/embed", {"model": model, "input": list(texts), "truncate": False})
        try:
            return [[float(value) for value in vector] for vector in answer["embeddings"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._upstream.nonsense("vectors that are none") from error

    async def close(self) -> None:
        await self._upstream.close()

    def _piece(self, event: dict[str, Any], calls: int) -> Piece:
        try:
            message = event.get("message") or {}
            text = str(message.get("content") or event.get("response") or "")
            found = message.get("tool_calls") or []
            return Piece(text, calls=tuple(_call(each["function"], calls + at) for at, each in enumerate(found)))
        except (KeyError, TypeError, AttributeError) as error:
            raise self._upstream.nonsense("a piece of an answer that is none") from error


def _payload(model: str, task: Task) -> dict[str, Any]:
    sampling, form = task.sampling, task.form
    optional = {
        "num_predict": sampling.max_tokens,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "stop": list(sampling.stop),
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    options: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    options |= {name: value for name, value in optional.items() if value}
    if sampling.seed >= 0:
        options["seed"] = sampling.seed
    asked: dict[str, Any] = {"model": model, "stream": True, "options": options}
    if form.raw:
        asked |= {"prompt": task.turns[-1].content + task.prefix.text, "raw": True}
    else:
        begun = [Turn("assistant", task.prefix.text)] if task.prefix.text else []
        asked["messages"] = [_message(turn) for turn in (*task.turns, *begun)]
    if form.tools and form.tool_choice != "none":
        asked["tools"] = parsed_tools(task)
    if form.schema:
        asked["format"] = parsed_schema(task) or "json"
    return asked


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.images:
        message["images"] = [base64_of(image) for image in turn.images]
    if turn.calls:
        message["tool_calls"] = [
            {"function": {"name": call.name, "arguments": _arguments(call.arguments)}} for call in turn.calls
        ]
    if turn.role == "tool" and turn.name:
        message["tool_name"] = turn.name
    return message


def _arguments(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise UsageError("The arguments of an earlier tool call are no JSON object.") from error


def _call(function: dict[str, Any], index: int) -> CallDelta:
    arguments = msgspec.json.encode(function.get("arguments") or {}).decode()
    return CallDelta(index, new_call_id(), str(function["name"]), arguments)


def _finish(last: dict[str, Any], calls: int) -> Finish:
    reason = "length" if last.get("done_reason") == "length" else "tool_calls" if calls else "stop"
    return Finish(
        reason=reason,
        prompt_tokens=_number(last, "prompt_eval_count"),
        output_tokens=_number(last, "eval_count"),
        queue_s=_number(last, "load_duration") * _NS,
        prefill_s=_number(last, "prompt_eval_duration") * _NS,
        decode_s=_number(last, "eval_duration") * _NS,
    )


def _number(found: dict[str, Any], name: str) -> int:
    value = found.get(name, 0)
    return value if isinstance(value, int) and value >= 0 else 0


def _found(name: str, shown: dict[str, Any]) -> FoundModel:
    able, facts, details = (shown.get(key) or {} for key in ("capabilities", "model_info", "details"))
    facts = facts if isinstance(facts, dict) else {}
    embeds = "embedding" in able if able else "embed" in name.lower()
    context = next((value for key, value in facts.items() if key.endswith(".context_length")), 0)
    return FoundModel(
        name[:200],
        "embedding" if embeds else "chat",
        context if isinstance(context, int) else 0,
        vision="vision" in able,
        parameters=_number(facts, "general.parameter_count"),
        quantisation=str(details.get("quantization_level", ""))[:64] if isinstance(details, dict) else "",
    )

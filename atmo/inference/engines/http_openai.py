"""OpenAI's API, as OpenAI, vLLM, LocalAI, LM Studio, Lemonade and llama.cpp's server speak it.

API: platform.openai.com/docs/api-reference, chat completions, completions, embeddings, models.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from atmo.generation import CallDelta, Finish, Piece, Task, TokenScore, Turn
from atmo.inference.engines.http_model import (
    FoundModel,
    broken_off,
    cannot_go_on,
    parsed_schema,
    parsed_tools,
    refuse,
)
from atmo.inference.engines.http_upstream import Access, Upstream
from atmo.inference.engines.pictures import content_of

OFFICIAL_HOST = "api.openai.com"
OURS = "atmosphere"  # as a node's own API names the owner of its models: a mesh must not find itself
_GO_ON = ("vllm", "sglang", "llamacpp")  # as they name themselves the owner of their models
_OTHER_KINDS = ("whisper", "tts", "rerank", "dall-e", "image", "moderation", "audio", "transcribe", "realtime", "sora")
_OTHER_LABELS = {"transcription", "reranking", "image", "tts", "audio-generation", "classification", "3d"}  # Lemonade's
_REASONS = {"length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}


class OpenAI:
    """A Dialect."""

    def __init__(self, access: Access) -> None:
        self._upstream = Upstream(access)
        self._root = "" if access.url.rstrip("/").endswith("/v1") else "/v1"
        self._official = OFFICIAL_HOST in access.host
        self._owners: dict[str, object] = {}

    async def models(self) -> list[FoundModel]:
        answer = await self._upstream.get(f"{self._root}/models")
        data = answer.get("data")
        if not isinstance(data, list):
            raise self._upstream.nonsense("a list of models that is none")
        entries = [each for each in data if isinstance(each, dict) and isinstance(each.get("id"), str)]
        self._owners = {each["id"]: each.get("owned_by") for each in entries}
        return [_found(each) for each in entries if each.get("owned_by") != OURS and _does_text(each)]

    async def chat(self, model: str, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        refuse("OpenAI-compatible", (bool(task.form.grammar), "a grammar"))
        if self._official:
            refuse("OpenAI's", (bool(task.sampling.top_k), "top_k"), (bool(task.sampling.min_p), "min_p"))
        if task.prefix.text and not task.form.raw and not await self._goes_on(model):
            raise cannot_go_on(self._upstream.access.host)
        path = "/completions" if task.form.raw else "/chat/completions"
        reading = _Reading(self._upstream)
        async with self._upstream.events(f"{self._root}{path}", self._payload(model, task)) as events:
            async for event in events:
                for piece in reading.pieces(event):
                    yield piece
        yield reading.finish()

    async def _goes_on(self, model: str) -> bool:
        """Whether an answer of the chat can be begun for it: others take that for a finished turn, and begin anew."""
        if not self._owners and not self._official:
            await self.models()
        return self._owners.get(model) in _GO_ON

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        asked = {"model": model, "input": list(texts), "encoding_format": "float"}
        answer = await self._upstream.post(f"{self._root}/embeddings", asked)
        try:
            ordered = sorted(answer["data"], key=lambda each: int(each["index"]))
            return [[float(value) for value in each["embedding"]] for each in ordered]
        except (KeyError, TypeError, ValueError) as error:
            raise self._upstream.nonsense("vectors that are none") from error

    async def close(self) -> None:
        await self._upstream.close()

    def _payload(self, model: str, task: Task) -> dict[str, Any]:
        sampling, form = task.sampling, task.form
        asked: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
        asked |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if form.raw:
            asked["prompt"] = task.turns[-1].content + task.prefix.text
        else:
            asked["messages"] = [_message(turn) for turn in task.turns]
        if task.prefix.text and not form.raw:
            asked["messages"].append({"role": "assistant", "content": task.prefix.text})
            asked |= {"continue_final_message": True, "add_generation_prompt": False}  # as vLLM wants to be told
        optional = {
            "max_completion_tokens" if self._official else "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop),
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logit_bias": {str(token): bias for token, bias in sampling.logit_bias},
            "tools": parsed_tools(task),
        }
        asked |= {name: value for name, value in optional.items() if value}
        if sampling.seed >= 0:
            asked["seed"] = sampling.seed
        return asked | _form(task)


def _form(task: Task) -> dict[str, Any]:
    form, asked = task.form, dict[str, Any]()
    if form.tools:
        named = form.tool_choice not in ("auto", "none", "required")
        choice = {"type": "function", "function": {"name": form.tool_choice}} if named else form.tool_choice
        asked["tool_choice"] = choice
    if form.schema:
        schema = parsed_schema(task)
        held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        asked["response_format"] = held if schema else {"type": "json_object"}
    if form.logprobs >= 0:
        asked |= {"logprobs": form.logprobs} if form.raw else {"logprobs": True, "top_logprobs": form.logprobs}
    return asked


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.images:
        message["content"] = content_of(turn.content, turn.images)
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    if turn.call_id:
        message["tool_call_id"] = turn.call_id
    return message


class _Reading:
    """Turns the events of one answer into pieces and, at its end, a finish."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._reason = ""
        self._usage: dict[str, Any] = {}

    def pieces(self, event: dict[str, Any]) -> list[Piece]:
        if event.get("error"):
            raise self._upstream.failed(event["error"])
        self._usage = event.get("usage") or self._usage
        try:
            return [piece for choice in event.get("choices") or [] for piece in self._choice(choice)]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._upstream.nonsense("a piece of an answer that is none") from error

    def _choice(self, choice: dict[str, Any]) -> list[Piece]:
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta") or {}
        text = str(delta.get("content") or choice.get("text") or "")
        calls = tuple(_call(each) for each in delta.get("tool_calls") or [])
        scores = _scores(choice.get("logprobs") or {})
        return [Piece(text, (), scores, calls)] if text or calls else []

    def finish(self) -> Finish:
        """Raises EngineUnavailable when the answer has no end."""
        if not self._reason:
            raise broken_off(self._upstream.access.host)
        details = self._usage.get("prompt_tokens_details") or {}
        return Finish(
            reason=_REASONS.get(self._reason, "stop"),
            prompt_tokens=_count(self._usage.get("prompt_tokens")),
            output_tokens=_count(self._usage.get("completion_tokens")),
            cached_tokens=_count(details.get("cached_tokens")),
        )


def _call(delta: dict[str, Any]) -> CallDelta:
    function = delta.get("function") or {}
    return CallDelta(
        int(delta.get("index", 0)),
        str(delta.get("id") or ""),
        str(function.get("name") or ""),
        str(function.get("arguments") or ""),
    )


def _scores(found: dict[str, Any]) -> tuple[TokenScore, ...]:
    return tuple(
        TokenScore(str(each["token"]), min(0.0, float(each["logprob"])), tuple(_top(each)))
        for each in found.get("content") or []
    )


def _top(entry: dict[str, Any]) -> list[tuple[str, float]]:
    return [(str(each["token"]), min(0.0, float(each["logprob"]))) for each in entry.get("top_logprobs") or []]


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0


def _does_text(entry: dict[str, Any]) -> bool:
    return not any(part in entry["id"].lower() for part in _OTHER_KINDS) and not _OTHER_LABELS & _labels(entry)


def _labels(entry: dict[str, Any]) -> set[str]:
    labels = entry.get("labels")
    return {each for each in labels if isinstance(each, str)} if isinstance(labels, list) else set()


def _found(entry: dict[str, Any]) -> FoundModel:
    """What servers say besides the name: vLLM `max_model_len`, llama.cpp `meta`, Lemonade the rest."""
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
    assert isinstance(meta, dict)
    told = (entry.get("max_model_len"), entry.get("context_length"), meta.get("n_ctx"), meta.get("n_ctx_train"))
    context = next((count for count in map(_count, told) if count), 0)
    labels = _labels(entry)
    embeds = "embed" in entry["id"].lower() or bool({"embedding", "embeddings"} & {*labels, str(entry.get("type"))})
    kind = "embedding" if embeds else "chat"
    return FoundModel(entry["id"][:200], kind, context, "vision" in labels, _parameters(meta.get("n_params")))


def _parameters(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 50 else 0

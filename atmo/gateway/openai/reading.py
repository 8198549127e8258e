"""From a request of OpenAI's API to what the mesh understands: a wish for the router and tasks for the engine.

Pure: bytes and headers in, `Work` out, or BadParameter that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import msgspec

from atmo.errors import BadParameter
from atmo.gateway.handle import Wish
from atmo.gateway.openai import shapes
from atmo.gateway.openai.images import image_from_url
from atmo.generation import MAX_IMAGES, Form, Sampling, Task, ToolCall, Turn

# Seconds until a request is given up that sets no deadline: OpenAI's clients wait as long.
DEFAULT_TIMEOUT_S = 600.0
# OpenAI's default, and what clients that leave it out count on.
DEFAULT_TEMPERATURE = 1.0
# Choices that one request may ask for, over all its prompts. A guess.
MAX_ANSWERS = 128

R = TypeVar("R")
_HINT_HEADERS = (
    "x-atmo-constraints", "x-atmo-type", "x-atmo-timeout-s", "x-atmo-explain", "x-atmo-private", "x-atmo-migrate",
)  # fmt: skip
_YES = ("1", "true", "yes")
_MISSING = re.compile(r"Object missing required field `(.+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")


@dataclass(frozen=True, slots=True)
class Work:
    """A request, understood.

    tasks: one for each choice, in the order of the choices; per_prompt: how many of them share a prompt; named: the
    model as the client wrote it, empty where the mesh is to choose.
    """

    wish: Wish
    tasks: tuple[Task, ...]
    timeout_s: float
    named: str
    per_prompt: int = 1
    stream: bool = False
    usage: bool = False
    explain: bool = False
    scored: bool = False


def decoder(kind: type[R]) -> Callable[[bytes], R]:
    """A function from a body to a request of this kind. It raises BadParameter in OpenAI's words."""
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes) -> R:
        try:
            return decode(body)
        except msgspec.ValidationError as exc:
            raise _bad(str(exc)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadParameter("We could not parse the JSON body of your request.", hint="Send valid JSON.") from None
        except RecursionError:
            raise BadParameter("The JSON body is nested too deeply.") from None

    return read


def _bad(told: str) -> BadParameter:
    what, _, path = told.partition(" - at `")
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    if missing := _MISSING.fullmatch(what):
        name = f"{path}.{missing[1]}".lstrip(".")
        return BadParameter(f"Missing required parameter: '{name}'.", param=name)
    if unknown := _UNKNOWN.fullmatch(what):
        name = f"{path}.{unknown[1]}".lstrip(".")
        return BadParameter(f"Unrecognized request argument supplied: {name}.", param=name, hint="See docs/api.md.")
    return BadParameter(f"Invalid value for '{path or 'body'}': {what[:1].lower()}{what[1:]}.", param=path)


def hints_of(given: shapes.Hints | None, headers: Mapping[str, str]) -> shapes.Hints:
    """What the body says, and what `X-Atmo-*` headers add to it. Raises BadParameter."""
    hints = given or shapes.Hints()
    told = {name: headers[name] for name in _HINT_HEADERS if name in headers}
    if not told:
        return hints
    constraints = _pairs(told.get("x-atmo-constraints", ""))
    try:
        timeout_s = msgspec.convert(told["x-atmo-timeout-s"], shapes.Timeout, strict=False) if (
            "x-atmo-timeout-s" in told
        ) else None  # fmt: skip
    except msgspec.ValidationError:
        raise BadParameter("X-Atmo-Timeout-S is not a number of seconds.", param="x-atmo-timeout-s") from None
    migrate = told.get("x-atmo-migrate", "").lower()
    if migrate not in ("", "ask", "yes", "no"):
        raise BadParameter("X-Atmo-Migrate is ask, yes or no.", param="x-atmo-migrate")
    return shapes.Hints(
        constraints={**constraints, **hints.constraints},
        type=hints.type or told.get("x-atmo-type", "")[:64],
        timeout_s=hints.timeout_s or timeout_s,
        explain=hints.explain or told.get("x-atmo-explain", "").lower() in _YES,
        private=hints.private or told.get("x-atmo-private", "").lower() in _YES,
        migrate=hints.migrate or cast(Literal["", "ask", "yes", "no"], migrate),
    )


def _pairs(text: str) -> dict[str, str]:
    """`residency=eu, min_tps=20` -> a dict."""
    found = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise BadParameter(
                f"{pair!r} in X-Atmo-Constraints is not a constraint.", param="x-atmo-constraints", hint="Write a=b."
            )
        found[key.strip()] = value.strip()
    return found


def read_chat(request: shapes.ChatRequest, headers: Mapping[str, str]) -> Work:
    turns = tuple(_turn(message, f"messages[{at}]") for at, message in enumerate(request.messages))
    images = sum(len(turn.images) for turn in turns)
    if images > MAX_IMAGES:
        raise BadParameter(f"{images} images are too many, up to {MAX_IMAGES} are taken.", param="messages")
    hints = hints_of(request.atmo, headers)
    wish = _wish(request.model, _asked(turns), hints, "chat", image=bool(images))
    sampling = _sampling(request, request.max_completion_tokens or request.max_tokens)
    tasks = _choices(Task(turns, sampling, _chat_form(request)), request.n or 1)
    return _work(request, wish, tasks, hints, len(tasks), scored=bool(request.logprobs))


def read_completion(request: shapes.CompletionRequest, headers: Mapping[str, str]) -> Work:
    prompts = _texts(request.prompt, "prompt")
    each = request.n or 1
    if len(prompts) * each > MAX_ANSWERS:
        raise BadParameter(f"{len(prompts) * each} choices are too many, up to {MAX_ANSWERS} are given.", param="n")
    hints = hints_of(request.atmo, headers)
    wish = _wish(request.model, prompts[0], hints, "chat")
    wanted = -1 if request.logprobs is None else request.logprobs
    form = Form(grammar=request.grammar or "", logprobs=wanted, raw=True)
    sampling = _sampling(request, request.max_tokens)
    tasks: list[Task] = []
    for prompt in prompts:
        tasks += _choices(Task((Turn("user", prompt),), sampling, form), each)
    return _work(request, wish, tuple(tasks), hints, each, scored=request.logprobs is not None)


def read_embedding(request: shapes.EmbeddingRequest, headers: Mapping[str, str]) -> Work:
    texts = _texts(request.input, "input")
    for at, text in enumerate(texts):
        if not text:
            raise BadParameter("An empty text has no embedding.", param=f"input[{at}]")
    hints = hints_of(request.atmo, headers)
    wish = _wish(request.model, texts[0], hints, "embedding")
    turns = tuple(Turn("user", text) for text in texts)
    return Work(wish, (Task(turns),), hints.timeout_s or DEFAULT_TIMEOUT_S, wish.model, explain=hints.explain)


def _work(
    request: shapes.ChatRequest | shapes.CompletionRequest,
    wish: Wish,
    tasks: tuple[Task, ...],
    hints: shapes.Hints,
    per_prompt: int,
    *,
    scored: bool,
) -> Work:
    if request.stream_options is not None and not request.stream:
        raise BadParameter("stream_options is for streams only.", param="stream_options", hint="Set stream.")
    usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    return Work(
        wish,
        tasks,
        hints.timeout_s or DEFAULT_TIMEOUT_S,
        wish.model,
        per_prompt,
        stream=bool(request.stream),
        usage=usage,
        explain=hints.explain,
        scored=scored,
    )


def _wish(model: str, text: str, hints: shapes.Hints, kind: str, *, image: bool = False) -> Wish:
    constraints = {"modality": "image", **hints.constraints} if image else hints.constraints
    named = "" if model in ("auto", "") else model
    return Wish(
        text=text,
        model=named,
        type=hints.type or kind,
        constraints=constraints,
        private=hints.private,
        migrate=hints.migrate,
    )


def _asked(turns: tuple[Turn, ...]) -> str:
    """The text that is routed: what the user said last."""
    said = [turn for turn in turns if turn.role == "user"] or list(turns)
    for turn in reversed(said):
        if turn.content.strip():
            return turn.content
    return "What is in this image?" if any(turn.images for turn in said) else ""


def _turn(message: shapes.ChatMessage, param: str) -> Turn:
    text, images = _content(message.content, f"{param}.content")
    role = "system" if message.role == "developer" else message.role
    if message.content is None and not (role == "assistant" and message.tool_calls):
        raise BadParameter(f"A message of role '{message.role}' needs content.", param=f"{param}.content")
    if role == "tool" and not message.tool_call_id:
        raise BadParameter("A tool's message says which call it answers.", param=f"{param}.tool_call_id")
    if images and role != "user":
        raise BadParameter("Images are taken in messages of the user only.", param=f"{param}.content")
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    return Turn(role, text, images, calls, message.tool_call_id or "", message.name or "")


def _content(content: str | list[shapes.ContentPart] | None, param: str) -> tuple[str, tuple[bytes, ...]]:
    if content is None or isinstance(content, str):
        return content or "", ()
    texts, images = [], []
    for at, part in enumerate(content):
        where = f"{param}[{at}]"
        if part.type == "text" and part.text is not None:
            texts.append(part.text)
        elif part.type == "image_url" and part.image_url is not None:
            images.append(image_from_url(part.image_url.url, f"{where}.image_url.url"))
        else:
            raise BadParameter(
                f"Content of type '{part.type[:40]}' is not taken, or is empty.",
                param=f"{where}.type",
                hint="Use text or image_url.",
            )
    return "".join(texts), tuple(images)


def _texts(given: str | list[Any], param: str) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not texts:
        raise BadParameter(f"'{param}' is empty.", param=param)
    if len(texts) > shapes.MAX_TEXTS:
        raise BadParameter(f"{len(texts)} texts are too many, up to {shapes.MAX_TEXTS} are taken.", param=param)
    if not all(isinstance(text, str) for text in texts):
        raise BadParameter(
            f"'{param}' takes text: token ids mean something to one model's vocabulary only.",
            param=param,
            hint="Send strings. With LangChain: check_embedding_ctx_length=False.",
        )
    return texts


def _sampling(request: shapes.ChatRequest | shapes.CompletionRequest, max_tokens: int | None) -> Sampling:
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return Sampling(
        max_tokens=max_tokens or 0,
        temperature=DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=-1 if request.seed is None else request.seed & ((1 << 53) - 1),
        stop=tuple(one for one in stop if one),
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=_biases(request.logit_bias or {}),
    )


def _biases(given: dict[str, float]) -> tuple[tuple[int, float], ...]:
    try:
        return tuple((msgspec.convert(token, shapes.TokenId, strict=False), bias) for token, bias in given.items())
    except msgspec.ValidationError:
        raise BadParameter("The keys of 'logit_bias' are token ids.", param="logit_bias") from None


def _chat_form(request: shapes.ChatRequest) -> Form:
    if request.top_logprobs is not None and not request.logprobs:
        raise BadParameter("top_logprobs needs logprobs.", param="top_logprobs", hint="Set logprobs to true.")
    tools, choice = _tools(request)
    logprobs = (request.top_logprobs or 0) if request.logprobs else -1
    return Form(tools, choice, _schema(request.response_format), request.grammar or "", logprobs)


def _tools(request: shapes.ChatRequest) -> tuple[str, str]:
    names = [tool.function.name for tool in request.tools or ()]
    wanted = request.tool_choice or "auto"
    choice: str = wanted.function.name if isinstance(wanted, shapes.ToolChoice) else wanted
    if isinstance(wanted, shapes.ToolChoice) and choice not in names:
        raise BadParameter(f"There is no tool '{choice}' among 'tools'.", param="tool_choice")
    if choice == "required" and not names:
        raise BadParameter("tool_choice 'required' needs tools.", param="tool_choice")
    return (msgspec.json.encode(request.tools).decode() if names else ""), choice


def _schema(wanted: shapes.ResponseFormat | None) -> str:
    if wanted is None or wanted.type == "text":
        return ""
    if wanted.type == "json_object":
        return "{}"
    if wanted.json_schema is None or wanted.json_schema.schema is None:
        raise BadParameter("response_format 'json_schema' needs a schema.", param="response_format.json_schema.schema")
    return msgspec.json.encode(wanted.json_schema.schema).decode()


def _choices(task: Task, count: int) -> tuple[Task, ...]:
    """The same task several times, with seeds one after the other where one is given."""
    seed = task.sampling.seed
    if count == 1 or seed < 0:
        return (task,) * count
    return tuple(
        msgspec.structs.replace(task, sampling=msgspec.structs.replace(task.sampling, seed=(seed + at) % (1 << 53)))
        for at in range(count)
    )

"""What can be said with a request, and how it is said to a node."""

from __future__ import annotations

import binascii
import difflib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from atmo.errors import UsageError

Json = dict[str, Any]

# A request that sets no deadline gets this one.
REQUEST_TIMEOUT_S = 120.0


# PNG or JPEG: the bytes of a file, its path, or a `data:` URL.
Image = bytes | PathLike[str] | str


class Message(TypedDict):
    """One turn of a conversation. role: `system`, `user` or `assistant`."""

    role: str
    content: str
    images: NotRequired[Sequence[Image]]


class Filters(TypedDict, total=False):
    """Where a request may go; all that are given must hold (docs/routing.md).

    data_residency: the node carries the label `residency=` with one of these; local_only: the node that is asked and
    nobody else; max_cost: US dollars for the answer; max_latency_ms: expected time until it is complete;
    latency_critical: speed counts more than strength and price (excludes nobody); min_tps: tokens a second;
    max_load: requests in flight for each slot; min_context: tokens; labels: that node or capability carries;
    allow_nodes, deny_nodes: names or ids; modality: what the request holds, such as `image`; version: such as `>=3.0`;
    prefer_version: the same as a wish; strict: refuse when nothing fits the text.
    """

    data_residency: str | Sequence[str]
    local_only: bool
    max_cost: float
    max_latency_ms: float
    latency_critical: bool
    min_tps: float
    max_load: float
    min_context: int
    labels: Mapping[str, str]
    allow_nodes: str | Sequence[str]
    deny_nodes: str | Sequence[str]
    modality: str
    version: str
    prefer_version: str
    strict: bool


class Wishes(Filters, total=False):
    """model: a capability's id, its last part, or a model's name; the mesh chooses without. type: of the capability,
    such as `chat`; constraints: filters by name, for those who have them in a dict; timeout_s: until it is given up."""

    model: str
    type: str
    constraints: Mapping[str, Any]
    timeout_s: float


class Options(Wishes, total=False):
    """system: an instruction before the conversation; history: earlier turns; images: that belong to the text;
    max_tokens 0: as many as fit; temperature 0: the likeliest answer; seed -1: any."""

    system: str
    history: Sequence[Message]
    images: Sequence[Image]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: Sequence[str]


class Job(Options, total=False):
    """One of a batch: an intent, what it is to be done with, and options that count for it alone."""

    intent: str
    input: str


Prompt = str | Sequence[Message]
Intent = str | Job

_FILTERS = frozenset(Filters.__annotations__)
_WISHES = frozenset(Wishes.__annotations__)
_OPTIONS = frozenset(Options.__annotations__)


def asked(prompt: Prompt, options: Mapping[str, Any], *, intent: str = "") -> Json:
    """The body of `/api/ask`. Raises UsageError for an option that is none, or a conversation that asks nothing."""
    body = _body(options)
    if not isinstance(prompt, str):
        *earlier, last = prompt or [{"role": "", "content": ""}]
        if last["role"] != "user":
            raise UsageError("The last message is not the user's.", hint="End with what you ask.")
        body["history"] = [*body.get("history", ()), *earlier]
        body["images"] = [*last.get("images", ()), *body.get("images", ())]
        prompt = last["content"]
    if "images" in body:
        body["images"] = [_data_url(image) for image in body["images"]]
    if "history" in body:
        body["history"] = [_turn(turn) for turn in body["history"]]
    return {"text": prompt, **({"intent": intent} if intent else {}), "timeout_s": REQUEST_TIMEOUT_S, **body}


def routed(text: str, options: Mapping[str, Any]) -> Json:
    """The body of `/api/route`: of the options those that count for the way."""
    body = _body(options)
    return {"text": text, **{name: body[name] for name in ("model", "type", "constraints") if name in body}}


def embedded(texts: Sequence[str], options: Mapping[str, Any]) -> Json:
    """The body of `/v1/embeddings`."""
    body = _body(options, _WISHES)
    hints = {name: body[name] for name in ("constraints", "type", "timeout_s") if name in body}
    hints.setdefault("timeout_s", REQUEST_TIMEOUT_S)
    return {"input": list(texts), "model": body.get("model") or "auto", "encoding_format": "base64", "atmo": hints}


def job_of(intent: Intent, options: Mapping[str, Any]) -> tuple[str, str, Json]:
    """Intent, input and options of one of a batch; its own options count before those of the batch."""
    if isinstance(intent, str):
        return intent, "", dict(options)
    own = cast(Json, dict(intent))
    words = str(own.pop("intent", "")), str(own.pop("input", ""))
    return *words, {**options, **own}


def check(options: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that is none."""
    _body(options)


def timeout_of(options: Mapping[str, Any]) -> float:
    return float(options.get("timeout_s") or REQUEST_TIMEOUT_S)


def _body(options: Mapping[str, Any], known: frozenset[str] = _OPTIONS) -> Json:
    """Filters go among the constraints, the rest stays; what is None is left out."""
    body: Json = {}
    filters: Json = {}
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(known))}."
            raise UsageError(f"There is no option {name!r}.", hint=hint)
        if value is not None:
            (filters if name in _FILTERS else body)[name] = _plain(value)
    constraints = {**body.pop("constraints", {}), **filters}
    return {**body, **({"constraints": constraints} if constraints else {})}


def _turn(message: Message) -> Json:
    turn = cast(Json, dict(message))
    return {**turn, "images": [_data_url(image) for image in turn["images"]]} if turn.get("images") else turn


def _data_url(image: Image) -> str:
    """Raises UsageError for a file that cannot be read; the node says what is no image."""
    if isinstance(image, str):
        return image
    try:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
    except OSError as exc:
        raise UsageError(f"The image {image!s} cannot be read: {exc.strerror}.") from exc
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{binascii.b2a_base64(data, newline=False).decode()}"


def _plain(value: Any) -> Any:
    """What JSON has words for."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value

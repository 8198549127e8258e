"""Everything that can be asked of a node, as plain values: method, path, body, and how the reply is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from atmo.client import options
from atmo.client.options import Json, Prompt
from atmo.client.results import Decision, Embeddings, Mesh, Models, Report, Status, vectors
from atmo.errors import AtmoError, by_code

T = TypeVar("T")
Headers = Mapping[str, str]

# The node answers at once or is stuck; what takes longer has the request's own deadline.
CONNECT_TIMEOUT_S = 5.0


class Call(msgspec.Struct, Generic[T], frozen=True):
    """silence_s: how long the node may say nothing until it counts as stuck."""

    method: str
    path: str
    body: Json | None
    silence_s: float
    read: Callable[[Any, Headers], T]


def _get(path: str, kind: Callable[[Any], T]) -> Call[T]:
    return Call("GET", path, None, 2 * CONNECT_TIMEOUT_S, lambda told, headers: kind(_object(told)))


def _post(path: str, body: Json, kind: Callable[[Any], T]) -> Call[T]:
    return Call("POST", path, body, 2 * CONNECT_TIMEOUT_S, lambda told, headers: kind(_object(told)))


def status() -> Call[Status]:
    return _get("/api/status", Status)


def mesh() -> Call[Mesh]:
    return _get("/api/mesh", Mesh)


def models() -> Call[Models]:
    return _get("/api/models", Models)


def members() -> Call[Report]:
    return _get("/api/members", Report)


def explain(request_id: str) -> Call[Decision]:
    return _get(f"/api/requests/{quote(request_id, safe='')}", Decision)


def route(text: str, wishes: Mapping[str, Any]) -> Call[Decision]:
    return _post("/api/route", options.routed(text, wishes), Decision)


def revoke(whom: str) -> Call[Report]:
    return _post("/api/revoke", {"whom": whom}, Report)


def stop() -> Call[Report]:
    return _post("/api/stop", {}, Report)


def events(since: int, *, follow: bool) -> Call[None]:
    """A stream: a pulse each second says that nothing happened."""
    path = f"/api/events?since={since}&follow={str(follow).lower()}"
    return Call("GET", path, None, CONNECT_TIMEOUT_S, lambda told, headers: None)


def ask(prompt: Prompt, wishes: Mapping[str, Any], *, intent: str = "") -> Call[None]:
    """A stream."""
    silence_s = options.timeout_of(wishes) + CONNECT_TIMEOUT_S
    body = options.asked(prompt, wishes, intent=intent)
    return Call("POST", "/api/ask", body, silence_s, lambda told, headers: None)


def execute(intent: str, given: str, wishes: Mapping[str, Any]) -> Call[None]:
    """A stream."""
    return ask(given or intent, wishes, intent=intent if given else "")


def embed(texts: Sequence[str], wishes: Mapping[str, Any]) -> Call[Embeddings]:
    def read(told: Any, headers: Headers) -> Embeddings:
        told = _object(told)
        return Embeddings(
            vectors=vectors([entry["embedding"] for entry in told["data"]]),
            model=told["model"],
            node=headers.get("x-atmo-node", ""),
            capability=headers.get("x-atmo-capability", ""),
            request_id=headers.get("x-atmo-request-id", ""),
            prompt_tokens=told["usage"]["prompt_tokens"],
        )

    silence_s = options.timeout_of(wishes) + CONNECT_TIMEOUT_S
    return Call("POST", "/v1/embeddings", options.embedded(texts, wishes), silence_s, read)


def step_of(told: Json) -> Json:
    """A line of a stream. Raises the node's error if it is one."""
    if told.get("event") == "error":
        raise _error(told)
    return told


def error_of(status: int, headers: Headers, body: bytes) -> AtmoError:
    """What a reply with an error's status says, in the node's own shape or in OpenAI's."""
    try:
        told = _object(json.loads(body)).get("error")
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return by_code("request_error", f"The node's address answered {status}.", hint="Is it a node's, or a proxy's?")
    waited = headers.get("retry-after-ms", "")
    return _error({"retry_after_s": float(waited) / 1000 if waited.isdigit() else None, **told})


def _error(told: Json) -> AtmoError:
    return by_code(
        told.get("code") or "internal_error",
        told.get("message", "The node refused."),
        hint=told.get("hint", ""),
        retry_after_s=float(told.get("retry_after_s") or 1.0),
    )


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}

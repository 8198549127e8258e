"""The OpenAPI description of `/v1`, made from the very types that decode the requests and encode the replies."""

from __future__ import annotations

from typing import Any

import msgspec

from atmo.gateway.handle import Json
from atmo.gateway.openai import replies, shapes

_REF = "#/components/schemas/{name}"
_SENT = {
    "/v1/chat/completions": ("Answer a chat", shapes.ChatRequest, replies.ChatReply),
    "/v1/completions": ("Continue a text", shapes.CompletionRequest, replies.TextReply),
    "/v1/embeddings": ("Turn texts into vectors", shapes.EmbeddingRequest, replies.EmbeddingReply),
}
_STREAMS = frozenset(("/v1/chat/completions", "/v1/completions"))
_HINTS = (
    ("x-atmo-constraints", "Where the request may go, such as `residency=eu, min_tps=20`."),
    ("x-atmo-type", "The type of capability that is wanted."),
    ("x-atmo-timeout-s", "Seconds until the request is given up."),
    ("x-atmo-private", "`1`: it stays where this node is: inside its residency, or at this node."),
    ("x-atmo-migrate", "`yes`: a model may come where nothing else can serve this; `no`: say nothing of it."),
    ("x-atmo-explain", "`1`: put the routing decision into the reply."),
)
_REFUSALS = {
    "400": "A field is missing, wrong or not supported, or the prompt is too long.",
    "401": "A key is needed.",
    "403": "The key does not allow it.",
    "404": "No such model.",
    "413": "The body is too large.",
    "415": "The body is not said to be JSON.",
    "429": "The key's limit is reached, or the engine's queue is full; `retry-after` says when to come again.",
    "500": "The node failed.",
    "502": "The node that served it failed, and no other could take over.",
    "503": "No node can serve this now; the message says which condition excluded whom.",
    "504": "The deadline passed.",
}


def describe(described: Json) -> Json:
    """Add the paths and types of `/v1`, and the key, to a description."""
    kinds = [*(kind for _, *both in _SENT.values() for kind in both), replies.ModelList, replies.ErrorReply]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    refs = dict(zip((kind.__name__ for kind in kinds), schemas, strict=True))
    for path, (summary, asked, answered) in _SENT.items():
        described["paths"][path] = {"post": _post(path, summary, refs[asked.__name__], refs[answered.__name__], refs)}
    described["paths"]["/v1/models"] = {"get": _get("The models of the mesh", refs["ModelList"], refs, ())}
    described["paths"]["/v1/models/{model}"] = {"get": _get("One model", _ref("Model"), refs, ("404",), "model")}
    parts = described.setdefault("components", {})
    parts.setdefault("schemas", {}).update(components)
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{}, {"key": []}]
    return described


def _post(path: str, summary: str, asked: Json, answered: Json, refs: dict[str, Json]) -> Json:
    content: dict[str, Any] = {"application/json": {"schema": answered}}
    if path in _STREAMS:
        content["text/event-stream"] = {}  # chunks; OpenAPI 3.1 has no word for the schema of each
    return {
        "tags": ["openai"],
        "summary": summary,
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
            for name, text in _HINTS
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
        "responses": {"200": {"description": "The answer.", "content": content}, **_refusals(refs, tuple(_REFUSALS))},
    }


def _get(summary: str, answered: Json, refs: dict[str, Json], refusals: tuple[str, ...], name: str = "") -> Json:
    place = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}] if name else []
    responses = {"200": {"description": "Found.", "content": {"application/json": {"schema": answered}}}}
    return {
        "tags": ["openai"],
        "summary": summary,
        "operationId": f"get_{name or 'models'}",
        "parameters": place,
        "responses": {**responses, **_refusals(refs, ("401", "403", *refusals))},
    }


def _refusals(refs: dict[str, Json], statuses: tuple[str, ...]) -> Json:
    content = {"application/json": {"schema": refs["ErrorReply"]}}
    return {status: {"description": _REFUSALS[status], "content": content} for status in statuses}


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}

"""The node's native HTTP API. Today it listens on a Unix socket that only the node's user can open.

It knows the node only by the handles in `NodeHandle`; errors leave in OpenAI's shape, `{"error": {...}}`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from atmo import __version__
from atmo.errors import AtmoError
from atmo.generation import Task

Json = dict[str, Any]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")
    role: str = Field(pattern="^(system|user|assistant)$")
    content: str


class RouteRequest(BaseModel):
    """What is asked for, without asking it. `constraints` as in docs/routing.md."""

    model_config = ConfigDict(extra="forbid")
    text: str
    model: str = ""
    type: str = ""
    constraints: Json = Field(default_factory=dict)


class AskRequest(RouteRequest):
    """`max_tokens` 0: no limit; `seed` -1: any; `timeout_s`: seconds until the request is given up."""

    system: str = ""
    history: list[Message] = Field(default_factory=list)
    max_tokens: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.0, ge=0.0, le=5.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int = -1
    stop: list[str] = Field(default_factory=list, max_length=16)
    timeout_s: float = Field(default=120.0, gt=0.0, le=86400.0)


class RevokeRequest(BaseModel):
    """whom: a node's name, a peer id or the end of one, or the end of an invite's id."""

    model_config = ConfigDict(extra="forbid")
    whom: str = Field(min_length=1, max_length=100)


class NodeHandle(Protocol):
    """What the gateway needs of a node. All raise AtmoError."""

    def status(self) -> Json: ...

    def mesh_view(self) -> Json: ...

    def events(self, since: int, *, follow: bool) -> AsyncIterator[Json]: ...

    def models_view(self) -> Json: ...

    def members_view(self) -> Json: ...

    def revoke(self, whom: str) -> Json: ...

    def route(self, request: RouteRequest) -> Json: ...

    def explained(self, request_id: str) -> Json: ...

    def ask(self, request: AskRequest) -> AsyncIterator[Json]: ...

    def answer(self, wish: RouteRequest, task: Task, timeout_s: float) -> AsyncIterator[Json]: ...

    def want_stop(self) -> None: ...


def build_app(node: NodeHandle) -> FastAPI:
    app = FastAPI(title="Atmosphere", version=__version__, docs_url=None, redoc_url=None)

    @app.exception_handler(AtmoError)
    async def on_error(_: Request, error: AtmoError) -> JSONResponse:
        return JSONResponse({"error": error_json(error)}, status_code=error.http_status)

    @app.exception_handler(RequestValidationError)
    async def on_bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{where}: {first['msg']}." if where else f"{first['msg']}."
        return JSONResponse({"error": {"code": "invalid_request", "message": message, "hint": ""}}, status_code=400)

    @app.get("/health")
    async def health() -> Json:
        return {"status": "ok"}

    @app.get("/api/status")
    async def status() -> Json:
        return node.status()

    @app.get("/api/mesh")
    async def mesh() -> Response:
        # Asked each second by those who watch, and large: FastAPI's own encoding takes 15 ms for 200 nodes, this 0.2.
        return Response(msgspec.json.encode(node.mesh_view()), media_type="application/json")

    @app.get("/api/events")
    async def events(since: Annotated[int, Query(ge=0)] = 0, follow: bool = True) -> StreamingResponse:
        return StreamingResponse(_lines(node.events(since, follow=follow)), media_type="application/x-ndjson")

    @app.get("/api/members")
    async def members() -> Json:
        return node.members_view()

    @app.post("/api/revoke")
    async def revoke(request: RevokeRequest) -> Json:
        return node.revoke(request.whom)

    @app.get("/api/models")
    async def models() -> Json:
        return node.models_view()

    @app.get("/api/requests/{request_id}")
    async def explained(request_id: str) -> Json:
        return node.explained(request_id)

    @app.post("/api/route")
    async def route(request: RouteRequest) -> Json:
        return node.route(request)

    @app.post("/api/ask")
    async def ask(request: AskRequest) -> StreamingResponse:
        return StreamingResponse(_lines(node.ask(request)), media_type="application/x-ndjson")

    @app.post("/api/stop")
    async def stop() -> Json:
        status = node.status()["node"]
        node.want_stop()
        return {"name": status["name"], "pid": status["pid"]}

    return app


async def _lines(events: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    """One JSON object a line; an error is the last line, since the status has been sent by then."""
    try:
        async for event in events:
            yield msgspec.json.encode(event) + b"\n"
    except AtmoError as error:
        yield msgspec.json.encode({"event": "error", **error_json(error)}) + b"\n"


def error_json(error: AtmoError) -> Json:
    retry_after_s = getattr(error, "retry_after_s", None)
    return {"code": error.code, "message": error.message, "hint": error.hint, "retry_after_s": retry_after_s}

"""The node's own API under `/api`: what the command line and `SyncClient` use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from atmo.errors import AtmoError
from atmo.gateway.asgi import trace_of
from atmo.gateway.handle import AskRequest, FetchRequest, Json, NodeHandle, RevokeRequest, RouteRequest
from atmo.gateway.trace import Trace


def native_routes(node: NodeHandle) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["node"])

    @router.get("/status")
    async def status() -> Json:
        """The node itself: name, address, capabilities and their state, problems."""
        return node.status()

    @router.get("/mesh")
    async def mesh() -> Response:
        """All nodes this node knows, with their capabilities and load."""
        # Asked each second by those who watch, and large: FastAPI's own encoding takes 15 ms for 200 nodes, this 0.2.
        return Response(msgspec.json.encode(node.mesh_view()), media_type="application/json")

    @router.get("/events")
    async def events(since: Annotated[int, Query(ge=0)] = 0, follow: bool = True) -> StreamingResponse:
        """What happens: members, health, requests and their routes, one JSON object a line."""
        told = _encoded(node.events(since, follow=follow))
        return StreamingResponse(told, media_type="application/x-ndjson")

    @router.get("/members")
    async def members() -> Json:
        """Who belongs to the mesh, by which invite, until when."""
        return node.members_view()

    @router.post("/revoke")
    async def revoke(request: RevokeRequest) -> Json:
        """Take back a member or an invite. Only over the Unix socket."""
        return node.revoke(request.whom)

    @router.get("/models")
    async def models() -> Json:
        """What the mesh serves, by capability."""
        return node.models_view()

    @router.get("/transfers")
    async def transfers() -> Json:
        """Models on their way here and from here, and those that arrived lately."""
        return node.transfers_view()

    @router.post("/fetch")
    async def fetch(request: FetchRequest) -> Json:
        """Begin to fetch a model from peers; `/api/transfers` says how far it is. Only over the Unix socket."""
        return node.fetch(request.model)

    @router.post("/fetch/stop")
    async def stop_fetch(request: FetchRequest) -> Json:
        """Stop fetching a model, named by its root; what is here is kept. Only over the Unix socket."""
        return node.stop_fetch(request.model)

    @router.get("/requests/{request_id}")
    async def explained(request_id: str) -> Json:
        """The decision that was made for a request some time ago."""
        return node.explained(request_id)

    @router.post("/route")
    async def route(request: RouteRequest) -> Json:
        """Where a text would go and why. Nothing is sent."""
        return node.route(request)

    @router.post("/ask")
    async def ask(asked: AskRequest, request: Request) -> StreamingResponse:
        """Ask and stream what happens, one JSON object a line."""
        trace = trace_of(request.scope)
        trace.asked = asked.model or "auto"
        return StreamingResponse(_lines(node.ask(asked), trace), media_type="application/x-ndjson")

    @router.post("/stop")
    async def stop() -> Json:
        """Stop the node. Only over the Unix socket."""
        status = node.status()["node"]
        node.want_stop()
        return {"name": status["name"], "pid": status["pid"]}

    return router


async def _encoded(events: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    async for event in events:
        yield msgspec.json.encode(event) + b"\n"


async def _lines(events: AsyncIterator[Json], trace: Trace) -> AsyncIterator[bytes]:
    """One JSON object a line; an error is the last line, since the status has been sent by then."""
    try:
        async for event in events:
            trace.hear(event)
            yield msgspec.json.encode(event) + b"\n"
    except AtmoError as error:
        trace.code = error.code
        yield msgspec.json.encode({"event": "error", **error_json(error)}) + b"\n"


def error_json(error: AtmoError) -> Json:
    retry_after_s = getattr(error, "retry_after_s", None)
    return {"code": error.code, "message": error.message, "hint": error.hint, "retry_after_s": retry_after_s}

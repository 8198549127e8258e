"""The HTTP app: OpenAI's API under `/v1`, the node's own under `/api`, what operators need, and the web page.

It knows the node only by `NodeHandle`. `Entrance` stands around it and gives each request its id, key, body, account.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from atmo import __version__
from atmo.errors import AtmoError
from atmo.gateway.asgi import App, Receive, Scope, Send, trace_of
from atmo.gateway.handle import Json, NodeHandle
from atmo.gateway.metrics import CONTENT_TYPE, Metrics
from atmo.gateway.native import error_json, native_routes
from atmo.gateway.openai.description import describe
from atmo.gateway.openai.endpoints import endpoints
from atmo.gateway.openai.errors import error_body, error_headers, wrong_address
from atmo.gateway.page import GUARDS, page
from atmo.gateway.site import PREFIX, Site

ABOUT = "One API for all your machines. `/v1` is OpenAI's; see docs/api.md for what of it is here."


Shortcuts = dict[tuple[str, str], App]


def build_app(node: NodeHandle, metrics: Metrics) -> tuple[FastAPI, Shortcuts]:
    """The app, and those of its endpoints that the entrance calls by (method, path) without asking it."""
    app = FastAPI(title="Atmosphere", version=__version__, description=ABOUT, docs_url=None, redoc_url=None)
    _errors(app)
    _operators(app, node, metrics)
    app.include_router(native_routes(node))
    made = endpoints(node)
    for method, path, endpoint in made:
        app.router.routes.append(Route(path, _Endpoint(endpoint), methods=[method], include_in_schema=False))
    site = Site()
    for path, files in (("/", site.page), (PREFIX + "{path:path}", site.file)):
        app.router.routes.append(Route(path, _Endpoint(files), methods=["GET", "HEAD"], include_in_schema=False))
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]
    return app, {(method, path): endpoint for method, path, endpoint in made}


class _Endpoint:
    """An ASGI app that Starlette does not take for a function of a request."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _operators(app: FastAPI, node: NodeHandle, metrics: Metrics) -> None:
    @app.get("/health", tags=["operation"])
    async def health() -> Json:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operation"], responses={503: {"description": "An engine is loading, or failed."}})
    async def ready() -> JSONResponse:
        """200 when every engine of this node answers or has failed for good, and one answers if there are any."""
        states = {entry["id"]: entry["state"] for entry in node.status()["capabilities"]}
        up = not states or ("ready" in states.values() and "loading" not in states.values())
        return JSONResponse(
            {"status": "ready" if up else "not ready", "capabilities": states}, status_code=200 if up else 503
        )

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics_text() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(page(app.openapi(), str(request.base_url)), headers=GUARDS)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(AtmoError)
    async def on_error(request: Request, error: AtmoError) -> Response:
        trace_of(request.scope).code = error.code
        if _is_openai(request):
            body, kind = error_body(error), "application/json"
            headers = {name.decode(): value.decode() for name, value in error_headers(error)}
            return Response(body, error.http_status, headers, kind)
        return JSONResponse({"error": error_json(error)}, status_code=error.http_status)

    @app.exception_handler(RequestValidationError)
    async def on_bad_request(request: Request, error: RequestValidationError) -> JSONResponse:
        trace_of(request.scope).code = "invalid_request"
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{where}: {first['msg']}." if where else f"{first['msg']}."
        return JSONResponse({"error": {"code": "invalid_request", "message": message, "hint": ""}}, status_code=400)

    @app.exception_handler(HTTPException)
    async def on_wrong_address(request: Request, error: HTTPException) -> Response:
        """Unknown paths and methods."""
        body, code = wrong_address(request.method, request.url.path, error.status_code, openai=_is_openai(request))
        trace_of(request.scope).code = code
        return Response(body, error.status_code, dict(error.headers or {}), "application/json")

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        """The entrance logs it."""
        failed = AtmoError(f"The node failed: {type(error).__name__}.", hint="See its log.")
        return await on_error(request, failed)


def _is_openai(request: Request) -> bool:
    return request.url.path.startswith("/v1")


def _description(app: FastAPI) -> Json:
    """OpenAPI of everything: FastAPI knows its own routes, `describe` adds those of `/v1`."""
    if not app.openapi_schema:
        made: dict[str, Any] = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        app.openapi_schema = describe(made)
    return app.openapi_schema

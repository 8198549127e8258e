"""Where every HTTP request comes in and leaves: its id, its key, its body, its account.

The innermost of it is any ASGI app; errors of our tree that it raises become replies here, in OpenAI's shape under
`/v1` and in the node's own elsewhere. A body is read whole before the app is called: bounded in size and in time, so
that nobody holds memory or a slot by sending slowly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol

import msgspec
import structlog

from atmo.errors import AtmoError, BodyTooLarge, Cancelled, SlowRequest
from atmo.gateway.api_keys import ApiKey
from atmo.gateway.asgi import BODY_KEY, JSON, App, Receive, Scope, Send
from atmo.gateway.metrics import Metrics
from atmo.gateway.native import error_json
from atmo.gateway.openai.errors import error_body, error_headers
from atmo.gateway.policy import Policy
from atmo.gateway.trace import SCOPE_KEY, Trace, acceptable_id, new_id

log = structlog.get_logger("atmo.gateway")

# A body has so long, and longer the more of it there is: slower than this is nobody's network. Guesses.
BODY_S = 15.0
BODY_BYTES_PER_S = 64 << 10

# Read all the time and of no interest afterwards.
_QUIET = frozenset((
    "/", "/web", "/health", "/ready", "/metrics", "/docs", "/openapi.json", "/api/status", "/api/mesh", "/api/models",
    "/api/events", "/api/transfers",
))  # fmt: skip
_KNOWN = _QUIET | {
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/api/ask", "/api/route",
    "/api/members", "/api/revoke", "/api/stop",
}  # fmt: skip
_FAMILIES = {"/v1/models/": "/v1/models/{model}", "/api/requests/": "/api/requests/{id}", "/web/": "/web"}


class Recorder(Protocol):
    """Told of every request that has ended, if it is of interest."""

    def record(self, trace: Trace) -> None: ...


class Entrance:
    """app: what answers; shortcuts: apps for (method, path) that are asked so often that they are called without it;
    door: `unix` or `tcp`; policy: who may come in, None for the owner's own socket."""

    def __init__(
        self,
        app: App,
        shortcuts: Mapping[tuple[str, str], App],
        *,
        door: str,
        policy: Policy | None,
        metrics: Metrics,
        audit: Recorder,
        max_body_bytes: int,
        now: Callable[[], float],
    ) -> None:
        self._app = app
        self._shortcuts = shortcuts
        self._door = door
        self._policy = policy
        self._metrics = metrics
        self._audit = audit
        self._max_body_bytes = max_body_bytes
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        trace = self._begin(scope, headers)
        told = _Reply(send, trace, self._now)
        key: ApiKey | None = None
        self._metrics.in_flight.inc()
        try:
            if self._policy is not None:
                key = self._policy.admit(scope, trace, headers, self._now())
            body = scope[BODY_KEY] = await self._body(headers, receive)
            shortcut = self._shortcuts.get((scope["method"], scope["path"]))
            if shortcut is not None:
                await shortcut(scope, receive, told.send)
            else:
                await self._app(scope, _Replay(body, receive), told.send)
        except AtmoError as error:
            trace.code = error.code
            await told.fail(error, scope["path"])
        except Exception as error:
            trace.code = "internal_error"
            log.exception("a request failed", request=trace.id, endpoint=trace.endpoint)
            await told.fail(AtmoError(f"The node failed: {type(error).__name__}.", hint="See its log."), scope["path"])
        finally:
            self._metrics.in_flight.dec()
            if key is not None and self._policy is not None:
                self._policy.leave(key)
            self._end(trace, scope["method"])

    def _begin(self, scope: Scope, headers: dict[bytes, bytes]) -> Trace:
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        known = acceptable_id(given) if given else False
        trace = Trace(given if known else new_id(), self._door, self._now(), given=known)
        trace.endpoint = _endpoint(scope["path"])
        if self._policy is None:
            trace.key = "owner"
        scope[SCOPE_KEY] = trace
        return trace

    def _end(self, trace: Trace, method: str) -> None:
        trace.total_s = self._now() - trace.began_s
        self._metrics.record(trace)
        if trace.endpoint in _QUIET and (trace.status < 400 or method == "GET"):
            return
        self._audit.record(trace)
        say = log.warning if trace.status >= 500 else log.info if trace.status >= 400 or trace.code else log.debug
        say(
            "request", request=trace.id, mesh_request=trace.mesh_id, endpoint=trace.endpoint, key=trace.key,
            capability=trace.capability, node=trace.node, status=trace.status, code=trace.code,
            total_ms=round(trace.total_s * 1e3, 1),
        )  # fmt: skip

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """All of it. Raises BodyTooLarge, SlowRequest or Cancelled."""
        told = headers.get(b"content-length")
        if told is None and b"transfer-encoding" not in headers:
            return b""
        if told is not None and int(told) > self._max_body_bytes:  # the parser has checked that it is a number
            raise self._too_large()
        try:
            async with asyncio.timeout(BODY_S + int(told or self._max_body_bytes) / BODY_BYTES_PER_S):
                return await self._read(receive)
        except TimeoutError:
            raise SlowRequest("The body of the request did not arrive in time.") from None

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Cancelled("The client went away.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is larger than {self._max_body_bytes} bytes.", hint="max_body_bytes in [gateway] sets the limit."
        )


class _Reply:
    """Watches a reply: its status, when it began, and what every reply bears."""

    def __init__(self, send: Send, trace: Trace, now: Callable[[], float]) -> None:
        self._send = send
        self._trace = trace
        self._now = now

    async def send(self, message: MutableMapping[str, Any]) -> None:
        trace = self._trace
        if not trace.status and message["type"] == "http.response.start":
            trace.status = message["status"]
            trace.first_s = self._now() - trace.began_s
            message["headers"] = [*message.get("headers", ()), *trace.reply_headers()]
        await self._send(message)

    async def fail(self, error: AtmoError, path: str) -> None:
        """Say what went wrong, if nothing was said yet; a stream that has begun has told its end itself, or is cut."""
        if self._trace.status:
            return
        body = error_body(error) if path.startswith("/v1") else msgspec.json.encode({"error": error_json(error)})
        headers = [JSON, (b"content-length", b"%d" % len(body)), *error_headers(error)]
        await self.send({"type": "http.response.start", "status": error.http_status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _Replay:
    """`receive` for an app that reads the body itself: it gets what was read already, then what really comes."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _endpoint(path: str) -> str:
    """A path as a label: one of few."""
    if path in _KNOWN:
        return path
    for prefix, name in _FAMILIES.items():
        if path.startswith(prefix):
            return name
    return "/v1/other" if path.startswith("/v1/") else "other"

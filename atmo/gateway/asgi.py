"""The little of ASGI that the gateway speaks itself: a whole reply, the begin of a stream, a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from atmo.errors import Cancelled
from atmo.gateway.trace import SCOPE_KEY, Trace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

# Where the entrance leaves a request's body.
BODY_KEY = "atmo.body"
JSON = (b"content-type", b"application/json")
# A stream must not be gathered by whoever stands in between.
EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def trace_of(scope: Scope) -> Trace:
    trace: Trace = scope[SCOPE_KEY]
    return trace


async def reply(send: Send, status: int, body: bytes, headers: list[Header]) -> None:
    """A reply in one piece."""
    told = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@asynccontextmanager
async def while_client_listens(receive: Receive) -> AsyncIterator[None]:
    """Ends the block as soon as the client has gone: raises Cancelled, after what ran inside was cancelled."""
    task = asyncio.current_task()
    assert task is not None
    watcher = asyncio.create_task(_gone(receive, task))
    try:
        yield
    except asyncio.CancelledError:
        if watcher.done() and not watcher.cancelled() and task.uncancel() == 0:
            raise Cancelled("The client went away.") from None
        raise
    finally:
        watcher.cancel()


async def _gone(receive: Receive, task: asyncio.Task[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()

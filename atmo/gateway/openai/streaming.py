"""A reply that is a stream of server-sent events: its head, its chunks, its end, and signs of life before the first.

A stream begins with its first word, because until then an error can have a status of its own. Where a model has to come
first that may take minutes, so it begins with the journey: comments, which clients pass over and which keep the
connection from being taken for dead.
"""

from __future__ import annotations

import asyncio

from atmo.gateway.asgi import EVENT_STREAM, Send
from atmo.gateway.handle import Json

# How often a comment says how far the model is.
SIGN_S = 1.0


class EventStream:
    """Leave it as a context manager."""

    def __init__(self, send: Send) -> None:
        self.begun = False
        self._send = send
        self._sign = b""
        self._signs: asyncio.Task[None] | None = None

    async def travels(self, event: Json) -> None:
        """A model is on its way: say so, at once and again and again until the first chunk."""
        self._sign = b": " + _in_words(event).encode() + b"\n\n"
        if not self.begun:
            await self.write(self._sign)
            self._signs = asyncio.create_task(self._go_on(), name="signs of life")

    async def write(self, chunk: bytes, *, last: bool = False) -> None:
        await self._quiet()
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(SIGN_S)
            await self._send({"type": "http.response.body", "body": self._sign, "more_body": True})

    async def _quiet(self) -> None:
        if self._signs is not None:
            signs, self._signs = self._signs, None
            signs.cancel()
            await asyncio.wait([signs])

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._quiet()


def _in_words(event: Json) -> str:
    """Names come from other nodes: none of them may end a line."""
    model = "".join(char if char.isprintable() else "?" for char in str(event["model"]))
    if event["event"] == "loading":
        return f"loading {model}"
    return f"fetching {model}: {event['bytes_done']:,} of {event['bytes_total']:,} bytes"

"""One HTTP connection: uvicorn's protocol with limits of its own, against those who hold what they do not use.

A connection that has no request to answer has so long to send a head, a head has so many bytes, a reader who does not
read is cut off, and there are only so many connections at once. TCP_NODELAY is set, or the first token of a stream
waits for an acknowledgement.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# From the connection to the end of a request's head, in seconds. A guess: slower than any network that is used.
HEAD_S = 20.0
# As most servers have it; uvicorn with this parser has no limit.
MAX_HEAD_BYTES = 64 << 10
# Of a body that was refused, and is read so that the client comes to read why. A guess: more than anybody sends.
MAX_UNWANTED_BYTES = 512 << 20
# How long a client may leave what it is sent unread. A guess.
STALLED_S = 60.0
# Of the process's files, for connections; the rest is for the mesh, engines and models.
SHARE_OF_FILES = 0.75
WANTED_FILES = 65_536

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Corked:
    """A transport that gathers what is written in one turn of the event loop and writes it in one piece.

    A reply's head and body, or the words that came together, would otherwise cost a system call and a packet each.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def flush(self) -> None:
        if self._waiting:
            data, self._waiting = b"".join(self._waiting), []
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """Made by uvicorn for each connection."""

    head_s = HEAD_S
    stalled_s = STALLED_S
    max_connections = 1 << 30

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_body = False
        self._head_bytes = self._unwanted_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        corked = Corked(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, corked))
        self._corked = corked
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        link = transport.get_extra_info("socket")
        if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        answering: RequestResponseCycle | None = self.cycle
        idle = answering is None or answering.response_complete
        if self._in_body and idle:
            self._unwanted_bytes += len(data)
            if self._unwanted_bytes > MAX_UNWANTED_BYTES:
                self.transport.abort()
        elif idle and self._head_timer is None:
            self._await_head()
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._head_bytes = self._unwanted_bytes = 0
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._corked.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_s, self._late)

    def _late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.write(_TOO_LATE)
            self.transport.close()

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stall_timer = None


def limited(**limits: Any) -> type[Connection]:
    """A kind of connection with these limits: head_s, stalled_s, max_connections."""
    return type("Connection", (Connection,), limits)


def room_for_connections() -> int:
    """Raise this process's limit of open files as far as that is allowed; how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # a container may forbid it; then there are fewer
    return int((WANTED_FILES if soft == resource.RLIM_INFINITY else soft) * SHARE_OF_FILES)

"""A client of llama.cpp's own HTTP API: as much of HTTP/1.1 as that server speaks, one connection a request.

Closing a connection is how llama.cpp is told to stop, so connections are not shared or kept. The server is not
trusted to be correct: sizes are bounded, and what does not parse is a ProtocolError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec

from atmo.errors import EngineUnavailable, ProtocolError

Connect: TypeAlias = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_MAX_BODY_BYTES = 64 * 1024 * 1024  # a guess, as in protocol.py
_MAX_HEADERS = 64
_EVENT = b"data: "


class HttpRefusal(Exception):
    """The server answered with an error. body: its JSON, `{}` when it sent none."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


class LlamaHttp:
    """connect opens a new connection; authorization, when given, goes into the header of that name."""

    def __init__(self, connect: Connect, *, authorization: str = "") -> None:
        self._connect = connect
        self._authorization = authorization

    async def post(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises HttpRefusal, EngineUnavailable when there is no server, ProtocolError when it makes no sense."""
        async with self._request(path, payload) as body:
            return _object(b"".join([part async for part in body]))

    @asynccontextmanager
    async def events(self, path: str, payload: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The server-sent events of a streamed answer. Leaving the context closes the connection: the server stops."""
        async with self._request(path, payload) as body:
            yield _events(body)

    @asynccontextmanager
    async def _request(self, path: str, payload: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            reader, writer = await self._connect()
        except OSError as error:
            raise EngineUnavailable(f"llama.cpp's server does not take connections: {error.strerror}.") from error
        try:
            writer.write(self._head(path, payload))
            status, headers = await _read_head(reader)
            body = _body(reader, headers)
            if status != 200:
                raise HttpRefusal(status, _object(b"".join([part async for part in body])))
            yield body
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ProtocolError("llama.cpp's server broke off in the middle of an answer.") from error
        finally:
            writer.close()

    def _head(self, path: str, payload: dict[str, Any]) -> bytes:
        body = msgspec.json.encode(payload)
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Connection: close"]
        if self._authorization:
            lines.append(f"Authorization: {self._authorization}")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    parts = (await reader.readline()).split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        raise ProtocolError("llama.cpp's server did not answer in HTTP.")
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = (await reader.readline()).strip()
        if not line:
            return int(parts[1]), headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    raise ProtocolError(f"llama.cpp's server sent more than {_MAX_HEADERS} headers.")


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
    if headers.get("transfer-encoding") == "chunked":
        while size := _size(await reader.readline(), 16):
            part = await reader.readexactly(size + 2)
            yield part[:-2]
        return
    size = _size(headers.get("content-length", "0").encode(), 10)
    yield await reader.readexactly(size)


def _size(digits: bytes, base: int) -> int:
    try:
        size = int(digits.split(b";")[0], base)
    except ValueError as error:
        raise ProtocolError("llama.cpp's server sent a size that is no number.") from error
    if not 0 <= size <= _MAX_BODY_BYTES:
        raise ProtocolError(f"llama.cpp's server announced {size} bytes; {_MAX_BODY_BYTES} are allowed.")
    return size


async def _events(body: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    pending = b""
    async for part in body:
        *lines, pending = (pending + part).split(b"\n")
        for line in lines:
            if line.startswith(_EVENT) and line != b"data: [DONE]":
                yield _object(line[len(_EVENT) :])


def _object(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ProtocolError("llama.cpp's server sent something that is no JSON object.") from error

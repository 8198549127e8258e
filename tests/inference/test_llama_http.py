"""The client of llama.cpp's HTTP API against servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atmo.errors import EngineUnavailable, ProtocolError
from atmo.inference.engines.llama_http import HttpRefusal, LlamaHttp

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def serving(*parts: bytes, then: Callable[[], None] = lambda: None) -> AsyncIterator[LlamaHttp]:
    """A client of a server that answers one request with `parts`, each in a packet of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        then()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield LlamaHttp(lambda: asyncio.open_connection("127.0.0.1", port), authorization="Bearer key")
    finally:
        server.close()
        await server.wait_closed()


async def events(http: LlamaHttp) -> list[dict[str, Any]]:
    async with http.events("/completion", {}) as stream:
        return [event async for event in stream]


@pytest.mark.asyncio
async def test_a_body_is_read_by_its_length_or_by_chunks() -> None:
    async with serving(OK + b'Content-Length: 8\r\n\r\n{"a": 1}') as http:
        assert await http.post("/x", {}) == {"a": 1}
    async with serving(CHUNKED, chunk(b'{"a"'), chunk(b": 2}"), chunk(b"")) as http:
        assert await http.post("/x", {}) == {"a": 2}


@pytest.mark.asyncio
async def test_events_are_found_however_they_are_cut() -> None:
    stream = b'data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n'
    for at in range(1, len(stream)):
        async with serving(CHUNKED, chunk(stream[:at]), chunk(stream[at:]), chunk(b"")) as http:
            assert await events(http) == [{"n": 1}, {"n": 2}]


@pytest.mark.asyncio
async def test_an_error_status_brings_its_body() -> None:
    async with serving(b'HTTP/1.1 400 Bad\r\nContent-Length: 20\r\n\r\n{"error":{"code":1}}') as http:
        with pytest.raises(HttpRefusal) as caught:
            await http.post("/x", {})
    assert (caught.value.status, caught.value.body) == (400, {"error": {"code": 1}})


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ([b"SSH-2.0-OpenSSH\r\n"], "did not answer in HTTP"),
        ([b""], "did not answer in HTTP"),
        ([OK + b"X: 1\r\n" * 100], "more than 64 headers"),
        ([CHUNKED, b"zz\r\n"], "no number"),
        ([CHUNKED, b"fffffffff\r\n"], "are allowed"),
        ([OK + b"Content-Length: -5\r\n\r\n"], "are allowed"),
        ([OK + b"Content-Length: 9\r\n\r\n{"], "broke off"),
        ([OK + b"Content-Length: 2\r\n\r\n[]"], "no JSON object"),
        ([CHUNKED, chunk(b'data: {"n":1}\n\n')], "no number"),
        ([CHUNKED, chunk(b"data: nonsense\n\n"), chunk(b"")], "no JSON object"),
    ],
)
async def test_nonsense_is_a_protocol_error(parts: list[bytes], what: str) -> None:
    async with serving(*parts) as http:
        with pytest.raises(ProtocolError, match=what):
            await events(http) if parts[0] == CHUNKED else await http.post("/x", {})


@pytest.mark.asyncio
async def test_no_server_is_an_engine_that_is_not_there() -> None:
    async def refuse() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(EngineUnavailable, match="does not take connections: Connection refused"):
        await LlamaHttp(refuse).post("/x", {})

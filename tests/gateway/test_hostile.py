"""Clients that hold what they do not use: the others do not notice."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from atmo.gateway import connection, entrance
from atmo.generation import Task
from tests.cluster import eventually
from tests.gateway.support import CHAT, Api, Json, PlayedNode, done, http, route, serving, text, world

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with world() as environ, serving(environ) as running:
        yield running


@pytest.fixture
def hurried(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A gateway with little patience."""
    monkeypatch.setattr(connection.Connection, "head_s", 0.3)
    monkeypatch.setattr(entrance, "BODY_S", 0.3)
    monkeypatch.setattr(entrance, "BODY_BYTES_PER_S", 1 << 30)
    with serving(environ) as running:
        yield running


def dial(api: Api) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port), timeout=10.0)


def all_of(link: socket.socket) -> bytes:
    """Everything until the other end closes."""
    heard = b""
    while data := link.recv(65536):
        heard += data
    return heard


def test_a_head_that_does_not_end_is_cut_off(hurried: Api) -> None:
    with dial(hurried) as silent, dial(hurried) as slow:
        slow.sendall(b"GET /v1/models HTTP/1.1\r\n")
        assert all_of(slow).startswith(b"HTTP/1.1 408 ")
        assert all_of(silent).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_drips_gets_no_more_time_for_each_drop(hurried: Api) -> None:
    with dial(hurried) as slow:
        slow.sendall(b"GET /v1/models HTTP/1.1\r\n")
        slow.settimeout(0.05)
        heard, ends_s = b"", time.monotonic() + 10.0
        while not heard and time.monotonic() < ends_s:
            slow.sendall(b"x-drop: 1\r\n")
            try:
                heard = slow.recv(1000)
            except TimeoutError:
                pass
        assert heard.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_does_not_come_is_given_up(hurried: Api) -> None:
    with dial(hurried) as slow:
        slow.sendall(HEAD + b"content-length: 1000\r\nconnection: close\r\n\r\n{")
        heard = all_of(slow)
        assert heard.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive in time" in heard
    assert hurried.node.wishes == []


def test_a_connection_that_waits_for_its_next_request_is_kept(hurried: Api) -> None:
    with hurried.client() as client:
        client.models.list()
        time.sleep(0.6)  # twice what a head may take: it is the point that nothing happens
        client.models.list()
        assert http(hurried, "GET", "/v1/models").status == 200


def test_a_head_without_end_is_refused(api: Api) -> None:
    with dial(api) as large:
        large.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n")
        try:
            while True:
                large.sendall(b"x-more: " + b"y" * 8000 + b"\r\n")
        except OSError:
            pass  # cut off
    assert http(api, "GET", "/v1/models").status == 200


def test_garbage_is_no_request(api: Api) -> None:
    with dial(api) as odd:
        odd.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10)
        assert all_of(odd).startswith(b"HTTP/1.1 400 ")


def test_a_hundred_megabytes_are_refused_and_not_kept(api: Api) -> None:
    """Announced or not. The gateway runs in this process; it may hold one body of the size that is allowed."""
    process = psutil.Process()
    before = process.memory_info().rss
    most = 0

    def pieces() -> Iterator[bytes]:
        nonlocal most
        for _ in range(1600):
            most = max(most, process.memory_info().rss)
            yield b"x" * (64 << 10)

    refused = http(api, "POST", "/v1/chat/completions", pieces())
    assert (refused.status, refused.error["code"]) == (413, "request_too_large")
    announced = http(api, "POST", "/v1/chat/completions", pieces(), Content_Length=str(1600 * (64 << 10)))
    assert announced.status == 413
    assert most - before < 80 << 20
    assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200


def test_idle_connections_by_the_hundred_disturb_nobody(api: Api) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(dial(api)) for _ in range(500)]
        assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200
        assert len(idle) == 500


def test_beyond_the_most_connections_new_ones_are_turned_away(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atmo.gateway.gateway.room_for_connections", lambda: 3)
    with serving(environ) as api, ExitStack() as stack:
        kept = [stack.enter_context(dial(api)) for _ in range(3)]
        eventually(lambda: _turned_away(api), "the fourth is turned away")
        for one in kept:
            one.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert all_of(one).startswith(b"HTTP/1.1 200 ")
        assert http(api, "GET", "/health").status == 200


def _turned_away(api: Api) -> bool:
    with dial(api) as one:
        try:
            one.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return one.recv(100) == b""
        except ConnectionError:
            return True


def waits_after(*events: Json) -> Callable[[Task], AsyncIterator[Json]]:
    async def play(task: Task) -> AsyncIterator[Json]:
        for event in events:
            yield event
        await asyncio.Event().wait()

    return play


@pytest.mark.parametrize("body", [{**CHAT, "stream": True}, CHAT, {**CHAT, "n": 3}])
def test_when_the_client_goes_away_the_work_ends_at_once(environ: dict[str, str], body: Json) -> None:
    with serving(environ, PlayedNode(waits_after(route(), text("Hel")))) as api:
        with dial(api) as link:
            payload = _json(body)
            link.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(payload) + payload)
            eventually(lambda: api.node.open == body.get("n", 1), "the work has begun")
            left_s = time.monotonic()
        eventually(lambda: api.node.open == 0, "the work has ended")
        assert time.monotonic() - left_s < 5.0  # bench/ has the real number; here it matters that it ends by itself
        api.node.forget()
        assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200


def test_a_reader_that_stalls_is_cut_off(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def floods(task: Task) -> AsyncIterator[Json]:
        yield route()
        for _ in range(10_000):
            yield text("x" * 10_000)
        yield done()

    monkeypatch.setattr(connection.Connection, "stalled_s", 0.3)
    with serving(environ, PlayedNode(floods)) as api, dial(api) as link:
        payload = _json({**CHAT, "stream": True})
        link.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(payload) + payload)
        eventually(lambda: api.node.open == 1, "it floods")
        eventually(lambda: api.node.open == 0, "it was cut off")


def test_the_first_word_is_not_held_back(environ: dict[str, str]) -> None:
    """It arrives while the rest is not even thought of, with TCP_NODELAY on the accepted socket."""
    with serving(environ, PlayedNode(waits_after(route(), text("Hel")))) as api, dial(api) as link:
        payload = _json({**CHAT, "stream": True})
        link.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(payload) + payload)
        heard = b""
        while b'"content":"Hel"' not in heard:
            heard += link.recv(65536)
        accepted = [
            one.transport.get_extra_info("socket")
            for server in api.gateway._servers
            for one in _connections(server)
            if one.client is not None
        ]
        assert [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in accepted] == [1]


def _connections(server: Any) -> list[Any]:
    return list(server._server.server_state.connections)


def _json(body: Json) -> bytes:
    import json

    return json.dumps(body).encode()

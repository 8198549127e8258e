"""HTTP without a socket. Invariant: however a reply is cut into pieces, the same comes out or the same error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.client import calls
from atmo.client.address import Address
from atmo.client.exchange import Exchange
from atmo.errors import AtmoError, NodeNotRunning, NoRoute, Overloaded, RequestError, Unauthorized

DESK = Address(host="desk", port=4680, path="/atmo", key="sk-1")
LINES = [{"event": "text", "text": "Grüße"}, {"event": "text", "text": "a\nb"}, {"event": "done"}]


def chunked(*parts: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode() + body + b"0\r\n\r\n"


def whole(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


STREAM = chunked(*(json.dumps(line).encode() + b"\n" for line in LINES))


def read(reply: bytes, *cuts: int) -> list[Any]:
    exchange = Exchange(calls.ask("Hi", {}), DESK)
    lines: list[Any] = []
    at = 0
    for cut in (*sorted(cuts), len(reply)):
        if reply[at:cut]:
            exchange.feed(reply[at:cut])
            lines += exchange.lines()
        at = cut
    assert exchange.complete
    return lines


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_lines_come_out_however_they_are_cut(cuts: list[int]) -> None:
    assert read(STREAM, *cuts) == LINES


def test_each_byte_for_itself() -> None:
    assert read(STREAM, *range(len(STREAM))) == LINES


def test_the_request_says_where_what_and_who() -> None:
    head, _, body = Exchange(calls.ask("Grüße", {"min_tps": 20}), DESK).request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /atmo/api/ask HTTP/1.1"
    assert {"Host: desk:4680", "Authorization: Bearer sk-1", f"Content-Length: {len(body)}"} < set(lines)
    assert json.loads(body) == {"text": "Grüße", "timeout_s": 120.0, "constraints": {"min_tps": 20}}


@pytest.mark.parametrize("cut", [0, 20])
@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (whole(b'{"error": {"code": "no_route", "message": "Nobody can.", "hint": "Ask less."}}', "503 x"), NoRoute,
         "Nobody can. Ask less."),
        (whole(b'{"error": {"message": "No key.", "type": "t", "param": null, "code": "invalid_api_key"}}', "401 x"),
         Unauthorized, "No key."),
        (whole(b"<html>Bad gateway</html>", "502 Bad Gateway"), RequestError, "answered 502"),
        (whole(b'{"error": "no object"}', "500 x"), RequestError, "answered 500"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", NodeNotRunning, "cannot be read"),
        (chunked(b'{"event": "text", \n'), NodeNotRunning, "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_our_words(reply: bytes, kind: type[AtmoError], said: str, cut: int) -> None:
    with pytest.raises(kind, match=said):
        read(reply, cut)


def test_when_to_come_again_is_told_by_header_or_body() -> None:
    body = b'{"error": {"code": "overloaded", "message": "Busy."%s}}'
    by_header = whole(body % b"", "429 x", "retry-after-ms: 250\r\n")
    by_body = whole(body % b', "retry_after_s": 0.25', "429 x")
    for reply in (by_header, by_body):
        with pytest.raises(Overloaded) as told:
            read(reply)
        assert told.value.retry_after_s == 0.25


def test_an_end_before_the_end_is_no_end() -> None:
    exchange = Exchange(calls.ask("Hi", {}), DESK)
    exchange.feed(STREAM[:-5])
    assert exchange.lines() == LINES
    with pytest.raises(NodeNotRunning, match="went away"):
        exchange.feed(b"")

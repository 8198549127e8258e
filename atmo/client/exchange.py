"""One request and its reply, without a socket: bytes to send, bytes received, lines and a body to read.

Sans-IO, so that the client that blocks and the one that does not differ in who waits, and in nothing else. Whoever
holds the socket sends `request`, feeds what comes, and reads what there is until `complete`.
"""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

import httptools

from atmo.client.address import Address, gone
from atmo.client.calls import Call, error_of
from atmo.errors import NodeNotRunning

T = TypeVar("T")


class Exchange(Generic[T]):
    """Raises what the node says is wrong, or NodeNotRunning for what is no HTTP of a node."""

    def __init__(self, call: Call[T], address: Address) -> None:
        self.complete = False
        self._call = call
        self._body = bytearray()
        self._headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self.request = _request(call, address)

    def feed(self, data: bytes) -> None:
        """Bytes that came; none at all when the other end has closed."""
        if not data:
            raise gone()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            raise _unreadable() from exc
        if self.complete and self.status >= 400:
            raise error_of(self.status, self._headers, bytes(self._body))

    def lines(self) -> list[Any]:
        """The JSON of whole lines that came since the last time; nothing while it is not known that all is well."""
        if self.status >= 400 or b"\n" not in self._body:
            return []
        *whole, rest = self._body.split(b"\n")
        self._body = rest
        return [_json(line) for line in whole if line]

    def result(self) -> T:
        """The whole reply, read."""
        return self._call.read(_json(self._body), self._headers)

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.complete = True


def _request(call: Call[Any], address: Address) -> bytes:
    body = b"" if call.body is None else json.dumps(call.body).encode()
    head = [
        f"{call.method} {address.path}{call.path} HTTP/1.1",
        f"Host: {address.host_header}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if address.key:
        head.append(f"Authorization: Bearer {address.key}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def _json(data: bytes | bytearray) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise _unreadable() from exc


def _unreadable() -> NodeNotRunning:
    return NodeNotRunning("The node's answer cannot be read.", hint="Is another program at its address?")

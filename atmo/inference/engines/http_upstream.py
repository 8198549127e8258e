"""A server that runs models, spoken to over HTTP: connections, limits, and its trouble in words of our own.

Whatever goes wrong becomes an error by which the requester can be sent elsewhere: a server that is gone, silent, broken
off in the middle or talking nonsense is EngineUnavailable, one that is busy is Overloaded with its own pause, and what
it says of a request that makes no sense is UsageError. A key is read when it is needed, goes into one header, and is in
no message: what a server says of a refused key is not repeated, and from all else the key is taken out.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from atmo.errors import (
    AtmoError,
    ConfigError,
    ContextOverflow,
    EngineUnavailable,
    ModelNotFound,
    Overloaded,
    UsageError,
)

_MAX_BODY_BYTES = 64 << 20  # a guess, as for llama.cpp's server
_MAX_LINE_BYTES = 4 << 20  # of a stream; a guess: the longest seen are final events of a few kB
_SAID_CHARS = 200  # of what a server says of its trouble
_BUSY_S = 1.0  # pause after a 429 that names none; a guess
_MAX_PAUSE_S = 3600.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Access:
    """Where a server is and where its key is kept. url: without a path, or up to `/v1`; key: `env:NAME`, `file:PATH`
    or "". connect_s, silence_s: longest wait for a connection, and for the next byte."""

    url: str
    key: str = ""
    connect_s: float = 3.0
    silence_s: float = 120.0

    @property
    def host(self) -> str:
        """Host and port, for messages: an address may hold a password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    @property
    def is_local(self) -> bool:
        name = urlsplit(self.url).hostname or ""
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"

    async def is_refused(self) -> bool:
        """Nobody listens there: told by a bare connection, for a hundredth of what a request costs."""
        parts = urlsplit(self.url)
        try:
            async with asyncio.timeout(self.connect_s):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port or _PORTS.get(parts.scheme))
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False  # a request says more of it
        writer.close()
        return False

    def refused(self) -> EngineUnavailable:
        return EngineUnavailable(f"{self.host} takes no connections.", hint="Is its server running?")

    def read_key(self) -> str:
        """The key, "" when there is none.

        Raises ConfigError when it is not where it should be, or others can read it.
        """
        source, _, place = self.key.partition(":")
        if not source:
            return ""
        if source == "env":
            if not os.environ.get(place):
                raise ConfigError(f"There is no key for {self.host}: {place} is not set.", hint=f"Set {place}.")
            return os.environ[place].strip()
        path = Path(place).expanduser()
        try:
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"The key file {path} can be read by others.", hint=f"Run: chmod 600 {path}")
            return path.read_text().strip()
        except OSError as error:
            raise ConfigError(
                f"The key file {path} cannot be read: {error.strerror}.", hint="Check the path."
            ) from error


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes 55 ms (measured), during which the node does nothing else."""
    return httpx.create_ssl_context()


class Upstream:
    """key_header, key_form: how the server wants its key; headers: that it wants besides."""

    def __init__(
        self,
        access: Access,
        *,
        key_header: str = "Authorization",
        key_form: str = "Bearer {}",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.access = access
        self._key_header, self._key_form = key_header, key_form
        self._client = httpx.AsyncClient(
            base_url=access.url,
            timeout=httpx.Timeout(access.silence_s, connect=access.connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            headers=headers,
            verify=_certificates(),
            trust_env=not access.is_local,  # a proxy is for the world outside
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> dict[str, Any]:
        async with self._response("GET", path, None) as response:
            return self.decoded(await self._body(response))

    async def post(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        async with self._response("POST", path, payload) as response:
            return self.decoded(await self._body(response))

    @asynccontextmanager
    async def lines(self, path: str, payload: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a streamed answer. Leaving the context closes the connection, which tells the server to stop."""
        async with self._response("POST", path, payload) as response:
            yield self._lines(response)

    @asynccontextmanager
    async def events(self, path: str, payload: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The data of server-sent events, up to `[DONE]`."""
        async with self.lines(path, payload) as lines:
            yield self._events(lines)

    @asynccontextmanager
    async def _response(self, method: str, path: str, payload: dict[str, Any] | None) -> AsyncIterator[httpx.Response]:
        key = self.access.read_key()
        headers = {self._key_header: self._key_form.format(key)} if key else {}
        if payload is not None:
            headers["Content-Type"] = "application/json"
        content = None if payload is None else msgspec.json.encode(payload)
        try:
            async with self._client.stream(method, path, content=content, headers=headers) as response:
                if response.status_code != 200:
                    raise self._refused(response, await self._body(response), key)
                yield response
        except httpx.TimeoutException as error:
            raise EngineUnavailable(f"{self.access.host} does not answer in time.", hint="Is it stuck?") from error
        except httpx.ConnectError as error:
            raise self.access.refused() from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = type(error).__name__
            raise EngineUnavailable(f"{self.access.host} broke off in the middle of an answer ({what}).") from error

    async def _body(self, response: httpx.Response) -> bytes:
        found = bytearray()
        async for part in response.aiter_bytes():
            found += part
            if len(found) > _MAX_BODY_BYTES:
                raise self.nonsense(f"more than {_MAX_BODY_BYTES} bytes")
        return bytes(found)

    async def _lines(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        pending = b""
        async for part in response.aiter_bytes():
            *lines, pending = (pending + part).split(b"\n")
            if len(pending) > _MAX_LINE_BYTES:
                raise self.nonsense(f"a line of more than {_MAX_LINE_BYTES} bytes")
            for line in lines:
                yield line.strip()
        if pending.strip():
            yield pending.strip()

    async def _events(self, lines: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
        async for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield self.decoded(data)

    def decoded(self, data: bytes) -> dict[str, Any]:
        """A JSON object. Raises EngineUnavailable when it is none."""
        try:
            return msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise self.nonsense("something that is no JSON object") from error

    def nonsense(self, what: str) -> EngineUnavailable:
        return EngineUnavailable(f"{self.access.host} sent {what}.", hint="Is it what the configuration says it is?")

    def failed(self, said: object) -> EngineUnavailable:
        """For an error that the server tells in the middle of an answer."""
        return EngineUnavailable(f"{self.access.host} failed on a request: {self._clean(said, self.access.read_key())}")

    def _refused(self, response: httpx.Response, body: bytes, key: str) -> AtmoError:
        status, host = response.status_code, self.access.host
        said = self._clean(_message(body), key)
        if status in (401, 403):  # what they say may quote the key
            return EngineUnavailable(f"{host} does not accept the key.", hint="Check the key of this runtime.")
        if status == 429 or (status in (503, 529) and "retry-after" in response.headers):
            pause_s = _pause_s(response.headers)
            return Overloaded(f"{host} is busy.", retry_after_s=pause_s, hint=f"Try again in {pause_s:.0f} s.")
        if status == 404:
            return ModelNotFound(f"{host} does not have that: {said}", hint="Is the model still there?")
        if status in (400, 413, 422):
            kind = ContextOverflow if _is_overflow(body) else UsageError
            return kind(f"{host} refused the request: {said}")
        return EngineUnavailable(f"{host} answered with status {status}.", hint="Look into its log.")

    def _clean(self, said: object, key: str) -> str:
        text = "".join(char for char in str(said)[:_SAID_CHARS] if char.isprintable())
        return text.replace(key, "[key]") if key else text


def _message(body: bytes) -> str:
    """What a server says is wrong, in any of the usual shapes."""
    try:
        found: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:_SAID_CHARS].decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        found = found.get(name, found) if isinstance(found, dict) else found
    return str(found)


def _is_overflow(body: bytes) -> bool:
    said = body[:4096].lower()
    return b"context_length_exceeded" in said or b"exceed_context_size" in said or b"maximum context length" in said


def _pause_s(headers: httpx.Headers) -> float:
    """Of `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "")
    try:
        return min(_MAX_PAUSE_S, max(0.0, float(text)))
    except ValueError:
        pass
    try:
        pause_s = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return _BUSY_S
    return min(_MAX_PAUSE_S, max(0.0, pause_s))

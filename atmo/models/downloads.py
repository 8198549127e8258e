"""One file from a server over HTTP: gone on with where it stopped, tried again when the line drops, checked at the end.

Only a server that says which version of the file it sends (a strong ETag), or a hash that is known beforehand, makes it
safe to put two halves together; otherwise a download begins anew. Ranges: RFC 9110, section 14.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from atmo.errors import (
    AtmoError,
    Forbidden,
    ModelDamaged,
    ModelNotFound,
    RemoteProtocolError,
    TransportError,
    Unauthorized,
)
from atmo.models.staging import Incoming, Staging

# Tries in a row that bring nothing; the pause doubles from the first. Guesses: half a minute in all.
TRIES = 6
FIRST_PAUSE_S = 0.5
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Remote:
    """One file of a server. path: in the model; size: in bytes, 0 when unknown; sha256: hex, "" when unknown; headers:
    such as a token, sent to the server itself and to no other that it sends us on to."""

    url: str
    path: str
    size: int = 0
    sha256: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Downloader:
    """pause: waits so many seconds."""

    def __init__(self, client: httpx.Client, pause: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._pause = pause

    def fetch(self, staging: Staging, number: int, remote: Remote, tell: Callable[[int, int], None]) -> int:
        """Returns its size in bytes. tell: bytes of this file that are here, of how many (0: unknown).

        Raises ModelNotFound, Unauthorized, Forbidden, TransportError, RemoteProtocolError, ModelDamaged when the file
        is not what its hash says, StorageError.
        """
        version = remote.sha256 or self._version(remote)
        incoming = staging.file(number, remote.path, version)
        try:
            self._to_the_end(incoming, remote, version, tell)
            if remote.sha256 and incoming.sha256 != remote.sha256:
                incoming.discard()
                raise ModelDamaged(
                    f"{remote.path} came whole and is not what its server says it is.", hint="Nothing of it was kept."
                )
            staging.done(incoming)
            return incoming.size
        finally:
            incoming.close()

    def _to_the_end(self, incoming: Incoming, remote: Remote, version: str, tell: Callable[[int, int], None]) -> None:
        failures, size = 0, remote.size
        while not (size and incoming.kept_bytes == size):
            before = incoming.kept_bytes
            try:
                size = self._go_on(incoming, remote, version, tell)
                break
            except (httpx.TransportError, _TryAgain) as error:
                failures = 1 if incoming.kept_bytes > before else failures + 1
                if failures >= TRIES:
                    raise _unreachable(remote, error) from error
                self._pause(FIRST_PAUSE_S * 2 ** (failures - 1))
        incoming.finish()
        tell(incoming.size, incoming.size)

    def _go_on(self, incoming: Incoming, remote: Remote, version: str, tell: Callable[[int, int], None]) -> int:
        """Until the file's end. Returns its size."""
        have = incoming.kept_bytes
        headers = {"Accept-Encoding": "identity", **remote.headers}
        if have:
            headers["Range"] = f"bytes={have}-"
            if not remote.sha256:
                headers["If-Range"] = version
        with self._client.stream("GET", remote.url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as answer:
            size = self._begin(incoming, remote, version, answer)
            tell(incoming.kept_bytes, size)
            for piece in answer.iter_raw():
                incoming.write(piece)
                if size and incoming.kept_bytes > size:
                    raise RemoteProtocolError(f"{remote.url} sends more than the {size:,} bytes it announced.")
                tell(incoming.kept_bytes, size)
        if size and incoming.kept_bytes < size:
            raise _TryAgain(f"it ended after {incoming.kept_bytes:,} of {size:,} bytes")
        return size or incoming.kept_bytes

    def _begin(self, incoming: Incoming, remote: Remote, version: str, answer: httpx.Response) -> int:
        """What the answer's head says: where it begins, and the file's size (0: unknown)."""
        if answer.status_code == 206:
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != incoming.kept_bytes:
                raise RemoteProtocolError(f"{remote.url} does not send the part that it was asked for.")
            size = int(found[3]) if found[3] != "*" else 0
        elif answer.status_code == 200:
            if incoming.kept_bytes:
                incoming.restart(version)
            size = int(answer.headers.get("Content-Length") or 0)
        elif answer.status_code == 416 and incoming.kept_bytes:
            incoming.restart(version)
            raise _TryAgain("the file is shorter than what was here of it")
        else:
            raise _refusal(remote, answer)
        if remote.size and size and size != remote.size:
            raise RemoteProtocolError(f"{remote.url} has {size:,} bytes, and {remote.size:,} were announced.")
        return size or remote.size

    def _version(self, remote: Remote) -> str:
        """The server's name for these bytes; "" when it has none that can be trusted."""
        try:
            answer = self._client.head(remote.url, headers=dict(remote.headers), follow_redirects=True, timeout=TIMEOUT)
        except httpx.TransportError as error:
            raise _unreachable(remote, error) from error
        if answer.status_code in (401, 403, 404, 410):
            raise _refusal(remote, answer)
        tag = answer.headers.get("ETag", "") if answer.is_success else ""
        return tag if tag.startswith('"') else ""


class _TryAgain(Exception):
    pass


def _refusal(remote: Remote, answer: httpx.Response) -> AtmoError | _TryAgain:
    status, host = answer.status_code, answer.url.host
    if status in _RETRIED:
        return _TryAgain(f"{host} answers {status}")
    if status in (401, 403) and answer.headers.get("X-Error-Code") == "GatedRepo":
        return Forbidden(
            f"{host} gives {remote.path} only to those who accepted its terms.",
            hint="Accept them on its page, then log in: hf auth login, or set HF_TOKEN.",
        )
    if status == 401:
        return Unauthorized(f"{host} wants a login for {remote.path}.", hint="For the hub: hf auth login, or HF_TOKEN.")
    if status == 403:
        return Forbidden(f"{host} does not give {remote.path} to you.", hint="Check its page there.")
    if status in (404, 410):
        return ModelNotFound(f"{host} has no {remote.path}.", hint=f"Look at {remote.url}")
    return RemoteProtocolError(f"{host} answers {status} to a request for {remote.path}.", hint="Try again later.")


def _unreachable(remote: Remote, error: Exception) -> TransportError:
    why = str(error) or type(error).__name__
    return TransportError(
        f"{httpx.URL(remote.url).host} cannot be reached for {remote.path}: {why[:160]}.",
        hint="Check the network and run the same again: what is there is kept.",
    )

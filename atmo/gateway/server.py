"""Runs the HTTP app inside the node's event loop: on a Unix socket for the owner, on a TCP port for applications."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path

import uvicorn

from atmo.errors import ConfigError, PortInUse
from atmo.gateway.asgi import App
from atmo.gateway.connection import Connection

# Linux gives a Unix socket's path 108 bytes with its end.
MAX_SOCKET_PATH_BYTES = 107
# How long a stopping node lets answers that run come to their end.
SHUTDOWN_S = 3
# Tried when no port is configured, one after the other; after them any.
DEFAULT_PORT = 4680
PORTS_TRIED = 20
# Connections that the kernel holds until they are accepted.
BACKLOG = 2048
# An idle connection is kept this long: longer than clients keep theirs, so that none is closed under a request.
KEEP_ALIVE_S = 75


class Server:
    """An HTTP server on a socket that is bound already."""

    def __init__(self, app: App, bound: socket.socket, connection: type[Connection]) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=SHUTDOWN_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            ws="none",
            http=connection,
            backlog=BACKLOG,
            server_header=False,
            proxy_headers=False,
        )
        self._server = _Server(config)
        self._socket = bound
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="gateway")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        self._server.end()
        if self._task is not None:
            await self._task
            self._task = None
        self._socket.close()


class _Server(uvicorn.Server):
    """Signals belong to the node, not to its HTTP server; and nothing is looked at ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """Once a second, for the date that every reply bears."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def bind_unix(path: Path) -> socket.socket:
    """A socket that its owner alone can open. Raises ConfigError."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(f"The runtime folder's path is too long for a socket: {path}.", hint="Set ATMO_RUNTIME.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(old_mask)
    return bound


def bind_tcp(host: str, port: int) -> socket.socket:
    """Listen on this port, or for 0 on the default one or the next that is free. Raises PortInUse or ConfigError."""
    for number in [port] if port else [*range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED), 0]:
        try:
            return _bind(host, number)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise ConfigError(
                    f"The API cannot listen on {host}, port {number}: {exc.strerror}.",
                    hint="Look at host and port in [gateway].",
                ) from exc
    raise PortInUse(
        f"Port {port} on {host} is taken, so the API cannot listen there.",
        hint="Take another: ATMO_GATEWAY_PORT, or port in [gateway]; 0 takes one that is free.",
    )


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
        bound.listen(BACKLOG)  # now, so that a second one cannot bind the same
    except OSError:
        bound.close()
        raise
    return bound

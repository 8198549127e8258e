"""Runs the HTTP app inside the node's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from atmo.errors import ConfigError

# Linux gives a Unix socket's path 108 bytes with its end.
MAX_SOCKET_PATH_BYTES = 107
# How long a stopping node lets answers that run come to their end.
SHUTDOWN_S = 3


class UnixServer:
    """An HTTP server on a Unix socket, mode 600."""

    def __init__(self, app: FastAPI, path: Path) -> None:
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise ConfigError(f"The runtime folder's path is too long for a socket: {path}.", hint="Set ATMO_RUNTIME.")
        self.path = path
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=SHUTDOWN_S, ws="none"
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old_mask = os.umask(0o177)
        try:
            self._socket.bind(str(self.path))
        finally:
            os.umask(old_mask)
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="gateway")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
            self._task = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.path.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """Signals belong to the node, not to its HTTP server."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield

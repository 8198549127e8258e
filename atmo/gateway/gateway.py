"""The gateway of a node: both doors, and what stands behind them: keys, metrics, audit trail."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import structlog

from atmo.clock import Clock
from atmo.config import Config
from atmo.errors import ConfigError
from atmo.gateway.api_keys import KeyFile, KeyRing
from atmo.gateway.app import build_app
from atmo.gateway.audit import Audit
from atmo.gateway.connection import limited, room_for_connections
from atmo.gateway.entrance import Entrance
from atmo.gateway.handle import NodeHandle
from atmo.gateway.metrics import Metrics
from atmo.gateway.policy import Policy
from atmo.gateway.server import DEFAULT_PORT, Server, bind_tcp, bind_unix
from atmo.transport.hosts import is_loopback

log = structlog.get_logger("atmo.gateway")


class Gateway:
    """`start` raises ConfigError or PortInUse, and leaves nothing behind then. url: of OpenAI's API, empty where no
    port is listened on; note: what is unusual about it."""

    def __init__(self, node: NodeHandle, config: Config, socket_path: Path, clock: Clock) -> None:
        self.socket_path = socket_path
        self.url = ""
        self.note = ""
        self._section = config.gateway
        # A node that keeps to itself opens no network socket unless it is told to.
        self._listens = config.gateway.port > 0 or (config.gateway.port == 0 and config.node.mode != "standalone")
        self._clock = clock
        self._metrics = Metrics(node.counters)
        self._keys = KeyRing(KeyFile(config.api_keys))
        self._audit = Audit(
            config.audit_file,
            max_days=config.gateway.audit_days,
            max_rows=config.gateway.audit_rows,
            wall=clock.wall,
        )
        self._app, self._shortcuts = build_app(node, self._metrics)
        self._servers: list[Server] = []

    async def start(self) -> None:
        self._keys.load()
        tcp = self._bind() if self._listens else None
        try:
            self._audit.start()
            unix = bind_unix(self.socket_path)
        except BaseException:
            if tcp is not None:
                tcp.close()
            self._audit.close()
            raise
        connection = limited(max_connections=room_for_connections())
        self._servers = [Server(self._entrance("unix", None), unix, connection)]
        if tcp is not None:
            policy = Policy(
                self._keys, always=self._section.auth or not self._open, local=is_loopback(self._section.host)
            )
            self._servers.append(Server(self._entrance("tcp", policy), tcp, connection))
        await asyncio.gather(*(server.start() for server in self._servers))

    async def stop(self) -> None:
        """Let what runs come to its end, for a moment; then close. May be called twice."""
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop() for server in servers))
        self._audit.close()
        self.socket_path.unlink(missing_ok=True)

    @property
    def _open(self) -> bool:
        """May requests come without a key, as long as none was made?"""
        return self._section.allow_open or is_loopback(self._section.host)

    def _bind(self) -> socket.socket:
        host, port = self._section.host, self._section.port
        if not self._open and not self._section.auth and not self._keys.any:
            raise ConfigError(
                f"The API would listen on {host} for everybody: there is no API key.",
                hint="Make one with `atmo keys create`, or set allow_open = true in [gateway].",
            )
        bound = bind_tcp(host, port)
        taken = bound.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{taken}/v1"
        if not port and taken != DEFAULT_PORT:
            self.note = f"Port {DEFAULT_PORT} is taken, so the API listens on port {taken}."
        log.info("api", url=self.url)
        return bound

    def _entrance(self, door: str, policy: Policy | None) -> Entrance:
        return Entrance(
            self._app,
            self._shortcuts,
            door=door,
            policy=policy,
            metrics=self._metrics,
            audit=self._audit,
            max_body_bytes=self._section.max_body_bytes,
            now=self._clock.now,
        )

    def __repr__(self) -> str:
        return f"<Gateway {self.url or self.socket_path}>"

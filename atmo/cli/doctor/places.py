"""Folders, disk and ports."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from atmo.cli.doctor.finding import Finding, bad, note, ok
from atmo.client import SyncClient, running_nodes
from atmo.config import Config
from atmo.errors import AtmoError

DEFAULT_PORT = 4600
DEFAULT_API_PORT = 4680
# Below this a model of a billion parameters does not fit.
LITTLE_DISK_BYTES = 2 << 30
# What a node writes soon: keys, certificate, log, the audit trail's first pages. A guess, rounded up.
NEEDED_BYTES = 1 << 20
# Linux gives a Unix socket's path 108 bytes; the socket's own name and a slash take the rest.
LONGEST_RUNTIME_BYTES = 80


def examine(config: Config) -> Iterator[Finding]:
    yield _writable("home", config.home, "Set ATMO_HOME to a folder that you may write to.")
    yield from _foreign(config.home)
    yield _runtime(config.runtime)
    yield from _left_over(config)
    yield _disk(config.home)
    yield from _ports(config)


def _existing(path: Path) -> Path:
    """It, or the nearest parent that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _writable(name: str, path: Path, remedy: str) -> Finding:
    """Can files be made there, and be filled?"""
    try:
        with tempfile.TemporaryFile(dir=_existing(path)) as probe:
            probe.write(b"\0" * NEEDED_BYTES)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return bad("disk", f"The disk of the {name} folder {path} is full.", "Free some space, or set ATMO_HOME.")
        return bad(name, f"The {name} folder {path} cannot be written: {exc.strerror}.", remedy)
    return ok(name, f"The {name} folder {path} can be written.")


def _foreign(home: Path) -> Iterator[Finding]:
    """Files that another user made there, as `sudo atmo` does: the node could not change them."""
    mine = os.getuid()
    for folder in (home, home / "mesh", home / "nodes", *home.glob("nodes/*")):
        for path in (folder, *folder.glob("*")) if folder.is_dir() else ():
            if path.lstat().st_uid != mine:
                yield bad("home", f"{path} belongs to another user.", f"Take it over: sudo chown -R $USER {home}")
                return


def _runtime(path: Path) -> Finding:
    if path.exists():
        stat = path.stat()
        if stat.st_uid != os.getuid():
            return bad(
                "runtime", f"The runtime folder {path} belongs to another user.", "Set ATMO_RUNTIME to your own."
            )
        if stat.st_mode & 0o077:
            return bad("runtime", f"The runtime folder {path} is open to others.", f"Run: chmod 700 {path}")
    if len(os.fsencode(path)) > LONGEST_RUNTIME_BYTES:
        return bad("runtime", f"The runtime folder's path is too long for a socket: {path}.", "Set ATMO_RUNTIME.")
    return _writable("runtime", path, "Set ATMO_RUNTIME to a folder that you may write to.")


def _left_over(config: Config) -> Iterator[Finding]:
    """Sockets of nodes that were killed. They stand in nobody's way."""
    held = {Path(card.api_socket).name for card in running_nodes(config) if card.api_socket}
    stale = sorted(path.name for path in config.runtime.glob("*.sock") if path.name not in held)
    if stale:
        yield note(
            "runtime",
            f"{len(stale)} socket{'s' if len(stale) > 1 else ''} in {config.runtime} of a node that was killed: "
            f"{', '.join(stale[:3])}.",
            "Harmless: the node takes it over when it starts. Or delete it.",
        )


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(_existing(home)).free
    if free > LITTLE_DISK_BYTES:
        return ok("disk", f"{free / 1e9:.0f} GB of disk are free.")
    return note("disk", f"{free / 1e9:.2f} GB of disk are free.", "Larger models will not fit.")


def _ports(config: Config) -> Iterator[Finding]:
    if config.node.mode == "standalone":
        return
    running = running_nodes(config)
    mine = {card.address.port for card in running if card.address is not None}
    yield _port("port", config.transport.host, config.transport.port, DEFAULT_PORT, mine, "Choose another with --port.")
    if config.node.mode == "headless" or config.gateway.port < 0:
        return
    mine = {port for card in running if card.api_socket and (port := _api_port(config, Path(card.api_socket)))}
    remedy = "Choose another: atmo config set gateway.port PORT"
    yield _port("api-port", config.gateway.host, config.gateway.port, DEFAULT_API_PORT, mine, remedy)


def _api_port(config: Config, api_socket: Path) -> int:
    """0 where it has none, or does not say."""
    try:
        url = SyncClient(config, socket_path=api_socket).status()["node"]["api"]
    except AtmoError:
        return 0
    return int(url.rpartition(":")[2].partition("/")[0]) if url else 0


def _port(check: str, host: str, wanted: int, default: int, mine: set[int], remedy: str) -> Finding:
    """wanted 0: the default, or another if that is taken, which is no more than worth knowing."""
    port = wanted or default
    name = f"The API's port {port}" if check == "api-port" else f"Port {port}"
    if port in mine:
        return ok(check, f"{name} is used by your own node.")
    try:
        _bind(host, port)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        if exc.errno == errno.EADDRNOTAVAIL or isinstance(exc, socket.gaierror):
            return bad(check, f"{host} is no address of this machine: {reason}.", "Set host to one, or to 0.0.0.0.")
        if not wanted and exc.errno == errno.EADDRINUSE:
            return note(check, f"{name} is taken; a node takes another.", remedy)
        return bad(check, f"{name} on {host} cannot be used: {reason}.", remedy)
    return ok(check, f"{name} is free.")


def _bind(host: str, port: int) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)

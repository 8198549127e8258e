"""Keys that can be used, a token that still opens, a certificate that is valid, a clock that did not jump."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from atmo.cli.doctor.finding import Finding, bad, failed, note, ok
from atmo.config import Config
from atmo.errors import AtmoError
from atmo.gateway.api_keys import KeyFile
from atmo.ids import format_peer
from atmo.keys import CLOCK_TOLERANCE_S, check_certificate, load_or_create_secret
from atmo.node.membership import MeshHome, open_mesh
from atmo.node.renewal import ending
from atmo.transport.hosts import is_loopback


def examine(config: Config) -> Iterator[Finding]:
    nodes = sorted(file.parent for file in (config.home / "nodes").glob("*/identity.key"))
    yield from _keys(config, nodes)
    yield from _mesh(config, nodes)
    for node in nodes:
        yield from _generation(node)
    yield from _api_keys(config)


def _keys(config: Config, nodes: list[Path]) -> Iterator[Finding]:
    for file in [config.root_key, *(node / key for node in nodes for key in ("identity.key", "curve.key"))]:
        try:
            if file.exists():
                load_or_create_secret(file)
        except AtmoError as error:
            yield failed("keys", error)


def _mesh(config: Config, nodes: list[Path]) -> Iterator[Finding]:
    if not config.root_key.parent.exists():
        yield ok("mesh", "This user has no mesh yet: the first node makes one.")
        return
    if not config.root_key.exists() and not (config.root_key.parent / "joined").exists():
        yield note(
            "mesh", "This user has no mesh any more: its key is gone.", "Restore it, or the next node makes one."
        )
        return
    try:
        mesh = open_mesh(config)
    except AtmoError as error:
        yield failed("mesh", error)
        return
    whose = "this user's own" if mesh.token is None else "joined with a token"
    yield ok("mesh", f"The mesh is {format_peer(mesh.mesh)[-8:]}, {whose}.")
    if mesh.token is not None:
        certified = False
        for node in nodes:
            for finding in _certificate(mesh, node):
                certified = True
                yield finding
        if not certified and time.time() > mesh.token.terms.not_after_s:
            yield bad(
                "token",
                "The token that this home joined with expired before a node was started with it.",
                "Ask for a new one: atmo mesh join TOKEN",
            )


def _certificate(mesh: MeshHome, node: Path) -> Iterator[Finding]:
    """What made a node of this home a member of somebody else's mesh."""
    try:
        kept = mesh.kept(node)
        if kept is None:
            return
        standing = check_certificate(kept, mesh.mesh)
    except AtmoError as error:
        yield failed("certificate", error)
        return
    problem = ending(standing, time.time())
    if problem is None:
        yield ok("certificate", f"The certificate of the node {node.name} is valid.")
    else:
        state = "bad" if problem.serious else "note"
        yield Finding("certificate", state, f"{node.name}: {problem.what}", problem.remedy)


def _generation(node: Path) -> Iterator[Finding]:
    """Each start takes a number beyond the last and beyond the clock: one far ahead tells of a clock that was, or is,
    wrong."""
    file = node / "generation"
    try:
        ahead_s = int(file.read_text()) - time.time()
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        yield bad("clock", f"The file {file} is damaged.", "Delete it: the node then finds its generation anew.")
        return
    if ahead_s > CLOCK_TOLERANCE_S:
        yield note(
            "clock",
            f"The clock was {ahead_s / 3600:.1f} h ahead when the node {node.name} started, or it is behind now.",
            "Set it right, such as with NTP.",
        )


def _api_keys(config: Config) -> Iterator[Finding]:
    try:
        good = [key for key in KeyFile(config.api_keys).all() if not key.revoked_s]
    except AtmoError as error:
        yield failed("api-keys", error)
        return
    if config.api_keys.exists() and config.api_keys.stat().st_mode & 0o077:
        yield bad("api-keys", f"{config.api_keys} can be read by others.", f"Run: chmod 600 {config.api_keys}")
    elif good:
        yield ok("api-keys", f"{len(good)} API key{'s' if len(good) > 1 else ''}.")
    open_to_all = not is_loopback(config.gateway.host) and not config.gateway.auth and not config.gateway.allow_open
    if open_to_all and config.node.mode != "headless" and not config.api_keys.exists():
        yield bad(
            "api-keys",
            f"The API would listen on {config.gateway.host} for everybody: there is no API key.",
            "Make one: atmo keys create",
        )

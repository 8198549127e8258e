"""`atmo doctor`: check everything a node needs, one line each, with what to do where something is missing."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from atmo.cli import output
from atmo.client import SyncClient, running_nodes
from atmo.config import Config, load
from atmo.errors import AtmoError
from atmo.ids import format_peer

if TYPE_CHECKING:
    from atmo.node.membership import MeshHome

DEFAULT_PORT = 4600
# Below this a model of a billion parameters does not fit.
LITTLE_DISK_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """state: `ok`, `note` (works, but you may want to know) or `bad`."""

    state: str
    what: str
    remedy: str = ""


_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✗", "red")}


def doctor(home: str | None, config_file: str | None, *, as_json: bool) -> None:
    """Exit code 0 if nothing is bad, 1 otherwise."""
    findings = []
    for finding in _examine(home, config_file):
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.state]
            output.console().print(
                Text(mark, style=colour),
                Text(output.harmless(finding.what)),
                Text(output.harmless(finding.remedy), style="dim"),
            )
    bad = sum(finding.state == "bad" for finding in findings)
    if as_json:
        rows = [{"state": f.state, "what": f.what, "remedy": f.remedy} for f in findings]
        output.print_json({"healthy": not bad, "findings": rows})
    else:
        output.console().print("Everything is in order." if not bad else f"{bad} to be mended.", style="bold")
    raise SystemExit(1 if bad else 0)


def _examine(home: str | None, config_file: str | None) -> Iterator[Finding]:
    yield Finding("ok", f"Python {sys.version.split()[0]}")
    try:
        config = load({"home": home}, file=Path(config_file) if config_file else None)
    except AtmoError as error:
        yield Finding("bad", error.message, error.hint)
        return
    yield Finding("ok", "The configuration is valid.")
    yield _folder("home", config.home, "Set ATMO_HOME to a folder that you may write to.")
    yield _runtime(config)
    yield _disk(config.home)
    yield _port(config)
    yield from _membership(config)
    yield from _engines()
    yield _encoder()
    yield from _models(config)
    yield from _nodes(config)


def _folder(name: str, path: Path, remedy: str) -> Finding:
    """Can files be made in it, or in the nearest parent that exists?"""
    place = path
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding("ok", f"The {name} folder {path} can be written.")
    except OSError as exc:
        return Finding("bad", f"The {name} folder {path} cannot be written: {exc.strerror}.", remedy)


def _runtime(config: Config) -> Finding:
    path = config.runtime
    if path.exists():
        stat = path.stat()
        if stat.st_uid != os.getuid():
            return Finding(
                "bad", f"The runtime folder {path} belongs to another user.", "Set ATMO_RUNTIME to your own."
            )
        if stat.st_mode & 0o077:
            return Finding("bad", f"The runtime folder {path} is open to others.", f"Run: chmod 700 {path}")
    if len(os.fsencode(path)) > 80:
        return Finding("bad", f"The runtime folder's path is too long for a socket: {path}.", "Set ATMO_RUNTIME.")
    return _folder("runtime", path, "Set ATMO_RUNTIME to a folder that you may write to.")


def _disk(home: Path) -> Finding:
    place = home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    state = "ok" if free > LITTLE_DISK_BYTES else "note"
    return Finding(
        state, f"{free / 1e9:.0f} GB of disk are free.", "" if state == "ok" else "Larger models will not fit."
    )


def _port(config: Config) -> Finding:
    port = config.transport.port or DEFAULT_PORT
    mine = any(card.address is not None and card.address.port == port for card in running_nodes(config))
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.transport.host, port))
        except OSError as exc:
            if mine:
                return Finding("ok", f"Port {port} is used by your own node.")
            state = "bad" if config.transport.port else "note"
            return Finding(
                state, f"Port {port} on {config.transport.host}: {exc.strerror}.", "Choose another with --port."
            )
    return Finding("ok", f"Port {port} is free.")


def _membership(config: Config) -> Iterator[Finding]:
    """Keys that can be used, and a certificate that is valid."""
    from atmo.keys import load_or_create_secret
    from atmo.node.membership import open_mesh

    nodes = sorted(file.parent for file in (config.home / "nodes").glob("*/identity.key"))
    try:
        for file in [config.root_key, *(node / key for node in nodes for key in ("identity.key", "curve.key"))]:
            if file.exists():
                load_or_create_secret(file)
        if not config.root_key.parent.exists():
            yield Finding("ok", "This user has no mesh yet: the first node makes one.")
            return
        mesh = open_mesh(config)
    except AtmoError as error:
        yield Finding("bad", error.message, error.hint)
        return
    whose = "this user's own" if mesh.token is None else "joined with a token"
    yield Finding("ok", f"The mesh is {format_peer(mesh.mesh)[-8:]}, {whose}.")
    for node in nodes if mesh.token is not None else []:
        yield from _certificate(mesh, node)


def _certificate(mesh: MeshHome, node: Path) -> Iterator[Finding]:
    """What made a node of this home a member of somebody else's mesh."""
    from atmo.keys import check_certificate
    from atmo.node.renewal import ending

    try:
        kept = mesh.kept(node)
        if kept is None:
            return
        standing = check_certificate(kept, mesh.mesh)
    except AtmoError as error:
        yield Finding("bad", error.message, error.hint)
        return
    problem = ending(standing, time.time())
    if problem is None:
        yield Finding("ok", f"The certificate of the node {node.name} is valid.")
    else:
        yield Finding("bad" if problem.serious else "note", f"{node.name}: {problem.what}", problem.remedy)


def _multicast(config: Config) -> Iterator[Finding]:
    """Only while no node runs: a node that runs finds out more, and says so itself."""
    if not config.discovery.lan or config.node.mode == "standalone":
        return
    from atmo.transport.discovery import hear_oneself

    problem = hear_oneself(config.transport.host)
    if problem is None:
        yield Finding("ok", "Multicast works here: nodes on the local network find each other.")
    else:
        yield Finding("note", problem.text, problem.hint)


def _engines() -> Iterator[Finding]:
    found = []
    for package in ("xllamacpp", "llama-cpp-python", "onnxruntime"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    llama = any(entry.startswith(("xllamacpp", "llama-cpp-python")) for entry in found)
    yield Finding(
        "ok" if llama else "bad",
        f"Engines: {', '.join(found) or 'none'}.",
        "" if llama else "Install one for llama.cpp: pip install xllamacpp",
    )


def _encoder() -> Finding:
    from atmo.inference.encoder import Encoder

    try:
        encoder = Encoder.load()
        encoder.encode("Hello")
    except AtmoError as error:
        return Finding("bad", error.message, error.hint)
    return Finding("ok", f"The text encoder works ({encoder.encoder_id}).")


def _models(config: Config) -> Iterator[Finding]:
    from atmo.models.library import find_model

    for section in config.serve:
        try:
            model = find_model(section.model, config.home)
            yield Finding("ok", f"The model {model.name} is here ({model.size_bytes / 1e6:.1f} MB).")
        except AtmoError as error:
            yield Finding("bad", error.message, error.hint)
    yield from _store(config)


def _store(config: Config) -> Iterator[Finding]:
    from atmo.models.collecting import own_bytes
    from atmo.models.store import Store

    store = Store(config.model_store)
    models = store.models()
    for problem in store.problems():
        yield Finding("bad", problem, "")
    if not models:
        return
    used_gb, quota_gb = own_bytes(store.folder) / 1e9, config.models.quota_gb
    of = f" of {quota_gb:g} GB" if quota_gb else ""
    state = "note" if quota_gb and used_gb > quota_gb else "ok"
    yield Finding(state, f"The store holds {len(models)} models in {used_gb:.2f} GB{of}.", "Make room: atmo models gc")


def _nodes(config: Config) -> Iterator[Finding]:
    running = running_nodes(config)
    if not running:
        yield Finding("note", "No node is running.", "Start one: atmo node start")
        yield from _multicast(config)
    for card in running:
        if not card.api_socket:
            yield Finding("ok", f"The node {card.name} runs without an API (headless), process {card.pid}.")
            continue
        try:
            report = SyncClient(config, socket_path=Path(card.api_socket)).status()
        except AtmoError as error:
            yield Finding("bad", f"The node {card.name} does not answer: {error.message}", error.hint)
            continue
        yield Finding("ok", f"The node {card.name} is up at {card.address} with {report['peers']} peers.")
        for served in report["capabilities"]:
            if served["state"] == "failed":
                yield Finding("bad", f"{card.name} cannot serve {served['id']}: {served['detail']}", served["hint"])
        for problem in report["diagnosis"]:
            state = "bad" if problem["serious"] else "note"
            yield Finding(state, f"{card.name}: {problem['what']}", problem["remedy"])

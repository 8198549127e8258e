"""The nodes that run, and what they say is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmo.cli.doctor.finding import Finding, bad, note, ok
from atmo.client import SyncClient, running_nodes
from atmo.config import Config
from atmo.errors import AtmoError
from atmo.transport.neighbours import NodeCard


@dataclass(frozen=True, slots=True)
class Running:
    """A node of this user that runs. report: its status; None where it has no API, or error says why not."""

    card: NodeCard
    report: dict[str, Any] | None = None
    error: AtmoError | None = None


def ask_all(config: Config) -> list[Running]:
    """Each node, asked once: one that hangs is waited for, and that is long enough."""
    return [_ask(config, card) for card in running_nodes(config)]


def _ask(config: Config, card: NodeCard) -> Running:
    if not card.api_socket:
        return Running(card)
    try:
        return Running(card, SyncClient(config, socket_path=Path(card.api_socket)).status())
    except AtmoError as error:
        return Running(card, error=error)


def examine(config: Config, running: list[Running]) -> Iterator[Finding]:
    if not running:
        yield note("nodes", "No node is running.", "Start one: atmo node start")
        yield from _multicast(config)
    for node in running:
        card = node.card
        if node.error is not None:
            yield bad(
                "nodes",
                f"The node {card.name} (process {card.pid}) does not answer: {node.error.message}",
                f"End it and start it again: kill -9 {card.pid}; atmo node start --name {card.name}",
            )
        elif node.report is None:
            yield ok("nodes", f"The node {card.name} runs without an API (headless), process {card.pid}.")
        else:
            peers = node.report["peers"]
            place = str(card.address or "no address").partition("/p2p/")[0]
            yield ok("nodes", f"The node {card.name} is up at {place}, linked to {peers} peer{'s' * (peers != 1)}.")
            yield from _told(card.name, node.report)


def _told(name: str, report: dict[str, Any]) -> Iterator[Finding]:
    for served in report["capabilities"]:
        if served["state"] == "failed":
            yield bad("models", f"{name} cannot serve {served['id']}: {served['detail']}", served["hint"])
    for runtime in report["runtimes"]:
        if runtime["kind"] and not runtime["models"]:
            yield note(
                "runtimes",
                f"{name}: the {runtime['kind']} server at {runtime['runtime']} has no models.",
                "Load one there" + (", such as: ollama pull llama3.2" if runtime["kind"] == "ollama" else "."),
            )
    for problem in report["diagnosis"]:
        state = "bad" if problem["serious"] else "note"
        yield Finding("nodes", state, f"{name}: {problem['what']}", problem["remedy"])


def _multicast(config: Config) -> Iterator[Finding]:
    """Only while no node runs: a node that runs finds out more, and says so itself."""
    if not config.discovery.lan or config.node.mode == "standalone":
        return
    from atmo.transport.discovery import hear_oneself

    problem = hear_oneself(config.transport.host)
    if problem is None:
        yield ok("network", "Multicast works here: nodes on the local network find each other.")
    else:
        yield note("network", problem.text, problem.hint)

"""The nodes that run, and what they say is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atmo.cli.doctor.finding import Finding, bad, note, ok
from atmo.client import SyncClient, running_nodes
from atmo.config import Config
from atmo.errors import AtmoError


def examine(config: Config) -> Iterator[Finding]:
    running = running_nodes(config)
    if not running:
        yield note("nodes", "No node is running.", "Start one: atmo node start")
        yield from _multicast(config)
    for card in running:
        if not card.api_socket:
            yield ok("nodes", f"The node {card.name} runs without an API (headless), process {card.pid}.")
            continue
        try:
            report = SyncClient(config, socket_path=Path(card.api_socket)).status()
        except AtmoError as error:
            yield bad(
                "nodes",
                f"The node {card.name} (process {card.pid}) does not answer: {error.message}",
                f"End it and start it again: kill {card.pid}; atmo node start --name {card.name}",
            )
            continue
        yield ok("nodes", f"The node {card.name} is up at {card.address} with {report['peers']} peers.")
        yield from _told(card.name, report)


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

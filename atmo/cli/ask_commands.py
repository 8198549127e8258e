"""`atmo ask | route | explain`."""

from __future__ import annotations

import sys
from typing import Any

from atmo.cli import output, views
from atmo.client import SyncClient
from atmo.errors import UsageError


def ask(words: list[str], wishes: dict[str, Any], node: str, *, explain: bool, as_json: bool) -> None:
    text = prompt_from(words)
    client = SyncClient(node=node)
    if as_json:
        output.print_json(collect(client, text, wishes))
        return
    _stream(client, text, wishes, explain)


def _stream(client: SyncClient, text: str, wishes: dict[str, Any], explain: bool) -> None:
    """Text goes to standard output as it comes; who answered and how fast goes to standard error, for people only."""
    talk = explain or (sys.stdout.isatty() and sys.stderr.isatty())
    aside = output.aside()
    ended = True
    for event in client.stream(text, **wishes).steps():
        kind = event["event"]
        if kind == "route" and explain:
            output.console().print(views.decision(output.harmless(event)))
            output.console().print()
        elif kind == "text":
            sys.stdout.write(output.harmless(event["text"]) if sys.stdout.isatty() else event["text"])
            sys.stdout.flush()
            ended = event["text"].endswith("\n")
        elif kind in ("vector", "labels"):
            output.console().print(views.result(output.harmless(event)))
        elif kind == "retry" and talk:
            aside.print(views.retried(output.harmless(event)))
        elif kind == "done":
            if not ended:
                sys.stdout.write("\n")
                sys.stdout.flush()
            if talk:
                aside.print(views.answered_by(output.harmless(event)))


def collect(client: SyncClient, text: str, wishes: dict[str, Any]) -> dict[str, Any]:
    """The whole answer as one object: `answer` is text, a vector or labels."""
    pieces: list[str] = []
    result: dict[str, Any] = {"retries": []}
    for event in client.stream(text, **wishes).steps():
        kind = event.pop("event")
        if kind == "text":
            pieces.append(event["text"])
        elif kind in ("vector", "labels"):
            result["answer"] = event[kind]
        elif kind == "retry":
            result["retries"].append(event)
        else:
            result[kind] = event
    return {"answer": "".join(pieces), **result} if "answer" not in result else result


def route(words: list[str], wishes: dict[str, Any], node: str, *, as_json: bool) -> None:
    report = SyncClient(node=node).route(prompt_from(words), **wishes)
    _show(report, as_json)


def explain(request: str, node: str, *, as_json: bool) -> None:
    _show(SyncClient(node=node).explain(request), as_json)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(report)
    else:
        output.console().print(views.decision(output.harmless(report)))


def prompt_from(words: list[str]) -> str:
    """The words of the command line, followed by standard input where something is piped in. Raises UsageError."""
    text = " ".join(words)
    if not sys.stdin.isatty() and not sys.stdin.closed:
        try:
            piped = sys.stdin.read()
        except UnicodeDecodeError as exc:
            raise UsageError("Standard input is not text.", hint="Pipe in UTF-8 text.") from exc
        text = "\n\n".join(part for part in (text, piped.strip()) if part)
    if not text.strip():
        raise UsageError("The prompt is empty.", hint='Say what you want: atmo ask "What is Atmosphere?"')
    return text

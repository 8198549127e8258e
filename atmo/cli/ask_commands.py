"""`atmo ask | route | explain`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from atmo.cli import output, views
from atmo.cli.arrival import Arrival
from atmo.client import SyncClient
from atmo.errors import NoRoute, UsageError


def ask(words: list[str], wishes: dict[str, Any], node: str, *, explain: bool, as_json: bool) -> None:
    text = prompt_from(words)
    client = SyncClient(node=node)
    if as_json:
        output.print_json(collect(client, text, wishes))
        return
    plan = _stream(client, text, wishes, explain)
    if plan is not None:
        if not _agree(plan):
            raise UsageError("Nothing was fetched and nothing was asked.", hint="Agree beforehand with --yes.")
        _stream(client, text, {**wishes, "migrate": "yes"}, explain, shown=True)


def _agree(plan: dict[str, Any]) -> bool:
    """Ask at a terminal; where nobody sits, nobody agrees."""
    output.aside().print(views.plan(output.harmless(plan)))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    output.aside().print("Fetch it and go on? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _stream(
    client: SyncClient, text: str, wishes: dict[str, Any], explain: bool, *, shown: bool = False
) -> dict[str, Any] | None:
    """Text goes to standard output as it comes; who answered and how fast goes to standard error, for people only.

    Returns a plan that was not agreed to; shown: it was shown already.
    """
    with closing(Arrival(output.aside())) as arrival:
        return _tell(client.ask(text, **wishes), arrival, explain, shown)


def _tell(events: Iterator[dict[str, Any]], arrival: Arrival, explain: bool, shown: bool) -> dict[str, Any] | None:
    talk = explain or (sys.stdout.isatty() and sys.stderr.isatty())
    aside = output.aside()
    ended = True
    for event in events:
        kind = event["event"]
        if kind == "plan" and not event["agreed"]:
            return event
        if kind == "plan" and not shown:
            aside.print(views.plan(output.harmless(event)))
        elif kind in ("transfer", "loading"):
            arrival.show(output.harmless(event))
        elif kind == "receipt":
            aside.print(views.receipt_line(output.harmless(event)))
        elif kind == "route" and explain:
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
    return None


def collect(client: SyncClient, text: str, wishes: dict[str, Any]) -> dict[str, Any]:
    """The whole answer as one object: `answer` is text, a vector or labels."""
    pieces: list[str] = []
    result: dict[str, Any] = {"retries": []}
    for event in client.ask(text, **wishes):
        kind = event.pop("event")
        if kind == "text":
            pieces.append(event["text"])
        elif kind in ("vector", "labels"):
            result["answer"] = event[kind]
        elif kind == "retry":
            result["retries"].append(event)
        elif kind == "plan" and not event["agreed"]:
            raise NoRoute(
                f"Nothing inside the boundary can serve this, but {event['model']} could come "
                f"({event['moves_bytes'] / 1e6:.0f} MB to {event['to']['name']}).",
                hint="Agree with --yes.",
            )
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

"""`atmo ask | route | explain`."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

from atmo.cli import output, views
from atmo.cli.arrival import Arrival
from atmo.cli.page import Page
from atmo.cli.prompts import read_prompt
from atmo.client import SyncClient
from atmo.client.results import Step
from atmo.errors import NoRoute, UsageError


def ask(
    words: list[str],
    files: list[str],
    wishes: dict[str, Any],
    node: str,
    *,
    explain: bool,
    as_json: bool,
    plain: bool = False,
) -> None:
    prompt = read_prompt(words, files)
    client = SyncClient(node=node)
    wishes = prompt.wishes(wishes)
    if as_json:
        with output.busy("Waiting for the answer"):
            whole = collect(client, prompt.text, wishes)
        output.print_json(whole)
        return
    plan = _stream(client, prompt.text, wishes, explain, plain)
    if plan is not None:
        if not _agree(plan):
            raise UsageError("Nothing was fetched and nothing was asked.", hint="Agree beforehand with --yes.")
        _stream(client, prompt.text, {**wishes, "migrate": "yes"}, explain, plain, shown=True)


def _agree(plan: Step) -> bool:
    """Ask at a terminal; where nobody sits, nobody agrees."""
    output.aside().print(views.plan(output.harmless(plan)))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    output.aside().print("Fetch it and go on? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _stream(
    client: SyncClient, text: str, wishes: dict[str, Any], explain: bool, plain: bool, *, shown: bool = False
) -> Step | None:
    """Text goes to standard output as it comes; who answered and how fast goes to standard error, for people only.

    Returns a plan that was not agreed to; shown: it was shown already.
    """
    talk = explain or output.to_people()
    aside = output.aside()
    with (
        closing(Arrival(aside)) as arrival,
        closing(Page(plain=plain)) as page,
        output.busy("Waiting for the first word") as busy,
        closing(client.stream(text, **wishes).steps()) as steps,
    ):
        for event in steps:
            kind = event["event"]
            if busy is not None and (kind != "route" or explain):
                busy.done()
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
                page.feed(event["text"])
            elif kind in ("vector", "labels"):
                output.console().print(views.result(output.harmless(event)))
            elif kind == "retry" and talk:
                (output.console() if page.drawn else aside).print(views.retried(output.harmless(event)))
            elif kind == "done":
                page.close()
                if talk:
                    aside.print(views.answered_by(output.harmless(event)))
    return None


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
        elif kind == "plan" and not event["agreed"]:
            raise NoRoute(
                f"Nothing inside the boundary can serve this, but {event['model']} could come "
                f"({event['moves_bytes'] / 1e6:.0f} MB to {event['to']['name']}).",
                hint="Agree with --yes.",
            )
        else:
            result[kind] = event
    return {"answer": "".join(pieces), **result} if "answer" not in result else result


def route(words: list[str], files: list[str], wishes: dict[str, Any], node: str, *, as_json: bool) -> None:
    prompt = read_prompt(words, files)
    if prompt.images:
        wishes = {**wishes, "constraints": {"modality": "image", **wishes["constraints"]}}
    _show(SyncClient(node=node).route(prompt.text, **wishes), as_json)


def explain(request: str, node: str, *, as_json: bool) -> None:
    _show(SyncClient(node=node).explain(request), as_json)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(report)
    else:
        output.console().print(views.decision(output.harmless(report)))

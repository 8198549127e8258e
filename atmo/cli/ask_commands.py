"""`atmo ask | route | explain`."""

from __future__ import annotations

import sys
from typing import Any

from atmo.cli import output, views
from atmo.cli.prompts import read_prompt
from atmo.client import SyncClient


def ask(words: list[str], files: list[str], wishes: dict[str, Any], node: str, *, explain: bool, as_json: bool) -> None:
    prompt = read_prompt(words, files)
    client = SyncClient(node=node)
    wishes = prompt.wishes(wishes)
    if as_json:
        with output.busy("Waiting for the answer"):
            whole = collect(client, prompt.text, wishes)
        output.print_json(whole)
        return
    _stream(client, prompt.text, wishes, explain)


def _stream(client: SyncClient, text: str, wishes: dict[str, Any], explain: bool) -> None:
    """Text goes to standard output as it comes; who answered and how fast goes to standard error, for people only."""
    talk = explain or output.to_people()
    aside = output.aside()
    ended = True
    with output.busy("Waiting for the first word") as busy:
        for event in client.stream(text, **wishes).steps():
            kind = event["event"]
            if busy is not None and (kind != "route" or explain):
                busy.done()
            if kind == "route" and explain:
                output.console().print(views.decision(output.harmless(event)))
                output.console().print()
            elif kind == "text":
                sys.stdout.write(output.harmless(event["text"]) if sys.stdout.isatty() else event["text"])
                sys.stdout.flush()
                ended = event["text"].endswith("\n") if event["text"] else ended
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

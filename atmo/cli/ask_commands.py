"""`atmo ask | route | explain`."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

from atmo.cli import output
from atmo.cli.arrival import Arrival
from atmo.cli.page import Page
from atmo.cli.prompts import read_prompt
from atmo.cli.wishes import wishes
from atmo.client import SyncClient
from atmo.client.results import Step
from atmo.errors import NoRoute, UsageError


def asked(
    *,
    text: list[str] | None = None,
    file: list[str] | None = None,
    model: str = "",
    kind: str = "",
    where: list[str] | None = None,
    system: str = "",
    max_tokens: int = 0,
    temperature: float = 0.0,
    seed: int = -1,
    timeout: float = 120.0,
    explain: bool = False,
    private: bool = False,
    yes: bool = False,
    plain: bool = False,
    node: str = "",
    as_json: bool = False,
) -> None:
    """`atmo ask` with these options."""
    wished = wishes(model, kind, where, system, max_tokens, temperature, seed, timeout)
    if private or yes:
        wished |= {"private": private, "migrate": "yes" if yes else "ask"}
    ask(text or [], file or [], wished, node, explain=explain, as_json=as_json, plain=plain)


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
    from atmo.cli import views

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
    told = _told(explain=explain, shown=shown)
    with (
        closing(Arrival()) as arrival,
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
            if kind == "text":
                page.feed(event["text"])
            elif kind in ("transfer", "loading"):
                arrival.show(output.harmless(event))
            elif kind == "done":
                page.close()
            if kind in told or (event.get("because") and kind == "plan"):  # another one than was agreed to is told of
                _tell(output.harmless(event), page)
            if kind == "route":
                page.prepare()
    return None


def _told(*, explain: bool, shown: bool) -> set[str]:
    """What is said besides the words: to people more than to programs."""
    told = {"vector", "labels", "receipt"}
    if not shown:
        told.add("plan")
    if explain:
        told.add("route")
    if explain or output.to_people():
        told |= {"retry", "done"}
    return told


def _tell(event: Step, page: Page) -> None:
    from atmo.cli import views

    kind, out, aside = event["event"], output.console(), output.aside()
    if kind == "route":
        out.print(views.decision(event))
        out.print()
    elif kind in ("vector", "labels"):
        out.print(views.result(event))
    elif kind == "plan":
        aside.print(views.plan(event))
    elif kind == "receipt":
        aside.print(views.receipt_line(event))
    elif kind == "retry":
        (out if page.drawn else aside).print(views.retried(event))
    elif kind == "done":
        aside.print(views.answered_by(event))


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
        from atmo.cli import views

        output.console().print(views.decision(output.harmless(report)))

"""`atmo bench`: a running node as its user sees it.

One request after the other, as one person asks, the first of them left out: it loads what loads on first use. Every
prompt begins with another number, so that no answer comes out of a cache. Times are taken here, at the command line,
and what the engine itself took for the prompt stands beside them; their difference is what everything else costs.
Where another node offers the same, it is asked in turns with this one: the difference is what the way there costs,
together with the difference of the two machines.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from atmo.cli import output
from atmo.client import SyncClient
from atmo.errors import RequestError

PROMPT = "Number {n}. In a few sentences, tell me what Atmosphere is and what it is good for."


@dataclass
class Samples:
    """Of one node, in seconds and tokens a second. added_s: the first token's time beyond the engine's own."""

    node: str
    capability: str
    first_s: list[float] = field(default_factory=list)
    added_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    tokens: int = 0


def bench(node: str, model: str, *, requests: int, max_tokens: int, as_json: bool) -> None:
    client = SyncClient(node=node)
    with output.busy("Warming up") as busy:
        mine = _once(client, model, [client.status()["node"]["name"]], 0, max_tokens)
        others = _others(client, mine)
        places = [Samples(mine.node, mine.capability), *([Samples(others, mine.capability)] if others else [])]
        for place in places[1:]:
            _once(client, place.capability, [place.node], 0, max_tokens)
        for number in range(1, requests + 1):
            for place in places:
                if busy is not None:
                    busy.say(f"Request {number} of {requests} to {place.node}")
                _add(place, _once(client, place.capability, [place.node], number, max_tokens))
    report = _report(places, requests, max_tokens)
    if as_json:
        output.print_json(report)
    else:
        output.console().print(shown(report))


@dataclass(frozen=True)
class _Answer:
    node: str
    capability: str
    first_s: float
    total_s: float
    done: dict[str, Any]


def _once(client: SyncClient, model: str, nodes: list[str], number: int, max_tokens: int) -> _Answer:
    """Raises NoRoute where this node offers no chat, RequestError for an answer of no tokens."""
    begun_s = time.perf_counter()
    first_s = 0.0
    done: dict[str, Any] = {}
    prompt = PROMPT.format(n=number)
    for event in client.stream(prompt, model=model, type="chat", allow_nodes=nodes, max_tokens=max_tokens).steps():
        if event["event"] == "text" and not first_s:
            first_s = time.perf_counter() - begun_s
        elif event["event"] == "done":
            done = event
    if not done or not first_s:
        raise RequestError("The model answered with nothing.", hint="Measure another: atmo bench --model NAME")
    return _Answer(done["node"], done["capability"], first_s, time.perf_counter() - begun_s, done)


def _others(client: SyncClient, mine: _Answer) -> str:
    """Another node that offers what this one answered with, and is linked."""
    for node in client.mesh()["nodes"]:
        ready = [offer["id"] for offer in node["capabilities"] if offer["ready"]]
        if node["linked"] and not node["self"] and mine.capability in ready:
            return str(node["name"])
    return ""


def _add(place: Samples, answer: _Answer) -> None:
    done = answer.done
    place.first_s.append(answer.first_s)
    place.total_s.append(answer.total_s)
    place.added_s.append(max(0.0, answer.first_s - done["queue_s"] - done["prefill_s"]))
    place.tokens += done["output_tokens"]
    if done["output_tokens"] > 1 and answer.total_s > answer.first_s:
        place.tokens_per_s.append((done["output_tokens"] - 1) / (answer.total_s - answer.first_s))


def _report(places: list[Samples], requests: int, max_tokens: int) -> dict[str, Any]:
    rows = [
        {
            "node": place.node,
            "capability": place.capability,
            "first_ms": _spread(place.first_s, 1000),
            "added_ms": _spread(place.added_s, 1000),
            "total_ms": _spread(place.total_s, 1000),
            "tokens_per_s": _spread(place.tokens_per_s, 1),
            "tokens": place.tokens,
        }
        for place in places
    ]
    hop = None
    if len(places) > 1:
        differences = [there - here for here, there in zip(places[0].first_s, places[1].first_s, strict=True)]
        hop = {"to": places[1].node, "first_ms": _spread(differences, 1000)}
    return {"requests": requests, "max_tokens": max_tokens, "nodes": rows, "hop": hop}


def _spread(samples: list[float], scale: float) -> dict[str, float] | None:
    """Median, least and most; None without samples. No more: ten requests have no percentiles."""
    if not samples:
        return None
    return {
        "median": round(statistics.median(samples) * scale, 3),
        "least": round(min(samples) * scale, 3),
        "most": round(max(samples) * scale, 3),
    }


def shown(report: dict[str, Any]) -> RenderableType:
    report = output.harmless(report)
    view = output.table("NODE", "", "MEDIAN|right", "LEAST|right", "MOST|right", "")
    for row in report["nodes"]:
        for index, (key, name, unit) in enumerate(
            (
                ("first_ms", "first token", "ms"),
                ("added_ms", "of which not the engine", "ms"),
                ("tokens_per_s", "then", "tokens/s"),
                ("total_ms", "whole answer", "ms"),
            )
        ):
            view.add_row(Text(row["node"] if index == 0 else "", style="bold"), name, *_cells(row[key]), Text(unit))
    if report["hop"] is not None:
        view.add_row(
            Text(f"→ {report['hop']['to']}", style="bold"),
            "first token, more",
            *_cells(report["hop"]["first_ms"]),
            Text("ms"),
        )
    what = report["nodes"][0]["capability"].removeprefix("atmo:")
    foot = f"{report['requests']} requests to {what}, one after the other, up to {report['max_tokens']} tokens each"
    alone = (
        [] if report["hop"] else [Text("No other node offers the same, so there is no way to measure.", style="dim")]
    )
    return Group(view, Text(), Text(foot, style="dim"), *alone)


def _cells(spread: dict[str, float] | None) -> list[str]:
    if spread is None:
        return ["-", "-", "-"]
    return [f"{spread[name]:.1f}" for name in ("median", "least", "most")]

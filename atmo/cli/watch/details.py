"""One node, capability or request in full, and the keys: blocks of text that scroll."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

from rich.style import Style

from atmo.cli.watch import cells
from atmo.cli.watch.cells import BOLD, CYAN, DIM, GREEN, PLAIN, YELLOW
from atmo.cli.watch.pane import STANDS, Entry, clock, milliseconds
from atmo.cli.watch.panes import EVENTS, HEALTH, MARKS, route, word
from atmo.cli.watch.story import Request, Story
from atmo.cli.watch.transfers import done_share, remaining, size

Words = list[tuple[str, Style]]
"""One line: texts with their styles, of any length."""

LAST = 12  # events and requests shown of a node

KEYS = (
    ("1 to 7, ← →", "go to a page"),
    ("Tab", "to the next pane of the overview, or to the next page"),
    ("↑ ↓ or k j", "move; PgUp PgDn by ten; g G or Home End to the ends"),
    ("Enter", "look into what the bar is on; Esc back"),
    ("s, r", "sort by the next column; the other way round"),
    ("/", "filter by words that all occur; Enter keeps, Esc clears"),
    ("p or Space", "pause: the picture stands still, what happens is kept"),
    ("?", "this page"),
    ("q or Ctrl-C", "quit"),
)
MEANINGS = (
    ("linked", "there is a link", "linked"),
    ("known", "known by gossip; a link is made when it is needed", "known"),
    ("lost", "the link is gone", "lost"),
    ("suspect", "somebody says it is dead; it has time to contradict", "suspect"),
    ("dead", "it did not contradict; nothing goes there until it does", "dead"),
)


def help_lines() -> list[Words]:
    """No more than fits 80x24."""
    made: list[Words] = [[("Keys", BOLD)]]
    made += [[(f"  {keys:<20}", CYAN), (what, PLAIN)] for keys, what in KEYS]
    made += [[], [("What is said of a node", BOLD)]]
    made += [[(f"  ● {word:<18}", HEALTH[state]), (what, PLAIN)] for word, what, state in MEANINGS]
    return [
        *made,
        [],
        [("TOK/S", BOLD), ("  output tokens a second now: requests being answered times the usual", DIM)],
        [("       speed of one, as the node tells, or what was seen if that is more;", DIM)],
        [("       beside it, the last minute.", DIM)],
    ]


def lines(kind: str, key: str, story: Story) -> list[Words]:
    return list(_KINDS[kind](key, story))


def _wrapped(text: str) -> list[str]:
    """As long as 80 columns take; what goes on is set in."""
    return textwrap.wrap(text, 76, subsequent_indent="  ")


def _node(peer: str, story: Story) -> Iterator[Words]:
    node = next((found for found in story.nodes if found["peer"] == peer), None)
    if node is None:
        yield [(f"{story.name(peer)} is not known at present.", YELLOW)]
        yield [("peer      ", DIM), (peer, PLAIN)]
    else:
        yield [(node["name"], BOLD), ("  ", PLAIN), (f"● {node['state']}", HEALTH.get(node["state"], PLAIN))]
        yield []
        yield from _facts(node)
        history = list(story.history.get(peer, ()))
        if any(history):
            yield [("tokens/s  ", DIM), (cells.spark(history, len(history)), GREEN), (f" {history[-1]:.0f}", PLAIN)]
        for offer in node.get("capabilities", ()):
            yield from _offer(offer)
    yield from _past(peer, story)


def _past(peer: str, story: Story) -> Iterator[Words]:
    about = [event for event in EVENTS.entries(story) if event.get("peer") == peer][:LAST]
    if about:
        yield []
        yield [("What happened", BOLD)]
        yield from (_event(event) for event in about)
    asked = [request for request in reversed(story.requests.values()) if peer in request.peers][:LAST]
    if asked:
        yield []
        yield [("Requests", BOLD)]
        yield from (_request_line(request, story) for request in asked)


def _facts(node: Entry) -> Iterator[Words]:
    rtt_ms = node.get("rtt_ms")
    memory = f", {node['memory_bytes'] / (1 << 30):.0f} GiB" if node.get("memory_bytes") else ""
    facts = (
        ("peer", node["peer"]),
        ("address", " ".join(each.partition("/p2p/")[0] for each in node.get("addresses", ()))),
        ("mode", node.get("mode", "")),
        ("labels", " ".join(f"{key}={value}" for key, value in node["labels"].items())),
        ("software", node.get("software", "")),
        ("machine", f"{node['cpu']}, {node['cores']} cores{memory}" if node.get("cpu") else ""),
        ("latency", milliseconds(rtt_ms) if rtt_ms is not None else ""),
    )
    for name, value in facts:
        for number, text in enumerate(textwrap.wrap(value, 68, break_on_hyphens=False)):
            yield [(f"{name if number == 0 else '':<10}", DIM), (text, PLAIN)]


def _offer(offer: Entry) -> Iterator[Words]:
    yield []
    state = "" if offer["ready"] else "  not ready"
    out = f"  not asked for {offer['ejected_s']:.0f} s more: it failed too often" if offer["ejected_s"] else ""
    yield [(offer["id"], BOLD), (f"  {offer['model']}", DIM), (state + out, YELLOW)]
    load = f"{offer['in_flight']} of {offer['slots']} slots busy, {offer['queued']} wait"
    speed = f", {offer['decode_tps']:.0f} tokens/s each" if offer["decode_tps"] else ""
    service = f", usually {offer['service_s']:.2f} s" if offer["service_s"] else ""
    yield [(f"  {load}{speed}{service}", PLAIN)]
    if offer.get("description"):
        yield from ([(f"  {text}", DIM)] for text in _wrapped(offer["description"]))


def _event(event: Entry) -> Words:
    said, stands = word(event)
    return [(f"  {clock(event['at_s'])} ", DIM), (f"{said:<12}", STANDS[stands]), (event.get("detail", ""), DIM)]


def _request_line(request: Request, story: Story) -> Words:
    mark, style = MARKS[request.state]
    took = f"  {request.total_s:.2f} s" if request.state != "running" else ""
    return [
        (f"  {clock(request.at_s)} ", DIM),
        (f"{mark} ", style),
        (route(request, story), PLAIN),
        (f"  {request.capability.removeprefix('atmo:')}{took}", DIM),
    ]


def _capability(name: str, story: Story) -> Iterator[Words]:
    yield [(name, BOLD)]
    first = True
    for node in story.nodes:
        for offer in node.get("capabilities", ()):
            if offer["id"] != name:
                continue
            if first:
                yield from ([(text, DIM)] for text in _wrapped(offer.get("description", "")))
                first = False
            yield []
            yield [(node["name"], BOLD), (f"  ● {node['state']}", HEALTH.get(node["state"], PLAIN))]
            yield from list(_offer({**offer, "description": ""}))[2:]
    if first:
        yield [("Nobody offers it any more.", YELLOW)]


def _request(key: str, story: Story) -> Iterator[Words]:
    request = story.requests.get(key)
    if request is None:
        yield [("This request is too long ago.", YELLOW)]
        return
    mark, style = MARKS[request.state]
    yield [(f"{mark} {request.state}", style), (f"  {route(request, story)}", BOLD)]
    yield []
    facts = (
        ("request", request.id),
        ("capability", request.capability),
        ("begun", clock(request.at_s)),
        ("took", f"{request.total_s:.3f} s" if request.state != "running" else ""),
        ("first", f"after {milliseconds(request.first_s * 1000)}" if request.first_s else ""),
        ("output", f"{request.tokens} tokens" if request.tokens else ""),
        ("speed", f"{request.tps:.0f} tokens/s" if request.tps else ""),
        ("why", request.detail),
    )
    yield from ([(f"{name:<11}", DIM), (value, PLAIN)] for name, value in facts if value)
    yield []
    if not request.ours:
        yield [(f"The decision was made at {story.name(request.peers[0])}.", DIM)]
        return
    yield [("Why there", BOLD)]
    for told in story.decisions.get(request.id, ["..."]):
        yield from ([(f"  {text}", PLAIN)] for text in _wrapped(told))


def _transfer(key: str, story: Story) -> Iterator[Words]:
    transfer = story.transfers.get(key)
    if transfer is None:
        yield [("This transfer is too long ago.", YELLOW)]
        return
    incoming, share = transfer["direction"] == "in", done_share(transfer)
    yield [(transfer["model"], BOLD), (f"  {'to' if incoming else 'from'} {story.own}, {transfer['state']}", PLAIN)]
    yield []
    yield [(f"{cells.bar(share, 40)} {share:.0%}", CYAN)]
    yield []
    speed = f"{size(transfer['bytes_per_s'])}/s" if transfer["state"] == "running" else ""
    eta_s = transfer.get("eta_s")
    facts = (
        ("root", transfer["root"]),
        ("done", f"{size(transfer['bytes_done'])} of {size(transfer['bytes_total'])}"),
        ("speed", speed),
        ("left", remaining(eta_s) if eta_s is not None and transfer["state"] == "running" else ""),
        ("why", transfer.get("error") or ""),
    )
    yield from ([(f"{name:<11}", DIM), (value, PLAIN)] for name, value in facts if value)
    sources = transfer.get("sources", ())
    if sources:
        yield []
        yield [("From" if incoming else "To", BOLD)]
    whole = max(1, sum(source["bytes"] for source in sources))
    for source in sources:
        name = source.get("name") or story.name(source["peer"])
        part = source["bytes"] / whole
        yield [(f"  {name:<18}", PLAIN), (cells.bar(part, 20), GREEN), (f" {size(source['bytes'])}", DIM)]


_KINDS: dict[str, Callable[[str, Story], Iterator[Words]]] = {
    "nodes": _node,
    "capabilities": _capability,
    "requests": _request,
    "transfers": _transfer,
}

"""What can be listed: nodes, capabilities, requests, events, links, transfers. Each pane is a table of columns over
entries of the story, so that sorting, filtering, moving and drawing are the same for all."""

from __future__ import annotations

from collections.abc import Callable

from atmo.cli.watch import cells
from atmo.cli.watch.cells import BOLD, CYAN, DIM, GREEN, PLAIN, RED, YELLOW, Cell
from atmo.cli.watch.pane import STANDS, Column, Entry, Pane, clock, milliseconds
from atmo.cli.watch.story import MEMBERS, TRANSFERS, Request, Story
from atmo.cli.watch.transfers import TRANSFERS as TRANSFER_PANE
from atmo.cli.watch.transfers import size

HEALTH = {"self": CYAN, "linked": GREEN, "known": GREEN, "lost": YELLOW, "suspect": YELLOW, "dead": RED}
MARKS = {"running": ("…", YELLOW), "answered": ("✓", GREEN), "failed": ("✗", RED), "cancelled": ("-", DIM)}
# Worst first: what a person wants to see.
_HEALTH_ORDER = {"dead": 0, "suspect": 1, "lost": 2, "self": 3, "linked": 4, "known": 5}


# Nodes


def _name(node: Entry, story: Story, width: int) -> Cell:
    return Cell(node["name"] or node["peer"][-8:], DIM if node["state"] == "dead" else BOLD)


def _state(node: Entry, story: Story, width: int) -> Cell:
    state = node["state"]
    return Cell("● this node" if state == "self" and width > 9 else f"● {'here' if state == 'self' else state}",
                HEALTH.get(state, PLAIN))  # fmt: skip


def _load(node: Entry, story: Story, width: int) -> Cell:
    slots = node.get("slots", 0)
    if not slots:
        return Cell("-", DIM)
    busy = (node["in_flight"] + node["queued"]) / slots
    waiting = f"+{node['queued']}" if node["queued"] else ""
    text = f"{node['in_flight']}/{slots}{waiting}"
    style = DIM if not busy else GREEN if busy < 0.5 else YELLOW if busy < 1.0 else RED
    return Cell(f"{cells.bar(busy, width - 7)} {text}" if width >= 12 else text, style)


def share(node: Entry) -> float:
    return (node["in_flight"] + node["queued"]) / node["slots"] if node.get("slots") else -1.0


def _latency(node: Entry, story: Story, width: int) -> Cell:
    rtt_ms = node.get("rtt_ms")
    return Cell("-", DIM) if rtt_ms is None else Cell(milliseconds(rtt_ms))


def _speed(node: Entry, story: Story, width: int) -> Cell:
    tps = story.tps(node["peer"])
    return Cell(f"{tps:.0f}" if tps else "-", PLAIN if tps else DIM)


def _history(node: Entry, story: Story, width: int) -> Cell:
    return Cell(cells.spark(story.history.get(node["peer"], ()), width), GREEN)


def _offers(node: Entry, story: Story, width: int) -> Cell:
    names = [offer["id"].removeprefix("atmo:") for offer in node.get("capabilities", ())]
    return Cell(" ".join(names) or "-", PLAIN if names else DIM)


def _labels(node: Entry, story: Story, width: int) -> Cell:
    labels = node["labels"]
    return Cell(" ".join(f"{key}={value}" for key, value in labels.items()) or "-", PLAIN if labels else DIM)


def _node_words(node: Entry, story: Story) -> str:
    labels = [f"{key}={value}" for key, value in node["labels"].items()]
    offers = [offer["id"] for offer in node.get("capabilities", ())]
    return " ".join((node["name"], node["state"], node.get("mode", ""), *labels, *offers))


def _mode(node: Entry, story: Story, width: int) -> Cell:
    return Cell(node.get("mode", "-"), PLAIN if node.get("mode") == "participant" else DIM)


NODES = Pane(
    "NODES",
    (
        Column("NODE", 14, 24, _name, lambda n, s: n["name"]),
        Column("STATE", 9, 11, _state, lambda n, s: _HEALTH_ORDER.get(n["state"], 9)),
        Column("MODE", 11, 11, _mode, lambda n, s: n.get("mode", "")),
        Column("LOAD", 6, 16, _load, lambda n, s: -share(n)),
        Column("LATENCY", 7, 8, _latency, lambda n, s: n["rtt_ms"] if n.get("rtt_ms") is not None else 1e9, right=True),
        Column("TOK/S", 5, 6, _speed, lambda n, s: -s.tps(n["peer"]), right=True),
        Column("", 9, 30, _history),
        Column("OFFERS", 16, 40, _offers, lambda n, s: -len(n.get("capabilities", ())), wide=100),
        Column("LABELS", 12, 99, _labels, lambda n, s: " ".join(n["labels"].values()) or "~"),
    ),
    lambda story: sorted(story.nodes, key=lambda n: (n["state"] == "dead", n["state"] != "self", n["name"])),
    lambda node: str(node["peer"]),
    _node_words,
)


# Capabilities


def _offered(story: Story) -> list[tuple[str, list[Entry]]]:
    found: dict[str, list[Entry]] = {}
    for node in story.nodes:
        for offer in node.get("capabilities", ()):
            found.setdefault(offer["id"], []).append({**offer, "node": node["name"]})
    return sorted(found.items())


def _total(name: str) -> Callable[[Entry], float]:
    return lambda entry: sum(float(offer[name]) for offer in entry[1])


_busy, _slots, _queued = _total("in_flight"), _total("slots"), _total("queued")


def _by(entry: Entry, story: Story, width: int) -> Cell:
    out = [offer["node"] for offer in entry[1] if offer["ejected_s"]]
    names = ", ".join(offer["node"] for offer in entry[1])
    return Cell(f"{names} (not asked now: {', '.join(out)})" if out else names, YELLOW if out else DIM)


def _fastest(entry: Entry) -> float:
    return float(max(offer["decode_tps"] for offer in entry[1]))


CAPABILITIES = Pane(
    "CAPABILITIES",
    (
        Column("CAPABILITY", 24, 44, lambda e, s, w: Cell(e[0].removeprefix("atmo:"), BOLD), lambda e, s: e[0]),
        Column("MODEL", 14, 24, lambda e, s, w: Cell(e[1][0]["model"]), lambda e, s: e[1][0]["model"]),
        Column("READY", 7, 7, lambda e, s, w: Cell(f"{sum(o['ready'] for o in e[1])}/{len(e[1])}"),
               lambda e, s: -len(e[1]), right=True),
        Column("BUSY", 8, 8, lambda e, s, w: Cell(f"{_busy(e):.0f}/{_slots(e):.0f}"), lambda e, s: -_busy(e),
               right=True),
        Column("QUEUE", 6, 6, lambda e, s, w: Cell(f"{_queued(e):.0f}"), lambda e, s: -_queued(e), right=True),
        Column("TOK/S", 6, 6, lambda e, s, w: Cell(f"{_fastest(e):.0f}" if _fastest(e) else "-"),
               lambda e, s: -_fastest(e), right=True),
        Column("NODES", 8, 99, _by),
    ),
    _offered,
    lambda entry: str(entry[0]),
    lambda entry, story: " ".join((entry[0], entry[1][0]["model"], *(offer["node"] for offer in entry[1]))),
)  # fmt: skip


# Requests


def _mark(request: Request, story: Story, width: int) -> Cell:
    mark, style = MARKS[request.state]
    return Cell(mark, style)


def route(request: Request, story: Story) -> str:
    """Who asked whom: `laptop → desk ✗ → attic`."""
    here = story.own
    if not request.ours:
        return f"{story.name(request.peers[0])} → {here}"
    missed = "".join(f"{story.name(peer)} ✗ → " for peer in request.peers[:-1])
    last = story.name(request.peers[-1])
    return f"{here} → {missed}{'itself' if last == here else last}"


def _outcome(request: Request, story: Story, width: int) -> Cell:
    if request.state == "running":
        return Cell(f"for {max(0.0, story.at_s - request.at_s):.0f} s", YELLOW)
    if request.state != "answered":
        return Cell(request.detail or request.state, RED if request.state == "failed" else DIM)
    first = f"first after {milliseconds(request.first_s * 1000)}, " if request.first_s and width > 40 else ""
    tokens = f"{request.tokens} tok, " if request.tokens else ""
    tps = f", {request.tps:.0f} tok/s" if request.tps and width > 26 else ""
    return Cell(f"{tokens}{first}{request.total_s:.2f} s{tps}")


REQUESTS = Pane(
    "REQUESTS",
    (
        Column("TIME", 8, 8, lambda r, s, w: Cell(clock(r.at_s), DIM), lambda r, s: -r.at_s),
        Column("", 1, 1, _mark, lambda r, s: r.state),
        Column("ROUTE", 20, 34, lambda r, s, w: Cell(route(r, s), BOLD), lambda r, s: route(r, s)),
        Column("CAPABILITY", 14, 20, lambda r, s, w: Cell(r.capability.removeprefix("atmo:").partition(":")[2]),
               lambda r, s: r.capability),
        Column("OUTCOME", 16, 99, _outcome, lambda r, s: -r.total_s),
    ),
    lambda story: list(reversed(story.requests.values())),
    lambda request: str(request.key),
    lambda request, story: " ".join((route(request, story), request.capability, request.state, request.detail)),
    newest=True,
)  # fmt: skip


# Events


def word(event: Entry) -> tuple[str, str]:
    """An event in a word for people, and how it stands. One of a later version is shown as it is."""
    kind = event["event"]
    return TRANSFERS[kind][:2] if kind in TRANSFERS else MEMBERS.get(kind, (kind, "plain"))


def _what(event: Entry, story: Story, width: int) -> Cell:
    said, stands = word(event)
    return Cell(said, STANDS[stands])


def _about(event: Entry, story: Story) -> str:
    """A node, or the model that travels."""
    return story.name(event.get("peer", "")) or str(event.get("model", ""))


def _why(event: Entry) -> str:
    return event.get("detail") or (size(event["bytes_total"]) if event.get("bytes_total") else "")


EVENTS = Pane(
    "EVENTS",
    (
        Column("TIME", 8, 8, lambda e, s, w: Cell(clock(e["at_s"]), DIM), lambda e, s: -e["seq"]),
        Column("EVENT", 11, 11, _what, lambda e, s: e["event"]),
        Column("NODE", 14, 18, lambda e, s, w: Cell(_about(e, s), BOLD), _about),
        Column("WHY", 10, 99, lambda e, s, w: Cell(_why(e), DIM)),
    ),
    lambda story: list(reversed(story.events)),
    lambda event: str(event["seq"]),
    lambda event, story: " ".join((event["event"], _about(event, story), event.get("detail", ""))),
    newest=True,
)


# Links: who is linked to whom, as far as this node knows


def _links(story: Story) -> list[Entry]:
    """This node, then those it is linked to, the nearest first, then those it only heard of."""
    accusers: dict[str, list[str]] = {}
    for charge in story.report.get("accusations", ()):
        accusers.setdefault(charge["of"], []).append(charge["by"])
    nodes = [{**node, "accusers": accusers.get(node["peer"], [])} for node in story.nodes]
    own = [node for node in nodes if node["state"] == "self"]
    linked = sorted((n for n in nodes if n.get("linked")), key=lambda n: (n["rtt_ms"] is None, n["rtt_ms"] or 0.0))
    others = [node for node in nodes if node["state"] != "self" and not node.get("linked")]
    return [*own, *linked, *others]


def _branch(node: Entry, story: Story, width: int) -> Cell:
    if node["state"] == "self":
        return Cell("●", CYAN)
    return Cell(" ├───●", GREEN) if node.get("linked") else Cell(" ┆   ○", HEALTH.get(node["state"], DIM))


def _how(node: Entry, story: Story, width: int) -> Cell:
    if node["state"] == "self":
        return Cell("this node", CYAN)
    if node.get("linked"):
        return Cell("neighbour" if node.get("neighbour") else "linked", GREEN)
    if node["state"] == "known":
        return Cell("by gossip", DIM)
    return Cell({"dead": "dead", "suspect": "suspected, no link"}.get(node["state"], "no link"), HEALTH[node["state"]])


def _accused(node: Entry, story: Story, width: int) -> Cell:
    names = ", ".join(story.name(peer) for peer in node["accusers"])
    return Cell(f"said to be dead by {names}" if names else "", YELLOW)


LINKS = Pane(
    "LINKS",
    (
        Column("", 7, 7, _branch),
        Column("NODE", 14, 24, _name, lambda n, s: n["name"]),
        Column("LATENCY", 8, 8, _latency, lambda n, s: n.get("rtt_ms") or 1e9, right=True),
        Column("LINK", 10, 32, _how, lambda n, s: n["state"]),
        Column("OTHERS SAY", 12, 99, _accused, lambda n, s: -len(n["accusers"])),
    ),
    _links,
    lambda node: str(node["peer"]),
    lambda node, story: f"{node['name']} {node['state']}",
)

PANES = {pane.title.lower(): pane for pane in (NODES, CAPABILITIES, REQUESTS, EVENTS, LINKS, TRANSFER_PANE)}

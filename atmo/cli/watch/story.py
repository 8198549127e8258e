"""What the live view knows: the last report about the mesh, what happened, and how fast nodes answered lately.

Pure: it is told what a node said, in the order in which it said it, and takes no clock and no connection of its own.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

T = TypeVar("T")
Json = dict[str, Any]

EVENTS_KEPT = 500
REQUESTS_KEPT = 300
# Looks at the mesh, of which the sparkline shows the tokens a second.
HISTORY_KEPT = 60

# Events about members of the mesh: the word for people, and how it stands.
MEMBERS = {
    "joined": ("joined", "good"),
    "appeared": ("appeared", "good"),
    "lost": ("lost", "doubt"),
    "suspect": ("suspect", "doubt"),
    "refuted": ("back", "good"),
    "healed": ("healed", "good"),
    "dead": ("dead", "bad"),
    "left": ("left", "plain"),
    "revoked": ("revoked", "bad"),
    "ejected": ("put out", "bad"),
    "readmitted": ("readmitted", "good"),
    "banned": ("banned", "bad"),
    "unreachable": ("no answer", "doubt"),
    "misbehaved": ("misbehaved", "bad"),
    "equivocated": ("equivocated", "bad"),
    "gap": ("missed some", "doubt"),
}
# Events of models that travel: the word for people, how it stands, and the transfer's state that follows.
TRANSFERS = {
    "transfer_began": ("fetching", "plain", "running"),
    "transfer_progress": ("fetching", "plain", "running"),
    "transfer_done": ("fetched", "good", "done"),
    "transfer_failed": ("not fetched", "bad", "failed"),
}
# Events of requests: the state that follows.
REQUESTS = {
    "asked": "running",
    "retried": "running",
    "answered": "answered",
    "failed": "failed",
    "cancelled": "cancelled",
    "serving": "running",
    "served": "answered",
    "refused": "failed",
}
SERVED = frozenset({"serving", "served", "refused"})


@dataclass(slots=True)
class Request:
    """One request and where it went. ours: asked at this node; else `peers` holds who asked.

    peers: the nodes that were asked, one after the other; all but the last did not answer.
    """

    id: str
    ours: bool
    at_s: float
    capability: str
    peers: list[str] = field(default_factory=list)
    state: str = "running"
    detail: str = ""
    tokens: int = 0
    first_s: float = 0.0
    total_s: float = 0.0
    decode_s: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.id}/{'asked' if self.ours else 'served'}"

    @property
    def tps(self) -> float:
        """Output tokens a second while it decoded; 0 where there were hardly any."""
        return self.tokens / self.decode_s if self.decode_s and self.tokens > 1 else 0.0


@dataclass(slots=True)
class Story:
    """report: `/api/mesh`, {} before the first; transfers: as in `/api/transfers`, by direction and root; total: tokens
    a second of all nodes; at_s: the node's clock at the newest thing heard; trouble: why nothing is heard, empty while
    all is well."""

    report: Json = field(default_factory=dict)
    events: deque[Json] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    requests: OrderedDict[str, Request] = field(default_factory=OrderedDict)
    names: dict[str, str] = field(default_factory=dict)
    history: dict[str, deque[float]] = field(default_factory=dict)
    total: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY_KEPT))
    transfers: dict[str, Json] = field(default_factory=dict)
    decisions: dict[str, list[str]] = field(default_factory=dict)
    at_s: float = 0.0
    trouble: str = ""
    looks: int = 0  # at the mesh; whatever was made of nodes holds until the next one
    kept: dict[str, tuple[object, Any]] = field(default_factory=dict)  # what was made of which state
    _written: dict[str, float] = field(default_factory=dict)  # tokens a second of answers since the last look

    @property
    def nodes(self) -> list[Json]:
        """Those that live, then those that died lately."""
        return [*self.report.get("nodes", ()), *self.report.get("dead", ())]

    @property
    def own(self) -> str:
        """This node's name."""
        return next((str(node["name"]) for node in self.report.get("nodes", ()) if node["self"]), "?")

    @property
    def _own_peer(self) -> str:
        return next((str(node["peer"]) for node in self.report.get("nodes", ()) if node["self"]), "")

    def name(self, peer: str) -> str:
        return self.names.get(peer) or (f"…{peer[-8:]}" if peer else "")

    def seen(self, report: Json) -> None:
        """A look at the mesh. A node's speed is what it tells, or what was seen since the last look if that is more:
        a short answer begins and ends between two looks."""
        self.report = report
        self.looks += 1
        for node in self.nodes:
            self.names[node["peer"]] = node["name"]
        alive = {
            node["peer"]: max(float(node["tps"]), self._written.get(node["peer"], 0.0)) for node in report["nodes"]
        }
        self._written.clear()
        for peer in self.history.keys() - alive.keys():
            del self.history[peer]
        for peer, tps in alive.items():
            self.history.setdefault(peer, deque(maxlen=HISTORY_KEPT)).append(tps)
        self.total.append(sum(alive.values()))

    def keep(self, name: str, state: object, make: Callable[[], T]) -> T:
        """What `make` makes of a state, made once as long as the state is the same."""
        known = self.kept.get(name)
        if known is None or known[0] != state:
            known = self.kept[name] = (state, make())
        return cast(T, known[1])

    def tps(self, peer: str) -> float:
        """Tokens a second at present, about."""
        history = self.history.get(peer)
        return history[-1] if history else 0.0

    def moved(self, transfers: list[Json]) -> None:
        """A look at the transfers."""
        self.transfers = {f"{each['direction']}/{each['root']}": each for each in transfers}
        for each in transfers:
            for source in each.get("sources", ()):
                if source.get("name"):
                    self.names.setdefault(source["peer"], source["name"])

    def happened(self, event: Json) -> None:
        """An event of the node's journal. Kinds that this version does not know are shown as they are."""
        self.at_s = max(self.at_s, float(event["at_s"]))
        kind = event["event"]
        if event.get("name"):
            self.names.setdefault(event["peer"], event["name"])
        if kind in REQUESTS:
            self._request(event, kind)
            return
        if kind in TRANSFERS:
            self._transfer(event, kind)
        if kind not in ("pulse", "transfer_progress"):
            self.events.append(event)
            if kind == "gap":
                self._missed()

    def _transfer(self, event: Json, kind: str) -> None:
        """Events come more often than looks."""
        key = f"{event['direction']}/{event['root']}"
        known = self.transfers.get(key, {"sources": [], "eta_s": None, "error": ""})
        facts = {name: value for name, value in event.items() if name not in ("seq", "at_s", "event", "detail")}
        self.transfers[key] = {**known, **facts, "state": TRANSFERS[kind][2]}
        if kind == "transfer_failed":
            self.transfers[key]["error"] = event.get("detail", "")

    def _missed(self) -> None:
        """How running requests ended is not known; if one still runs, its end will be told."""
        for request in self.requests.values():
            if request.state == "running":
                request.state, request.detail = "cancelled", "its end was missed"

    def _request(self, event: Json, kind: str) -> None:
        ours = kind not in SERVED
        fresh = Request(event["request_id"], ours, float(event["at_s"]), event["capability"])
        request = self.requests.setdefault(fresh.key, fresh)
        if not request.peers or kind == "retried":
            request.peers.append(event["peer"])
        request.capability, request.state = event["capability"], REQUESTS[kind]
        request.detail = event.get("detail", "") or request.detail
        request.tokens, request.decode_s = event.get("output_tokens", 0), event.get("decode_s", 0.0)
        request.first_s = event.get("first_s", 0.0)
        if request.state != "running":
            request.total_s = event.get("total_s", max(0.0, float(event["at_s"]) - request.at_s))
        if request.state == "answered":
            who = request.peers[-1] if ours else self._own_peer
            self._written[who] = self._written.get(who, 0.0) + request.tokens / max(1.0, request.total_s)
        while len(self.requests) > REQUESTS_KEPT:
            self.requests.popitem(last=False)

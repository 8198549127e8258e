"""The links of a node in a large mesh: which it dialled, how old they are, who needs them, and which are to be ended.

Theory of operation: see overlay.py. A link outside the active view is an *extra*: dialled for a request, or given up
and lingering until what is on its way has arrived. The end that dialled an extra ends it when nobody has used it for a
while; the other end bounds how many it puts up with.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from atmo.ids import PeerId
from atmo.mesh.overlay_terms import Part, ViewSizes

NEVER = float("inf")


@dataclass(slots=True)
class Link:
    """A link that is up."""

    outbound: bool
    serial: int  # grows with each link: the oldest has the lowest
    used_s: float
    addresses: tuple[str, ...]  # where the peer can be dialled
    asked_s: float = -NEVER  # when this node asked to be its neighbour


@dataclass(slots=True)
class LinkBook:
    """`up`: all links; `closing_s`: when to look for extras to end."""

    sizes: ViewSizes
    up: dict[PeerId, Link] = field(default_factory=dict)
    closing_s: float = NEVER
    _wanted: dict[PeerId, int] = field(default_factory=dict)  # for how many requests a link is needed
    _serial: int = 0

    def open(self, peer: PeerId, outbound: bool, addresses: tuple[str, ...], now_s: float) -> None:
        self._serial += 1
        self.up[peer] = Link(outbound, self._serial, now_s, addresses)

    def use(self, peer: PeerId, now_s: float) -> None:
        if peer in self.up:
            self.up[peer].used_s = now_s

    def want(self, peer: PeerId, now_s: float) -> bool:
        """A request needs a link until `unwant`. True if it is there."""
        self._wanted[peer] = self._wanted.get(peer, 0) + 1
        self.use(peer, now_s)
        return peer in self.up

    def unwant(self, peer: PeerId, now_s: float) -> None:
        left = self._wanted.get(peer, 0) - 1
        if left > 0:
            self._wanted[peer] = left
        else:
            self._wanted.pop(peer, None)
        self.use(peer, now_s)

    def is_wanted(self, peer: PeerId) -> bool:
        return peer in self._wanted

    def oldest_own(self, among: Iterable[PeerId]) -> list[PeerId]:
        """Those of them that this node dialled, the oldest first."""
        mine = [peer for peer in among if self.up[peer].outbound]
        return sorted(mine, key=lambda peer: self.up[peer].serial)

    def plan_closing(self, active: Container[PeerId], now_s: float) -> None:
        if self.closing_s == NEVER and any(self._closes(peer, active) for peer in self.up):
            self.closing_s = now_s + self.sizes.linger_s

    def close(self, active: Container[PeerId], now_s: float) -> list[Part]:
        """Hang up where nothing has happened for a while: each end on the links that it dialled."""
        self.closing_s = NEVER
        idle = [peer for peer in self.up if self._closes(peer, active) and self._idle(peer, now_s)]
        for peer in idle:
            del self.up[peer]
        self.plan_closing(active, now_s)
        return [Part(peer, "no more use for it") for peer in idle]

    def bound_extras(self, active: Container[PeerId]) -> list[Part]:
        extras = [peer for peer, link in self.up.items() if peer not in active and not link.outbound]
        if len(extras) <= self.sizes.extras:
            return []
        oldest = min(extras, key=lambda peer: self.up[peer].used_s)
        del self.up[oldest]
        return [Part(oldest, "more links than this node keeps")]

    def _closes(self, peer: PeerId, active: Container[PeerId]) -> bool:
        return self.up[peer].outbound and peer not in active and peer not in self._wanted

    def _idle(self, peer: PeerId, now_s: float) -> bool:
        return now_s - self.up[peer].used_s >= self.sizes.linger_s * 0.99

"""Whom to be linked to in a mesh too large for everyone to be linked to everyone.

Theory of operation (HyParView; Leitao, Pereira, Rodrigues, DSN 2007). A node keeps two views of the mesh: a small
*active* view, which are links in use, symmetric because a link is; and a larger *passive* view of addresses to fall
back on. A newcomer's JOIN is passed on as random walks (FORWARD_JOIN), at whose ends nodes dial it: so it becomes the
neighbour of nodes all over the mesh, whomever it knew first. A lost neighbour is replaced from the passive view
(NEIGHBOUR), and SHUFFLE exchanges samples of both views along random walks, so that passive views follow the mesh.
What results is close to a random regular graph: connected while far more than half of its nodes are gone, of diameter
log N.

Different from the paper, each for a reason:

- While the mesh is small (`ViewSizes.everyone`) all nodes link to all, and none of this is said: one hop to everybody.
- A node looks for neighbours while it has less than one below the maximum, and accepts up to the maximum. In the paper
  both are the maximum, and nodes of full views are asked again and again.
- The two oldest links that this node dialled itself are never given up for a stranger's, and it keeps at least two
  of its own choice: whoever dials a node from many keys cannot surround it (Heilman et al., USENIX Security 2015).
- The answer of a shuffle goes back the way the question came: a link costs a handshake, the paper's a TCP connection.
- A node remembers who was lost and tries one of them now and then, asking with priority. The passive views of two
  halves of a partition forget the other half within minutes, and nothing else would ever join them again.
- The table of rows names every node: it is asked when the passive view is exhausted.

A link outside the active view is an *extra*: dialled for a request, or given up and lingering until what is on its
way has arrived. The end that dialled it closes it.

Invariants (`validate`): active peers are linked and none of them is in the passive view; neither view holds the node
itself; the views keep their sizes; a stranger never displaced a protected link.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from atmo.ids import PeerId
from atmo.mesh.agenda import Chance
from atmo.mesh.messages import (
    MAX_ADDRESSES,
    MAX_CONTACTS,
    Contact,
    Disconnect,
    ForwardJoin,
    Join,
    Neighbour,
    OverlayMessage,
    Shuffle,
    ShuffleReply,
)

NEVER = float("inf")
# Refusals in a row after which the wait is not doubled any more: 16 s. A guess.
MAX_REFUSALS = 4
# The same for a node that has neighbours enough and only wants one of its own choice: 8 min. A full mesh refuses almost
# all, and each attempt costs both ends a handshake. A guess.
MAX_CHOOSY_REFUSALS = 9
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSizes:
    """everyone: nodes up to which all link to all. arwl, prwl: hops of a join's random walk, and at how many hops to
    go the newcomer enters a passive view. shuffle_*: how many of each view travel, how far, how often."""

    everyone: int = 24  # a guess: at rest 24 nodes in a full mesh cost each 2 kB/s, and every request is one hop
    active: int = 6  # the design's; the paper has 5 for 10,000 nodes
    passive: int = 30  # the paper, section 5.1, as are the walks' lengths
    arwl: int = 6
    prwl: int = 3
    shuffle_active: int = 3
    shuffle_passive: int = 4
    own_choice: int = 2  # a guess: one may be lost at any moment
    shuffle_s: float = 60.0  # a guess; a passive view is renewed in about five minutes
    fill_s: float = 1.0  # a guess: wait between two attempts to find neighbours, doubled with each refusal
    heal_s: float = 30.0  # a guess: a hundred nodes on each side find each other within a second after a partition
    shed_s: float = 0.5  # a guess: a node that has too many neighbours gives up an eighth of them so often
    linger_s: float = 10.0  # a guess: what was on its way has arrived, and a short pause between requests costs no dial
    seek_timeout_s: float = 10.0  # as MeshTiming.dial_timeout_s
    remembered: int = 64  # a guess
    extras: int = 64  # a guess: links that other nodes dialled for their requests


@dataclass(frozen=True, slots=True)
class Tell:
    """Say this to a linked peer."""

    peer: PeerId
    message: OverlayMessage


@dataclass(frozen=True, slots=True)
class Seek:
    """Dial this peer. An outcome by `link_up` or `dial_failed` is welcome, silence is a failure."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class Part:
    """Hang up on this peer, who has done nothing wrong."""

    peer: PeerId
    reason: str


Want = Tell | Seek | Part


@dataclass(slots=True)
class _Link:
    outbound: bool
    serial: int  # grows with each link: the oldest has the lowest
    used_s: float
    addresses: tuple[str, ...]  # where the peer can be dialled
    asked_s: float = -NEVER  # when this node asked to be its neighbour


@dataclass(frozen=True, slots=True)
class _Sought:
    """A peer that is dialled to become a neighbour."""

    contact: Contact
    until_s: float
    priority: bool


@dataclass(slots=True)
class Overlay:
    """`where`: the addresses of a peer as far as they are known, this node's own included."""

    own: PeerId
    sizes: ViewSizes
    rng: Chance
    where: Callable[[PeerId], tuple[str, ...]]
    active: dict[PeerId, None] = field(default_factory=dict)
    passive: dict[PeerId, Contact] = field(default_factory=dict)
    _links: dict[PeerId, _Link] = field(default_factory=dict)
    _known: dict[PeerId, None] = field(default_factory=dict)  # nodes that the table of rows names
    _sought: dict[PeerId, _Sought] = field(default_factory=dict)
    _wanted: dict[PeerId, int] = field(default_factory=dict)  # for how many requests a link is needed
    _lost: dict[PeerId, Contact] = field(default_factory=dict)  # who was here and cannot be reached
    _shuffled: tuple[Contact, ...] | None = None  # what was sent, while the answer is awaited
    _serial: int = 0
    _refusals: int = 0
    _fill_s: float = NEVER
    _shuffle_s: float = NEVER
    _heal_s: float = NEVER
    _shed_s: float = NEVER
    _close_s: float = NEVER
    everyone: bool = True  # all link to all

    def __post_init__(self) -> None:
        if self.sizes.everyone < 1:
            self._choose_mode(0.0)

    # How large the mesh is

    @property
    def nodes(self) -> int:
        """How many nodes there are, as far as this one knows, itself included."""
        return 1 + max(len(self._known), len(self.active))

    def node_known(self, peer: PeerId, now_s: float) -> None:
        self._known[peer] = None
        self._choose_mode(now_s)

    def node_gone(self, peer: PeerId, now_s: float) -> None:
        self._known.pop(peer, None)
        self._choose_mode(now_s)

    def _choose_mode(self, now_s: float) -> None:
        """All to all up to the limit, and until the mesh is a quarter larger nobody gives up a link that it has."""
        if self.everyone and self.nodes > self.sizes.everyone:
            self.everyone = False
            self._fill_s = now_s + self.sizes.fill_s * self.rng.random()
            self._shuffle_s = now_s + self.sizes.shuffle_s * self.rng.random() / 6  # soon: the passive view is empty
            self._heal_s = now_s + self.sizes.heal_s * self.rng.uniform(0.5, 1.5)
            self._plan_shedding(now_s)
            self._plan_closing(now_s)
        elif not self.everyone and self.nodes <= self.sizes.everyone * 2 // 3:
            self.everyone = True
            self._fill_s = self._shuffle_s = self._heal_s = self._shed_s = NEVER
            for peer in self._links:
                self.active[peer] = None
                self.passive.pop(peer, None)
        elif not self.everyone:
            self._plan_shedding(now_s)

    @property
    def capacity(self) -> int:
        """How many neighbours this node puts up with."""
        roomy = self.nodes <= self.sizes.everyone * 5 // 4
        return max(self.sizes.active, self.sizes.everyone * 5 // 4 if roomy else 0)

    # Links

    def link_up(self, peer: PeerId, addresses: tuple[str, ...], outbound: bool, now_s: float) -> list[Want]:
        """A link is there. The end that dialled it says what for; the other one waits to be told."""
        self._serial += 1
        sought = self._sought.pop(peer, None)
        self._links[peer] = _Link(outbound, self._serial, now_s, sought.contact.addresses if sought else addresses)
        self._lost.pop(peer, None)
        if outbound and (sought is not None or peer not in self._wanted):
            return self._ask(peer, sought is not None and sought.priority, now_s)
        if self.everyone:
            return self._accept(peer, now_s)
        self._plan_closing(now_s)
        return self._bound_extras()

    def link_down(self, peer: PeerId, now_s: float) -> None:
        if peer in self.active:
            del self.active[peer]
            self._remember(self._contact(peer))
            self._fill_soon(now_s)
        self._links.pop(peer, None)

    def dial_failed(self, peer: PeerId, now_s: float) -> None:
        """The address of a sought peer leads nowhere."""
        sought = self._sought.pop(peer, None)
        if sought is not None:
            self.passive.pop(peer, None)
            self._remember(sought.contact)
            self._fill_soon(now_s)

    def not_dialled(self, peer: PeerId, now_s: float) -> None:
        """A `Seek` was not carried out: no address, or not now. It says nothing about the peer."""
        if self._sought.pop(peer, None) is not None:
            self.passive.pop(peer, None)
            self._fill_s = min(self._fill_s, now_s + self.sizes.fill_s)

    def used(self, peer: PeerId, now_s: float) -> None:
        """A request's message came over the link."""
        if peer in self._links:
            self._links[peer].used_s = now_s

    def want(self, peer: PeerId, now_s: float) -> list[Want]:
        """A request is about to be sent there: there must be a link until `unwant`."""
        self._wanted[peer] = self._wanted.get(peer, 0) + 1
        if peer in self._links:
            self._links[peer].used_s = now_s
            return []
        return [Seek(self._contact(peer))]

    def unwant(self, peer: PeerId, now_s: float) -> None:
        left = self._wanted.get(peer, 0) - 1
        if left > 0:
            self._wanted[peer] = left
        else:
            self._wanted.pop(peer, None)
        self.used(peer, now_s)
        self._plan_closing(now_s)

    # Messages

    def receive(self, peer: PeerId, message: OverlayMessage, now_s: float) -> list[Want]:
        """What a linked peer says about the overlay."""
        if isinstance(message, Join):
            return self._on_join(peer, message, now_s)
        if isinstance(message, ForwardJoin):
            return self._on_forward_join(peer, message, now_s)
        if isinstance(message, Neighbour):
            self._introduced(peer, message.addresses)
            if message.priority or peer in self.active or len(self.active) < self.capacity:
                return self._accept(peer, now_s)
            self._plan_closing(now_s)
            return [Tell(peer, Disconnect())]
        if isinstance(message, Disconnect):
            self._on_disconnect(peer, now_s)
            return []
        if isinstance(message, Shuffle):
            return self._on_shuffle(peer, message)
        return self._on_shuffle_reply(message)

    def _on_join(self, peer: PeerId, join: Join, now_s: float) -> list[Want]:
        self._introduced(peer, join.addresses)
        wants = self._accept(peer, now_s)
        newcomer = self._contact(peer)
        if not self.everyone and newcomer.addresses:
            walk = ForwardJoin(newcomer, self.sizes.arwl)
            wants += [Tell(other, walk) for other in self.active if other != peer]
        return wants

    def _on_forward_join(self, peer: PeerId, walk: ForwardJoin, now_s: float) -> list[Want]:
        newcomer = walk.contact
        if newcomer.peer == self.own or newcomer.peer in self.active or not newcomer.addresses:
            return []
        others = [other for other in self.active if other not in (peer, newcomer.peer)]
        hops = min(walk.hops, self.sizes.arwl)
        if hops == 0 or not others:
            return self._seek(newcomer, True, now_s)
        if hops == self.sizes.prwl:
            self._keep([newcomer])
        return [Tell(self._pick(others), ForwardJoin(newcomer, hops - 1))]

    def _on_disconnect(self, peer: PeerId, now_s: float) -> None:
        if peer not in self.active:
            return
        del self.active[peer]
        self._keep([self._contact(peer)])
        self._links[peer].used_s = now_s
        if now_s - self._links[peer].asked_s < self.sizes.seek_timeout_s:
            self._refusals = min(self._refusals + 1, MAX_CHOOSY_REFUSALS)
        self._fill_soon(now_s)
        self._plan_closing(now_s)

    def _on_shuffle(self, peer: PeerId, shuffle: Shuffle) -> list[Want]:
        if not shuffle.path or shuffle.path[-1] != peer or self.own in shuffle.path:
            return []
        others = [other for other in self.active if other not in shuffle.path]
        if shuffle.hops > 0 and others and len(shuffle.path) <= self.sizes.arwl:
            on = Shuffle((*shuffle.path, self.own), min(shuffle.hops, self.sizes.arwl) - 1, shuffle.contacts)
            return [Tell(self._pick(others), on)]
        sample = tuple(self._sample(self.passive.values(), len(shuffle.contacts)))
        self._keep(shuffle.contacts, sample)
        return [Tell(peer, ShuffleReply(shuffle.path[:-1], sample))]

    def _on_shuffle_reply(self, reply: ShuffleReply) -> list[Want]:
        if reply.path:
            back = reply.path[-1]
            return [Tell(back, ShuffleReply(reply.path[:-1], reply.contacts))] if back in self._links else []
        if self._shuffled is not None:
            self._keep(reply.contacts, self._shuffled)
            self._shuffled = None
        return []

    # What is due

    def next_due(self) -> float | None:
        soonest_s = min(self._fill_s, self._shuffle_s, self._heal_s, self._shed_s, self._close_s)
        return soonest_s if soonest_s < NEVER else None

    def due(self, now_s: float) -> list[Want]:
        wants: list[Want] = []
        if self._close_s <= now_s:
            wants += self._close(now_s)
        if self._shed_s <= now_s:
            wants += self._shed(now_s)
        if self._fill_s <= now_s:
            wants += self._fill(now_s)
        if self._shuffle_s <= now_s:
            self._shuffle_s = now_s + self.sizes.shuffle_s * self.rng.uniform(0.8, 1.2)
            wants += self._shuffle()
        if self._heal_s <= now_s:
            self._heal_s = now_s + self.sizes.heal_s * self.rng.uniform(0.5, 1.5)
            if self._lost:
                wants += self._seek(self._pick(list(self._lost.values())), True, now_s)
        return wants

    def _fill(self, now_s: float) -> list[Want]:
        """Look for as many neighbours as are missing, all at once."""
        for peer in [peer for peer, sought in self._sought.items() if sought.until_s <= now_s]:
            self.dial_failed(peer, now_s)
        missing = max(self.sizes.active - 1 - len(self.active), self.sizes.own_choice - len(self.protected)) - len(
            self._sought
        )
        if missing <= 0:
            self._refusals = 0
            self._fill_s = min((sought.until_s for sought in self._sought.values()), default=NEVER)
            return []
        self._fill_s = now_s + self._refused_wait_s() * self.rng.uniform(0.5, 1.0)
        wants: list[Want] = []
        for contact in self._candidates(missing):
            wants += self._seek(contact, not self.active, now_s)
        return wants

    def _candidates(self, n: int) -> list[Contact]:
        free = [contact for contact in self.passive.values() if contact.peer not in self._sought]
        found = self._sample(free, n)
        if len(found) < n and self._known:
            taken = {contact.peer for contact in found} | self.active.keys() | self._sought.keys() | self._lost.keys()
            others = self._sample(self._known, 4 * n)
            found += [self._contact(peer) for peer in others if peer not in taken][: n - len(found)]
        return [contact for contact in found if contact.addresses]

    def _shuffle(self) -> list[Want]:
        if not self.active:
            return []
        peer = self._pick(list(self.active))
        near = self._sample([other for other in self.active if other != peer], self.sizes.shuffle_active)
        far = self._sample(self.passive.values(), self.sizes.shuffle_passive)
        known = [self._contact(other) for other in (self.own, *near)]
        contacts = tuple(contact for contact in (*known, *far) if contact.addresses)[:MAX_CONTACTS]
        self._shuffled = contacts
        return [Tell(peer, Shuffle((self.own,), self.sizes.arwl, contacts))]

    def _shed(self, now_s: float) -> list[Want]:
        wants: list[Want] = []
        for _ in range(math.ceil((len(self.active) - self.capacity) / 8)):
            wants += self._evict(now_s)
        self._shed_s = NEVER
        self._plan_shedding(now_s)
        return wants

    def _close(self, now_s: float) -> list[Want]:
        """Hang up where nothing has happened for a while: each end on the links that it dialled."""
        self._close_s = NEVER
        idle = [peer for peer, link in self._links.items() if self._closes(peer, link) and self._idle(link, now_s)]
        for peer in idle:
            del self._links[peer]
        self._plan_closing(now_s)
        return [Part(peer, "no more use for it") for peer in idle]

    # Views

    @property
    def protected(self) -> list[PeerId]:
        """Active links that this node dialled, the oldest first: as many as no stranger displaces."""
        mine = [peer for peer in self.active if self._links[peer].outbound]
        return sorted(mine, key=lambda peer: self._links[peer].serial)[: self.sizes.own_choice]

    def _ask(self, peer: PeerId, priority: bool, now_s: float) -> list[Want]:
        """Introduce oneself over a link that this node dialled. Who does not refuse has accepted."""
        addresses = self.where(self.own)[:MAX_ADDRESSES]
        first = not self.active
        self._links[peer].asked_s = now_s
        message = Join(addresses) if first and not priority else Neighbour(addresses, priority or first)
        return [Tell(peer, message), *self._accept(peer, now_s)]

    def _seek(self, contact: Contact, priority: bool, now_s: float) -> list[Want]:
        if contact.peer == self.own or contact.peer in self.active or contact.peer in self._sought:
            return []
        if contact.peer in self._links:
            self.passive.pop(contact.peer, None)
            self._links[contact.peer].asked_s = now_s
            ask = Tell(contact.peer, Neighbour(self.where(self.own)[:MAX_ADDRESSES], priority))
            return [ask, *self._accept(contact.peer, now_s)]
        self._sought[contact.peer] = _Sought(contact, now_s + self.sizes.seek_timeout_s, priority)
        self._fill_s = min(self._fill_s, now_s + self.sizes.seek_timeout_s)
        return [Seek(contact)]

    def _accept(self, peer: PeerId, now_s: float) -> list[Want]:
        self.active[peer] = None
        self.passive.pop(peer, None)
        self._choose_mode(now_s)
        if self.everyone or len(self.active) > self.capacity + 1 or len(self.active) <= self.capacity:
            return []
        return self._evict(now_s, keep=peer)

    def _evict(self, now_s: float, keep: PeerId | None = None) -> list[Want]:
        safe = self.protected
        victims = [peer for peer in self.active if peer != keep and peer not in safe]
        if not victims:
            return []
        victim = self._pick(victims)
        del self.active[victim]
        self._keep([self._contact(victim)])
        self._links[victim].used_s = now_s
        self._plan_closing(now_s)
        return [Tell(victim, Disconnect())]

    def _keep(self, contacts: Iterable[Contact], sent: Iterable[Contact] = ()) -> None:
        """Put contacts into the passive view. What was sent away leaves first, then whoever chance picks."""
        leaving = [contact.peer for contact in sent]
        for contact in contacts:
            peer = contact.peer
            if peer == self.own or peer in self.active or not contact.addresses or peer in self._lost:
                continue
            self.passive.pop(peer, None)
            while len(self.passive) >= self.sizes.passive:
                gone = next((old for old in leaving if old in self.passive), None)
                self.passive.pop(gone if gone is not None else self._pick(list(self.passive)))
            self.passive[peer] = contact

    def _remember(self, contact: Contact) -> None:
        if contact.addresses and contact.peer != self.own:
            self._lost.pop(contact.peer, None)
            while len(self._lost) >= self.sizes.remembered:
                self._lost.pop(self._pick(list(self._lost)))
            self._lost[contact.peer] = contact

    # When

    def _fill_soon(self, now_s: float) -> None:
        if not self.everyone:
            wait_s = self._refused_wait_s() * self.rng.uniform(0.5, 1.0) if self._refusals else 0.0
            self._fill_s = min(self._fill_s, now_s + wait_s)

    def _refused_wait_s(self) -> float:
        """How long to wait after so many refusals before somebody is asked again."""
        few = len(self.active) < self.sizes.active - 1
        return self.sizes.fill_s * 2.0 ** min(self._refusals, MAX_REFUSALS if few else MAX_CHOOSY_REFUSALS)

    def _plan_shedding(self, now_s: float) -> None:
        if self._shed_s == NEVER and len(self.active) > self.capacity:
            self._shed_s = now_s + self.sizes.shed_s * self.rng.uniform(0.5, 1.5)

    def _plan_closing(self, now_s: float) -> None:
        if self._close_s == NEVER and any(self._closes(peer, link) for peer, link in self._links.items()):
            self._close_s = now_s + self.sizes.linger_s

    def _closes(self, peer: PeerId, link: _Link) -> bool:
        return link.outbound and not self.everyone and peer not in self.active and peer not in self._wanted

    def _idle(self, link: _Link, now_s: float) -> bool:
        return now_s - link.used_s >= self.sizes.linger_s * 0.99

    def _bound_extras(self) -> list[Want]:
        extras = [peer for peer, link in self._links.items() if peer not in self.active and not link.outbound]
        if len(extras) <= self.sizes.extras:
            return []
        oldest = min(extras, key=lambda peer: self._links[peer].used_s)
        del self._links[oldest]
        return [Part(oldest, "more links than this node keeps")]

    def _contact(self, peer: PeerId) -> Contact:
        """Where a peer can be dialled: as its own row says, or as it came to be linked."""
        link = self._links.get(peer)
        return Contact(peer, (self.where(peer) or (link.addresses if link else ()))[:MAX_ADDRESSES])

    def _introduced(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        link = self._links[peer]
        link.addresses = addresses or link.addresses

    def _pick(self, among: list[T]) -> T:
        return among[int(self.rng.random() * len(among))]

    def _sample(self, among: Iterable[T], n: int) -> list[T]:
        """Up to n of them, each at most once, all equally likely."""
        left = list(among)
        found = []
        for _ in range(min(n, len(left))):
            at = int(self.rng.random() * len(left))
            left[at], left[-1] = left[-1], left[at]
            found.append(left.pop())
        return found

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert self.own not in self.active, "a node is its own neighbour"
        assert self.own not in self.passive, "a node falls back on itself"
        assert self.active.keys() <= self._links.keys(), "a neighbour without a link"
        assert not self.active.keys() & self.passive.keys(), "a peer in both views"
        assert len(self.passive) <= self.sizes.passive, "the passive view is too large"
        assert len(self._lost) <= self.sizes.remembered, "too many are remembered"
        assert all(contact.peer == peer for peer, contact in self.passive.items()), "a contact of another peer"
        if not self.everyone and self._shed_s == NEVER:
            assert len(self.active) <= self.capacity, "more neighbours than wanted, and nobody is about to leave"
        if not self.everyone and len(self.active) < self.sizes.active - 1:
            assert self._fill_s < NEVER, "a neighbour is missing and nobody looks for one"

    def __repr__(self) -> str:
        mode = "all to all" if self.everyone else f"passive {len(self.passive)}"
        return f"<Overlay active {len(self.active)} of {len(self._links)} links, {mode}, {len(self._lost)} lost>"

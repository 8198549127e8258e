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

Here is the active view and what is said about it; passive.py has the passive view, linkbook.py the links.

Invariants (`validate`): active peers are linked and none of them is in the passive view; the views keep their sizes; a
stranger never displaced a protected link.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from atmo.ids import PeerId
from atmo.mesh.agenda import Chance
from atmo.mesh.linkbook import NEVER, LinkBook
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
from atmo.mesh.overlay_terms import Part, Seek, Sought, Tell, ViewSizes, Want
from atmo.mesh.passive import PassiveView

__all__ = ["Overlay", "Part", "Seek", "Tell", "ViewSizes", "Want"]

# Refusals in a row after which the wait is not doubled any more: 16 s. A guess.
MAX_REFUSALS = 4
# The same for a node that has neighbours enough and only wants one of its own choice: 8 min. A full mesh refuses almost
# all, and each attempt costs both ends a handshake. A guess.
MAX_CHOOSY_REFUSALS = 9


@dataclass(slots=True)
class Overlay:
    """`where`: the addresses of a peer as far as they are known, this node's own included."""

    own: PeerId
    sizes: ViewSizes
    rng: Chance
    where: Callable[[PeerId], tuple[str, ...]]
    active: dict[PeerId, None] = field(default_factory=dict)
    far: PassiveView = field(init=False)
    links: LinkBook = field(init=False)
    _known: dict[PeerId, None] = field(default_factory=dict)  # nodes that the table of rows names
    _sought: dict[PeerId, Sought] = field(default_factory=dict)
    _refusals: int = 0
    _fill_s: float = NEVER
    _shuffle_s: float = NEVER
    _heal_s: float = NEVER
    _shed_s: float = NEVER
    everyone: bool = True  # all link to all

    def __post_init__(self) -> None:
        self.far = PassiveView(self.own, self.sizes, self.rng)
        self.links = LinkBook(self.sizes)
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
            self._plan_closing()
        elif not self.everyone and self.nodes <= self.sizes.everyone * 2 // 3:
            self.everyone = True
            self._fill_s = self._shuffle_s = self._heal_s = self._shed_s = self.links.closing_s = NEVER
            for peer in self.links.up:
                self.active[peer] = None
                self.far.drop(peer)
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
        sought = self._sought.pop(peer, None)
        self.links.open(peer, outbound, sought.contact.addresses if sought else addresses, now_s)
        self.far.back(peer)
        if outbound and (sought is not None or not self.links.is_wanted(peer)):
            return self._ask(peer, sought is not None and sought.priority, now_s)
        if self.everyone:
            return self._accept(peer, now_s)
        self._plan_closing()
        return list(self.links.bound_extras(self.active))

    def link_down(self, peer: PeerId, now_s: float) -> None:
        if peer in self.active:
            del self.active[peer]
            self.far.remember(self._contact(peer))
            self._fill_soon(now_s)
        self.links.up.pop(peer, None)

    def dial_failed(self, peer: PeerId, now_s: float) -> None:
        """The address of a sought peer leads nowhere."""
        sought = self._sought.pop(peer, None)
        if sought is not None:
            self.far.drop(peer)
            self.far.remember(sought.contact)
            self._fill_soon(now_s)

    def not_dialled(self, peer: PeerId, now_s: float) -> None:
        """A `Seek` was not carried out: no address, or not now. It says nothing about the peer."""
        if self._sought.pop(peer, None) is not None:
            self.far.drop(peer)
            self._fill_s = min(self._fill_s, now_s + self.sizes.fill_s)

    def used(self, peer: PeerId, now_s: float) -> None:
        """A request's message came over the link."""
        self.links.use(peer, now_s)

    def want(self, peer: PeerId, now_s: float) -> list[Want]:
        """A request is about to be sent there: there must be a link until `unwant`."""
        return [] if self.links.want(peer, now_s) else [Seek(self._contact(peer))]

    def unwant(self, peer: PeerId, now_s: float) -> None:
        self.links.unwant(peer, now_s)
        self._plan_closing()

    # Messages

    def receive(self, peer: PeerId, message: OverlayMessage, now_s: float) -> list[Want]:
        """What a peer says about the overlay. Who was hung up on may still be talking: the link's end is on its way."""
        if peer not in self.links.up:
            return []
        if isinstance(message, Join):
            return self._on_join(peer, message, now_s)
        if isinstance(message, ForwardJoin):
            return self._on_forward_join(peer, message, now_s)
        if isinstance(message, Neighbour):
            self._introduced(peer, message.addresses)
            if message.priority or peer in self.active or len(self.active) < self.capacity:
                return self._accept(peer, now_s)
            self._plan_closing()
            return [Tell(peer, Disconnect())]
        if isinstance(message, Disconnect):
            return self._on_disconnect(peer, now_s)
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
            self.far.keep([newcomer], self.active)
        return [Tell(self.far.pick(others), ForwardJoin(newcomer, hops - 1))]

    def _on_disconnect(self, peer: PeerId, now_s: float) -> list[Want]:
        if peer not in self.active:
            return []
        del self.active[peer]
        self.far.keep([self._contact(peer)], self.active)
        self.links.release(peer, now_s)
        if now_s - self.links.up[peer].asked_s < self.sizes.seek_timeout_s:
            self._refusals = min(self._refusals + 1, MAX_CHOOSY_REFUSALS)
        self._fill_soon(now_s)
        self._plan_closing()
        return []

    def _on_shuffle(self, peer: PeerId, shuffle: Shuffle) -> list[Want]:
        if not shuffle.path or shuffle.path[-1] != peer or self.own in shuffle.path:
            return []
        others = [other for other in self.active if other not in shuffle.path]
        if shuffle.hops > 0 and others and len(shuffle.path) <= self.sizes.arwl:
            on = Shuffle((*shuffle.path, self.own), min(shuffle.hops, self.sizes.arwl) - 1, shuffle.contacts)
            return [Tell(self.far.pick(others), on)]
        return [Tell(peer, ShuffleReply(shuffle.path[:-1], self.far.exchange(shuffle.contacts, self.active)))]

    def _on_shuffle_reply(self, reply: ShuffleReply) -> list[Want]:
        if reply.path:
            back = reply.path[-1]
            return [Tell(back, ShuffleReply(reply.path[:-1], reply.contacts))] if back in self.links.up else []
        self.far.answered(reply.contacts, self.active)
        return []

    # What is due

    def next_due(self) -> float | None:
        soonest_s = min(self._fill_s, self._shuffle_s, self._heal_s, self._shed_s, self.links.closing_s)
        return soonest_s if soonest_s < NEVER else None

    def due(self, now_s: float) -> list[Want]:
        wants: list[Want] = []
        if self.links.closing_s <= now_s:
            wants += self.links.close(self.active, now_s)
        if self._shed_s <= now_s:
            wants += self._shed(now_s)
        if self._fill_s <= now_s:
            wants += self._fill(now_s)
        if self._shuffle_s <= now_s:
            self._shuffle_s = now_s + self.sizes.shuffle_s * self.rng.uniform(0.8, 1.2)
            wants += self._shuffle()
        if self._heal_s <= now_s:
            self._heal_s = now_s + self.sizes.heal_s * self.rng.uniform(0.5, 1.5)
            lost = self.far.someone_lost()
            wants += self._seek(lost, True, now_s) if lost is not None else []
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
        found = self.far.some(n, self._sought)
        if len(found) < n and self._known:
            taken = (
                {contact.peer for contact in found} | self.active.keys() | self._sought.keys() | self.far.lost.keys()
            )
            others = self.far.sample(self._known, 4 * n)
            found += [self._contact(peer) for peer in others if peer not in taken][: n - len(found)]
        return [contact for contact in found if contact.addresses]

    def _shuffle(self) -> list[Want]:
        if not self.active:
            return []
        peer = self.far.pick(list(self.active))
        near = self.far.sample([other for other in self.active if other != peer], self.sizes.shuffle_active)
        far = self.far.some(self.sizes.shuffle_passive, ())
        known = [self._contact(other) for other in (self.own, *near)]
        contacts = tuple(contact for contact in (*known, *far) if contact.addresses)[:MAX_CONTACTS]
        self.far.offer(contacts)
        return [Tell(peer, Shuffle((self.own,), self.sizes.arwl, contacts))]

    def _shed(self, now_s: float) -> list[Want]:
        wants: list[Want] = []
        for _ in range(math.ceil((len(self.active) - self.capacity) / 8)):
            wants += self._evict(now_s)
        self._shed_s = NEVER
        self._plan_shedding(now_s)
        return wants

    @property
    def passive(self) -> dict[PeerId, Contact]:
        return self.far.known

    @property
    def protected(self) -> list[PeerId]:
        """Active links that this node dialled, the oldest first: as many as no stranger displaces."""
        return self.links.oldest_own(self.active)[: self.sizes.own_choice]

    def _ask(self, peer: PeerId, priority: bool, now_s: float) -> list[Want]:
        """Introduce oneself over a link that this node dialled. Who does not refuse has accepted."""
        addresses = self.where(self.own)[:MAX_ADDRESSES]
        first = not self.active
        self.links.up[peer].asked_s = now_s
        message = Join(addresses) if first and not priority else Neighbour(addresses, priority or first)
        return [Tell(peer, message), *self._accept(peer, now_s)]

    def _seek(self, contact: Contact, priority: bool, now_s: float) -> list[Want]:
        if contact.peer == self.own or contact.peer in self.active or contact.peer in self._sought:
            return []
        if contact.peer in self.links.up:
            self.far.drop(contact.peer)
            self.links.up[contact.peer].asked_s = now_s
            ask = Tell(contact.peer, Neighbour(self.where(self.own)[:MAX_ADDRESSES], priority))
            return [ask, *self._accept(contact.peer, now_s)]
        self._sought[contact.peer] = Sought(contact, now_s + self.sizes.seek_timeout_s, priority)
        self._fill_s = min(self._fill_s, now_s + self.sizes.seek_timeout_s)
        return [Seek(contact)]

    def _accept(self, peer: PeerId, now_s: float) -> list[Want]:
        self.active[peer] = None
        self.far.drop(peer)
        self._choose_mode(now_s)
        if self.everyone or len(self.active) > self.capacity + 1 or len(self.active) <= self.capacity:
            return []
        return self._evict(now_s, keep=peer)

    def _evict(self, now_s: float, keep: PeerId | None = None) -> list[Want]:
        safe = self.protected
        victims = [peer for peer in self.active if peer != keep and peer not in safe]
        if not victims:
            return []
        victim = self.far.pick(victims)
        del self.active[victim]
        self.far.keep([self._contact(victim)], self.active)
        self.links.release(victim, now_s)
        self._plan_closing()
        return [Tell(victim, Disconnect())]

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

    def _plan_closing(self) -> None:
        if not self.everyone:
            self.links.plan_closing(self.active)

    def _contact(self, peer: PeerId) -> Contact:
        """Where a peer can be dialled: as its own row says, or as it came to be linked."""
        link = self.links.up.get(peer)
        return Contact(peer, (self.where(peer) or (link.addresses if link else ()))[:MAX_ADDRESSES])

    def _introduced(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        link = self.links.up[peer]
        link.addresses = addresses or link.addresses

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert self.own not in self.active, "a node is its own neighbour"
        self.far.validate()
        assert self.active.keys() <= self.links.up.keys(), "a neighbour without a link"
        assert not self.active.keys() & self.passive.keys(), "a peer in both views"
        if not self.everyone and self._shed_s == NEVER:
            assert len(self.active) <= self.capacity, "more neighbours than wanted, and nobody is about to leave"
        if not self.everyone and len(self.active) < self.sizes.active - 1:
            assert self._fill_s < NEVER, "a neighbour is missing and nobody looks for one"

    def __repr__(self) -> str:
        mode = "all to all" if self.everyone else f"passive {len(self.passive)}"
        return f"<Overlay active {len(self.active)} of {len(self.links.up)} links, {mode}, {len(self.far.lost)} lost>"

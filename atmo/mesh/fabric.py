"""What holds the mesh together, joined: who is linked (overlay), how rows travel (flood, tree), how tables are compared
(sync). The core tells it what happened and carries out what it wants.

Theory of operation. Each part is a machine of its own with its own account in its own module. Here is only what they
have to do with one another: neighbours of the overlay are those of the tree; the size of the mesh, which the overlay
counts, sets the pace of everything; rows go to the flood or to the tree; all that is due is asked for at one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from atmo.clock import Moment
from atmo.ids import PeerId
from atmo.mesh import events
from atmo.mesh.agenda import Chance
from atmo.mesh.codec import encode
from atmo.mesh.events import Effect
from atmo.mesh.gossip import Brook, Relay, pack
from atmo.mesh.messages import Digest, Graft, IHave, OverlayMessage, Prune, SyncMessage, TreeMessage, Versions
from atmo.mesh.neighbours import Neighbours
from atmo.mesh.overlay import Overlay, Part, Seek, Tell, ViewSizes, Want
from atmo.mesh.patrol import Patrol
from atmo.mesh.rows import Kind, Row
from atmo.mesh.rowstore import RowStore
from atmo.mesh.sync import Sync
from atmo.mesh.timing import MeshTiming
from atmo.mesh.tree import Out, Tree

# A digest is small and what it asks for may be large: of one peer no more than this often is answered. A guess.
COMPARE_INTERVAL_S = 0.25
# For how long versions that a peer sends are taken as the answer to this node's digest. A guess: several slow trips.
ANSWER_S = 30.0
# Versions messages of one comparison: one for each bucket is more than there ever are.
ANSWERS = 256
# How much longer than a dial may take its outcome is waited for: it may be told late. A guess.
TOLD_LATE_S = 5.0
# How much sooner a node compares tables that knows of another it cannot reach: it depends on what others tell. A guess.
HURRY = 0.2


@dataclass(slots=True)
class _Comparison:
    """Tables being compared with one peer. left: messages that still belong to it."""

    salt: bytes
    began_s: float
    left: int = ANSWERS

    def goes_on(self, message: SyncMessage, now_s: float) -> bool:
        if not isinstance(message, Versions) or message.salt != self.salt:
            return False
        self.left -= 1
        return self.left >= 0 and now_s - self.began_s < ANSWER_S


class Fabric:
    """`own_addresses`: where this node can be dialled, as it tells others; `doubts`: is it better not told of?"""

    def __init__(
        self,
        peer: PeerId,
        store: RowStore,
        neighbours: Neighbours,
        *,
        timing: MeshTiming,
        sizes: ViewSizes,
        rng: Chance,
        own_addresses: Callable[[], tuple[str, ...]],
        doubts: Callable[[PeerId], bool],
    ) -> None:
        self.overlay = Overlay(peer, sizes, rng, self._where)
        self.tree = Tree(timing.batch_s, store.latest)
        self.relay = Relay(timing.settle_s)
        self.sync = Sync(store, self._silent, lambda: timing.renewal_travel_s(self.overlay.nodes))
        self.patrol = Patrol(rng, timing.dial_timeout_s + TOLD_LATE_S)
        self._store = store
        self._own = peer
        self._own_addresses = own_addresses
        self._doubts = doubts
        self._brook = Brook()
        self._neighbours = neighbours
        self._timing = timing
        self._rng = rng
        self._links: dict[PeerId, None] = {}
        self._ours: dict[PeerId, _Comparison] = {}  # the last one that this node began with a peer
        self._theirs: dict[PeerId, _Comparison] = {}  # the last one that a peer began
        self._repair_s = float("inf")  # when to compare tables next

    @property
    def everyone(self) -> bool:
        """True while all link to all."""
        return self.overlay.everyone

    # What happens

    def link_up(self, event: events.LinkUp, now: Moment) -> list[Effect]:
        """The end that dialled opens the comparison of tables."""
        self._links[event.peer] = None
        self.relay.link_up(event.peer)
        addresses = (str(replace(event.address, peer=None)),) if event.address is not None else ()
        wants = self.overlay.link_up(event.peer, addresses, event.outbound, now.mono_s)
        self._patrolled(event.peer, now)
        self._neighbours.link_up(event.peer, event.address, event.outbound, now.mono_s)
        if len(self._links) == 1:
            self._plan_repair(now)
        opening = [self._open(event.peer, now)] if event.outbound else []
        return [*self._carry_out(wants, now), *opening]

    def link_down(self, peer: PeerId, said_goodbye: bool, now: Moment) -> bool:
        """True if that was not expected: requests should go elsewhere."""
        self._links.pop(peer, None)
        self._ours.pop(peer, None)
        self._theirs.pop(peer, None)
        lost = self.overlay.everyone or peer in self.overlay.active
        if self.overlay.everyone and not said_goodbye:
            self.relay.lost(peer)
        self.overlay.link_down(peer, now.mono_s)
        self._neighbours.link_down(peer, now.mono_s)
        self._rejoin(now)
        return lost

    def probe(self, peer: PeerId, now: Moment) -> list[Effect]:
        """Dial a lost neighbour at once: its kernel refuses for the dead, and nobody has to wait to accuse them. Where
        all link to all, that is done anyway (neighbours.py)."""
        address = None if self.everyone else self._neighbours.seek(peer, (), now.mono_s)
        return [events.Dial(address)] if address is not None else []

    def dial_failed(self, event: events.DialFailed, now: Moment) -> bool:
        """True if that is evidence against a peer without a link: who patrols or has a request for it wanted one."""
        self._neighbours.dial_failed(event.address, now.mono_s)
        peer = event.address.peer
        if peer is None:
            return False
        sought = self.patrol.under_way or self.overlay.links.is_wanted(peer)
        self.overlay.dial_failed(peer, now.mono_s)
        self._patrolled(peer, now)
        life = self._store.life(peer)
        stranger = peer not in self._links and life is not None and not self._store.is_dead(peer)
        return sought and stranger and life is not None and self.patrol.counts(peer, life[0], now.mono_s)

    def _patrolled(self, peer: PeerId, now: Moment) -> None:
        """A dial has come to its end: if it was the patrol's, nobody needs the link any more."""
        if self.patrol.over(peer):
            self.overlay.unwant(peer, now.mono_s)

    def want(self, event: events.Want, now: Moment) -> list[Effect]:
        if event.needed:
            return self._carry_out(self.overlay.want(event.peer, now.mono_s), now)
        self.overlay.unwant(event.peer, now.mono_s)
        return []

    def node_known(self, peer: PeerId, addresses: tuple[str, ...], now: Moment) -> None:
        self.relay.node_known(peer, peer in self._links, now.mono_s)
        self.overlay.node_known(peer, now.mono_s)
        self._rejoin(now)
        self._neighbours.told(peer, addresses, now.mono_s)

    def node_gone(self, peer: PeerId, now: Moment) -> None:
        self.relay.node_gone(peer)
        self.overlay.node_gone(peer, now.mono_s)
        self._neighbours.node_gone(peer)
        self._rejoin(now)

    def node_ended(self, now: Moment) -> None:
        """A node died or left. Where all link to all nobody dies unseen."""
        if not self.everyone:
            self.patrol.ended(now.mono_s)

    def own_row(self, row: Row, renewal: bool, now: Moment) -> bool:
        """True if an own row is for all neighbours at once; if not, the tree has it now."""
        self.tree.note(row)
        if self.everyone:
            return True
        return self._flood_or_tree(row, None, renewal, now)

    def new_row(self, row: Row, source: PeerId, renewal: bool, now: Moment) -> bool:
        """The same for a row that a peer sent, and that is new here."""
        self.tree.note(row)
        if self.everyone:
            if self.relay.cut_off(now.mono_s):
                self.tree.send(row, source, now.mono_s)
            return False
        return self._flood_or_tree(row, source, renewal, now)

    def _flood_or_tree(self, row: Row, source: PeerId | None, renewal: bool, now: Moment) -> bool:
        if not renewal and self._brook.takes(row, len(self._links), now.mono_s):
            return True
        wait_s = self._timing.renewal_wait_s(self.overlay.nodes) if renewal else 0.0
        self.tree.send(row, source, now.mono_s, wait_s)
        return False

    # What peers say

    def on_overlay(self, peer: PeerId, message: OverlayMessage, now: Moment) -> list[Effect]:
        return self._carry_out(self.overlay.receive(peer, message, now.mono_s), now)

    def on_tree(self, peer: PeerId, message: TreeMessage, now: Moment) -> list[Effect]:
        """All but Push, whose rows the core takes first."""
        if isinstance(message, IHave):
            self.tree.on_ihave(peer, message, now.mono_s)
        elif isinstance(message, Graft):
            return self._send(self.tree.on_graft(peer, message))
        elif isinstance(message, Prune):
            self.tree.on_prune(peer)
        return []

    def pushed(self, peer: PeerId, any_new: bool) -> list[Effect]:
        """A neighbour pushed rows, some of which were new, or none."""
        return self._send(self.tree.pushed(peer, any_new))

    def on_sync(self, peer: PeerId, message: SyncMessage, now: Moment) -> list[Effect]:
        """Compare, and send what the peer lacks."""
        if not self._admits(peer, message, now.mono_s):
            return []
        if isinstance(message, Digest):
            return [events.Send(peer, encode(versions)) for versions in self.sync.on_digest(message)]
        rows, answer = self.sync.on_versions(message, now)
        frames = [encode(answer)] if answer is not None else []
        return [events.Send(peer, frame) for frame in [*pack(rows), *frames]]

    def _admits(self, peer: PeerId, message: SyncMessage, now_s: float) -> bool:
        """True for what belongs to a comparison in progress, or begins one when the last is not just over."""
        for comparison in (self._ours.get(peer), self._theirs.get(peer)):
            if comparison is not None and comparison.goes_on(message, now_s):
                return True
        last = self._theirs.get(peer)
        if isinstance(message, Versions) and not message.answer:
            return False
        if last is not None and now_s - last.began_s < COMPARE_INTERVAL_S:
            return False
        self._theirs[peer] = _Comparison(message.salt, now_s)
        return True

    # What is due

    def next_due(self) -> float | None:
        repair_s = self._repair_s if self._links else None
        times = (self.overlay.next_due(), self.tree.next_due(), self.patrol.next_due(), repair_s)
        return min((at_s for at_s in times if at_s is not None), default=None)

    def due(self, now: Moment) -> list[Effect]:
        effects: list[Effect] = []
        if (at_s := self.overlay.next_due()) is not None and at_s <= now.mono_s:
            effects += self._carry_out(self.overlay.due(now.mono_s), now)
        if (at_s := self.patrol.next_due()) is not None and at_s <= now.mono_s:
            effects += self._walk(now)
        if (at_s := self.tree.next_due()) is not None and at_s <= now.mono_s:
            effects += self._send(self.tree.due(now.mono_s))
        if self._repair_s <= now.mono_s and self._links:
            effects.append(self._open(self._someone(), now, again=True))
            self._plan_repair(now)
        return effects

    def _walk(self, now: Moment) -> list[Effect]:
        """The patrol's next dial, unless too many others are under way."""
        for silent in self.patrol.unanswered(now.mono_s):
            self.overlay.unwant(silent, now.mono_s)
        peer = self.patrol.due(self._strangers, now.mono_s)
        return self.visit(peer, (), now) if peer is not None else []

    def visit(self, peer: PeerId, addresses: Iterable[str], now: Moment) -> list[Effect]:
        """Dial a node, for a word with it; the link ends as extras do. addresses: where it says it is, if it did."""
        address = self._neighbours.seek(peer, addresses, now.mono_s)
        if address is None:
            return []
        self.patrol.dialled(peer, now.mono_s)
        self.overlay.links.want(peer, now.mono_s)
        return [events.Dial(address)]

    def _strangers(self) -> list[PeerId]:
        nodes = (row.id.origin for row in self._store.rows(Kind.NODE))
        return [peer for peer in nodes if peer not in self._links and peer != self._own]

    def _plan_repair(self, now: Moment) -> None:
        interval_s = self._timing.repair_s * (HURRY if self.relay.cut_off(now.mono_s) else 1.0)
        if not self.everyone:
            interval_s = self._timing.sync_interval_s(self.overlay.nodes)
        self._repair_s = now.mono_s + interval_s * self._rng.uniform(0.5, 1.5)

    def _someone(self) -> PeerId:
        peers = tuple(self.overlay.active or self._links)
        return peers[int(self._rng.random() * len(peers))]

    def _open(self, peer: PeerId, now: Moment, *, again: bool = False) -> Effect:
        salt = b"".join(int(self._rng.random() * (1 << 32)).to_bytes(4, "big") for _ in range(4))
        self._ours[peer] = _Comparison(salt, now.mono_s)
        return events.Send(peer, encode(self.sync.opening(salt, again=again)))

    # Among the parts

    def _carry_out(self, wants: Iterable[Want], now: Moment) -> list[Effect]:
        effects: list[Effect] = []
        for want in wants:
            if isinstance(want, Tell):
                effects.append(events.Send(want.peer, encode(want.message)))
            elif isinstance(want, Part):
                effects.append(events.HangUp(want.peer, want.reason))
            elif isinstance(want, Seek):
                address = self._neighbours.seek(want.contact.peer, want.contact.addresses, now.mono_s)
                if address is not None:
                    effects.append(events.Dial(address))
                else:
                    effects += self._not_dialled(want.contact.peer, now)
        self._rejoin(now)
        return effects

    def _not_dialled(self, peer: PeerId, now: Moment) -> list[Effect]:
        """A request that waits for the link is told, unless a dial that began before may still succeed."""
        self.overlay.not_dialled(peer, now.mono_s)
        if self._neighbours.dials(peer) or not self.overlay.links.is_wanted(peer):
            return []
        return [events.NotDialled(peer, "it cannot be dialled now")]

    def _rejoin(self, now: Moment) -> None:
        """The overlay may have changed its mind about who is a neighbour, or whether everyone is."""
        self._neighbours.link_to_all(self.everyone, now.mono_s)
        active = self.overlay.active
        if (
            self.tree.quiet != self.everyone
            or len(active) != len(self.tree.eager) + len(self.tree.lazy)
            or any(peer not in self.tree.eager and peer not in self.tree.lazy for peer in active)
        ):
            self.tree.neighbours(active, quiet=self.everyone)

    def _send(self, outs: Iterable[Out]) -> list[Effect]:
        """One encoding for all that are told the same."""
        frames: dict[int, bytes] = {}
        effects: list[Effect] = []
        for out in outs:
            key = id(out.message)
            if key not in frames:
                frames[key] = encode(out.message)
            effects.append(events.Send(out.peer, frames[key]))
        return effects

    def _where(self, peer: PeerId) -> tuple[str, ...]:
        """Addresses without the peer's name, which stands beside them wherever they are told: half of their bytes."""
        if peer == self._own:
            return tuple(address.partition("/p2p/")[0] for address in self._own_addresses())
        return self._neighbours.addresses_of(peer)

    def _silent(self, origin: PeerId) -> bool:
        """Of a node whose link was lost nothing is told: it is probably dead, and newcomers would let it live on."""
        return self._doubts(origin)

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        self.overlay.validate()
        self.tree.validate()
        self.patrol.validate()
        assert self.tree.eager.keys() | self.tree.lazy.keys() == self.overlay.active.keys(), "a tree of other nodes"

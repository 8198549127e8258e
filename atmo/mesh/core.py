"""The mesh protocol of one node, without IO: events and the time go in, effects come out.

Theory of operation. Rows live in `RowStore`; `Author` writes the own ones; `Outbox` batches what is to be told to all;
`Neighbours` says whom to dial; `Fabric` who is to be a neighbour, what is passed on and when tables are compared. Here
they are joined:

- A link comes up: the peer is sent the own rows, and tables are compared.
- A row arrives and is news: it goes into the table and, where the mesh is not fully linked, on to others.
- Every now and then tables are compared with a random neighbour (repair), because the gossip lane may lose frames.
- A link is lost: `PeerLost` at once, so that nothing is routed there; if the peer does not come back `Vigil` has it
  accused, and buried if it does not contradict.
- Somebody sends what no honest peer would send: it is counted, and after some of it the link is ended (`Misbehaved`).

The caller performs the effects in order, and sends a `Tick` at `next_wakeup()` at the latest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from atmo.clock import Moment
from atmo.errors import RemoteProtocolError
from atmo.ids import MeshId, PeerId, short
from atmo.keys import Certificate, Sealed
from atmo.mesh import events
from atmo.mesh.agenda import Chance
from atmo.mesh.author import Author
from atmo.mesh.codec import decode, encode
from atmo.mesh.conduct import Conduct
from atmo.mesh.events import Effect, Event
from atmo.mesh.fabric import Fabric
from atmo.mesh.gossip import Outbox, pack
from atmo.mesh.lobby import Lobby
from atmo.mesh.messages import Digest, OverlayMessage, Push, Revoked, Rows, TreeMessage, Versions
from atmo.mesh.neighbours import Neighbours
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.revocations import Revocations
from atmo.mesh.roll import Roll
from atmo.mesh.rows import Body, Kind, NodeInfo, Row, RowId, Sign, SignedRow, Verify, genuine, peek, read
from atmo.mesh.rowstore import RowStore
from atmo.mesh.timing import MeshTiming
from atmo.mesh.verdict import Applied, Change, Reason, Rejected
from atmo.mesh.vigil import Vigil

__all__ = ["Core", "MeshTiming"]

# A node whose key was copied does not race its copy: it takes a new generation at most so often. A guess.
JUMP_INTERVAL_S = 5.0
# Longer than any process lives.
FOR_EVER_S = 10 * 365 * 24 * 3600.0
# Rows that overtake each other on two lanes look like those of a node that forgot: no storm of reminders. A guess.
REMIND_INTERVAL_S = 1.0
# Between two dials to a node that speaks in an earlier generation. A guess: about as long as a link takes, many times.
LOOK_UP_INTERVAL_S = 30.0


class Core:
    """One node's part in the mesh. `rng` is a `random.Random` or anything like it; `certificate` is what this node
    shows to others, without which they take no row of it."""

    def __init__(
        self,
        *,
        peer: PeerId,
        mesh: MeshId,
        generation: int,
        sign: Sign,
        verify: Verify,
        timing: MeshTiming,
        rng: Chance,
        roll: Roll,
        certificate: Certificate | None,
        sizes: ViewSizes | None = None,
        revoked: Iterable[Sealed] = (),
    ) -> None:
        self.peer = peer
        self.mesh = mesh
        self.certificate = certificate
        self._verify = verify
        self.store = RowStore(peer, mesh, verify, roll)
        self.revocations = Revocations(mesh, revoked)
        for key in self.revocations:
            self.store.ban(key)
        self.author = Author(peer, mesh, generation, sign=sign, timing=timing, rng=rng)
        self.neighbours = Neighbours(peer, timing, rng)
        self.vigil = Vigil(self.store, self.author, peer, timing, rng)
        self.fabric = Fabric(
            peer,
            self.store,
            self.neighbours,
            timing=timing,
            sizes=sizes or ViewSizes(),
            rng=rng,
            own_addresses=self._own_addresses,
            doubts=self.vigil.detector.doubts,
        )
        self._outbox = Outbox(timing.batch_s)
        self._conduct = Conduct()
        self._lobby = Lobby()
        self._links: dict[PeerId, None] = {}  # in the order they came up; a set's order would differ between runs
        self._reminded_s: dict[PeerId, float] = {}  # when a peer was last shown what it had said
        self._looked_up_s: dict[PeerId, float] = {}  # when a node was dialled that had forgotten what it had said
        self._off_clock: set[PeerId] = set()  # origins whose wrong clock was reported
        self._jumped_s = float("-inf")
        self._jumps = 0
        self._stopped = False
        self._wakeup_s: float | None = None  # when something is due
        self._handlers: dict[type, Callable[[Any, Moment], list[Effect]]] = {
            events.FrameReceived: self._on_frame,
            events.Publish: self._on_publish,
            events.Withdraw: self._on_withdraw,
            events.LinkUp: self._on_link_up,
            events.LinkDown: self._on_link_down,
            events.DialFailed: self._on_dial_failed,
            events.Discovered: self._on_discovered,
            events.Want: self.fabric.want,
            events.Revoke: self._on_revoke,
            events.Banned: self._on_banned,
            events.Certified: self._on_certified,
            events.Tick: lambda event, now: [],
            events.Stop: self._on_stop,
        }

    @property
    def generation(self) -> int:
        return self.author.generation

    @property
    def links(self) -> frozenset[PeerId]:
        return frozenset(self._links)

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        """What is to be done about it, in this order. Raises LocalProtocolError for a body that exceeds a bound."""
        if self._stopped:
            return []
        self.vigil.awake(now)
        effects = self._handlers[type(event)](event, now)
        if len(effects) == 1 and isinstance(effects[0], events.Deliver) and not self._is_due(now.mono_s):
            return effects  # a request's message, of which there are many: no appointment has come nearer
        self._wakeup_s = self._next_wakeup()
        if self._is_due(now.mono_s):
            effects += self._keep_time(now)
            self._wakeup_s = self._next_wakeup()
        self.vigil.expect(self._wakeup_s)
        return effects

    def next_wakeup(self) -> float | None:
        """Monotonic time at which the core wants a `Tick`; None while it waits for nothing."""
        return self._wakeup_s

    def _is_due(self, now_s: float) -> bool:
        return self._wakeup_s is not None and self._wakeup_s <= now_s

    def _next_wakeup(self) -> float | None:
        if self._stopped:
            return None
        times = (
            self.store.next_expiry(),
            self.author.next_renewal(),
            self._outbox.due_s(),
            self.neighbours.next_due(),
            self.vigil.next_due(),
            self.fabric.next_due(),
        )
        return min((at_s for at_s in times if at_s is not None), default=None)

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        self.store.validate()
        self.neighbours.validate()
        self.fabric.validate()
        for row in self.store.rows(origin=self.peer):
            assert row.generation == self.generation, "an own row of another generation"

    def __repr__(self) -> str:
        return f"<Core {short(self.peer)} generation {self.generation}: {len(self._links)} links, {self.store!r}>"

    # Time

    def _keep_time(self, now: Moment) -> list[Effect]:
        """Whatever is due, after any event: a busy node needs no extra wakeups."""
        effects = self._changed(self.store.expire(now), now)
        effects += self._say(self.author.renew(now), now, renewal=True)
        effects += self._watch(now)
        effects += [events.Dial(address) for address in self.neighbours.due(now.mono_s)]
        effects += self.fabric.due(now)
        effects += [events.Broadcast(frame) for frame in self._outbox.flush(now.mono_s)] if not self._stopped else []
        return effects

    def _watch(self, now: Moment) -> list[Effect]:
        """What the failure detector found."""
        found = self.vigil.due(now)
        for peer in found.forgotten:
            self.fabric.node_gone(peer, now)
        effects: list[Effect] = [*found.effects, *self._changed(found.changes, now)]
        effects += self._say(found.said, now)
        return effects + (self._jump(self.generation, now, spoken=False) if found.outlived else [])

    # Links

    def _on_link_up(self, event: events.LinkUp, now: Moment) -> list[Effect]:
        if self._conduct.banned(event.peer, now.mono_s):
            return [events.Misbehaved(event.peer, "It broke the protocol a short while ago.")]
        self._links[event.peer] = None
        self.vigil.detector.link_up(event.peer, now.mono_s)
        revoked = [encode(message) for message in self.revocations.messages()]
        own = [*revoked, *pack(self.store.transcript(self.peer, now))]
        return [*(events.Send(event.peer, frame) for frame in own), *self.fabric.link_up(event, now)]

    def _on_link_down(self, event: events.LinkDown, now: Moment) -> list[Effect]:
        if event.peer not in self._links:
            return []
        del self._links[event.peer]
        self._reminded_s.pop(event.peer, None)
        self._conduct.forget(event.peer)
        said_goodbye = self.store.get(RowId(event.peer, Kind.NODE, "")) is None
        lost = self.fabric.link_down(event.peer, said_goodbye, now)
        if not lost:
            self.vigil.detector.excuse(event.peer)
        self.vigil.detector.link_down(event.peer, now.mono_s)
        if not lost:
            return []
        probe = [] if said_goodbye else self.fabric.probe(event.peer, now)
        return [events.PeerLost(event.peer), *probe]

    def _on_dial_failed(self, event: events.DialFailed, now: Moment) -> list[Effect]:
        evidence = self.fabric.dial_failed(event, now)
        if event.address.peer is not None:
            self.vigil.detector.dial_failed(event.address.peer, now.mono_s, evidence=evidence)
        return []

    def _on_discovered(self, event: events.Discovered, now: Moment) -> list[Effect]:
        self.neighbours.discovered(event.address, now.mono_s)
        return []

    def _own_addresses(self) -> tuple[str, ...]:
        row = self.store.get(RowId(self.peer, Kind.NODE, ""))
        return row.body.addresses if row is not None and isinstance(row.body, NodeInfo) else ()

    # Members that are none any more

    def _on_revoke(self, event: events.Revoke, now: Moment) -> list[Effect]:
        return self._revoked((event.statement,), None, now)

    def _on_banned(self, event: events.Banned, now: Moment) -> list[Effect]:
        self.neighbours.avoid(event.peer, now.mono_s + FOR_EVER_S)
        return []

    def _revoked(self, statements: Iterable[Sealed], teller: PeerId | None, now: Moment) -> list[Effect]:
        """Take what is news, and tell everybody but who told it. Raises RemoteProtocolError for a forgery."""
        news = [(said, statement) for statement in statements if (said := self.revocations.learn(statement))]
        if not news:
            return []
        frame = encode(Revoked(tuple(statement for _, statement in news)))
        effects: list[Effect] = [events.Send(peer, frame) for peer in self._links if peer != teller]
        for said, _ in news:
            effects += [events.KeyRevoked(said.key), *self._changed(self.store.ban(said.key), now)]
        return effects

    # Own rows

    def _on_publish(self, event: events.Publish, now: Moment) -> list[Effect]:
        row = self.author.publish(event.kind, event.key, self._stamp(event.body), now)
        return self._say([row] if row else [], now)

    def _stamp(self, body: Body) -> Body:
        """The NODE row carries the certificate, and what else others must know first."""
        stamped = self.vigil.stamp(body)
        if isinstance(stamped, NodeInfo):
            return msgspec.structs.replace(stamped, certificate=self.certificate)
        return stamped

    def _on_certified(self, event: events.Certified, now: Moment) -> list[Effect]:
        self.certificate = event.certificate
        row = self.store.get(RowId(self.peer, Kind.NODE, ""))
        if row is None or row.body is None:
            return []
        return self._on_publish(events.Publish(Kind.NODE, "", row.body), now)

    def _on_withdraw(self, event: events.Withdraw, now: Moment) -> list[Effect]:
        row = self.author.withdraw(event.kind, event.key, now)
        return self._say([row] if row else [], now)

    def _on_stop(self, event: events.Stop, now: Moment) -> list[Effect]:
        last_words = self.author.withdraw_all(now)
        self._write(last_words, now)
        for row in last_words:
            self._outbox.add(row)
        self._stopped = True
        frames = self._outbox.drain(now.mono_s)
        # On both lanes: last words cannot be repeated, and the lane that loses nothing may be closed first.
        last = [events.Send(peer, frame) for peer in self._links for frame in frames]
        return [*(events.Broadcast(frame) for frame in frames), *last]

    def _say(self, rows: Iterable[Row], now: Moment, *, renewal: bool = False) -> list[Effect]:
        """Put own rows into the table and on their way."""
        rows = list(rows)
        for row in rows:
            if self.fabric.own_row(row, renewal, now):
                self._outbox.add(row)
        return self._write(rows, now)

    def _write(self, rows: Iterable[Row], now: Moment) -> list[Effect]:
        return self._changed([change for row in rows for change in self.store.write(row, now)], now)

    def _jump(self, beyond: int, now: Moment, *, spoken: bool = True) -> list[Effect]:
        """Somebody said something in this node's name: only a newer generation is believed again. spoken: as its own
        rows prove; else it is told by others, who may lie."""
        if now.mono_s - self._jumped_s < JUMP_INTERVAL_S:
            return []
        rows = self.author.jump(beyond, now)
        self._jumped_s = now.mono_s
        self._jumps += spoken
        effects = self._write(rows, now)
        # Over the lane that loses nothing: whoever has the other rows keeps them until it has these.
        frames = list(pack(row.signed for row in rows))
        effects += [events.Send(peer, frame) for peer in self._links for frame in frames]
        return [*effects, events.OwnRowSeen(self.generation, self._jumps)]

    # Frames

    def _on_frame(self, event: events.FrameReceived, now: Moment) -> list[Effect]:
        if event.peer not in self._links:
            return []  # hung up on, and still talking
        try:
            message = decode(event.frame)
        except RemoteProtocolError as exc:
            return self._blame(event.peer, exc.message, now)
        if isinstance(message, Rows):
            return self._on_rows(event.peer, message.rows, now)[0]
        if event.gossip:
            return self._blame(event.peer, f"A {type(message).__name__} came on the gossip lane.", now)
        if isinstance(message, Revoked):
            try:
                return self._revoked(message.statements, event.peer, now)
            except RemoteProtocolError as exc:
                return self._blame(event.peer, exc.message, now)
        if isinstance(message, Push):
            effects, any_new = self._on_rows(event.peer, message.rows, now)
            return effects + self.fabric.pushed(event.peer, any_new)
        if isinstance(message, TreeMessage):
            return self.fabric.on_tree(event.peer, message, now)
        if isinstance(message, OverlayMessage):
            return self.fabric.on_overlay(event.peer, message, now)
        if isinstance(message, Digest | Versions):
            return self.fabric.on_sync(event.peer, message, now)
        self.fabric.overlay.used(event.peer, now.mono_s)
        return [events.Deliver(event.peer, message)]

    def _on_rows(self, peer: PeerId, rows: tuple[SignedRow, ...], now: Moment) -> tuple[list[Effect], bool]:
        """What follows from rows that a peer sent, and whether any of them was news."""
        if not self._conduct.admits(peer, len(rows), now.mono_s):
            return self._blame(peer, "It sent more rows than anybody has to say.", now), True
        changes: list[Change] = []
        effects: list[Effect] = []
        any_new = False
        todo = deque((peer, signed) for signed in rows)
        while todo:
            teller, signed = todo.popleft()
            outcome = self.store.apply(signed, now)
            if isinstance(outcome, Applied):
                any_new = True
                changes += outcome.changes
                self._off_clock.discard(outcome.row.id.origin)
                renewal = bool(outcome.changes) and outcome.changes[-1].renewal
                if self.fabric.new_row(outcome.row, teller, renewal, now):
                    self._outbox.add(outcome.row)
                if outcome.row.id.kind is Kind.NODE and self._lobby:
                    todo.extend(self._lobby.admit(outcome.row.id.origin))
            elif outcome.reason is Reason.UNKNOWN_ORIGIN and outcome.origin is not None:
                any_new = True  # as far as can be told
                self._lobby.wait(outcome.origin, teller, signed)
            elif outcome.reason is Reason.STALE and outcome.origin is not None:
                effects += self._remind(peer, now) if outcome.origin == peer else self._look_up(signed, now)
            elif outcome.reason is not Reason.DUPLICATE:
                effects += self._on_rejected(teller, signed, outcome, now)
            if outcome.equivocation is not None:
                effects.append(events.Equivocated(PeerId(peek(signed).origin), outcome.equivocation))
        return self._changed(changes, now) + effects, any_new

    def _remind(self, peer: PeerId, now: Moment) -> list[Effect]:
        """A peer says of itself what is older than what it said before: show it the latter. See `_jump`."""
        newest = self.store.newest(peer)
        if newest is None or now.mono_s - self._reminded_s.get(peer, float("-inf")) < REMIND_INTERVAL_S:
            return []
        self._reminded_s[peer] = now.mono_s
        return [events.Send(peer, frame) for frame in pack([newest])]

    def _look_up(self, signed: SignedRow, now: Moment) -> list[Effect]:
        """A node that lost its state speaks in an earlier generation than it had, and whoever it is linked to may have
        forgotten the later one too. If it said this after all that is known of it, dial it: it is reminded when it
        introduces itself."""
        payload = peek(signed)
        origin = PeerId(payload.origin)
        newest = self.store.newest(origin)
        known = peek(newest) if newest is not None else payload
        if payload.generation >= known.generation or payload.issued_s <= known.issued_s:
            return []
        if now.mono_s - self._looked_up_s.get(origin, float("-inf")) < LOOK_UP_INTERVAL_S:
            return []
        self._looked_up_s[origin] = now.mono_s
        if not genuine(signed, payload, self._verify):
            return []
        try:
            body = read(signed, payload).body
        except RemoteProtocolError:
            return []
        return self.fabric.visit(origin, body.addresses if isinstance(body, NodeInfo) else (), now)

    def _on_rejected(self, peer: PeerId, signed: SignedRow, rejected: Rejected, now: Moment) -> list[Effect]:
        if rejected.reason.culpable:
            return self._blame(peer, str(rejected), now)
        if rejected.origin is None or rejected.order is None:
            return []
        if rejected.reason is Reason.OWN and rejected.order[0] >= self.generation:
            return self._jump(rejected.order[0], now)
        if rejected.reason is Reason.DEAD:
            self.vigil.heard(read(signed, peek(signed)), now)
        if (
            rejected.reason in (Reason.FUTURE, Reason.EXPIRED)
            and rejected.origin == peer
            and peer not in self._off_clock
        ):
            self._off_clock.add(peer)
            return [events.ClockOff(peer, peek(signed).issued_s - now.wall_s)]
        return []

    def _blame(self, peer: PeerId, why: str, now: Moment) -> list[Effect]:
        if not self._conduct.blame(peer, now.mono_s):
            return []
        self.neighbours.avoid(peer, self._conduct.banned_until_s(peer))
        self.vigil.detector.excuse(peer)
        return [events.Misbehaved(peer, why)]

    # Changes of the table

    def _changed(self, changes: list[Change], now: Moment) -> list[Effect]:
        for change in changes:
            if self.vigil.changed(change, now):
                self.neighbours.alive(change.id.origin, now.mono_s)
            if change.id.kind is Kind.NODE and change.id.origin != self.peer:
                self._node_changed(change, now)
        return [events.RowsChanged(tuple(changes))] if changes else []

    def _node_changed(self, change: Change, now: Moment) -> None:
        if change.row is None:
            dead = self.store.is_dead(change.id.origin)
            if dead or self.store.latest(change.id) is not None:  # an expired row was no death, only late
                self.fabric.node_ended(now)
            if not dead:  # the dead are dialled for a while: they may have been cut off
                self.fabric.node_gone(change.id.origin, now)
        elif isinstance(change.row.body, NodeInfo):
            self.fabric.node_known(change.id.origin, change.row.body.addresses, now)
        self.author.nodes = self.fabric.overlay.nodes

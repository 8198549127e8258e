"""The mesh protocol of one node, without IO: events and the time go in, effects come out.

Theory of operation. Rows live in `RowStore`; `Author` writes the own ones; `Outbox` batches what is to be told to all;
`Relay` says what is passed on; `Neighbours` says whom to dial. Here they are joined:

- A link comes up: the peer is sent the own rows and a summary of the table, and answers with what differs.
- A row arrives and is news: it goes into the table and, where the mesh is not fully linked, on to others.
- Every few seconds one random neighbour is asked to compare tables (repair), because the gossip lane may lose frames.
- A link goes down: `PeerLost` at once, so that nothing is routed there; if the peer does not come back `Vigil` has it
  accused, and buried if it does not contradict.
- Somebody sends what no honest peer would send: it is counted, and after some of it the link is ended (`Misbehaved`).

The caller performs the effects in order, and sends a `Tick` at `next_wakeup()` at the latest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from atmo.clock import Moment
from atmo.errors import RemoteProtocolError
from atmo.ids import MeshId, PeerId, short
from atmo.keys import Sealed
from atmo.mesh import events
from atmo.mesh.agenda import Chance
from atmo.mesh.author import Author
from atmo.mesh.codec import decode, encode
from atmo.mesh.conduct import Conduct
from atmo.mesh.events import Effect, Event
from atmo.mesh.gossip import Outbox, Relay, pack
from atmo.mesh.limits import MAX_ORIGINS
from atmo.mesh.messages import Revoked, Rows, Summary
from atmo.mesh.neighbours import Neighbours
from atmo.mesh.revocations import Revocations
from atmo.mesh.rows import Kind, NodeInfo, Row, RowId, Sign, SignedRow, Verify, peek, read
from atmo.mesh.rowstore import RowStore
from atmo.mesh.timing import MeshTiming
from atmo.mesh.verdict import Applied, Change, Reason, Rejected
from atmo.mesh.vigil import Vigil

__all__ = ["Core", "MeshTiming"]

# A node whose key was copied does not race its copy: it takes a new generation at most so often. A guess.
JUMP_INTERVAL_S = 5.0
# Longer than any process lives.
FOR_EVER_S = 10 * 365 * 24 * 3600.0
# How much sooner a node compares tables that knows of another it cannot reach: it depends on what others tell. A guess.
HURRY = 0.2
# A summary is small and what it asks for may be large: of one peer no more than this often is answered. A guess.
SUMMARY_INTERVAL_S = 0.25
# Rows that overtake each other on two lanes look like those of a node that forgot: no storm of reminders. A guess.
REMIND_INTERVAL_S = 1.0


class Core:
    """One node's part in the mesh. `rng` is a `random.Random` or anything like it."""

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
        revoked: Iterable[Sealed] = (),
    ) -> None:
        self.peer = peer
        self.mesh = mesh
        self.store = RowStore(peer, mesh, verify)
        self.revocations = Revocations(mesh, revoked)
        self.author = Author(peer, mesh, generation, sign=sign, timing=timing, rng=rng)
        self.neighbours = Neighbours(peer, timing, rng)
        self.vigil = Vigil(self.store, self.author, peer, timing, rng)
        self._timing = timing
        self._rng = rng
        self._outbox = Outbox(timing.batch_s)
        self._relay = Relay(timing.settle_s)
        self._conduct = Conduct()
        self._links: dict[PeerId, None] = {}  # in the order they came up; a set's order would differ between runs
        self._compared_s: dict[PeerId, float] = {}  # when a peer's summary was last answered
        self._reminded_s: dict[PeerId, float] = {}  # when a peer was last shown what it had said
        self._off_clock: set[PeerId] = set()  # origins whose wrong clock was reported
        self._repair_s = float("inf")  # when to compare tables next
        self._jumped_s = float("-inf")
        self._jumps = 0
        self._stopped = False
        self._handlers: dict[type, Callable[[Any, Moment], list[Effect]]] = {
            events.FrameReceived: self._on_frame,
            events.Publish: self._on_publish,
            events.Withdraw: self._on_withdraw,
            events.LinkUp: self._on_link_up,
            events.LinkDown: self._on_link_down,
            events.DialFailed: self._on_dial_failed,
            events.Discovered: self._on_discovered,
            events.Revoke: self._on_revoke,
            events.Banned: self._on_banned,
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
        effects += self._keep_time(now)
        self.vigil.expect(self.next_wakeup())
        return effects

    def next_wakeup(self) -> float | None:
        """Monotonic time at which the core wants a `Tick`; None while it waits for nothing."""
        if self._stopped:
            return None
        times = (
            self.store.next_expiry(),
            self.author.next_renewal(),
            self._outbox.due_s(),
            self.neighbours.next_due(),
            self.vigil.next_due(),
            self._repair_s if self._links else None,
        )
        return min((at_s for at_s in times if at_s is not None), default=None)

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        self.store.validate()
        self.neighbours.validate()
        for row in self.store.rows(origin=self.peer):
            assert row.generation == self.generation, "an own row of another generation"

    def __repr__(self) -> str:
        return f"<Core {short(self.peer)} generation {self.generation}: {len(self._links)} links, {self.store!r}>"

    # Time

    def _keep_time(self, now: Moment) -> list[Effect]:
        """Whatever is due, after every event: a busy node needs no extra wakeups."""
        effects = self._changed(self.store.expire(now), now)
        effects += self._say(self.author.renew(now), now)
        effects += self._watch(now)
        effects += [events.Dial(address) for address in self.neighbours.due(now.mono_s)]
        if self._repair_s <= now.mono_s and self._links:
            effects.append(self._compare_with_someone())
            self._plan_repair(now)
        effects += [events.Broadcast(frame) for frame in self._outbox.flush(now.mono_s)] if not self._stopped else []
        return effects

    def _watch(self, now: Moment) -> list[Effect]:
        """What the failure detector found."""
        found = self.vigil.due(now)
        for peer in found.forgotten:
            self.neighbours.node_gone(peer)
        effects: list[Effect] = [*found.effects, *self._changed(found.changes, now)]
        return effects + self._say(found.said, now)

    def _plan_repair(self, now: Moment) -> None:
        hurry = 1.0 if not self._relay.cut_off(now.mono_s) else HURRY
        self._repair_s = now.mono_s + hurry * self._timing.repair_s * self._rng.uniform(0.5, 1.5)

    def _compare_with_someone(self) -> Effect:
        peers = tuple(self._links)
        return events.Send(peers[int(self._rng.random() * len(peers))], self._summary(answer=True))

    def _summary(self, *, answer: bool) -> bytes:
        return encode(Summary(self.store.summary()[:MAX_ORIGINS], answer))

    # Links

    def _on_link_up(self, event: events.LinkUp, now: Moment) -> list[Effect]:
        if self._conduct.banned(event.peer, now.mono_s):
            return [events.Misbehaved(event.peer, "It broke the protocol a short while ago.")]
        self._links[event.peer] = None
        self._relay.link_up(event.peer)
        self.neighbours.link_up(event.peer, event.address)
        self.vigil.detector.link_up(event.peer, now.mono_s)
        if len(self._links) == 1:
            self._plan_repair(now)
        own = list(pack(self.store.transcript(self.peer, now)))
        revoked = [encode(message) for message in self.revocations.messages()]
        return [events.Send(event.peer, frame) for frame in [*revoked, *own, self._summary(answer=False)]]

    def _on_link_down(self, event: events.LinkDown, now: Moment) -> list[Effect]:
        if event.peer not in self._links:
            return []
        del self._links[event.peer]
        self._compared_s.pop(event.peer, None)
        self._reminded_s.pop(event.peer, None)
        if self.store.get(RowId(event.peer, Kind.NODE, "")) is not None:  # if not, it said goodbye
            self._relay.lost(event.peer)
        self.neighbours.link_down(event.peer, now.mono_s)
        self.vigil.detector.link_down(event.peer, now.mono_s)
        return [events.PeerLost(event.peer)]

    def _on_dial_failed(self, event: events.DialFailed, now: Moment) -> list[Effect]:
        self.neighbours.dial_failed(event.address, now.mono_s)
        if event.address.peer is not None:
            self.vigil.detector.dial_failed(event.address.peer, now.mono_s)
        return []

    def _on_discovered(self, event: events.Discovered, now: Moment) -> list[Effect]:
        self.neighbours.discovered(event.address, now.mono_s)
        return []

    # Members that are none any more

    def _on_revoke(self, event: events.Revoke, now: Moment) -> list[Effect]:
        return self._revoked((event.statement,), None, now)

    def _on_banned(self, event: events.Banned, now: Moment) -> list[Effect]:
        self.neighbours.avoid(event.peer, now.mono_s + FOR_EVER_S)
        return self._changed(self.store.ban(event.peer), now)

    def _revoked(self, statements: Iterable[Sealed], teller: PeerId | None, now: Moment) -> list[Effect]:
        """Take what is news, and tell everybody but who told it. Raises RemoteProtocolError for a forgery."""
        news = [(said, statement) for statement in statements if (said := self.revocations.learn(statement))]
        if not news:
            return []
        frame = encode(Revoked(tuple(statement for _, statement in news)))
        effects: list[Effect] = [events.Send(peer, frame) for peer in self._links if peer != teller]
        effects += [events.KeyRevoked(said.key) for said, _ in news]
        return effects

    # Own rows

    def _on_publish(self, event: events.Publish, now: Moment) -> list[Effect]:
        row = self.author.publish(event.kind, event.key, self.vigil.stamp(event.body), now)
        return self._say([row] if row else [], now)

    def _on_withdraw(self, event: events.Withdraw, now: Moment) -> list[Effect]:
        row = self.author.withdraw(event.kind, event.key, now)
        return self._say([row] if row else [], now)

    def _on_stop(self, event: events.Stop, now: Moment) -> list[Effect]:
        self._say(self.author.withdraw_all(now), now)
        self._stopped = True
        frames = self._outbox.drain(now.mono_s)
        # On both lanes: last words cannot be repeated, and the lane that loses nothing may be closed first.
        last = [events.Send(peer, frame) for peer in self._links for frame in frames]
        return [*(events.Broadcast(frame) for frame in frames), *last]

    def _say(self, rows: Iterable[Row], now: Moment) -> list[Effect]:
        """Put own rows into the table and on their way."""
        rows = list(rows)
        for row in rows:
            self._outbox.add(row)
        return self._write(rows, now)

    def _write(self, rows: Iterable[Row], now: Moment) -> list[Effect]:
        return self._changed([change for row in rows for change in self.store.write(row, now)], now)

    def _jump(self, beyond: int, now: Moment) -> list[Effect]:
        """Somebody said something in this node's name: only a newer generation is believed again."""
        if now.mono_s - self._jumped_s < JUMP_INTERVAL_S:
            return []
        rows = self.author.jump(beyond, now)
        self._jumped_s = now.mono_s
        self._jumps += 1
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
            return self._on_rows(event.peer, message.rows, now)
        if event.gossip:
            return self._blame(event.peer, f"A {type(message).__name__} came on the gossip lane.", now)
        if isinstance(message, Revoked):
            try:
                return self._revoked(message.statements, event.peer, now)
            except RemoteProtocolError as exc:
                return self._blame(event.peer, exc.message, now)
        if isinstance(message, Summary):
            return self._on_summary(event.peer, message, now)
        return [events.Deliver(event.peer, message)]

    def _on_rows(self, peer: PeerId, rows: tuple[SignedRow, ...], now: Moment) -> list[Effect]:
        changes: list[Change] = []
        effects: list[Effect] = []
        for signed in rows:
            outcome = self.store.apply(signed, now)
            if isinstance(outcome, Applied):
                changes += outcome.changes
                self._off_clock.discard(outcome.row.id.origin)
                if self._relay.passes_on(outcome.row, now.mono_s):
                    self._outbox.add(outcome.row)
            elif outcome.reason is Reason.STALE and outcome.origin == peer:
                effects += self._remind(peer, now)
            elif outcome.reason is not Reason.DUPLICATE:
                effects += self._on_rejected(peer, signed, outcome, now)
            if outcome.equivocation is not None:
                effects.append(events.Equivocated(PeerId(peek(signed).origin), outcome.equivocation))
        return self._changed(changes, now) + effects

    def _remind(self, peer: PeerId, now: Moment) -> list[Effect]:
        """A peer says of itself what is older than what it said before: show it the latter. See `_jump`."""
        newest = self.store.newest(peer)
        if newest is None or now.mono_s - self._reminded_s.get(peer, float("-inf")) < REMIND_INTERVAL_S:
            return []
        self._reminded_s[peer] = now.mono_s
        return [events.Send(peer, frame) for frame in pack([newest])]

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

    def _on_summary(self, peer: PeerId, theirs: Summary, now: Moment) -> list[Effect]:
        """Send what the peer lacks, and the own summary if it asks for what this node may lack.

        Of a node whose link was lost nothing is told until it says that it lives: it is probably dead, and would live
        on for a TTL with each newcomer.
        """
        if now.mono_s - self._compared_s.get(peer, float("-inf")) < SUMMARY_INTERVAL_S:
            return []
        self._compared_s[peer] = now.mono_s
        known: dict[bytes, tuple[int, int]] = {origin: (life, total) for origin, life, total in theirs.origins}
        missing: list[SignedRow] = []
        for origin, generation, total in self.store.summary():
            their_generation, their_total = known.get(origin, (0, 0))
            if generation == their_generation and total == their_total:
                continue
            if generation >= their_generation and not self.vigil.detector.doubts(origin):
                missing += self.store.transcript(origin, now)
        effects: list[Effect] = [events.Send(peer, frame) for frame in pack(missing)]
        if theirs.answer:
            effects.append(events.Send(peer, self._summary(answer=False)))
        return effects

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
        peer = change.id.origin
        if change.row is None:
            self._relay.node_gone(peer)
            if not self.store.is_dead(peer):  # the dead are dialled for a while: they may have been cut off
                self.neighbours.node_gone(peer)
        elif isinstance(change.row.body, NodeInfo):
            self._relay.node_known(peer, peer in self._links, now.mono_s)
            self.neighbours.told(peer, change.row.body.addresses, now.mono_s)

"""The one place where the mesh meets the network: drives the pure core, table and calls with a transport and a clock.

Nothing is decided here. Transport events go into the core, its effects are carried out, rows that changed go into the
routing table, requests go to `Serving` (as server) and `Call` (as requester). A request to this node itself takes the
same path without a socket.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

import msgspec
import numpy as np
import structlog

from atmo.clock import Clock, moment
from atmo.errors import FrameTooLarge, Refused, RemoteProtocolError, TransportError, UsageError
from atmo.ids import KEY_BYTES, MeshId, Multiaddr, PeerId, format_peer, short
from atmo.keys import Certificate, Identity, Passport, Sealed, check_revocation, verify
from atmo.mesh import calls, core, events
from atmo.mesh.asking import Asking, Job, Routed
from atmo.mesh.capability import Capability
from atmo.mesh.classes import ELSEWHERE
from atmo.mesh.codec import decode_large, encode
from atmo.mesh.decision import Decision
from atmo.mesh.exchange import Exchange, NoExchange
from atmo.mesh.field import GradientField
from atmo.mesh.messages import (
    AnyMessage,
    Ask,
    Bring,
    Brought,
    Cancel,
    Chunk,
    Done,
    Failed,
    Grant,
    ManifestPart,
    Parcel,
    Part,
    Probe,
    Scores,
    SwarmMessage,
    Told,
    Vectors,
)
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.parcels import Parcels, cut
from atmo.mesh.probing import Probing
from atmo.mesh.query import Query
from atmo.mesh.roll import Roll
from atmo.mesh.routing import decide
from atmo.mesh.rows import Gradient, Kind, NodeInfo, Renewal, Seed
from atmo.mesh.service import Answer, Service
from atmo.mesh.serving import OnServed, Serving, nobody
from atmo.mesh.table import RoutingTable
from atmo.mesh.verdict import Change
from atmo.problems import Problem
from atmo.transport.base import DialFailed, Lane, LinkDown, LinkUp, Received, Transport, TransportEvent
from atmo.trust import REVOKED_HINT, Trust

log = structlog.get_logger("atmo.mesh")

# Load is told at once when it changes, and then at most so often.
LOAD_INTERVAL_S = 0.25
# The path's latency is read from the transport so often, if anything happens at all.
RTT_INTERVAL_S = 1.0
# How long a request waits for the link to a node that is no neighbour, before another node is asked. A guess: several
# handshakes over a slow network.
LINK_WAIT_S = 4.0
# Requests whose sent bytes are remembered. A guess: more than run at once.
SENT_KEPT = 1000
# Why others refuse this node for what it is, whatever their address. It is over when anybody is linked.
OWN_FAULTS = ("expired", "replaced", "revoked", "used")


class MeshNode:
    """A member of a mesh. All methods are called on the event loop's thread."""

    def __init__(
        self,
        *,
        identity: Identity,
        mesh: MeshId,
        certificate: Certificate,
        generation: int,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        timing: core.MeshTiming | None = None,
        sizes: ViewSizes | None = None,
        on_generation: Callable[[int], None] = lambda generation: None,
        trust: Trust | None = None,
        revoked: Sequence[Sealed] = (),
        asks_others: bool = True,
        on_revoked: Callable[[tuple[Sealed, ...]], None] = lambda statements: None,
        on_renewal: Callable[[Sealed], None] = lambda membership: None,
        on_linked: Callable[[PeerId, Multiaddr | None], None] = lambda peer, address: None,
        on_event: Callable[[str, PeerId | None, str, str], None] = lambda what, peer, name, detail: None,
        on_served: OnServed = nobody,
    ) -> None:
        """on_event: told what happened, to whom (key, name as far as it is known), and why; for people. on_served: see
        `Serving`."""
        self.peer = identity.public
        self.mesh = mesh
        self.transport = transport
        self.table = RoutingTable()
        self.field = GradientField(self.table)
        self.serving = Serving(self.peer, self._transmit, on_served, self._inside)
        self.sent_bytes: OrderedDict[bytes, dict[PeerId, int]] = OrderedDict()  # of each request's text, to whom
        self.probing = Probing(clock, self._transmit, transport.linked, transport.rtt_s)
        self.asking = Asking(
            clock,
            self.route,
            self._transmit,
            self._learn,
            self.want,
            self.root_of,
            self._chance,
            self.probing.refresh,
            self._known_as,
        )
        self.problems: dict[str, Problem] = {}
        self.exchange: Exchange = NoExchange()
        self.vet: Callable[[PeerId, Capability], bool] = lambda origin, capability: True
        self._wanted: set[Multiaddr] = set()
        self._told: set[tuple[str, str]] = set()
        self._nameless: set[PeerId] = set()  # linked, and did not say yet what they are
        self._dead: set[PeerId] = set()  # their rows go because others say so, not because they left
        self._clock = clock
        self._rng = np.random.default_rng(rng.getrandbits(64))
        self._on_generation = on_generation
        self._trust = trust or Trust(mesh)
        self._core = core.Core(
            peer=self.peer,
            mesh=mesh,
            generation=generation,
            sign=identity.sign,
            verify=verify,
            timing=timing or core.MeshTiming(),
            rng=rng,
            roll=Roll(self._trust.read, self._trust.welcomes),
            certificate=certificate,
            sizes=sizes,
            revoked=revoked,
        )
        self._small = self._core.fabric.everyone  # as of the last event: all link to all
        for statement in self._core.revocations.statements:
            self._trust.revoke(check_revocation(statement, mesh).key)
        self._asks_others = asks_others
        self._on_revoked = on_revoked
        self._on_renewal = on_renewal
        self._on_linked = on_linked
        self._on_event = on_event
        self._passports: dict[PeerId, Passport] = {}
        self._parked: dict[PeerId, list[Ask]] = {}  # requests that wait for a link
        self._parcels = Parcels()
        self._carrying: dict[tuple[bytes, int], asyncio.Task[None]] = {}  # requests that travel in pieces
        self._wake: asyncio.TimerHandle | None = None  # ends at `_wakeup_s`
        self._wakeup_s: float | None = None
        self._load_timer: asyncio.TimerHandle | None = None
        self._load_told_s = float("-inf")
        self._rtt_due_s = 0.0
        self._closed = False

    @property
    def core(self) -> core.Core:
        return self._core

    async def start(self) -> None:
        """Bind and begin. Raises PortInUse."""
        await self.transport.start(self._on_transport)
        self._handle(events.Tick())

    def introduce(self, info: NodeInfo) -> None:
        """Publish what this machine is."""
        self._handle(events.Publish(Kind.NODE, "", info))

    def discovered(self, address: Multiaddr, *, wanted: bool = False) -> None:
        """Somebody may be there. `wanted`: the user named this address, so it is a problem if nobody answers."""
        if address.peer != self.peer:
            if wanted:
                self._wanted.add(address)
            self._handle(events.Discovered(address))

    def offer(self, capability: Capability, service: Service) -> None:
        """Serve a capability and tell the mesh."""
        self.serving.offer(capability.descriptor.id, service)
        self._handle(events.Publish(Kind.CAPABILITY, capability.descriptor.id, capability))
        self.load_changed()

    def withdraw(self, capability_id: str) -> None:
        """Tell the mesh that it is gone; requests that run go on."""
        self.serving.withdraw(capability_id)
        self._handle(events.Withdraw(Kind.CAPABILITY, capability_id))

    def seed(self, root: str, body: Seed | None) -> None:
        """Tell the mesh that this node gives a model away; None: not any more."""
        self._handle(events.Publish(Kind.SEED, root, body) if body is not None else events.Withdraw(Kind.SEED, root))

    def seeds(self) -> Iterator[tuple[PeerId, str, Seed]]:
        """Who gives which model away, this node included: peer, root in hex, what it says of it."""
        for row in self._core.store.rows(Kind.SEED):
            if isinstance(row.body, Seed):
                yield row.id.origin, row.id.key, row.body

    def load_changed(self) -> None:
        """A service became busier, idler, ready or not: publish it, soon."""
        self.table.put_gradient(self.peer, self._loads(), self._clock.now())  # what is one's own is known at once
        if self._load_timer is not None or self._closed:
            return
        wait_s = max(0.0, self._load_told_s + LOAD_INTERVAL_S - self._clock.now())
        self._load_timer = asyncio.get_running_loop().call_later(wait_s, self._tell_load)

    def route(self, query: Query) -> Decision:
        """Where a request would go now. Raises NoRoute. A node that asks nobody else has only itself to choose from."""
        if not self._asks_others:
            query = replace(query, constraints=msgspec.structs.replace(query.constraints, local_only=True))
        began_s = self._clock.now()
        decision = decide(self.table, self.field, query, began_s, self._rng)
        decision.elapsed_s = self._clock.now() - began_s
        return decision

    async def ask(self, job: Job) -> AsyncGenerator[Routed | Answer, None]:
        """Send a request and stream what comes back: `Routed`, pieces, and `Finished` at the end.

        Raises NoRoute, RequestError and its children, or what the engine raised. Closing the generator cancels the
        work.
        """
        async with aclosing(self.asking.ask(job)) as replies:
            async for reply in replies:
                yield reply

    async def drain(self, wait_s: float) -> None:
        """Withdraw what is offered and refuse what is new; what has begun may end, for up to `wait_s`."""
        for capability_id in list(self.serving.services):
            self._handle(events.Withdraw(Kind.CAPABILITY, capability_id))
        await self.serving.drain(wait_s)

    async def stop(self) -> None:
        """Withdraw everything, end all requests, close the sockets."""
        if self._closed:
            return
        for carrying in self._carrying.values():
            carrying.cancel()
        await asyncio.gather(*self._carrying.values(), return_exceptions=True)
        await self.serving.close()
        self._handle(events.Stop())
        self._closed = True
        for timer in (self._wake, self._load_timer):
            if timer is not None:
                timer.cancel()
        await self.transport.close()

    def __repr__(self) -> str:
        return f"<MeshNode {short(self.peer)}: {len(self.transport.linked())} links, {self.table!r}, {self.serving!r}>"

    # From the transport into the core

    def _on_transport(self, happened: Sequence[TransportEvent]) -> None:
        if self._closed:
            return
        for event in happened:
            if isinstance(event, Received) and event.lane is Lane.BULK:
                (self._on_plain if event.plain else self._on_bulk)(event.peer, event.frame)
            elif isinstance(event, Received):
                self._handle(events.FrameReceived(event.peer, event.lane is Lane.GOSSIP, bytes(event.frame)))
            elif isinstance(event, LinkUp):
                self._nameless.add(event.peer)
                self._greet(event.peer, known=bool(self.name_of(event.peer)))
                self.table.mark_back(event.peer)
                self._reached(event.peer)
                self._passports[event.peer] = event.passport
                self._on_linked(event.peer, event.address)
                self._handle(events.LinkUp(event.peer, event.address, event.outbound))
                for ask in self._parked.pop(event.peer, []):
                    self._transmit(event.peer, ask)
                self.exchange.linked(event.peer)
            elif isinstance(event, LinkDown):
                self._lost(event)
            elif isinstance(event, DialFailed):
                self._unreachable(event)
                self._handle(events.DialFailed(event.address))
                if event.address.peer is not None:
                    self._not_linked(event.address.peer, event.error.message)

    def _unreachable(self, event: DialFailed) -> None:
        """Worth a line once for each address and reason; a problem only where the user named the address."""
        told = str(event.address), event.error.message
        if told not in self._told:
            self._told.add(told)
            self._happened("unreachable", event.address.peer, event.error.message)
        problem, error = Problem(event.error.message, event.error.hint), event.error
        if isinstance(error, Refused) and error.why == "early":
            self._complain(_clock_of(event.address.peer), problem)
        elif isinstance(error, Refused) and error.by_peer and error.why in OWN_FAULTS:
            self._complain(error.why, problem)
        elif event.address in self._wanted:
            self._complain(str(event.address), problem)

    def _reached(self, peer: PeerId) -> None:
        """Whatever was wrong with its addresses is over."""
        for address in [address for address in self._wanted if address.peer in (peer, None)]:
            self.problems.pop(str(address), None)
        for fault in OWN_FAULTS:
            self.problems.pop(fault, None)
        self._told = {told for told in self._told if format_peer(peer) not in told[0]}

    def revoke(self, statement: Sealed) -> None:
        """The owner of the mesh takes back a member or an invite."""
        self._handle(events.Revoke(statement))

    def certify(self, peer: PeerId, membership: Sealed | None) -> None:
        """The owner of the mesh renews a member's membership; None takes that off the table again."""
        key = format_peer(peer)
        if membership is None:
            self._handle(events.Withdraw(Kind.CERT, key))
        else:
            self._handle(events.Publish(Kind.CERT, key, Renewal(membership)))

    def certified(self, certificate: Certificate) -> None:
        """This node's own membership was renewed."""
        self._handle(events.Certified(certificate))

    @property
    def trust(self) -> Trust:
        return self._trust

    @property
    def passports(self) -> dict[PeerId, Passport]:
        """Of everyone who was linked since the start."""
        return self._passports

    def _key_revoked(self, key: bytes) -> None:
        """Whoever has this key, or came with this invite, is out: link, rows and future."""
        self._trust.revoke(key)
        self._on_revoked(self._core.revocations.statements)
        self._happened("revoked", PeerId(key))
        if key == self.peer:
            self._complain("revoked", Problem("This node was revoked.", REVOKED_HINT))
            return
        gone = {peer for peer, passport in self._passports.items() if key in (peer, passport.invite)}
        for peer in gone | ({PeerId(key)} if len(key) == KEY_BYTES else set()):
            self.transport.hang_up(peer, "it was revoked")
            self._handle(events.Banned(peer))

    def _greet(self, peer: PeerId, *, known: bool) -> None:
        """A link is told once it is known to whom."""
        if known and peer in self._nameless:
            self._nameless.discard(peer)
            self._happened("joined", peer)

    def _lost(self, event: LinkDown) -> None:
        self._parcels.drop(event.peer)
        self._greet(event.peer, known=True)
        self._happened("lost", event.peer, event.reason)
        self.serving.peer_lost(event.peer)
        self._handle(events.LinkDown(event.peer, event.reason))
        self.asking.peer_lost(event.peer, event.reason)
        self.exchange.lost(event.peer)

    def _handle(self, event: events.Event) -> None:
        now = moment(self._clock)
        if now.mono_s >= self._rtt_due_s:
            self._rtt_due_s = now.mono_s + RTT_INTERVAL_S
            self._learn_latencies(now.mono_s)
        for effect in self._core.handle(event, now):
            self._perform(effect)
        if self._core.fabric.everyone != self._small:
            self._resized()
        self._sleep_until(self._core.next_wakeup())

    def _learn_latencies(self, now_s: float) -> None:
        """The transport's pings, into the field."""
        for peer in self.transport.linked():
            rtt_s = self.transport.rtt_s(peer)
            if rtt_s is not None:
                self.field.observe_rtt(peer, rtt_s, now_s)

    def _sleep_until(self, wakeup_s: float | None) -> None:
        if self._wake is not None:
            if wakeup_s == self._wakeup_s and not self._closed:
                return
            self._wake.cancel()
            self._wake = None
        self._wakeup_s = wakeup_s
        if wakeup_s is not None and not self._closed:
            wait_s = max(0.0, wakeup_s - self._clock.now())
            self._wake = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._wake = None
        self._handle(events.Tick())

    def _perform(self, effect: events.Effect) -> None:
        if isinstance(effect, events.Deliver):
            self._on_message(effect.peer, effect.message)
        elif isinstance(effect, events.RowsChanged):
            for change in effect.changes:
                self._apply(change)
        elif isinstance(effect, events.Broadcast):
            self.transport.publish(effect.frame)
        elif isinstance(effect, events.Send):
            self._send_frame(effect.peer, effect.frame)
        elif isinstance(effect, events.Dial):
            with suppress(TransportError):  # it has ended, which was told; the node can still be stopped
                self.transport.dial(effect.address)
        elif isinstance(effect, events.NotDialled):  # in a moment, when what needs the link has been parked
            asyncio.get_running_loop().call_soon(self._not_linked, effect.peer, effect.why)
        elif isinstance(effect, events.HangUp):
            self.transport.hang_up(effect.peer, effect.reason)
        elif isinstance(effect, events.PeerLost):
            self.table.mark_lost(effect.peer)
        elif isinstance(effect, events.Misbehaved):
            self._happened("misbehaved", effect.peer, effect.reason)
            self.transport.hang_up(effect.peer, effect.reason)
        elif isinstance(effect, events.KeyRevoked):
            self._key_revoked(effect.key)
        elif isinstance(effect, events.OwnRowSeen):
            self._on_generation(effect.generation)
            if effect.times > 1:
                copied = Problem("Another node uses this node's key.", "Give the copy a new one: atmo node rotate")
                self._complain("copied", copied)
        elif isinstance(effect, events.ClockOff):
            off = f"{abs(effect.off_s):.0f} s {'ahead' if effect.off_s > 0 else 'behind'}"
            whose = f"The clock of {self._known_as(effect.origin)} is {off} of this machine's."
            remedy = "Set the wrong one right: until then its rows are not used."
            self._complain(_clock_of(effect.origin), Problem(whose, remedy))
        elif isinstance(effect, events.HealthChanged):
            self._happened(effect.health.value, effect.peer)
            self._judged(effect.peer, effect.health)
        elif isinstance(effect, events.Equivocated):
            self._happened("equivocated", effect.origin)

    def _known_as(self, peer: PeerId) -> str:
        name = self.name_of(peer)
        return f"{name} ({short(peer)})" if name else short(peer)

    def name_of(self, peer: PeerId) -> str:
        """As people know it; empty for one that has not said, or is long gone."""
        info = self.table.peers.info.get(self.table.find_peer(peer)) or dict(self._core.vigil.epitaphs()).get(peer)
        return info.name if info is not None else ""

    def _send_frame(self, peer: PeerId, frame: bytes) -> None:
        try:
            self.transport.send(peer, frame)
        except TransportError as error:
            log.debug("not sent", peer=short(peer), why=error.message)

    # From rows into the routing table

    def _apply(self, change: Change) -> None:
        origin, kind, key = change.id
        body = change.row.body if change.row is not None else None
        if kind is Kind.NODE:
            if body is None:
                if origin not in self._dead:
                    self._happened("left", origin)
                self.table.drop_node(origin)
                self._dead.discard(origin)
            elif isinstance(body, NodeInfo):
                known = bool(self.name_of(origin))
                self.table.put_node(origin, body)
                self.problems.pop(_clock_of(origin), None)
                self._greet(origin, known=True)
                if not known and not self._core.fabric.everyone and origin not in self.transport.linked():
                    self._happened("appeared", origin)
                self._mark(origin)
        elif kind is Kind.CAPABILITY:
            if body is None:
                self.table.drop_capability(origin, key)
            elif isinstance(body, Capability):
                if origin == self.peer or self.vet(origin, body):
                    self.table.put_capability(origin, body)
                else:
                    self.table.drop_capability(origin, key)
        elif isinstance(body, Renewal):
            if key == format_peer(self.peer):
                self._on_renewal(body.membership)
        elif isinstance(body, Gradient):
            self.table.put_gradient(origin, body, self._clock.now())

    def refuse(self, origin: PeerId, capability: Capability, why: str) -> None:
        """Do not use what the peer offers, because its vectors do not fit its text."""
        offered = capability.descriptor.id
        row = self.table.find(origin, offered)
        if row >= 0 and self.table.classes.capability[int(self.table.rows.klass[row])] == capability:
            self.table.drop_capability(origin, offered)
        who = self._known_as(origin)
        self.note("refused", f"{offered} of {who}: {why}")
        self._complain(
            f"vectors {offered} {short(origin)}",
            Problem(
                f"{who} offers {offered} with vectors that do not fit its text: {why}. It is not used.",
                "Both nodes should run the same version of Atmosphere.",
                serious=False,
            ),
        )

    def _mark(self, origin: PeerId) -> None:
        """Where all link to all, a node without a link cannot be asked; in a larger mesh one is made when needed."""
        if origin == self.peer:
            return
        askable = not self._small and origin not in self._core.vigil.detector.suspects()
        if askable or origin in self.transport.linked():
            self.table.mark_back(origin)
        else:
            self.table.mark_lost(origin)

    def _resized(self) -> None:
        """The mesh became too large for all to link to all, or small enough: that decides who can be asked."""
        self._small = self._core.fabric.everyone
        for origin in [self.table.peers.id[index] for index in self.table.peers.info]:
            self._mark(origin)

    def _judged(self, peer: PeerId, health: events.Health) -> None:
        """A suspect is asked nothing until it contradicts; nobody is suspected here who is linked."""
        if health is events.Health.DEAD:
            self._dead.add(peer)
        elif health is events.Health.SUSPECT:
            self.table.mark_lost(peer)
        else:
            self._mark(peer)

    def _tell_load(self) -> None:
        self._load_timer = None
        self._load_told_s = self._clock.now()
        self._handle(events.Publish(Kind.GRADIENT, "", self._loads()))

    def _loads(self) -> Gradient:
        return Gradient(tuple(service.load() for service in self.serving.services.values()))

    # Requests

    def _transmit(self, peer: PeerId, message: AnyMessage) -> None:
        """To a peer over its link, to this node itself by the loop. Of a peer that is gone, LinkDown tells the rest."""
        if peer == self.peer:
            asyncio.get_running_loop().call_soon(self._on_message, peer, message)
            return
        if isinstance(message, Ask) and peer not in self.transport.linked():
            self._park(peer, message)
            return
        if isinstance(message, Cancel) and (carrying := self._carrying.get((message.id, message.attempt))):
            carrying.cancel()
        try:
            frame = encode(message)
            if isinstance(message, Ask):
                self._sent(message, peer, len(frame))
            self.transport.send(peer, frame)
        except FrameTooLarge:
            assert isinstance(message, Ask), "every other message is bounded by its fields"
            self._carry(peer, message)
        except TransportError as error:
            if isinstance(message, Ask):
                asyncio.get_running_loop().call_soon(self.asking.not_sent, message.id, peer, error.message)

    def _sent(self, ask: Ask, peer: PeerId, size_bytes: int) -> None:
        """Keep count of what leaves this node, for receipts."""
        sent = self.sent_bytes.setdefault(ask.id, {})
        sent[peer] = sent.get(peer, 0) + size_bytes
        while len(self.sent_bytes) > SENT_KEPT:
            self.sent_bytes.popitem(last=False)

    def _inside(self, ask: Ask) -> bool:
        """May the data of this request be here, and where the capability has it run?"""
        if not ask.homes:
            return True
        allowed = {("residency", home) for home in ask.homes}
        row = self.table.find(self.peer, ask.capability)
        labels = self.table.classes.labels[int(self.table.rows.klass[row])] if row >= 0 else frozenset()
        info = self.table.peers.info.get(self.table.find_peer(self.peer))
        here = bool(info is not None and allowed & set(info.labels))
        return here and (ELSEWHERE not in labels or bool(allowed & labels))

    def _carry(self, peer: PeerId, ask: Ask) -> None:
        """Send a request that is larger than a frame."""
        task = asyncio.create_task(self._send_parcels(peer, ask), name=f"carry {ask.id.hex()[:8]}")
        self._carrying[ask.id, ask.attempt] = task
        task.add_done_callback(lambda _: self._carrying.pop((ask.id, ask.attempt), None))

    async def _send_parcels(self, peer: PeerId, ask: Ask) -> None:
        try:
            for parcel in cut(ask):
                self._sent(ask, peer, len(parcel.data))
                await self.transport.send_bulk(peer, encode(parcel))
        except FrameTooLarge as error:
            self.asking.receive(
                peer, Failed(ask.id, ask.attempt, UsageError.code, error.message, error.hint, 0.0, None)
            )
        except TransportError as error:
            self.asking.not_sent(ask.id, peer, error.message)

    def _on_bulk(self, peer: PeerId, frame: bytes | memoryview) -> None:
        """Pieces of requests are dealt with at once, so their sender may send as much again; what belongs to a model is
        given back by whoever has put it on disk."""
        try:
            message = decode_large(frame)
            if isinstance(message, Chunk | ManifestPart):
                self.exchange.bulk(peer, message, len(frame), plain=False)
                return
            self.transport.release_bulk(peer, len(frame))
            ask = self._parcels.receive(peer, message, self._clock.now()) if isinstance(message, Parcel) else None
        except RemoteProtocolError as error:
            self._perform(events.Misbehaved(peer, error.message))
            return
        if ask is not None:
            self.serving.ask(peer, ask)

    def _on_plain(self, peer: PeerId, frame: bytes | memoryview) -> None:
        """Chunks and nothing else: they can be checked. Nobody vouches for what comes here, so nobody is blamed."""
        try:
            message = decode_large(frame)
        except RemoteProtocolError:
            message = None
        if isinstance(message, Chunk):
            self.exchange.bulk(peer, message, len(frame), plain=True)
        else:
            self.distrust_plain(peer, "something that is no chunk")

    def distrust_plain(self, peer: PeerId, what: str) -> None:
        """Something wrong came unencrypted in a peer's name. The link begins anew, and does without."""
        self.transport.avoid_plain(peer)
        self.transport.hang_up(peer, f"its plain lane carried {what}; from now on everything is encrypted")

    def say(self, peer: PeerId, message: AnyMessage) -> None:
        """Send a message of somebody else's, such as a transfer's. Of a peer that is gone, `lost` tells."""
        self._transmit(peer, message)

    def want(self, peer: PeerId, needed: bool) -> None:
        """A request or a transfer needs a link to the peer, or does not any more."""
        if peer != self.peer and not self._closed:
            self._handle(events.Want(peer, needed=needed))

    def root_of(self, peer: PeerId, capability_id: str) -> str:
        row = self.table.find(peer, capability_id)
        if row < 0:
            return ""
        return self.table.classes.capability[int(self.table.rows.klass[row])].descriptor.root

    def _chance(self) -> float:
        return float(self._rng.random())

    def _park(self, peer: PeerId, ask: Ask) -> None:
        """Until the link is there that `want` asked for, or too late."""
        self._parked.setdefault(peer, []).append(ask)
        late = "no link to it came about in time"
        asyncio.get_running_loop().call_later(LINK_WAIT_S, self._give_up_link, peer, ask, late)

    def _give_up_link(self, peer: PeerId, ask: Ask, why: str) -> None:
        if ask in self._parked.get(peer, []):
            self._not_linked(peer, why)

    def _not_linked(self, peer: PeerId, why: str) -> None:
        parked = self._parked.pop(peer, [])
        if parked:
            self.table.mark_lost(peer)
        for ask in parked:
            self.asking.not_sent(ask.id, peer, why)

    def _on_message(self, peer: PeerId, message: AnyMessage) -> None:
        if isinstance(message, Part | Vectors | Scores | Done | Failed):
            self.asking.receive(peer, message)
        elif isinstance(message, Ask):
            self.serving.ask(peer, message)
        elif isinstance(message, Grant):
            self.serving.grant(peer, message)
        elif isinstance(message, Cancel):
            self._parcels.cancel(peer, message.id, message.attempt)
            self.serving.cancel(peer, message)
        elif isinstance(message, SwarmMessage | Bring | Brought):
            self.exchange.receive(peer, message)
        elif isinstance(message, Probe):
            service = self.serving.services.get(message.capability)
            if service is not None:
                self._transmit(peer, Told(service.load()))
        elif isinstance(message, Told):
            self.field.on_feedback(peer, message.load, self._clock.now())
            self.probing.told(peer, message.load.capability)

    def _learn(self, seen: calls.Observe) -> None:
        now_s = self._clock.now()
        if seen.what == "started":
            self.field.observe_start(seen.peer, seen.capability, now_s)
        elif seen.what == "first_part":
            self.field.observe_first_token(seen.peer, seen.capability, seen.elapsed_s, now_s, seen.prompt_tokens)
        elif seen.what == "finished":
            passed = self.field.observe_finish(
                seen.peer, seen.capability, seen.elapsed_s, seen.prompt_tokens, seen.output_tokens, now_s
            )
            if passed:
                self._happened("readmitted", seen.peer, f"{seen.capability} answers again")
        elif seen.what == "failed":
            out_s = self.field.observe_failure(seen.peer, seen.capability, now_s)
            if out_s:
                self._happened("ejected", seen.peer, f"{seen.capability} failed too often: not asked for {out_s:.0f} s")
        else:
            self.field.observe_cancel(seen.peer, seen.capability)
        if seen.load is not None:
            self.field.on_feedback(seen.peer, seen.load, now_s)

    def _complain(self, about: str, problem: Problem) -> None:
        if self.problems.get(about) != problem:
            log.warning(str(problem))
        self.problems[about] = problem

    def complain(self, about: str, problem: Problem | None) -> None:
        """Keep a problem that somebody else found; None: it is over."""
        if problem is None:
            self.problems.pop(about, None)
        else:
            self._complain(about, problem)

    def _happened(self, what: str, peer: PeerId | None, detail: str = "") -> None:
        name = self.name_of(peer) if peer is not None else ""
        self._on_event(what, peer, name, detail)
        who = self._known_as(peer) if peer is not None else ""
        self.note(what, ": ".join(part for part in (who, detail) if part))

    def note(self, what: str, about: str) -> None:
        """A line for the log."""
        log.info(what, about=about)


def _clock_of(peer: PeerId | None) -> str:
    """What the problem of a peer whose clock is off is kept under."""
    return f"clock {short(peer)}" if peer is not None else "clock"

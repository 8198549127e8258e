"""`Node`: start it, ask it, stop it.

node = Node(Config...)
await node.start()          # sockets bound, engines loading, discovery running
await node.settled()        # every engine is ready or has failed
async for event in node.ask(...): ...
await node.stop()
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from atmo.clock import Clock, SystemClock
from atmo.config import Config
from atmo.errors import AtmoError, ConfigError, UsageError
from atmo.generation import Finish, Piece, Sampling, Task, Turn
from atmo.ids import PeerId, format_peer, parse_multiaddr, parse_peer
from atmo.inference.gpus import look
from atmo.keys import Identity, issue_revocation
from atmo.mesh.asking import Job, Routed
from atmo.mesh.capability import CHAT, Capability, Descriptor
from atmo.mesh.decision import Decision
from atmo.mesh.messages import Ask
from atmo.mesh.node import MeshNode
from atmo.mesh.query import Query
from atmo.mesh.service import Labels
from atmo.models.store import Store
from atmo.node import reports
from atmo.node.discovery import Discovery
from atmo.node.events import Journal
from atmo.node.home import Home, open_home, remember_generation
from atmo.node.kept import Kept
from atmo.node.known_peers import KnownPeers
from atmo.node.logs import set_up_logs
from atmo.node.machine import describe
from atmo.node.meaning import CHARS_PER_TOKEN, Meaning
from atmo.node.membership import MeshHome
from atmo.node.migration import Migration
from atmo.node.offers import Offer, offers
from atmo.node.prefetch import Prefetch
from atmo.node.private import Private
from atmo.node.renewal import LOOK_S, Renewals
from atmo.node.runtimes import Runtimes
from atmo.node.services import EngineService
from atmo.node.transfers import Transfers
from atmo.node.vetting import Vetting
from atmo.problems import Problem
from atmo.transport.door import lane_ports
from atmo.transport.link import LinkTiming
from atmo.transport.lone import LoneTransport
from atmo.transport.zeromq import ZmqTransport
from atmo.trust import Trust

if TYPE_CHECKING:
    from atmo.gateway.gateway import Gateway
    from atmo.gateway.handle import AskRequest, RouteRequest, Wish

log = structlog.get_logger("atmo.node")

DEFAULT_PORT = 4600
# Guests that are met within it are written down together. A guess: a mesh of a thousand is learned in less.
SAVE_WITHIN_S = 1.0
Json = dict[str, Any]


class Node:
    """A whole node. Raises ConfigError, ModelNotFound, ModelInvalid or PortInUse from `start`; the rest is in
    `status`."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.services: dict[str, EngineService] = {}
        self.journal = Journal(self.clock)
        self._store = Store(config.model_store, int(config.models.quota_gb * 1e9))
        self._home: Home | None = None
        self._mesh: MeshNode | None = None
        self._meaning = Meaning()
        self._vetting = Vetting(self._meaning.capability, lambda *refused: self.mesh.refuse(*refused))
        self._discovery: Discovery | None = None
        self._known: KnownPeers | None = None
        self._renewals: Renewals | None = None
        self._looking: asyncio.Task[None] | None = None
        self._gateway: Gateway | None = None
        self._transfers: Transfers | None = None
        self._private: Private | None = None
        self._kept: Kept | None = None
        self._prefetch: Prefetch | None = None
        self._runtimes = Runtimes(config, self, self.clock, lambda: set(self.services))
        self._saving: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_wanted = asyncio.Event()
        self._started_s = self.clock.now()

    @property
    def mesh(self) -> MeshNode:
        if self._mesh is None:
            raise AtmoError("The node has not started.", hint="Await start() first.")
        return self._mesh

    async def start(self) -> None:
        set_up_logs(self.config.log)
        wanted = offers(self.config)
        seeds = [parse_multiaddr(text) for text in self.config.discovery.seeds]
        self._home = open_home(self.config, self.clock)
        self._loop = asyncio.get_running_loop()
        for offer in wanted:  # engines load while the rest starts
            self.services[offer.descriptor.id] = EngineService(
                offer,
                self.config.inference,
                self.clock,
                self._on_engine,
                self._home.folder / "roots.json",
                self._store,
            )
        for service in self.services.values():
            await service.start()
        await self._serve_kept(self._home, wanted)
        await self._start_mesh(self._home)
        await self._meaning.load()
        self.mesh.table.classes.reader = self._meaning.tokens
        self._vetting.start()
        self._offer_ready_services()
        await self.transfers.start()
        self._prefetch = Prefetch(self.config.models, self.transfers, self.clock)
        self._prefetch.start()
        self._private = Private(self, Migration(self))
        await self._start_gateway()
        await self._start_discovery()
        await self._runtimes.start()
        for seed in [] if self._alone else [*seeds, *self._home.mesh_home.seeds]:
            self.mesh.discovered(seed, wanted=True)
        if self._known is not None and not self._alone:
            self._known.start(self.mesh.discovered, self.mesh.transport.linked)
        log.info("started", node=self.config.node.name, address=str(self.mesh.transport.address))

    async def _serve_kept(self, home: Home, others: list[Offer]) -> None:
        """What came for the sake of requests in former lives."""
        self._kept = Kept(home.folder, self.config, self._store)
        for offer in await asyncio.get_running_loop().run_in_executor(None, self._kept.offers, others):
            try:
                await self.adopt(offer)
            except AtmoError as error:
                self.services.pop(offer.descriptor.id, None)
                log.warning("a kept model is not served", model=offer.spec.name, why=error.message)

    async def settled(self) -> None:
        """Return when every engine is ready or has failed, and the peers found at the start are linked or not there."""
        for service in self.services.values():
            await service.settled()
        if self._discovery is not None:
            await self._discovery.settled(self.mesh.transport.linked)
        await self._runtimes.settled()

    async def stop(self) -> None:
        """Leave the mesh, stop the engines, free everything. May be called twice."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._discovery is not None:
            await self._discovery.close()
        if self._mesh is not None:
            await self._mesh.drain(self.config.inference.drain_s)
        self.journal.close()
        if self._gateway is not None:
            await self._gateway.stop()
        await self._runtimes.close()
        if self._known is not None:
            await self._known.close()
        if self._prefetch is not None:
            await self._prefetch.close()
        if self._private is not None:
            await self._private.close()
        if self._transfers is not None:
            await self._transfers.close()
        if self._mesh is not None:
            await self._mesh.stop()
            await asyncio.sleep(0)  # what the IO thread had to say last
            self._save_guests()
        await asyncio.gather(*(service.close() for service in self.services.values()))
        await self._vetting.close()
        self._meaning.close()
        if self._home is not None:
            self._home.close()
            self._home = None

    def want_stop(self) -> None:
        self._stop_wanted.set()

    async def stop_wanted(self) -> None:
        await self._stop_wanted.wait()

    # What the gateway and scripts use

    def status(self) -> Json:
        return reports.status(self)

    def mesh_view(self) -> Json:
        return reports.mesh(self)

    def events(self, since: int, *, follow: bool) -> AsyncIterator[Json]:
        """What happened after event number `since`, as far as it is kept, and what happens if `follow`."""
        return self.journal.follow(since) if follow else _one_by_one(self.journal.since(since))

    def models_view(self) -> Json:
        return reports.models(self)

    def members_view(self) -> Json:
        return reports.members(self)

    def counters(self) -> Json:
        return reports.counters(self)

    @property
    def transfers(self) -> Transfers:
        assert self._transfers is not None
        return self._transfers

    def transfers_view(self) -> Json:
        return {"transfers": self.transfers.view()}

    def fetch(self, wanted: str) -> Json:
        """Begin to fetch a model from peers. Raises ModelNotFound, UsageError."""
        return self.transfers.show(self.transfers.fetch(*self.transfers.find(wanted)))

    def stop_fetch(self, root: str) -> Json:
        """Raises UsageError for what is no root."""
        try:
            return {"stopped": self.transfers.stop(bytes.fromhex(root))}
        except ValueError:
            raise UsageError(f"{root[:70]!r} is not a model's root.", hint="See: atmo models list") from None

    @property
    def gateway(self) -> Gateway | None:
        """None in headless mode, and before the start."""
        return self._gateway

    def revoke(self, whom: str) -> Json:
        """Take back a member or an invite. Raises UsageError for one that is not known, ConfigError for a guest."""
        assert self._home is not None
        root = self._home.mesh_home.root
        if root is None:
            raise ConfigError("Only the owner of a mesh can revoke.", hint="Ask whoever invited you.")
        known = reports.members(self)
        for kind, entries in (("member", known["members"]), ("invite", known["invites"])):
            for entry in entries:
                if whom in (entry["id"], entry["id"][-8:], entry.get("name")):
                    self.mesh.revoke(issue_revocation(root, parse_peer(entry["id"]), self.clock.wall()))
                    return {"revoked": entry["id"], "kind": kind}
        raise UsageError(f"Nobody called {whom!r} is known here.", hint="See: atmo mesh members")

    @property
    def mesh_home(self) -> MeshHome:
        assert self._home is not None
        return self._home.mesh_home

    def explained(self, request_id: str) -> Json:
        try:
            decision = self.mesh.asking.decisions[bytes.fromhex(request_id)]
        except (ValueError, KeyError):
            raise UsageError(
                f"There is no decision for request {request_id[:64]!r}.",
                hint="The last 1000 requests of a running node are kept.",
            ) from None
        return reports.decision(self, decision, request_id)

    def route(self, request: RouteRequest) -> Json:
        query = self._query(request, request.text)
        return reports.decision(self, self.mesh.route(query), "", query)

    async def ask(self, request: AskRequest) -> AsyncGenerator[Json, None]:
        """Events as docs/api.md lists them."""
        task = _task(request)
        if any(turn.images for turn in task.turns):
            seeing = {"modality": "image", **request.constraints}
            request = request.model_copy(update={"constraints": seeing})

        def perform(query: Query) -> AsyncGenerator[Json, None]:
            return self._answer(Job(task, query, request.timeout_s), reports.decision)

        def query_of(wish: Wish) -> Query:
            asked = request.model_copy(update={"constraints": wish.constraints})
            return self._query_of_intent(asked) if asked.intent else self._query_of(asked, task)

        async with aclosing(self.private.ask(request, query_of, perform)) as events:
            async for event in events:
                yield event

    @property
    def prefetch(self) -> Prefetch:
        assert self._prefetch is not None
        return self._prefetch

    @property
    def private(self) -> Private:
        assert self._private is not None
        return self._private

    @property
    def kept(self) -> Kept:
        assert self._kept is not None
        return self._kept

    @property
    def identity(self) -> Identity:
        assert self._home is not None
        return self._home.identity

    def capability_of(self, descriptor: Descriptor) -> Capability:
        """With its vectors. May be called in a thread."""
        return self._meaning.capability(descriptor)

    def answer(self, wish: Wish, task: Task, timeout_s: float) -> AsyncGenerator[Json, None]:
        """Have a task done by whoever fits the wish best: events as docs/api.md lists them; of the decision only what
        was chosen, `explained` has the rest. Raises ModelCouldCome where a plan is not agreed to."""
        return self.private.ask(
            wish,
            lambda bounded: self._query_of(bounded, task),
            lambda query: self._answer(Job(task, query, timeout_s), reports.brief),
            refuse=True,
        )

    async def _answer(self, job: Job, tell: Callable[[Node, Decision, str], Json]) -> AsyncGenerator[Json, None]:
        began_s = self.clock.now()
        first_s = 0.0
        routed: Routed | None = None
        async with aclosing(self.journal.following(self.mesh.ask(job))) as replies:
            async for reply in replies:
                if isinstance(reply, Routed):
                    if reply.because:
                        yield reports.retry(reply)
                    routed = reply
                    self._wanted_elsewhere(reply)
                    yield {"event": "route", **tell(self, reply.decision, reply.request_id.hex())}
                    continue
                first_s = first_s or self.clock.now() - began_s
                if isinstance(reply, Piece):
                    yield reports.piece(reply)
                elif isinstance(reply, Labels):
                    yield {"event": "labels", "labels": reply.labels}
                elif isinstance(reply, Finish):
                    assert routed is not None
                    yield reports.done(self, routed, reply, first_s, self.clock.now() - began_s)
                else:
                    yield {"event": "vector", "vector": reports.vector(reply.vector)}

    def _query_of(self, wish: RouteRequest, task: Task) -> Query:
        talk = task.turns if wish.type in ("", CHAT) else ()
        return self._query(wish, wish.text, talk)

    def _query_of_intent(self, request: AskRequest) -> Query:
        """The intent decides where it goes, whatever it is to be done with; both have to fit into the context."""
        if not request.text.strip():
            raise UsageError("There is nothing to do it with.", hint="Put it into text, or the intent itself.")
        query = self._query(request, request.intent)
        return replace(query, prompt_tokens=query.prompt_tokens + len(request.text) // CHARS_PER_TOKEN)

    def _wanted_elsewhere(self, routed: Routed) -> None:
        """Another node's model answers: if that is so often, this node may fetch it for itself."""
        chosen = routed.decision.chosen
        if self._prefetch is not None and chosen.peer != self.mesh.peer:
            self._prefetch.asked(self.mesh.root_of(chosen.peer, chosen.capability))

    def _query(self, request: RouteRequest, text: str, turns: tuple[Turn, ...] = ()) -> Query:
        return self._meaning.query(text, request.model, request.type, request.constraints, self.mesh.peer, turns=turns)

    # Putting it together

    async def _start_mesh(self, home: Home) -> None:
        self._known = KnownPeers(home.folder, home.mesh, self.clock.wall)
        trust = Trust(home.mesh, guests=home.mesh_home.guests(), on_guest=self._on_guest)
        transport = LoneTransport(home.identity.public) if self._alone else self._zmq(home, trust)
        self._mesh = MeshNode(
            identity=home.identity,
            mesh=home.mesh,
            certificate=home.credential.certificate,
            generation=home.generation,
            transport=transport,
            clock=self.clock,
            rng=random.Random(int.from_bytes(os.urandom(8), "big")),  # noqa: S311 - spreads load, guards nothing
            on_generation=lambda generation: remember_generation(home.folder, generation),
            trust=trust,
            revoked=home.mesh_home.revoked(),
            asks_others=self.config.node.mode in ("participant", "headless"),
            on_revoked=home.mesh_home.remember_revoked,
            on_renewal=lambda membership: self.renewals.heard(membership),
            on_linked=self._known.linked,
            on_event=self.journal.about,
            on_served=self._served,
        )
        adopt = transport.renew if isinstance(transport, ZmqTransport) else lambda credential: None
        self._renewals = Renewals(home, self._mesh, self.clock, adopt)
        self._mesh.vet = self._vetting.admits
        self._transfers = Transfers(self.config, self._mesh, self._store, self.clock, self.journal)
        await self._mesh.start()
        gpus = await asyncio.get_running_loop().run_in_executor(None, look, self.config.inference.engine)
        self._mesh.introduce(describe(self.config, transport.address, gpus))
        self._looking = asyncio.create_task(self._look_at_dates())

    def _on_guest(self) -> None:
        """Somebody came by an invite: write that down soon, once for all who come together. On either thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._plan_saving)

    def _plan_saving(self) -> None:
        if self._saving is None and self._home is not None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_WITHIN_S, self._save_guests)

    def _save_guests(self) -> None:
        if self._saving is None:
            return
        self._saving.cancel()
        self._saving = None
        try:
            self.mesh_home.remember_guests(self.mesh.trust.guests)
        except (AtmoError, OSError) as error:
            self.mesh.complain("guests", Problem(f"Who came by which invite cannot be written down: {error}"))

    async def _look_at_dates(self) -> None:
        while True:
            try:
                self.renewals.look()
            except (AtmoError, OSError) as error:
                self.mesh.complain("renewal", Problem(f"Certificates cannot be renewed: {error}"))
            await asyncio.sleep(LOOK_S)

    @property
    def renewals(self) -> Renewals:
        assert self._renewals is not None
        return self._renewals

    @property
    def _alone(self) -> bool:
        return self.config.node.mode == "standalone"

    def _zmq(self, home: Home, trust: Trust) -> ZmqTransport:
        section = self.config.transport
        return ZmqTransport(
            curve=home.curve,
            credential=home.credential,
            mesh=home.mesh,
            peer=home.identity.public,
            host=section.host,
            port=section.port,
            default_port=DEFAULT_PORT,
            advertise=section.advertise,
            clock=self.clock,
            lane_ports=lane_ports(section.lane_port),
            timing=LinkTiming.with_heartbeat(section.heartbeat_s),
            trust=trust,
            plain_lane=self.config.models.plain_lane,
        )

    async def _start_gateway(self) -> None:
        if self.config.node.mode == "headless":
            return
        from atmo.gateway.gateway import Gateway

        gateway = Gateway(self, self.config, self._socket_path(), self.clock)
        await gateway.start()
        self._gateway = gateway

    async def _start_discovery(self) -> None:
        self._discovery = Discovery(
            self.config,
            self.mesh.peer,
            self.mesh.transport.address,
            self.mesh.mesh,
            str(self._socket_path()) if self._gateway is not None else "",
            self.mesh.discovered,
        )
        await self._discovery.start()

    def _socket_path(self) -> Path:
        return self.config.runtime / f"{format_peer(self.mesh.peer)[-12:]}.sock"

    def _served(self, peer: PeerId, ask: Ask, end: Finish | AtmoError | None) -> None:
        """Own requests are told of by whoever asks them."""
        if peer != self.mesh.peer:
            self.journal.served(peer, self.mesh.name_of(peer), ask, end)

    def problems(self) -> list[Problem]:
        """What is wrong around this node."""
        found = self._discovery.problems(len(self.mesh.transport.linked())) if self._discovery else []
        return [*found, *self._runtimes.problems(), *self.mesh.problems.values()]

    def alone(self) -> str:
        """Why this node has no peer, empty if it has one."""
        return "" if self._discovery is None or self.mesh.transport.linked() else self._discovery.alone()

    @property
    def uptime_s(self) -> float:
        return self.clock.now() - self._started_s

    # Engines come and go

    async def adopt(self, offer: Offer) -> None:
        """Serve what was found while the node runs, and tell the mesh."""
        service = EngineService(offer, self.config.inference, self.clock, self._on_engine, store=self._store)
        self.services[offer.descriptor.id] = service
        await service.start()

    async def dismiss(self, capability_id: str) -> None:
        """Withdraw what is gone."""
        if capability_id in self.mesh.serving.services:
            self.mesh.withdraw(capability_id)
        service = self.services.pop(capability_id, None)
        if service is not None:
            await service.close()

    def runtimes_view(self) -> list[Json]:
        return self._runtimes.report()

    def _on_engine(self, offer: Offer) -> None:
        """A service became ready or not ready. One that was dismissed may still end its last answers."""
        if self._mesh is not None and self._meaning.ready and offer.descriptor.id in self.services:
            self._offer_service(offer)
            self._mesh.load_changed()

    def _offer_ready_services(self) -> None:
        for service in self.services.values():
            self._offer_service(service.offer)

    def _offer_service(self, offer: Offer) -> None:
        """What is ready is offered; what has failed for good is withdrawn; what restarts stays, marked as not ready."""
        service = self.services[offer.descriptor.id]
        offered = offer.descriptor.id in self.mesh.serving.services
        if service.state == "ready" and not offered:
            self.mesh.offer(self._meaning.capability(service.descriptor), service)
        elif service.state == "failed" and offered:
            self.mesh.withdraw(offer.descriptor.id)


def _task(request: AskRequest) -> Task:
    turns = [Turn(turn.role, turn.content, _images(turn.images)) for turn in request.history]
    instructions = "\n\n".join(filter(None, (request.system, request.intent)))  # many templates take one system turn
    if instructions:
        turns.insert(0, Turn("system", instructions))
    turns.append(Turn("user", request.text, _images(request.images)))
    sampling = Sampling(request.max_tokens, request.temperature, request.top_p, request.seed, tuple(request.stop))
    return Task(tuple(turns), sampling)


def _images(urls: list[str]) -> tuple[bytes, ...]:
    from atmo.gateway.openai.images import image_from_url

    return tuple(image_from_url(url, "images") for url in urls)


async def _one_by_one(events: Iterable[Json]) -> AsyncIterator[Json]:
    for event in events:
        yield event

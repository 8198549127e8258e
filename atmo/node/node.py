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
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from atmo.clock import Clock, SystemClock
from atmo.config import Config
from atmo.errors import AtmoError, ConfigError, UsageError
from atmo.generation import Finish, Piece, Sampling, Task, Turn
from atmo.ids import format_peer, parse_multiaddr, parse_peer
from atmo.keys import issue_revocation
from atmo.mesh.asking import Job, Routed
from atmo.mesh.node import MeshNode
from atmo.mesh.query import Query
from atmo.mesh.service import Labels
from atmo.node import reports
from atmo.node.discovery import Discovery
from atmo.node.home import Home, open_home, remember_generation
from atmo.node.logs import set_up_logs
from atmo.node.machine import describe
from atmo.node.meaning import Meaning
from atmo.node.membership import MeshHome
from atmo.node.offers import Offer, offers
from atmo.node.services import EngineService
from atmo.node.vetting import Vetting
from atmo.transport.lone import LoneTransport
from atmo.transport.zeromq import ZmqTransport
from atmo.trust import Trust

if TYPE_CHECKING:
    from atmo.gateway.app import AskRequest, RouteRequest
    from atmo.gateway.server import UnixServer

log = structlog.get_logger("atmo.node")

DEFAULT_PORT = 4600
Json = dict[str, Any]


class Node:
    """A whole node. Raises ConfigError, ModelNotFound, ModelInvalid or PortInUse from `start`; the rest is in
    `status`."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.services: dict[str, EngineService] = {}
        self._home: Home | None = None
        self._mesh: MeshNode | None = None
        self._meaning = Meaning()
        self._vetting = Vetting(self._meaning.capability, lambda *refused: self.mesh.refuse(*refused))
        self._discovery: Discovery | None = None
        self._gateway: UnixServer | None = None
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
        for offer in wanted:  # engines load while the rest starts
            self.services[offer.descriptor.id] = EngineService(
                offer, self.config.inference, self.clock, self._on_engine, self._home.folder / "roots.json"
            )
        for service in self.services.values():
            await service.start()
        await self._start_mesh(self._home)
        await self._meaning.load()
        self._vetting.start()
        self._offer_ready_services()
        await self._start_gateway()
        await self._start_discovery()
        for seed in [] if self._alone else [*seeds, *self._home.mesh_home.seeds]:
            self.mesh.discovered(seed, wanted=True)
        log.info("started", node=self.config.node.name, address=str(self.mesh.transport.address))

    async def settled(self) -> None:
        """Return when every engine is ready or has failed, and the peers found at the start are linked or not there."""
        for service in self.services.values():
            await service.settled()
        if self._discovery is not None:
            await self._discovery.settled(self.mesh.transport.linked)

    async def stop(self) -> None:
        """Leave the mesh, stop the engines, free everything. May be called twice."""
        if self._discovery is not None:
            await self._discovery.close()
        if self._mesh is not None:
            await self._mesh.drain(self.config.inference.drain_s)
        if self._gateway is not None:
            await self._gateway.stop()
        if self._mesh is not None:
            await self._mesh.stop()
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

    def models_view(self) -> Json:
        return reports.models(self)

    def members_view(self) -> Json:
        return reports.members(self)

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
        """Events as `SyncClient.ask` documents them."""
        async with aclosing(self.answer(request, _task(request), request.timeout_s)) as events:
            async for event in events:
                yield event

    async def answer(self, wish: RouteRequest, task: Task, timeout_s: float) -> AsyncGenerator[Json, None]:
        """Have a task done by whoever fits the wish best: events as `SyncClient.ask` documents them."""
        job = Job(task, self._query(wish, wish.text), timeout_s)
        began_s = self.clock.now()
        first_s = 0.0
        routed: Routed | None = None
        async with aclosing(self.mesh.ask(job)) as replies:
            async for reply in replies:
                if isinstance(reply, Routed):
                    if reply.because:
                        yield reports.retry(reply)
                    routed = reply
                    yield {"event": "route", **reports.decision(self, reply.decision, reply.request_id.hex())}
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

    def _query(self, request: RouteRequest, text: str) -> Query:
        return self._meaning.query(text, request.model, request.type, request.constraints, self.mesh.peer)

    # Putting it together

    async def _start_mesh(self, home: Home) -> None:
        trust = Trust(home.mesh)
        transport = LoneTransport(home.identity.public) if self._alone else self._zmq(home, trust)
        self._mesh = MeshNode(
            identity=home.identity,
            mesh=home.mesh,
            generation=home.generation,
            transport=transport,
            clock=self.clock,
            rng=random.Random(int.from_bytes(os.urandom(8), "big")),  # noqa: S311 - spreads load, guards nothing
            on_generation=lambda generation: remember_generation(home.folder, generation),
            trust=trust,
            revoked=home.mesh_home.revoked(),
            asks_others=self.config.node.mode in ("participant", "headless"),
            on_revoked=home.mesh_home.remember_revoked,
        )
        self._mesh.vet = self._vetting.admits
        await self._mesh.start()
        self._mesh.introduce(describe(self.config, transport.address))

    @property
    def _alone(self) -> bool:
        return self.config.node.mode == "standalone"

    def _zmq(self, home: Home, trust: Trust) -> ZmqTransport:
        return ZmqTransport(
            curve=home.curve,
            credential=home.credential,
            mesh=home.mesh,
            peer=home.identity.public,
            host=self.config.transport.host,
            port=self.config.transport.port,
            default_port=DEFAULT_PORT,
            advertise=self.config.transport.advertise,
            clock=self.clock,
            trust=trust,
        )

    async def _start_gateway(self) -> None:
        if self.config.node.mode == "headless":
            return
        from atmo.gateway.app import build_app
        from atmo.gateway.server import UnixServer

        self._gateway = UnixServer(build_app(self), self._socket_path())
        await self._gateway.start()

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

    def problems(self) -> list[str]:
        """What is wrong around this node, one sentence each."""
        found = self._discovery.problems(len(self.mesh.transport.linked())) if self._discovery else []
        return [*found, *self.mesh.problems.values()]

    def alone(self) -> str:
        """Why this node has no peer, empty if it has one."""
        return "" if self._discovery is None or self.mesh.transport.linked() else self._discovery.alone()

    @property
    def uptime_s(self) -> float:
        return self.clock.now() - self._started_s

    # Engines come and go

    def _on_engine(self, offer: Offer) -> None:
        """A service became ready or not ready."""
        if self._mesh is not None and self._meaning.ready:
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
    turns = [Turn(turn.role, turn.content) for turn in request.history]
    if request.system:
        turns.insert(0, Turn("system", request.system))
    turns.append(Turn("user", request.text))
    sampling = Sampling(request.max_tokens, request.temperature, request.top_p, request.seed, tuple(request.stop))
    return Task(tuple(turns), sampling)

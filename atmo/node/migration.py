"""The model comes to the data: what happens when nothing inside a request's boundary can serve it.

Theory of operation. A request says where its data may be (`data_residency`) or that they stay here (`local_only`).
Where routing finds nobody there, a plan is made (plan.py): which model that some peer gives away would do, at which
node inside. The plan is shown; if the asker agrees, that node fetches the model, from several peers at once, checks
each chunk, loads it, offers it, and the request takes its usual way, under its usual conditions. So the boundary is
held by routing and by the node that serves, not by this module; here nothing of the request is sent anywhere.

A place that is another node is asked to fetch for itself (`Bring`), and tells how far it is (`Brought`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import structlog

from atmo.errors import AtmoError, EngineUnavailable, NoRoute, PeerUnreachable, by_code
from atmo.host import THIS
from atmo.ids import PeerId, format_peer, short
from atmo.inference.engine import ModelSpec
from atmo.inference.engines.memory import Free
from atmo.inference.gpus import look
from atmo.mesh.constraints import Constraints
from atmo.mesh.messages import MAX_SOURCES_TOLD, Bring, Brought
from atmo.mesh.query import Query
from atmo.mesh.rows import Kind, NodeInfo, Seed
from atmo.models.collecting import collect
from atmo.node.fetching import Fetch
from atmo.node.kept import apart, offer_stored
from atmo.node.offers import Offer
from atmo.node.plan import (
    SHARE_OF_OTHERS,
    Candidate,
    Move,
    Place,
    Plan,
    as_event,
    make_plan,
    memory_of,
    missing,
    shortage,
)
from atmo.node.visitors import Visitors

if TYPE_CHECKING:
    from atmo.node.node import Node

log = structlog.get_logger("atmo.migration")

Json = dict[str, Any]
T = TypeVar("T")

# How often progress is told.
PROGRESS_S = 0.25
# How long a model that is here may take to be loaded, and what another node offers to be heard of. Guesses.
LOAD_PATIENCE_S, OFFER_PATIENCE_S = 600.0, 15.0
# A node that is asked to bring a model is silent for no longer than this, and says so often that it is at it.
SILENCE_S, SIGN_S = 30.0, 1.0
# Models that others may have this node fetch at once.
MAX_BROUGHT = 2


@dataclass(slots=True)
class Journey:
    """What a receipt needs of a migration that took place. capability: what was loaded here, empty where it was not."""

    plan: Plan
    began_s: float
    ended_s: float = 0.0
    sources: dict[PeerId, int] = field(default_factory=dict)
    capability: str = ""

    @property
    def moved_bytes(self) -> int:
        return sum(self.sources.values())


class Migration:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self.visitors = Visitors(node)
        self._node = node
        self._rng = np.random.default_rng()
        self._answers: dict[bytes, asyncio.Queue[Brought]] = {}
        self._serving: dict[bytes, asyncio.Task[None]] = {}  # what others asked this node to bring
        self._bps = 0.0
        node.transfers.bringing = self._heard

    async def close(self) -> None:
        for task in self._serving.values():
            task.cancel()
        await asyncio.gather(*self._serving.values(), return_exceptions=True)
        await self.visitors.close()

    # Plans

    async def plan(self, query: Query, tried: Collection[Move] = ()) -> Plan:
        """tried: what came to nothing before. Raises NoRoute with what would have to change."""
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(None, self._node.transfers.stored_seeds)
        candidates = self._candidates(stored)
        places = self._places(query.constraints, await self._free())
        own = [place for place in places if self._is_own(place)]
        if own and len(own) < len(places):  # data that are here stay here, as long as anything does
            try:
                return await loop.run_in_executor(None, self._make_plan, query, own, candidates, tried)
            except NoRoute:
                places = [place for place in places if place not in own]
        return await loop.run_in_executor(None, self._make_plan, query, places, candidates, tried)

    def _make_plan(
        self, query: Query, places: list[Place], candidates: list[Candidate], tried: Collection[Move]
    ) -> Plan:
        """In a thread: descriptions are read by the encoder."""
        return make_plan(
            query,
            places,
            candidates,
            self._node.capability_of,
            bps=self._bps,
            spec=self._spec(),
            now_s=self._node.clock.now(),
            rng=self._rng,
            tried=tried,
        )

    def _spec(self) -> ModelSpec:
        inference = self._node.config.inference
        return ModelSpec(
            name="",
            kind="gguf",
            path="",
            context=inference.context,
            slots=inference.slots,
            batch=inference.batch,
            gpu_layers=inference.gpu_layers,
        )

    async def _free(self) -> Free:
        """Memory here at this moment."""
        gpus = await asyncio.get_running_loop().run_in_executor(None, look, self._node.config.inference.engine)
        return Free(THIS.free_bytes(), gpus.free_bytes)

    def _candidates(self, stored: list[tuple[str, Seed]]) -> list[Candidate]:
        """All models that peers give away, or that lie in the store here, and that an engine can load."""
        found: dict[str, Candidate] = {}
        for peer, root, seed in self._node.mesh.seeds():
            if not seed.kind:
                continue
            known = found.get(root)
            seeders = (*(known.seeders if known else ()), peer)
            here = (known.here if known else frozenset()) | ({peer} if seed.complete else set())
            found[root] = Candidate(root, seed, seeders, here)
        for root, seed in stored:
            known = found.get(root)
            seeders = known.seeders if known else ()
            here = (known.here if known else frozenset()) | {self._node.mesh.peer}
            found[root] = Candidate(root, seed, seeders, here)
        return list(found.values())

    def _is_own(self, place: Place) -> bool:
        return place.peer == self._node.mesh.peer

    def _places(self, wanted: Constraints, free: Free) -> list[Place]:
        """Where the data may be: this node, and others with the label, where the request lets it leave this one."""
        node = self._node
        homes = {("residency", home) for home in wanted.data_residency}
        found: list[Place] = []
        for row in node.mesh.core.store.rows(Kind.NODE):
            info, peer = row.body, row.id.origin
            if not isinstance(info, NodeInfo) or (homes and not homes & set(info.labels)):
                continue
            if peer == node.mesh.peer:
                found.append(Place(peer, info, free))
            elif not wanted.local_only and peer in node.mesh.transport.linked():
                share = int(info.memory_bytes * SHARE_OF_OTHERS), int(info.gpu_memory_bytes * SHARE_OF_OTHERS)
                found.append(Place(peer, info, Free(*share)))
        return found

    def show(self, plan: Plan) -> Json:
        """The plan as an event."""
        return as_event(plan, self._node.mesh.peer, self._node.mesh.name_of)

    # Carrying one out

    async def carry_out(self, plan: Plan, journey: Journey) -> AsyncGenerator[Json, None]:
        """Events `transfer` and `loading`; afterwards the model is offered at the plan's place. Raises AtmoError."""
        here = self._is_own(plan.place)
        async for event in self._here(plan, journey) if here else self._there(plan, journey):
            yield event
        await self._offered(plan)
        journey.ended_s = self._node.clock.wall()

    async def _here(self, plan: Plan, journey: Journey) -> AsyncGenerator[Json, None]:
        transfers, root = self._node.transfers, bytes.fromhex(plan.candidate.root)
        if plan.moves_bytes:
            await self._make_way(plan.moves_bytes)
            fetch = transfers.fetch(root, plan.candidate.seed)
            waiting = asyncio.ensure_future(transfers.wait(fetch))
            try:
                while not waiting.done():
                    yield {"event": "transfer", **transfers.show(fetch)}
                    await asyncio.wait([waiting], timeout=PROGRESS_S)
                await waiting
            finally:
                waiting.cancel()
            yield {"event": "transfer", **transfers.show(fetch)}
            self._learn(fetch)
            journey.sources = dict(fetch.received)
        yield _loading(plan)
        journey.capability = await self._load(root)

    def _learn(self, fetch: Fetch) -> None:
        """What the line carries, for the next plan."""
        moved = sum(fetch.received.values())
        if moved and fetch.elapsed_s > 0:
            self._bps = moved / fetch.elapsed_s

    async def _load(self, root: bytes) -> str:
        """Serve a model that is in the store: the id of its capability. Raises AtmoError when it will not load."""
        node = self._node
        loop = asyncio.get_running_loop()
        offer = await loop.run_in_executor(None, self._offer_of, root)
        capability = offer.descriptor.id
        if capability not in node.services:
            await node.adopt(offer)
        service = node.services[capability]
        try:
            async with asyncio.timeout(LOAD_PATIENCE_S):
                while service.state not in ("ready", "failed"):
                    await service.settled()
                    if service.state not in ("ready", "failed"):
                        await asyncio.sleep(PROGRESS_S)
            failure = (service.detail, service.hint) if service.state == "failed" else None
        except TimeoutError:
            failure = f"it takes longer than {LOAD_PATIENCE_S:.0f} s.", "Take a smaller quantisation."
        if failure is not None:
            await node.dismiss(capability)
            raise EngineUnavailable(f"{offer.spec.name} came and does not load: {failure[0]}", hint=failure[1])
        if node.config.models.keep_migrated:
            await loop.run_in_executor(None, node.kept.add, root)
        return capability

    def _offer_of(self, root: bytes) -> Offer:
        """In a thread. By a name of its own where another model is served by that name."""
        offer = offer_stored(self._node.transfers.store.get(root), self._node.config.inference)
        served = self._node.services.get(offer.descriptor.id)
        return offer if served is None or served.offer.root == offer.root else apart(offer)

    async def _make_way(self, size_bytes: int) -> None:
        """Let go of kept models that nobody asks at this moment, as many as the quota needs for one that comes."""
        node, store = self._node, self._node.transfers.store
        loop = asyncio.get_running_loop()
        unused = await loop.run_in_executor(None, node.kept.longest_unused) if store.quota_bytes else []
        for model in unused:
            ask = partial(collect, store, store.quota_bytes, node.clock.wall(), needed_bytes=size_bytes, dry=True)
            if (await loop.run_in_executor(None, ask)).fits:
                return
            for capability, service in list(node.services.items()):
                if service.offer.root == model.root.hex() and not service.load().in_flight:
                    log.info("a kept model makes way", capability=capability)
                    await node.dismiss(capability)

    async def _there(self, plan: Plan, journey: Journey) -> AsyncGenerator[Json, None]:
        """Another node inside the boundary does it."""
        peer, ticket = plan.place.peer, os.urandom(16)
        answers = self._answers[ticket] = asyncio.Queue()
        self._node.mesh.want(peer, True)
        try:
            self._node.mesh.say(peer, Bring(ticket, bytes.fromhex(plan.candidate.root)))
            loading = False
            while True:
                told = await self._answer(answers, plan)
                journey.sources = dict(told.sources)
                if told.state == "failed":
                    raise by_code("engine_unavailable", told.message, hint=told.hint)
                if told.state == "ready":
                    return
                if told.state == "loading":
                    if not loading:
                        yield _loading(plan)
                    loading = True
                else:
                    yield self._remote_progress(plan, told)
        finally:
            self._answers.pop(ticket, None)
            self._node.mesh.want(peer, False)

    async def _answer(self, answers: asyncio.Queue[Brought], plan: Plan) -> Brought:
        try:
            async with asyncio.timeout(SILENCE_S):
                return await answers.get()
        except TimeoutError:
            raise PeerUnreachable(
                f"{plan.place.info.name} was asked to fetch {plan.candidate.seed.descriptor.model} and says nothing.",
                hint="Is it still there? See: atmo mesh",
            ) from None

    def _remote_progress(self, plan: Plan, told: Brought) -> Json:
        return {
            "event": "transfer",
            "root": plan.candidate.root,
            "model": plan.candidate.seed.descriptor.model,
            "direction": "in",
            "at": plan.place.info.name,
            "bytes_done": told.bytes_done,
            "bytes_total": told.bytes_total,
            "bytes_per_s": 0,
            "sources": [
                {"peer": format_peer(peer), "name": self._node.mesh.name_of(peer), "bytes": size}
                for peer, size in told.sources
            ],
            "state": "running",
            "eta_s": None,
            "error": "",
        }

    async def _offered(self, plan: Plan) -> None:
        """Wait until routing knows of it. Raises NoRoute when it does not in time."""
        mesh = self._node.mesh
        try:
            async with asyncio.timeout(OFFER_PATIENCE_S):
                while not self._known(plan):  # noqa: ASYNC110 - the table tells nobody when it changes
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise NoRoute(
                f"{plan.candidate.seed.descriptor.model} was brought to {mesh.name_of(plan.place.peer)} and is not "
                "offered there.",
                hint="See its log.",
            ) from None

    def _known(self, plan: Plan) -> bool:
        table = self._node.mesh.table
        peer = table.find_peer(plan.place.peer)
        rows = table.peers.rows.get(peer, {}).values()
        return any(
            table.classes.capability[int(table.rows.klass[row])].descriptor.root == plan.candidate.root
            and table.rows.ready[row]
            for row in rows
        )

    # For others

    def _heard(self, peer: PeerId, message: Bring | Brought) -> None:
        if isinstance(message, Brought):
            queue = self._answers.get(message.id)
            if queue is not None:
                queue.put_nowait(message)
        elif message.id not in self._serving:
            task = asyncio.create_task(self._bring(peer, message), name=f"bring {message.root.hex()[:12]}")
            self._serving[message.id] = task
            task.add_done_callback(lambda _: self._serving.pop(message.id, None))

    async def _bring(self, peer: PeerId, wanted: Bring) -> None:
        """Fetch, load and offer what another node wants to ask this one for."""
        transfers = self._node.transfers
        sources: dict[PeerId, int] = {}

        def tell(state: str, done: int, total: int, capability: str = "", why: str = "", hint: str = "") -> None:
            most = sorted(sources.items(), key=lambda each: -each[1])[:MAX_SOURCES_TOLD]
            told = Brought(wanted.id, state, done, total, capability, why[:2000], hint[:2000], tuple(most))
            self._node.mesh.say(peer, told)

        try:
            seed = self._may_bring(wanted, await self._free())
            size_bytes = seed.size_bytes
            if not transfers.store.has(wanted.root):
                await self._make_way(size_bytes)
                fetch = transfers.fetch(wanted.root, seed)
                sources = fetch.received
                await _telling(transfers.wait(fetch), lambda: tell("running", fetch.bytes_done, fetch.bytes_total))
            capability = await _telling(self._load(wanted.root), lambda: tell("loading", size_bytes, size_bytes))
            tell("ready", size_bytes, size_bytes, capability)
            if sources:
                self.visitors.leave_when_idle(wanted.root, capability, peer)
        except AtmoError as error:
            log.warning("not brought", for_=short(peer), why=error.message)
            tell("failed", 0, 0, "", error.message, error.hint)

    def _may_bring(self, wanted: Bring, free: Free) -> Seed:
        """Raises EngineUnavailable where this node's user does not want that, or it would not fit."""
        node, root = self._node, wanted.root.hex()
        if not node.config.models.fetch_for_others:
            raise EngineUnavailable(
                f"{node.config.node.name} fetches no models for others.", hint="Set models.fetch_for_others there."
            )
        if len(self._serving) > MAX_BROUGHT:
            raise EngineUnavailable(f"{node.config.node.name} fetches models for others already.", hint="Wait.")
        known = dict(node.transfers.stored_seeds()) | {of: seed for _, of, seed in node.mesh.seeds()}
        if root not in known:
            raise EngineUnavailable(f"{node.config.node.name} knows nobody who has {root[:12]}.", hint="Try again.")
        needs = memory_of(known[root], self._spec(), free)[0]
        if missing(needs, free):
            told = shortage(known[root].descriptor.model, needs, node.config.node.name, free)
            raise EngineUnavailable(f"There is no room for {told}", hint="Share a smaller quantisation of it.")
        return known[root]


async def _telling(work: Coroutine[Any, Any, T], tell: Callable[[], None]) -> T:
    """What comes of it. Meanwhile whoever waits hears again and again that it goes on."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            tell()
            await asyncio.wait([task], timeout=SIGN_S)
        return await task
    finally:
        task.cancel()


def _loading(plan: Plan) -> Json:
    return {"event": "loading", "model": plan.candidate.seed.descriptor.model, "at": plan.place.info.name}

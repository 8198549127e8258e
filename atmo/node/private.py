"""Requests whose data have a boundary: asked as any other, and where nothing inside can serve them, the model comes.

What happened is stated in a receipt that this node signs and keeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import structlog

from atmo import receipts
from atmo.errors import AtmoError, Cancelled, ModelCouldCome, NoRoute
from atmo.ids import PeerId, format_peer, parse_peer
from atmo.mesh.constraints import Constraints
from atmo.mesh.query import Query
from atmo.mesh.rows import NodeInfo
from atmo.node.migration import Journey, Migration
from atmo.node.plan import Move, Plan

if TYPE_CHECKING:
    from atmo.gateway.handle import Wish
    from atmo.node.node import Node

log = structlog.get_logger("atmo.private")

Json = dict[str, Any]

COULD_COME = "A model could come to the data: atmo ask --private, or migrate=yes."
AGREE = (
    "Nothing moved. Agree to it, and the model comes and answers: "
    'extra_body={"atmo": {"migrate": "yes"}}, or the header X-Atmo-Migrate: yes.'
)

# Plans that one request may try, each once. A guess: a third that does not load says something about the place.
MAX_PLANS = 3

QueryOf = Callable[["Wish"], Query]
Perform = Callable[[Query], AsyncGenerator[Json, None]]


class Private:
    """Of one node."""

    def __init__(self, node: Node, migration: Migration) -> None:
        self._node = node
        self._migration = migration
        self._visitors = migration.visitors

    async def close(self) -> None:
        await self._migration.close()

    async def ask(
        self, wish: Wish, query_of: QueryOf, perform: Perform, *, refuse: bool = False
    ) -> AsyncGenerator[Json, None]:
        """Events as docs/api.md lists them. query_of: what decides where a wish goes; perform: has it done.

        refuse: nobody can be asked back, so a plan without agreement is an error that tells of it, ModelCouldCome.
        """
        wish = self._bounded(wish)
        query = query_of(wish)
        began_s = self._node.clock.wall()
        told = False
        try:
            performed = perform(query)
            events = self._proven(performed, query, began_s, None) if wish.private else performed
            async with aclosing(events):
                async for event in events:
                    told = True
                    yield event
            return
        except NoRoute as error:
            if told:
                raise
            refusal = error
        plan = await self._plan(wish, query, refusal, asked=refuse)
        shown = {**self._migration.show(plan), "agreed": wish.migrate == "yes"}
        if refuse and not shown["agreed"]:
            raise ModelCouldCome(f"{refusal.message} {_in_words(shown)}", plan=shown, hint=AGREE)
        yield shown
        if shown["agreed"]:
            async with aclosing(self._migrated(plan, query, perform, began_s)) as events:
                async for event in events:
                    yield event

    def _bounded(self, wish: Wish) -> Wish:
        """`private` in words that routing knows: this node's residency, or this node alone."""
        wishes = dict(wish.constraints)
        named = any(name in wishes for name in ("data_residency", "residency", "local_only"))
        if not wish.private or named:
            return wish
        home = self._node.config.node.labels.get("residency")
        wishes |= {"data_residency": [home]} if home else {"local_only": True}
        return wish.model_copy(update={"constraints": wishes})

    async def _plan(self, wish: Wish, query: Query, refusal: NoRoute, *, asked: bool) -> Plan:
        """What could be done about a refusal, where the request wants to hear of it. asked: it does unless it says no.
        Raises NoRoute."""
        rule = query.constraints
        bounded = rule.local_only or bool(rule.data_residency)
        wanted = wish.migrate or ("ask" if wish.private or asked else "no")
        if wanted == "no":
            raise _with_hint(refusal) if bounded else refusal
        try:
            plan = await self._migration.plan(query)
        except NoRoute as error:
            if not bounded:
                raise refusal from None
            raise NoRoute(f"{refusal.message} {error.message}", hint=error.hint) from None
        self._node.prefetch.asked(plan.candidate.root)
        return plan

    async def _migrated(self, plan: Plan, query: Query, perform: Perform, began_s: float) -> AsyncGenerator[Json, None]:
        """The model comes, and then the answer. Where it does not come, or does not load, the next plan is tried: what
        was agreed to is the rule, not the model."""
        tried: set[Move] = set()
        while True:
            journey = Journey(plan, self._node.clock.wall())
            tried.add(plan.move)
            try:
                async with aclosing(self._with(journey, query, perform, began_s)) as events:
                    async for event in events:
                        yield event
                return
            except AtmoError as error:
                if journey.ended_s or isinstance(error, Cancelled):
                    raise  # it is there, and failed at the request; or the node stops
                plan = await self._next(query, tried, error)
                log.warning("the next model is tried", why=error.message, next=plan.candidate.seed.descriptor.model)
                yield {**self._migration.show(plan), "agreed": True, "because": error.message}

    async def _next(self, query: Query, tried: set[Move], error: AtmoError) -> Plan:
        """What would be planned without what was tried. Raises the error where there is nothing, or enough was."""
        if len(tried) >= MAX_PLANS:
            raise error
        try:
            return await self._migration.plan(query, tried)
        except NoRoute:
            raise error from None

    async def _with(
        self, journey: Journey, query: Query, perform: Perform, began_s: float
    ) -> AsyncGenerator[Json, None]:
        """The planned model comes, and then the answer."""
        plan = journey.plan
        root = bytes.fromhex(plan.candidate.root)
        try:
            with self._visitors.used(root):
                async with aclosing(self._migration.carry_out(plan, journey)) as events:
                    async for event in events:
                        yield event
                async with aclosing(self._proven(perform(query), query, began_s, journey)) as events:
                    async for event in events:
                        yield event
        finally:
            if journey.capability or (journey.moved_bytes and plan.place.peer == self._node.mesh.peer):
                await self._visitors.leave(root, journey.capability, came=journey.moved_bytes > 0)

    async def _proven(
        self, performed: AsyncGenerator[Json, None], query: Query, began_s: float, journey: Journey | None
    ) -> AsyncGenerator[Json, None]:
        """With a receipt at the end."""
        async with aclosing(performed) as events:
            async for event in events:
                yield event
                if event["event"] == "done":
                    yield await self._receipt(event, query.constraints, began_s, journey)

    # Receipts

    async def _receipt(self, done: Json, rule: Constraints, began_s: float, journey: Journey | None) -> Json:
        node, says = self._node, self._statement(done, rule, began_s, journey)
        made = receipts.sign(node.identity, node.mesh.mesh, node.renewals.certificate, says)
        folder = self._node.config.node_home / receipts.FOLDER
        try:
            file = await asyncio.get_running_loop().run_in_executor(None, receipts.keep, made, folder)
        except OSError as error:
            log.warning("the receipt was not kept", why=error.strerror)
            return {"event": "receipt", "id": made.id, "file": "", **_sealed(made)}
        return {"event": "receipt", "id": made.id, "file": str(file), **_sealed(made)}

    def _statement(self, done: Json, rule: Constraints, began_s: float, journey: Journey | None) -> Json:
        node, request = self._node, bytes.fromhex(done["request_id"])
        server = parse_peer(done["peer"])
        sent = node.mesh.sent_bytes.get(request, {})
        return {
            "id": done["request_id"],
            "node": self._who(node.mesh.peer),
            "asked_at_s": round(began_s, 3),
            "done_at_s": round(node.clock.wall(), 3),
            "rule": {"data_residency": list(rule.data_residency), "local_only": rule.local_only},
            "model": {"capability": done["capability"], **self._model(server, done["capability"])},
            "answered_by": self._who(server),
            "request_bytes_out": [{**self._who(peer), "bytes": size} for peer, size in sent.items()],
            "transfer": self._moved(journey),
            "decision": node.explained(done["request_id"])["lines"],
        }

    def _moved(self, journey: Journey | None) -> Json | None:
        if journey is None:
            return None
        return {
            "root": journey.plan.candidate.root,
            "bytes_in": journey.moved_bytes,
            "to": self._who(journey.plan.place.peer),
            "sources": [{**self._who(peer), "bytes": size} for peer, size in journey.sources.items()],
            "began_at_s": round(journey.began_s, 3),
            "ended_at_s": round(journey.ended_s, 3),
        }

    def _who(self, peer: PeerId) -> Json:
        table = self._node.mesh.table
        info = table.peers.info.get(table.find_peer(peer))
        labels = dict(info.labels) if isinstance(info, NodeInfo) else {}
        return {"peer": format_peer(peer), "name": self._node.mesh.name_of(peer), "labels": labels}

    def _model(self, peer: PeerId, capability: str) -> Json:
        table = self._node.mesh.table
        row = table.find(peer, capability)
        if row < 0:
            return {"name": "", "root": ""}
        descriptor = table.classes.capability[int(table.rows.klass[row])].descriptor
        return {"name": descriptor.model, "root": descriptor.root}


def _sealed(made: receipts.Receipt) -> Json:
    return {"receipt": made.says, "statement": made.statement, "signature": made.signature.hex()}


def _in_words(plan: Json) -> str:
    """A plan as a sentence, without a word that another node could have chosen but names."""
    told = f"{plan['model']} could come to {plan['to']['name']}"
    if not plan["moves_bytes"]:
        return f"{told}, where it is on disk, in about {plan['expected_s']:.0f} s."
    sources = ", ".join(source["name"] for source in plan["sources"]) or "its store"
    return f"{told} from {sources}: {plan['moves_bytes'] / 1e6:.1f} MB, about {plan['expected_s']:.0f} s."


def _with_hint(refusal: NoRoute) -> NoRoute:
    return NoRoute(refusal.message, hint=f"{refusal.hint} {COULD_COME}".strip())

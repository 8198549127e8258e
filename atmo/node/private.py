"""Requests whose data have a boundary: asked as any other, and where nothing inside can serve them, the model comes.

What happened is stated in a receipt that this node signs and keeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import structlog

from atmo import receipts
from atmo.errors import NoRoute
from atmo.generation import Task
from atmo.ids import PeerId, format_peer, parse_peer
from atmo.mesh.constraints import Constraints
from atmo.mesh.query import Query
from atmo.mesh.rows import NodeInfo
from atmo.node.migration import Journey, Migration

if TYPE_CHECKING:
    from atmo.gateway.handle import AskRequest
    from atmo.node.node import Node

log = structlog.get_logger("atmo.private")

Json = dict[str, Any]

COULD_COME = "A model could come to the data: atmo ask --private, or migrate=yes."


class Private:
    """Of one node."""

    def __init__(self, node: Node, migration: Migration) -> None:
        self._node = node
        self._migration = migration

    async def close(self) -> None:
        await self._migration.close()

    async def ask(self, request: AskRequest, task: Task) -> AsyncGenerator[Json, None]:
        """Events as docs/api.md lists them."""
        request = self._bounded(request)
        wanted = self._node.query_for(request, task)
        bounded = wanted.constraints.local_only or bool(wanted.constraints.data_residency)
        if not bounded:
            async with aclosing(self._node.perform(request, task)) as events:
                async for event in events:
                    yield event
            return
        began_s = self._node.clock.wall()
        journey: Journey | None = None
        async with aclosing(self._prepare(request, wanted)) as prepared:
            async for item in prepared:
                if isinstance(item, Journey):
                    journey = item
                elif item["event"] == "plan" and not item["agreed"]:
                    yield item
                    return
                else:
                    yield item
        async with aclosing(self._node.perform(request, task)) as events:
            async for event in events:
                yield event
                if event["event"] == "done" and (request.private or journey is not None):
                    yield await self._receipt(event, wanted.constraints, began_s, journey)
        await self._keep_or_not(journey)

    def _bounded(self, request: AskRequest) -> AskRequest:
        """`private` in words that routing knows: this node's residency, or this node alone."""
        wishes = dict(request.constraints)
        named = any(name in wishes for name in ("data_residency", "residency", "local_only"))
        if not request.private or named:
            return request
        home = self._node.config.node.labels.get("residency")
        wishes |= {"data_residency": [home]} if home else {"local_only": True}
        return request.model_copy(update={"constraints": wishes})

    async def _prepare(self, request: AskRequest, wanted: Query) -> AsyncGenerator[Json | Journey, None]:
        """Nothing where somebody inside can serve it; otherwise the plan, and if it is agreed to what becomes of it."""
        try:
            self._node.mesh.route(wanted)
            return
        except NoRoute as refusal:
            agreed = request.migrate or ("ask" if request.private else "no")
            if agreed == "no":
                raise _with_hint(refusal) from None
            plan = await self._plan(wanted, refusal)
        self._node.prefetch.asked(plan.candidate.root)
        yield {**self._migration.show(plan), "agreed": agreed == "yes"}
        if agreed != "yes":
            return
        journey = Journey(plan, self._node.clock.wall())
        async with aclosing(self._migration.carry_out(plan, journey)) as events:
            async for event in events:
                yield event
        yield journey

    async def _plan(self, wanted: Query, refusal: NoRoute) -> Any:
        try:
            return await self._migration.plan(wanted)
        except NoRoute as error:
            raise NoRoute(f"{refusal.message} {error.message}", hint=error.hint) from None

    async def _keep_or_not(self, journey: Journey | None) -> None:
        """What came for one request goes after it, if this node's user wants that."""
        if journey is None or self._node.config.models.keep_migrated or not journey.moved_bytes:
            return
        if journey.plan.place.peer == self._node.mesh.peer:
            await self._node.dismiss(journey.plan.candidate.seed.descriptor.id)
            root = bytes.fromhex(journey.plan.candidate.root)
            await asyncio.get_running_loop().run_in_executor(None, self._node.transfers.store.remove, root)

    # Receipts

    async def _receipt(self, done: Json, rule: Constraints, began_s: float, journey: Journey | None) -> Json:
        made = receipts.sign(self._node.identity, self._statement(done, rule, began_s, journey))
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
            "version": 1,
            "id": done["request_id"],
            "mesh": format_peer(PeerId(node.mesh.mesh)),
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


def _with_hint(refusal: NoRoute) -> NoRoute:
    return NoRoute(refusal.message, hint=f"{refusal.hint} {COULD_COME}".strip())

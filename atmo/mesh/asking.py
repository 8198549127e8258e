"""The requester's half of a request: gives each `Call` a reader, a deadline and a node to ask."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from atmo.clock import Clock
from atmo.errors import NoRoute
from atmo.generation import Task
from atmo.ids import PeerId
from atmo.mesh import calls
from atmo.mesh.decision import Decision
from atmo.mesh.messages import AnyMessage
from atmo.mesh.query import Query
from atmo.mesh.service import Answer

# Decisions kept for `explain`. About 2 kB each.
DECISIONS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """A request as its user states it. timeout_s: how long it may take in all."""

    task: Task
    query: Query
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Routed:
    """The first reply, and again after each failed attempt: where the request goes. `because` is empty the first
    time."""

    request_id: bytes
    decision: Decision
    because: str = ""


@dataclass(slots=True)
class _Open:
    """A call with its reader."""

    call: calls.Call
    query: Query
    replies: asyncio.Queue[Routed | Answer | calls.End] = field(default_factory=asyncio.Queue)
    wanted: list[PeerId] = field(default_factory=list)  # to whom a link is kept for it


class Asking:
    """All requests this node asked. route raises NoRoute; transmit does not raise; learn is told of each attempt;
    want(peer, needed) of each node to which a link is needed."""

    def __init__(
        self,
        clock: Clock,
        route: Callable[[Query], Decision],
        transmit: Callable[[PeerId, AnyMessage], None],
        learn: Callable[[calls.Observe], None],
        want: Callable[[PeerId, bool], None],
    ) -> None:
        self.decisions: OrderedDict[bytes, Decision] = OrderedDict()
        self._clock = clock
        self._route = route
        self._transmit = transmit
        self._learn = learn
        self._want = want
        self._open: dict[bytes, _Open] = {}

    async def ask(self, job: Job) -> AsyncGenerator[Routed | Answer, None]:
        """See `MeshNode.ask`."""
        call = calls.Call(os.urandom(16), job.task, self._clock.now() + job.timeout_s)
        opened = _Open(call, job.query)
        decision = self._route(job.query)
        self._open[call.id] = opened
        timer = asyncio.get_running_loop().call_later(job.timeout_s, self._expire, opened)
        try:
            self._assign(opened, decision, "")
            while True:
                item = await opened.replies.get()
                if isinstance(item, calls.End):
                    if item.error is not None:
                        raise item.error
                    return
                yield item
                if not isinstance(item, Routed):
                    self._carry_out(opened, call.consumed(1))
        finally:
            self._carry_out(opened, call.cancel())
            timer.cancel()
            del self._open[call.id]
            for peer in opened.wanted:
                self._want(peer, False)

    def receive(self, peer: PeerId, reply: calls.Reply) -> None:
        opened = self._open.get(reply.id)
        if opened is not None:
            self._carry_out(opened, opened.call.receive(peer, reply, self._clock.now()))

    def peer_lost(self, peer: PeerId, reason: str) -> None:
        for opened in list(self._open.values()):
            self._carry_out(opened, opened.call.peer_lost(peer, reason))

    def not_sent(self, request_id: bytes, peer: PeerId, why: str) -> None:
        """The request could not be handed to the transport."""
        opened = self._open.get(request_id)
        if opened is not None:
            self._carry_out(opened, opened.call.peer_lost(peer, why))

    def __repr__(self) -> str:
        return f"<Asking {len(self._open)} requests>"

    def _expire(self, opened: _Open) -> None:
        self._carry_out(opened, opened.call.expire(max(self._clock.now(), opened.call.deadline_s)))

    def _assign(self, opened: _Open, decision: Decision, because: str) -> None:
        self.decisions[opened.call.id] = decision
        while len(self.decisions) > DECISIONS_KEPT:
            self.decisions.popitem(last=False)
        opened.replies.put_nowait(Routed(opened.call.id, decision, because))
        opened.wanted.append(decision.peer)
        self._want(decision.peer, True)
        self._carry_out(opened, opened.call.assign(decision.peer, decision.capability, self._clock.now()))

    def _carry_out(self, opened: _Open, effects: list[calls.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, calls.Emit):
                opened.replies.put_nowait(effect.item)
            elif isinstance(effect, calls.Transmit):
                self._transmit(effect.peer, effect.message)
            elif isinstance(effect, calls.Observe):
                self._learn(effect)
            elif isinstance(effect, calls.End):
                opened.replies.put_nowait(effect)
            else:
                self._choose_again(opened, effect)

    def _choose_again(self, opened: _Open, wanted: calls.Choose) -> None:
        try:
            decision = self._route(replace(opened.query, exclude=frozenset(opened.call.tried)))
        except NoRoute as no_other:
            last = wanted.because
            last.hint = f"{last.hint} No other node can take it: {no_other.message}".strip()
            self._carry_out(opened, opened.call.abandon(last))
        else:
            self._assign(opened, decision, wanted.because.message)

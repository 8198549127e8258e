"""The requester's half of a request: gives each `Call` a reader, a deadline and a node to ask.

Theory of operation. What a call wants done is done here: the next node is routed to, at once or after a pause, and
beside a node that is slow to begin another is asked. Retries before the first part are charged to a budget that all
requests share, hedges to a smaller one. Where nobody else can take a request, those that were tried are tried again
after a pause that doubles, begins at what a busy node asked for, and is spread evenly over as much again, so that all
who were refused together do not come back together (full jitter; Brooker, AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from atmo.clock import Clock
from atmo.errors import AtmoError, EngineUnavailable, NoRoute, Overloaded
from atmo.generation import Task
from atmo.ids import PeerId, short
from atmo.mesh import calls
from atmo.mesh.budget import Budget
from atmo.mesh.decision import Decision
from atmo.mesh.messages import AnyMessage
from atmo.mesh.query import Query
from atmo.mesh.service import Answer

# Decisions kept for `explain`. About 2 kB each.
DECISIONS_KEPT = 1000
# Pauses of one request, and the first of them where nobody asked for another. Guesses: together, with jitter, about
# ten seconds, in which a worker is loaded again.
MAX_PAUSES = 5
FIRST_PAUSE_S = 0.25
# Beside a node that has said nothing for as long as the slowest twentieth of its kind takes, another is asked (Dean and
# Barroso, The Tail at Scale, 2013); after so many samples, not sooner than that, for that share of all requests.
HEDGE_SAMPLES = 20
WAITS_KEPT = 100
LEAST_HEDGE_S = 0.05
HEDGE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Job:
    """A request as its user states it. timeout_s: how long it may take in all."""

    task: Task
    query: Query
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Routed:
    """The first reply, and again whenever another node answers. `because` is empty the first time. resumed: the answer
    goes on where it broke off; other_model: with another model than it began with."""

    request_id: bytes
    decision: Decision
    because: str = ""
    resumed: bool = False
    other_model: bool = False


@dataclass(slots=True)
class _Open:
    """A call with its reader."""

    call: calls.Call
    query: Query
    replies: asyncio.Queue[Routed | Answer | calls.End] = field(default_factory=asyncio.Queue)
    wanted: list[PeerId] = field(default_factory=list)  # to whom a link is kept for it
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    pauses: int = 0
    spare: Decision | None = None  # of the node asked as well, until one of both has answered


class Asking:
    """All requests this node asked.

    route raises NoRoute; transmit does not raise; learn is told of each attempt; want(peer, needed) of each node to
    which a link is needed; root_of(peer, capability) is the model's root, empty if unknown; chance: from 0 to 1;
    refresh(decision) asks for fresh load where the decision had only old reports, and says whether any came in time;
    known_as(peer) is what people call it.
    """

    def __init__(
        self,
        clock: Clock,
        route: Callable[[Query], Decision],
        transmit: Callable[[PeerId, AnyMessage], None],
        learn: Callable[[calls.Observe], None],
        want: Callable[[PeerId, bool], None],
        root_of: Callable[[PeerId, str], str],
        chance: Callable[[], float],
        refresh: Callable[[Decision], Awaitable[bool]] | None = None,
        known_as: Callable[[PeerId], str] = short,
    ) -> None:
        self.decisions: OrderedDict[bytes, Decision] = OrderedDict()
        self.retries = Budget()
        self.hedges = Budget(share=HEDGE_SHARE, trickle_per_s=0.0, most=5.0)
        self._clock = clock
        self._route = route
        self._transmit = transmit
        self._learn = learn
        self._want = want
        self._root_of = root_of
        self._chance = chance
        self._refresh = refresh
        self._known_as = known_as
        self._open: dict[bytes, _Open] = {}
        self._waits: dict[str, deque[float]] = {}  # of each capability: how long its first parts took

    async def ask(self, job: Job) -> AsyncGenerator[Routed | Answer, None]:
        """See `MeshNode.ask`."""
        call = calls.Call(
            os.urandom(16),
            job.task,
            self._clock.now() + job.timeout_s,
            job.query.constraints.data_residency,
        )
        opened = _Open(call, job.query)
        decision = self._route(job.query)
        if decision.probes and self._refresh is not None and await self._refresh(decision):
            decision = self._route(job.query)
        self._open[call.id] = opened
        self.retries.first(self._clock.now())
        self.hedges.first(self._clock.now())
        self._later(opened, job.timeout_s, self._expire)
        try:
            self._assign(opened, decision)
            self._plan_hedge(opened, decision)
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
            for timer in opened.timers:
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
            self._carry_out(opened, opened.call.peer_lost(peer, reason, self._known_as(peer)))

    def not_sent(self, request_id: bytes, peer: PeerId, why: str) -> None:
        """The request could not be handed to the transport."""
        opened = self._open.get(request_id)
        if opened is not None:
            self._carry_out(opened, opened.call.peer_lost(peer, why, self._known_as(peer)))

    def __repr__(self) -> str:
        return f"<Asking {len(self._open)} requests>"

    def _later(self, opened: _Open, wait_s: float, then: Callable[[_Open], None]) -> None:
        opened.timers.append(asyncio.get_running_loop().call_later(wait_s, then, opened))

    def _expire(self, opened: _Open) -> None:
        self._carry_out(opened, opened.call.expire(max(self._clock.now(), opened.call.deadline_s)))

    def _assign(self, opened: _Open, decision: Decision, wanted: calls.Choose | None = None) -> None:
        root = self._root_of(decision.peer, decision.capability)
        if wanted is None:
            self._announce(opened, Routed(opened.call.id, decision))
        else:
            other = wanted.begun and (not root or root != wanted.root)
            self._announce(opened, Routed(opened.call.id, decision, wanted.because.message, wanted.begun, other))
        self._need_link(opened, decision.peer)
        self._carry_out(opened, opened.call.assign(decision.peer, decision.capability, root, self._clock.now()))

    def _announce(self, opened: _Open, routed: Routed) -> None:
        self.decisions[opened.call.id] = routed.decision
        while len(self.decisions) > DECISIONS_KEPT:
            self.decisions.popitem(last=False)
        opened.replies.put_nowait(routed)

    def _need_link(self, opened: _Open, peer: PeerId) -> None:
        opened.wanted.append(peer)
        self._want(peer, True)

    def _carry_out(self, opened: _Open, effects: list[calls.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, calls.Emit):
                opened.replies.put_nowait(effect.item)
            elif isinstance(effect, calls.Transmit):
                self._transmit(effect.peer, effect.message)
            elif isinstance(effect, calls.Observe):
                self._observe(opened, effect)
            elif isinstance(effect, calls.End):
                opened.replies.put_nowait(effect)
            else:
                self._choose_again(opened, effect)

    def _observe(self, opened: _Open, seen: calls.Observe) -> None:
        self._learn(seen)
        if seen.what != "first_part":
            return
        self._waits.setdefault(seen.capability, deque(maxlen=WAITS_KEPT)).append(seen.elapsed_s)
        if opened.spare is not None and opened.spare.peer == seen.peer:
            self._announce(opened, Routed(opened.call.id, opened.spare, "It was slow to begin."))
        opened.spare = None

    # Another node

    def _choose_again(self, opened: _Open, wanted: calls.Choose) -> None:
        """Route to a node that was not tried; if there is none, try all again after a pause, if that may help."""
        if not wanted.begun and not self.retries.take(self._clock.now()):
            wanted.because.hint = f"{wanted.because.hint} Too many requests are being retried already.".strip()
            self._carry_out(opened, opened.call.abandon(wanted.because))
            return
        try:
            decision = self._next(replace(opened.query, exclude=frozenset(opened.call.tried)), wanted)
        except NoRoute as no_other:
            self._pause(opened, wanted, no_other)
        else:
            self._assign(opened, decision, wanted)

    def _next(self, query: Query, wanted: calls.Choose) -> Decision:
        """Of an answer that has begun the same model if it can be had, for it goes on exactly."""
        if wanted.begun and wanted.root:
            try:
                return self._route(replace(query, root=wanted.root))
            except NoRoute:
                pass
        return self._route(query)

    def _pause(self, opened: _Open, wanted: calls.Choose, no_other: NoRoute) -> None:
        last = wanted.because
        wait_s = self._pause_s(opened, wanted)
        if wait_s is None or self._clock.now() + wait_s >= opened.call.deadline_s:
            last.hint = f"{last.hint} No other node can take it: {no_other.message}".strip()
            self._carry_out(opened, opened.call.abandon(last))
            return
        opened.pauses += 1
        self._later(opened, wait_s, lambda _: self._after_pause(opened, wanted))

    def _pause_s(self, opened: _Open, wanted: calls.Choose) -> float | None:
        """None: waiting would not help, or there was enough of it."""
        helps = wanted.begun or isinstance(wanted.because, Overloaded | EngineUnavailable)
        if not helps or opened.pauses >= MAX_PAUSES:
            return None
        asked_s = wanted.because.retry_after_s if isinstance(wanted.because, Overloaded) else FIRST_PAUSE_S
        least_s = max(asked_s, FIRST_PAUSE_S) * 2.0**opened.pauses
        return least_s * (1.0 + self._chance())

    def _after_pause(self, opened: _Open, wanted: calls.Choose) -> None:
        if opened.call.state is not calls.State.CHOOSING:
            return
        try:
            decision = self._next(opened.query, wanted)
        except NoRoute as nobody:
            self._pause(opened, wanted, nobody)
        except AtmoError as error:
            self._carry_out(opened, opened.call.abandon(error))
        else:
            self._assign(opened, decision, wanted)

    # Beside a slow one

    def _plan_hedge(self, opened: _Open, decision: Decision) -> None:
        if decision.rows_read == 1:
            return  # nobody else has it
        waits = self._waits.get(decision.capability)
        if waits is not None and len(waits) >= HEDGE_SAMPLES:
            slow_s = sorted(waits)[int(0.95 * len(waits))]
            self._later(opened, max(slow_s, LEAST_HEDGE_S), lambda _: self._hedge(opened, decision))

    def _hedge(self, opened: _Open, slow: Decision) -> None:
        if opened.call.state is not calls.State.WAITING or opened.call.tried != [slow.peer]:
            return
        try:
            spare = self._route(replace(opened.query, exclude=frozenset([slow.peer])))
        except NoRoute:
            return
        if spare.capability != slow.capability or not self.hedges.take(self._clock.now()):
            return
        opened.spare = spare
        self._need_link(opened, spare.peer)
        root = self._root_of(spare.peer, spare.capability)
        self._carry_out(opened, opened.call.hedge(spare.peer, spare.capability, root, self._clock.now()))

"""The server's half of a request: runs a service's answer and sends it on, as fast as the requester's credit allows.

A part costs some hundred microseconds of processor time on its way through two nodes, which an engine on the same
cores would rather have. So tokens that follow one another faster than anybody reads travel together: the first is sent
at once, and so is every one that comes later than GATHER_S after the last was sent; the others go at the next multiple
of it, those of all answers together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing

import structlog

from atmo.errors import (
    AtmoError,
    Cancelled,
    EngineUnavailable,
    ModelNotFound,
    OutsideBoundary,
    RequestTimeout,
    UsageError,
)
from atmo.generation import Finish, Piece, joined
from atmo.ids import PeerId, short
from atmo.mesh.messages import AnyMessage, Ask, Cancel, Done, Failed, Grant, Part, Scores, Vectors
from atmo.mesh.service import Answer, Labels, Question, Service, Vector

log = structlog.get_logger("atmo.serving")

# Of an error's text; the wire takes 4,000 characters, and nobody reads more.
MAX_TOLD_CHARS = 2000
# Tokens of so short a time travel in one part; of a slower answer each goes at once. Twelve parts a second are more
# than anybody reads, and than the live view paints. Each costs about a millisecond of all processors together, with
# those it wakes, and an engine whose threads wait for each other stands still meanwhile (seen beside `bench stream`).
GATHER_S = 0.08
GATHERED_TOKENS = 256  # and no more than that in one part, far below what a frame takes; a guess

Ticket = tuple[PeerId, bytes, int]
"""Who asks, the request's id, the attempt."""
Send = Callable[[PeerId, AnyMessage], None]
OnServed = Callable[[PeerId, Ask, Finish | AtmoError | None], None]
"""Who asks, the question, and how it ended: None when the answer begins."""


def nobody(peer: PeerId, ask: Ask, end: Finish | AtmoError | None) -> None:
    """Nobody watches."""


class Credit:
    """How many parts may still be sent. `take` waits for the requester's next grant when there is none."""

    def __init__(self, parts: int) -> None:
        self._left = parts
        self._granted = asyncio.Event()

    def grant(self, parts: int) -> None:
        self._left += parts
        self._granted.set()

    def take_now(self) -> bool:
        """Whether there was one."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    async def take(self) -> None:
        while not self.take_now():
            self._granted.clear()
            await self._granted.wait()


class Flow:
    """The parts of one answer, each sent on credit. `close` ends it, whether or not all was sent."""

    def __init__(self, ask: Ask, credit: Credit, send: Callable[[AnyMessage], None]) -> None:
        self.seq = 0  # of the next part
        self._ask, self._credit, self._send = ask, credit, send
        self._loop = asyncio.get_running_loop()
        self._held: list[Piece] = []
        self._sent_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    async def put(self, item: Answer) -> None:
        if isinstance(item, Piece):
            self._held.append(item)
            now_s = self._loop.time()
            if (
                self._sent_s + GATHER_S > now_s
                and sum(len(piece.token_ids) or 1 for piece in self._held) < GATHERED_TOKENS
            ):
                if self._timer is None:
                    self._timer = self._loop.call_at(_next_turn_s(now_s), self._due)
                return
            await self.flush()
        else:
            await self.flush()
            await self._credit.take()
            self._tell(item)

    async def flush(self) -> None:
        """Send what is held, as soon as there is credit."""
        if self._held:
            await self._credit.take()
            self._tell_held()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        if not self._held:
            return
        if self._credit.take_now():
            self._tell_held()
        else:
            self._timer = self._loop.call_at(_next_turn_s(self._loop.time()), self._due)

    def _tell_held(self) -> None:
        held, self._held = self._held, []
        if held:
            self._sent_s = self._loop.time()
            self._tell(joined(held))

    def _tell(self, item: Answer) -> None:
        self._send(_part(self._ask, self.seq, item))
        self.seq += 1


def _next_turn_s(now_s: float) -> float:
    """When what is held is sent, of all answers at once: whoever has to be woken is woken for all of them."""
    return (now_s // GATHER_S + 1.0) * GATHER_S


class Serving:
    """All requests this node is answering. `send` must not raise for a peer that is gone: the work is cancelled
    anyway. `told` hears of each request that is begun and how it ended; `inside` says whether its data may be here."""

    def __init__(
        self, own: PeerId, send: Send, told: OnServed = nobody, inside: Callable[[Ask], bool] = lambda ask: True
    ) -> None:
        self._own = own
        self._send = send
        self._told = told
        self._inside = inside
        self._services: dict[str, Service] = {}
        self._running: dict[Ticket, tuple[asyncio.Task[None], Credit]] = {}
        self._draining = False

    def offer(self, capability: str, service: Service) -> None:
        self._services[capability] = service

    def withdraw(self, capability: str) -> None:
        """Requests that run go on; new ones are refused."""
        self._services.pop(capability, None)

    @property
    def services(self) -> dict[str, Service]:
        return self._services

    def ask(self, peer: PeerId, ask: Ask) -> None:
        ticket = (peer, ask.id, ask.attempt)
        if ticket in self._running:
            return  # the same question twice is one question
        credit = Credit(ask.window)
        task = asyncio.create_task(self._serve(peer, ask, credit), name=f"serve {ask.id.hex()[:8]}")
        self._running[ticket] = (task, credit)
        task.add_done_callback(lambda _: self._running.pop(ticket, None))

    def grant(self, peer: PeerId, grant: Grant) -> None:
        running = self._running.get((peer, grant.id, grant.attempt))
        if running:
            running[1].grant(grant.parts)

    def cancel(self, peer: PeerId, cancel: Cancel) -> None:
        running = self._running.get((peer, cancel.id, cancel.attempt))
        if running:
            running[0].cancel()

    def peer_lost(self, peer: PeerId) -> None:
        """Nobody is left to read the answers."""
        for (asker, _, _), (task, _) in list(self._running.items()):
            if asker == peer:
                task.cancel()

    async def drain(self, wait_s: float) -> None:
        """Take nothing new, and go on with what has begun for up to so long."""
        self._draining = True
        tasks = [task for task, _ in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=wait_s)

    async def close(self) -> None:
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __repr__(self) -> str:
        return f"<Serving {len(self._services)} capabilities, {len(self._running)} requests>"

    async def _serve(self, peer: PeerId, ask: Ask, credit: Credit) -> None:
        service = self._services.get(ask.capability)
        self._told(peer, ask, None)
        try:
            if self._draining:
                raise EngineUnavailable(f"{short(self._own)} is stopping.")
            if not self._inside(ask):
                raise OutsideBoundary(
                    f"{short(self._own)} is not in {' or '.join(ask.homes)}.", hint="Its labels have changed."
                )
            if service is None:
                raise ModelNotFound(f"{short(self._own)} does not serve {ask.capability}.")
            if not ask.task.turns:
                raise UsageError("The prompt is empty.", hint="Say what you want.")
            async with asyncio.timeout(ask.deadline_s):
                await self._stream(peer, ask, service, credit)
        except asyncio.CancelledError:
            self._told(peer, ask, Cancelled("Nobody waits for the answer any more."))
            raise
        except TimeoutError:
            late = RequestTimeout("The deadline passed before the answer was complete.", hint="Allow more time.")
            self._fail(peer, ask, service, late)
        except AtmoError as error:
            self._fail(peer, ask, service, error)
        except Exception as error:
            # A bug of ours must not leave the requester waiting; the log has the whole story, without the prompt.
            log.exception("serving failed", capability=ask.capability, request=ask.id.hex())
            self._fail(peer, ask, service, AtmoError(f"The node failed: {type(error).__name__}.", hint="See its log."))

    async def _stream(self, peer: PeerId, ask: Ask, service: Service, credit: Credit) -> None:
        question = Question(ask.id, ask.task, ask.deadline_s, own=peer == self._own)
        flow = Flow(ask, credit, lambda part: self._send(peer, part))
        with closing(flow):
            async with aclosing(service.answer(question)) as items:
                async for item in items:
                    if isinstance(item, Finish):
                        await flow.flush()
                        self._send(peer, _done(ask, flow.seq, item, service))
                        self._told(peer, ask, item)
                        return
                    await flow.put(item)

    def _fail(self, peer: PeerId, ask: Ask, service: Service | None, error: AtmoError) -> None:
        self._told(peer, ask, error)
        retry_after_s = float(getattr(error, "retry_after_s", 0.0))
        load = service.load() if service else None
        message, hint = error.message[:MAX_TOLD_CHARS], error.hint[:MAX_TOLD_CHARS]
        self._send(peer, Failed(ask.id, ask.attempt, error.code, message, hint, retry_after_s, load))


def _part(ask: Ask, seq: int, item: Answer) -> Part | Vectors | Scores:
    if isinstance(item, Piece):
        return Part(ask.id, ask.attempt, seq, item)
    if isinstance(item, Labels):
        return Scores(ask.id, ask.attempt, seq, item.labels)
    assert isinstance(item, Vector)
    return Vectors(ask.id, ask.attempt, seq, item.vector)


def _done(ask: Ask, seq: int, item: Finish, service: Service) -> Done:
    return Done(ask.id, ask.attempt, seq, item, service.load())

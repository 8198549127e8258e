"""From an engine to a capability: admission, the question's translation, and how busy it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog

from atmo.clock import Clock
from atmo.config import InferenceSection
from atmo.errors import Overloaded, UsageError
from atmo.generation import Finish, Prefix, Turn
from atmo.inference.admission import Admission, Admit, Refuse
from atmo.inference.engine import EngineEvent
from atmo.inference.hosts import REMOTE, open_host
from atmo.inference.supervisor import SupervisorSettings
from atmo.mesh.capability import CHAT, CLASSIFICATION, EMBEDDING, VISION, Descriptor, Load
from atmo.mesh.service import Answer, Labels, Question, Vector
from atmo.models.roots import root_of
from atmo.models.store import Store
from atmo.node.offers import Offer

log = structlog.get_logger("atmo.service")

# Weight of the newest observation in the averages that are told to the mesh. A guess: the last ten requests count.
LEARNING_RATE = 0.2
# A first load that takes longer than this does not hold up the start; the node says that it is still loading.
SETTLE_S = 20.0


class EngineService:
    """Implements `atmo.mesh.service.Service` with a supervised engine. `on_change` is called when readiness changes.

    roots: the file that remembers models' roots; store: where a model with a root lies, held while it is served.
    """

    def __init__(
        self,
        offer: Offer,
        config: InferenceSection,
        clock: Clock,
        on_change: Callable[[Offer], None],
        roots: Path | None = None,
        store: Store | None = None,
    ) -> None:
        self.offer = offer
        self.state = "loading"
        self._root = offer.root
        self._roots = roots
        self._store = store
        self._held = ExitStack()
        self._naming: asyncio.Task[None] | None = None
        self.detail = self.hint = ""
        self._own_first = config.own_first
        self._clock = clock
        self._on_change = on_change
        settings = SupervisorSettings(idle_unload_s=config.idle_unload_s)
        self._engine = open_host(offer.spec, self._on_event, clock, settings)
        self._admission: Admission[object] = Admission(offer.spec.slots, config.queue)
        self._waiting: dict[object, asyncio.Event] = {}
        self._settled = asyncio.Event()
        self._service_s = self._prompt_tps = self._decode_tps = 0.0
        self._answers: dict[str, Callable[[Question], AsyncGenerator[Answer, None]]] = {
            CHAT: self._chat,
            EMBEDDING: self._embed,
            CLASSIFICATION: self._classify,
            VISION: self._look,
        }

    @property
    def descriptor(self) -> Descriptor:
        """As configured, with the model's root, and the context that a chat engine really holds once it is loaded."""
        told, held = self.offer.descriptor, self._engine.facts.context
        context = held if told.context and held else told.context
        return msgspec.structs.replace(told, context=context, root=self._root)

    async def start(self) -> None:
        """Begin to load. `settled` waits for the outcome."""
        if self._root and self._store is not None:
            self._held.enter_context(self._store.hold(bytes.fromhex(self._root)))
        else:
            self._naming = asyncio.create_task(self._find_root(), name=f"root of {self.offer.spec.name}")
        await self._engine.start()

    async def _find_root(self) -> None:
        """Name the model by its content. A file that cannot be read goes without; the engine says what is wrong."""
        spec = self.offer.spec
        if spec.kind == REMOTE:
            return  # its bytes are not here to be named by
        try:
            self._root = await asyncio.to_thread(root_of, Path(spec.path), self._roots)
        except OSError as error:
            log.warning("model not read", model=spec.name, why=error.strerror)

    async def settled(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._settled.wait()
        except TimeoutError:
            log.info("still loading", model=self.offer.spec.name)

    async def close(self) -> None:
        if self._naming is not None:
            self._naming.cancel()
            await asyncio.gather(self._naming, return_exceptions=True)
        await self._engine.close()
        self._held.close()

    async def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        kind = self.offer.descriptor.type
        if kind not in self._answers:
            raise UsageError(f"{self.offer.descriptor.id} is of a type that cannot be asked.")
        began_s = self._clock.now()
        async with self._admitted(question):
            queue_s = self._clock.now() - began_s
            async with aclosing(self._answers[kind](question)) as items:
                async for item in items:
                    if isinstance(item, Finish):
                        item = self._learnt(item, queue_s, self._clock.now() - began_s - queue_s)
                    yield item

    def load(self) -> Load:
        busy = self._engine.load()
        return Load(
            self.offer.descriptor.id,
            in_flight=self._admission.running,
            slots=self._admission.slots,
            queued=self._admission.queued,
            service_s=self._service_s,
            prompt_tps=self._prompt_tps,
            decode_tps=self._decode_tps,
            ready=busy.ready,
        )

    def report(self) -> dict[str, Any]:
        descriptor, facts = self.offer.descriptor, self._engine.facts
        return {
            "id": descriptor.id,
            "type": descriptor.type,
            "model": descriptor.model,
            "state": self.state,
            "detail": self.detail if self.state != "ready" else "",
            "hint": self.hint,
            "engine": facts.engine,
            "context": facts.context,
            "load_s": round(facts.load_s, 3),
            "worker_pid": self._engine.pid,
            "in_flight": self._admission.running,
            "queued": self._admission.queued,
            "slots": self._admission.slots,
        }

    def __repr__(self) -> str:
        return f"<EngineService {self.offer.descriptor.id} {self.state} {self._admission!r}>"

    # Engine

    def _on_event(self, event: EngineEvent) -> None:
        """The engine's state is the service's, but that it is not ready before its model has a name."""
        if event.state == "ready" and self._naming is not None and not self._naming.done():
            self._naming.add_done_callback(lambda naming: None if naming.cancelled() else self._on_event(event))
            return
        changed = event.state != self.state
        self.state, self.detail, self.hint = event.state, event.detail, event.hint
        if event.state in ("ready", "failed"):
            self._settled.set()
        if changed:
            say = log.warning if event.state in ("down", "failed") else log.info
            say("engine", capability=self.offer.descriptor.id, state=event.state, detail=event.detail)
            self._on_change(self.offer)

    # Admission

    @asynccontextmanager
    async def _admitted(self, question: Question) -> AsyncIterator[None]:
        """Hold a slot. Raises Overloaded when there is neither a slot nor a place in the queue."""
        ticket = object()
        now_s = self._clock.now()
        verdict = self._admission.offer(
            ticket, now_s, now_s + question.deadline_s, int(question.own and self._own_first)
        )
        if isinstance(verdict, Refuse):
            raise Overloaded(
                f"{self.offer.descriptor.id} is busy: {self._admission!r}.",
                retry_after_s=verdict.retry_after_s,
                hint=f"Try again in {verdict.retry_after_s:.0f} s.",
            )
        self._on_change(self.offer)
        try:
            if not isinstance(verdict, Admit):
                await self._wait_for_slot(ticket)
            yield
        finally:
            for admitted in self._admission.release(ticket, self._clock.now()):
                if admitted in self._waiting:
                    self._waiting[admitted].set()
            self._on_change(self.offer)

    async def _wait_for_slot(self, ticket: object) -> None:
        turn = self._waiting[ticket] = asyncio.Event()
        try:
            await turn.wait()
        finally:
            del self._waiting[ticket]

    # Questions

    async def _chat(self, question: Question) -> AsyncGenerator[Answer, None]:
        asked = question.task
        task = msgspec.structs.replace(asked, turns=self._turns(asked.turns), prefix=self._prefix(asked.prefix))
        async with aclosing(self._engine.chat(task)) as pieces:
            async for piece in pieces:
                yield piece

    def _turns(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """The conversation, led by the capability's own system prompt unless the question brings one."""
        own = self.offer.spec.system_prompt
        return (Turn("system", own), *turns) if own and turns[0].role != "system" else turns

    def _prefix(self, begun: Prefix) -> Prefix:
        """Token ids of another model mean nothing here: then the text alone is gone on with."""
        same = bool(begun.root) and begun.root == self._root
        return begun if same else msgspec.structs.replace(begun, token_ids=())

    async def _embed(self, question: Question) -> AsyncGenerator[Answer, None]:
        """One vector for each turn."""
        texts = [turn.content for turn in question.task.turns]
        tokens = sum([await self._engine.count_tokens(text) for text in texts])
        for vector in await self._engine.embed(texts):
            yield Vector(np.asarray(vector, dtype="<f4").tobytes())
        yield Finish(reason="stop", prompt_tokens=tokens)

    async def _classify(self, question: Question) -> AsyncGenerator[Answer, None]:
        text = question.task.turns[-1].content
        yield Labels(tuple(await self._engine.classify(text)))
        yield Finish(reason="stop", prompt_tokens=await self._engine.count_tokens(text))

    async def _look(self, question: Question) -> AsyncGenerator[Answer, None]:
        """Labels of the last turn's first image."""
        images = question.task.turns[-1].images
        if not images:
            raise UsageError("There is no image to look at.", hint="Send a PNG or JPEG with the question.")
        yield Labels(tuple(await self._engine.classify_image(images[0])))
        yield Finish(reason="stop")

    def _learnt(self, item: Finish, queue_s: float, service_s: float) -> Finish:
        self._service_s = _average(self._service_s, service_s)
        if item.prefill_s > 0:
            self._prompt_tps = _average(self._prompt_tps, item.prompt_tokens / item.prefill_s)
        if item.decode_s > 0 and item.output_tokens > 1:
            self._decode_tps = _average(self._decode_tps, item.output_tokens / item.decode_s)
        return msgspec.structs.replace(item, queue_s=queue_s + item.queue_s)


def _average(old: float, new: float) -> float:
    return new if old == 0 else old + LEARNING_RATE * (new - old)

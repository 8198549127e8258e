"""A model that another server runs, with the outside of a supervised engine: whoever uses it does not see the server.

There is nothing to load. Whether the server is there, and still has the model, is watched by whoever made this; while a
request finds it gone it says so (EngineUnavailable), and the mesh asks elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from atmo.clock import Clock
from atmo.errors import EngineUnavailable, UsageError
from atmo.generation import Finish, Piece, Task, Turn
from atmo.inference.engine import EngineEvent, EngineLoad, ModelFacts, ModelSpec
from atmo.inference.engines.http_model import Dialect, open_dialect
from atmo.inference.engines.http_upstream import Access

_CHARS_PER_TOKEN = 4.0  # of English text with any of the usual tokenizers; a guess, as servers do not tell


class RemoteModel:
    """An Engine, and what `Supervisor` has besides. on_event is called with each change of state."""

    pid = None
    rss_bytes = 0
    cpu_s = 0.0

    def __init__(self, spec: ModelSpec, on_event: Callable[[EngineEvent], None], clock: Clock) -> None:
        self.spec = spec
        self.facts = ModelFacts(engine=spec.engine, context=spec.context, slots=spec.slots)
        self.state = "stopped"
        self._on_event = on_event
        self._clock = clock
        self._dialect: Dialect | None = None
        self._chats = 0

    def __repr__(self) -> str:
        return f"<RemoteModel {self.spec.name} at {Access(self.spec.path).host} {self.state} chats={self._chats}>"

    async def start(self) -> None:
        """Ready at once: the server has been seen to have the model."""
        self._dialect = open_dialect(self.spec.engine, Access(self.spec.path, self.spec.key))
        self.state = "ready"
        self._on_event(EngineEvent("ready", f"{self.spec.name} is there.", facts=self.facts))

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        dialect = self._open()
        if not any(turn.content.strip() or turn.images or turn.calls for turn in task.turns):
            raise UsageError("The prompt is empty.", hint="Say something.")
        began_s, first_s = self._clock.now(), 0.0
        self._chats += 1
        try:
            async with aclosing(dialect.chat(self.spec.name, self._with_system(task))) as parts:
                async for part in parts:
                    first_s = first_s or self._clock.now()
                    yield _timed(part, began_s, first_s, self._clock.now()) if isinstance(part, Finish) else part
        finally:
            self._chats -= 1

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Of unit length."""
        vectors = await self._open().embed(self.spec.name, texts)
        if len(vectors) != len(texts):
            raise EngineUnavailable(f"{self.spec.name} made {len(vectors)} vectors of {len(texts)} texts.")
        return [_unit(vector) for vector in vectors]

    async def classify(self, text: str) -> list[tuple[str, float]]:
        raise UsageError(f"{self.spec.name} has no labels.", hint="Ask a classification model.")

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        raise UsageError(f"{self.spec.name} does not classify images.", hint="Ask a vision model.")

    async def count_tokens(self, text: str) -> int:
        """An estimate: servers do not say how they would cut a text."""
        return math.ceil(len(text) / _CHARS_PER_TOKEN)

    def load(self) -> EngineLoad:
        busy = min(self._chats, self.facts.slots)
        return EngineLoad(self.facts.slots, busy, self._chats - busy, ready=self.state == "ready")

    async def close(self) -> None:
        dialect, self._dialect = self._dialect, None
        self.state = "stopped"
        if dialect is not None:
            await dialect.close()

    def _open(self) -> Dialect:
        if self._dialect is None:
            raise EngineUnavailable(f"{self.spec.name} is not there any more.", hint="Ask another model.")
        return self._dialect

    def _with_system(self, task: Task) -> Task:
        if not self.spec.system_prompt or task.form.raw or task.turns[0].role == "system":
            return task
        system = Turn("system", self.spec.system_prompt)
        return Task((system, *task.turns), task.sampling, task.form, task.prefix)


def _timed(finish: Finish, began_s: float, first_s: float, ended_s: float) -> Finish:
    """With the times as seen from here, where the server told none."""
    if finish.prefill_s or finish.decode_s:
        return finish
    return Finish(
        reason=finish.reason,
        prompt_tokens=finish.prompt_tokens,
        output_tokens=finish.output_tokens,
        cached_tokens=finish.cached_tokens,
        prefill_s=max(0.0, first_s - began_s),
        decode_s=max(0.0, ended_s - first_s),
    )


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    if not math.isfinite(length) or length == 0:
        raise EngineUnavailable("The server made a vector without a direction.", hint="Is it an embedding model?")
    return [value / length for value in vector]

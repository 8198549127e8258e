"""What engines share that compute one request after the other: a queue in front of one thread, which leaves the
worker's loop free to answer pings, and refusals of whatever the engine does not do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from atmo.errors import UsageError
from atmo.generation import Finish, Piece, Task
from atmo.inference.engine import EngineLoad, ModelFacts, ModelSpec

_Asked = TypeVar("_Asked")
_Result = TypeVar("_Result")


class OneByOne:
    """Base of such engines: they override what they can do."""

    def __init__(self, spec: ModelSpec, facts: ModelFacts) -> None:
        self.facts = facts
        self._spec = spec
        self._outstanding = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        raise UsageError(f"{self._spec.name} does not chat.", hint="Ask a chat model.")
        yield  # type: ignore[unreachable]  # makes this an async generator, as the interface wants

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError(f"{self._spec.name} makes no embeddings.", hint="Ask an embedding model.")

    async def classify(self, text: str) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} has no labels.", hint="Ask a classification model.")

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} does not classify images.", hint="Ask a vision model.")

    def load(self) -> EngineLoad:
        busy = min(1, self._outstanding)
        return EngineLoad(1, busy, self._outstanding - busy, ready=True)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _compute(self, work: Callable[[_Asked], _Result], asked: _Asked) -> _Result:
        self._outstanding += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, asked)
        finally:
            self._outstanding -= 1

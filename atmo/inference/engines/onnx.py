"""onnxruntime engines: the text encoder as an embedding capability, a text classifier as a classification capability.

Both are small and quick, so requests are computed one after the other in one thread, which leaves the worker's loop
free to answer pings and to take cancellations between texts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from atmo.errors import ModelNotFound, UsageError
from atmo.generation import Finish, Piece, Task
from atmo.inference.engine import Engine, EngineLoad, ModelFacts, ModelSpec

if TYPE_CHECKING:
    from atmo.inference.classifier import Classifier
    from atmo.inference.encoder import Encoder

_Result = TypeVar("_Result")


def open_onnx(spec: ModelSpec) -> Engine:
    """Raises ModelNotFound, ModelInvalid, EngineUnavailable when onnxruntime is not installed."""
    path = Path(spec.path)
    if not path.exists():
        raise ModelNotFound(f"There is no model {path}.", hint="Check the path.")
    threads = max(1, spec.threads)  # a text takes milliseconds: a second thread gains nothing and disturbs the rest
    started_s = time.monotonic()
    from atmo.inference.encoder import Encoder

    if spec.kind == "encoder":
        encoder = Encoder.load(path, threads)
        return EncoderEngine(spec, _facts(encoder.window, started_s), encoder)
    from atmo.inference.classifier import Classifier

    encoder = Encoder.load(None, threads)  # a classifier is a head over the vectors of the encoder that is installed
    return ClassifierEngine(spec, _facts(encoder.window, started_s), Classifier.load(path, encoder), encoder)


def _facts(context: int, started_s: float) -> ModelFacts:
    return ModelFacts(engine="onnx", context=context, slots=1, load_s=time.monotonic() - started_s)


class _OneByOne:
    """What both engines share: a queue in front of one thread, and refusals of what they cannot do."""

    def __init__(self, spec: ModelSpec, facts: ModelFacts) -> None:
        self.facts = facts
        self._spec = spec
        self._outstanding = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onnx")

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        raise UsageError(f"{self._spec.name} does not chat.", hint="Ask a chat model.")
        yield  # type: ignore[unreachable]  # makes this an async generator, as the interface wants

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError(f"{self._spec.name} makes no embeddings.", hint="Ask an embedding model.")

    async def classify(self, text: str) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} has no labels.", hint="Ask a classification model.")

    def load(self) -> EngineLoad:
        busy = min(1, self._outstanding)
        return EngineLoad(1, busy, self._outstanding - busy, ready=True)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _compute(self, work: Callable[[str], _Result], text: str) -> _Result:
        self._outstanding += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, text)
        finally:
            self._outstanding -= 1


class EncoderEngine(_OneByOne):
    def __init__(self, spec: ModelSpec, facts: ModelFacts, encoder: Encoder) -> None:
        super().__init__(spec, facts)
        self._encoder = encoder

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """(len(texts), 384), unit length."""
        return [await self._compute(self._vector, text) for text in texts]

    async def count_tokens(self, text: str) -> int:
        return await self._compute(self._encoder.count_tokens, text)

    def _vector(self, text: str) -> list[float]:
        return [float(value) for value in self._encoder.encode(text)]


class ClassifierEngine(_OneByOne):
    def __init__(self, spec: ModelSpec, facts: ModelFacts, classifier: Classifier, encoder: Encoder) -> None:
        super().__init__(spec, facts)
        self._classifier = classifier
        self._encoder = encoder

    async def classify(self, text: str) -> list[tuple[str, float]]:
        return await self._compute(self._classifier.classify, text)

    async def count_tokens(self, text: str) -> int:
        return await self._compute(self._encoder.count_tokens, text)

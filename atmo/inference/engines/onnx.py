"""onnxruntime engines: the text encoder as an embedding capability, a text classifier as a classification capability,
an image classifier as a vision capability.

All are small and quick, so requests are computed one after the other in one thread, which leaves the worker's loop
free to answer pings and to take cancellations between texts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atmo.errors import ModelNotFound
from atmo.inference.engine import Engine, ModelFacts, ModelSpec
from atmo.inference.engines.one_by_one import OneByOne

if TYPE_CHECKING:
    from atmo.inference.classifier import Classifier
    from atmo.inference.encoder import Encoder
    from atmo.inference.vision import ImageClassifier


def open_onnx(spec: ModelSpec) -> Engine:
    """Raises ModelNotFound, ModelInvalid, EngineUnavailable when onnxruntime is not installed."""
    path = Path(spec.path)
    if not path.exists():
        raise ModelNotFound(f"There is no model {path}.", hint="Check the path.")
    threads = max(1, spec.threads)  # a text takes milliseconds: a second thread gains nothing and disturbs the rest
    started_s = time.monotonic()
    if spec.kind == "vision":
        from atmo.inference.vision import ImageClassifier

        return VisionEngine(spec, _facts(0, started_s), ImageClassifier.load(path, threads))
    from atmo.inference.encoder import Encoder

    if spec.kind == "encoder":
        encoder = Encoder.load(path, threads)
        return EncoderEngine(spec, _facts(encoder.window, started_s), encoder)
    from atmo.inference.classifier import Classifier

    encoder = Encoder.load(None, threads)  # a classifier is a head over the vectors of the encoder that is installed
    return ClassifierEngine(spec, _facts(encoder.window, started_s), Classifier.load(path, encoder), encoder)


def _facts(context: int, started_s: float) -> ModelFacts:
    return ModelFacts(engine="onnx", context=context, slots=1, load_s=time.monotonic() - started_s)


class EncoderEngine(OneByOne):
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


class ClassifierEngine(OneByOne):
    def __init__(self, spec: ModelSpec, facts: ModelFacts, classifier: Classifier, encoder: Encoder) -> None:
        super().__init__(spec, facts)
        self._classifier = classifier
        self._encoder = encoder

    async def classify(self, text: str) -> list[tuple[str, float]]:
        return await self._compute(self._classifier.classify, text)

    async def count_tokens(self, text: str) -> int:
        return await self._compute(self._encoder.count_tokens, text)


class VisionEngine(OneByOne):
    def __init__(self, spec: ModelSpec, facts: ModelFacts, classifier: ImageClassifier) -> None:
        super().__init__(spec, facts)
        self._classifier = classifier

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        return await self._compute(self._classifier.classify, image)

    async def count_tokens(self, text: str) -> int:
        """None: it reads no text."""
        return 0

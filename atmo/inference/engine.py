"""What an engine is: the one interface behind which llama.cpp, onnxruntime and, later, servers over HTTP stand.

An engine holds one loaded model. It is either native (loaded in this process, which only a worker process does) or a
proxy for a worker (`atmo.inference.supervisor`), and whoever uses it cannot tell. All calls may run at the same time;
an engine with fewer slots than callers makes the rest wait in the order they came.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from atmo.generation import Finish, Piece, Task


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and how.

    kind: `gguf`, `encoder`, `classifier`, `vision` or `remote`; path: the model's file or folder, or the address of the
    server that runs it; engine: `auto`, `xllamacpp`, `llama-cpp-python` or `onnx`, or what a server speaks: `openai`,
    `ollama`, `anthropic`; context: tokens for one request, 0 for the model's own; slots: requests answered at once;
    threads: 0 for one on each core this process may use; gpu_layers: -1 for all that fit, 0 for none; key: where a
    server's key is kept, `env:NAME` or `file:PATH`, never the key itself; projector: the file that turns images into
    what the model reads, "" where it sees none.
    """

    name: str
    kind: str
    path: str
    engine: str = "auto"
    context: int = 0
    slots: int = 4
    threads: int = 0
    batch: int = 0
    gpu_layers: int = -1
    system_prompt: str = ""
    key: str = ""
    projector: str = ""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine knows of the loaded model. context: tokens for one request. load_s: how long loading took."""

    engine: str
    context: int = 0
    slots: int = 1
    parameters: int = 0
    vocabulary: int = 0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """slots_busy of slots are working; `waiting` requests have none yet. ready: answers now."""

    slots: int
    slots_busy: int
    waiting: int
    ready: bool


class Engine(Protocol):
    """Calls raise InferenceError's children: EngineUnavailable (worker gone or starting), ContextOverflow,
    ModelInvalid.

    Leaving a `chat` iterator early (`aclose`) cancels the work in the engine and frees its slot.
    """

    facts: ModelFacts

    def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        """Answer a chat: some pieces, then one finish."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector for each text."""

    async def classify(self, text: str) -> list[tuple[str, float]]:
        """All labels with their probabilities, the likeliest first."""

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        """All labels of a PNG or JPEG file with their probabilities, the likeliest first."""

    async def count_tokens(self, text: str) -> int:
        """Tokens of plain text, without any chat template."""

    def load(self) -> EngineLoad:
        """How busy it is at this moment."""

    async def close(self) -> None:
        """Cancel what runs, free the model. May be called twice."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Told by the supervisor: state is `loading`, `ready`, `unloaded` (until it is wanted), `down` (will be restarted)
    or `failed` (will not)."""

    state: str
    detail: str = ""
    hint: str = ""
    facts: ModelFacts | None = field(default=None)

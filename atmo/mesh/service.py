"""What stands behind a capability, seen from the mesh: something that turns a question into pieces of an answer.

The mesh does not know engines. Whoever puts a node together registers a `Service` for each capability; local and remote
requests reach it the same way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from atmo.mesh.capability import Load
from atmo.mesh.messages import Sampling, Turn


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. deadline_s: time left. own: asked on this machine, not by a peer."""

    id: bytes
    turns: tuple[Turn, ...]
    sampling: Sampling
    deadline_s: float
    own: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text and the ids of its tokens (none where the engine has none)."""

    text: str
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Vector:
    """A unit vector, float32 little-endian bytes."""

    vector: bytes


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels with probabilities, the likeliest first."""

    labels: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete. finish: `stop` or `length`. Times in seconds, as the engine measured them."""

    finish: str
    prompt_tokens: int = 0
    output_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


Answer = Text | Vector | Labels | Finished


class Service(Protocol):
    def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        """Pieces, then one `Finished`. Raises AtmoError; closing the generator early frees what the request held."""

    def load(self) -> Load:
        """How busy the capability is now."""

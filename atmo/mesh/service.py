"""What stands behind a capability, seen from the mesh: something that turns a question into pieces of an answer.

The mesh does not know engines. Whoever puts a node together registers a `Service` for each capability; local and remote
requests reach it the same way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from atmo.generation import Finish, Piece, Task
from atmo.mesh.capability import Load


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. deadline_s: time left. own: asked on this machine, not by a peer."""

    id: bytes
    task: Task
    deadline_s: float
    own: bool


@dataclass(frozen=True, slots=True)
class Vector:
    """A unit vector, float32 little-endian bytes."""

    vector: bytes


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels with probabilities, the likeliest first."""

    labels: tuple[tuple[str, float], ...]


Answer = Piece | Vector | Labels | Finish


class Service(Protocol):
    def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        """Pieces, then one `Finish`. Raises AtmoError; closing the generator early frees what the request held."""

    def load(self) -> Load:
        """How busy the capability is now."""

"""What the dialects of model servers have in common: one interface, and the pieces they are made of."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atmo.errors import EngineUnavailable, UsageError
from atmo.generation import Finish, Piece, Task
from atmo.inference.engines.http_upstream import Access


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that a server has. type: `chat` or `embedding`; context: tokens, 0 when it does not say; vision: takes
    images; parameters: count, 0 when it does not say."""

    name: str
    type: str = "chat"
    context: int = 0
    vision: bool = False
    parameters: int = 0
    quantisation: str = ""


class Dialect(Protocol):
    """One server's API. Calls raise EngineUnavailable, Overloaded, ModelNotFound, UsageError, ContextOverflow,
    ConfigError."""

    async def models(self) -> list[FoundModel]:
        """What the server can run now. Raises EngineUnavailable when it is not of this dialect."""

    def chat(self, model: str, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        """Pieces without token ids, then one finish. Closing it stops the server."""

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """One vector for each text, as the server gives it."""

    async def close(self) -> None:
        """Close its connections."""


def open_dialect(kind: str, access: Access) -> Dialect:
    """kind: `openai`, `ollama` or `anthropic`."""
    if kind == "ollama":
        from atmo.inference.engines.http_ollama import Ollama

        return Ollama(access)
    if kind == "anthropic":
        from atmo.inference.engines.http_anthropic import Anthropic

        return Anthropic(access)
    from atmo.inference.engines.http_openai import OpenAI

    return OpenAI(access)


def refuse(kind: str, *wanted: tuple[bool, str]) -> None:
    """Raise UsageError for what a server cannot do and would leave out without a word.

    wanted: (is it asked for, its name).
    """
    for asked, what in wanted:
        if asked:
            raise UsageError(
                f"{kind} servers cannot do this: {what}.", hint="Ask a model that runs in the mesh itself."
            )


def parsed_tools(task: Task) -> list[dict[str, Any]]:
    try:
        found = json.loads(task.form.tools) if task.form.tools else []
    except ValueError as error:
        raise UsageError(f"The list of tools is not JSON: {error}.") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UsageError("The tools must be a list of objects.")
    return found


def parsed_schema(task: Task) -> dict[str, Any]:
    try:
        found = json.loads(task.form.schema)
    except ValueError as error:
        raise UsageError(f"The schema is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError("The JSON schema must be an object.")
    return found


def broken_off(host: str) -> EngineUnavailable:
    return EngineUnavailable(f"{host} broke off in the middle of an answer.", hint="Ask again.")


def cannot_go_on(host: str) -> EngineUnavailable:
    """Better no rest of an answer than one that begins at its beginning."""
    return EngineUnavailable(f"{host} cannot go on with an answer that was begun.", hint="Ask again.")

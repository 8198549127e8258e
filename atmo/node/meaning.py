"""Where text becomes meaning: the encoder, and what routing needs of it."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atmo.errors import AtmoError, UsageError
from atmo.generation import Turn
from atmo.ids import PeerId
from atmo.mesh.capability import Capability, Descriptor
from atmo.mesh.classes import Tokens
from atmo.mesh.constraints import Constraints
from atmo.mesh.query import Query
from atmo.mesh.views import READ_WIDTH, Vector, capability_text, views_of

if TYPE_CHECKING:
    from atmo.inference.encoder import Encoder

# Tokens of an answer whose length nobody limited. A guess; only the expected time depends on it.
EXPECTED_OUTPUT_TOKENS = 128
# Characters for one token, to judge a prompt's length without a tokenizer. English text has about four.
CHARS_PER_TOKEN = 4


# Of a conversation's earlier turns so many are read, and so many characters of each, so that with them the last one
# still lies within the encoder's window. Guesses.
EARLIER_TURNS, EARLIER_CHARS = 2, 160
# Of the last turn alone in a conversation's vector, the rest being all of it. Measured, tools/encoder/results/fit.json.
LAST_WEIGHT = 0.7


def conversation(turns: Sequence[Turn]) -> str:
    """A conversation as one text: the user's last turn behind the beginnings of the turns before it.

    The form is the one the encoder was trained on. System prompts do not count: they are the same for every request of
    an application. What follows the last question (an answer begun, a tool's result) does not either.
    """
    said = _asked(turns)
    if len(said) < 2:
        return last_question(turns)
    earlier = [f"{turn.role}: {turn.content.strip()[:EARLIER_CHARS]}" for turn in said[-1 - EARLIER_TURNS : -1]]
    return "\n".join([*earlier, f"user: {said[-1].content.strip()}"])


def last_question(turns: Sequence[Turn]) -> str:
    said = _asked(turns)
    return said[-1].content if said else ""


def _asked(turns: Sequence[Turn]) -> list[Turn]:
    """What user and assistant said, up to the user's last turn."""
    said = [turn for turn in turns if turn.role in ("user", "assistant") and turn.content.strip()]
    while said and said[-1].role != "user":
        said.pop()
    return said


class Meaning:
    """The encoder, loaded once. `query` and `capability` raise AtmoError before `load` has returned."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    @property
    def ready(self) -> bool:
        return self._encoder is not None

    async def load(self) -> None:
        self._encoder = await asyncio.to_thread(_load)

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            raise AtmoError("The text encoder is not loaded.", hint="Wait until the node is ready.")
        return self._encoder

    def close(self) -> None:
        self._encoder = None

    def capability(self, descriptor: Descriptor) -> Capability:
        """The descriptor with its vectors, as it is gossiped."""
        views = views_of(descriptor.description, descriptor.examples, self.encoder.encode)
        return Capability(descriptor, self.encoder.encoder_id, views)

    def tokens(self, descriptor: Descriptor) -> Tokens:
        """The capability's text for the second reading. A text without a readable character, which somebody may well
        publish, is like nothing."""
        try:
            return self.encoder.read(capability_text(descriptor.description, descriptor.examples)).tokens
        except UsageError:
            return np.zeros((1, READ_WIDTH), np.int8)

    def read(self, text: str, turns: Sequence[Turn] = ()) -> tuple[Vector, NDArray[np.float32]]:
        """The meaning of a text, as `Query` wants it: `vector` and `tokens`; of a conversation mostly that of its last
        turn, and a little that of all of it."""
        talk = conversation(turns)
        last = last_question(turns) or text
        alone = self.encoder.read_prompt(last)
        if talk in ("", last):
            return alone.vector, alone.weighted()
        everything = self.encoder.read_prompt(talk)
        mixed = LAST_WEIGHT * alone.vector + (1 - LAST_WEIGHT) * everything.vector
        tokens = np.vstack((LAST_WEIGHT * alone.weighted(), (1 - LAST_WEIGHT) * everything.weighted()))
        return np.asarray(mixed / np.linalg.norm(mixed), np.float32), np.asarray(tokens, np.float32)

    def query(
        self,
        text: str,
        model: str,
        kind: str,
        wishes: dict[str, Any],
        local: PeerId,
        max_tokens: int = 0,
        turns: Sequence[Turn] = (),
    ) -> Query:
        """What routing needs to know of a request. turns: of the conversation that the text ends, if it is one.

        Raises UsageError for an empty text or an unknown constraint.
        """
        if not text.strip():
            raise UsageError("The prompt is empty.", hint="Say what you want.")
        constraints = constraints_from({**wishes, "model": model, "type": kind})
        # A named model is not chosen by the text.
        vector, tokens = (None, None) if constraints.model else self.read(text, turns)
        return Query(
            local=local,
            vector=vector,
            tokens=tokens,
            prompt_tokens=len(text) // CHARS_PER_TOKEN + 1,
            expected_output_tokens=max_tokens or EXPECTED_OUTPUT_TOKENS,
            constraints=constraints,
        )


def _load() -> Encoder:
    from atmo.inference.encoder import Encoder

    return Encoder.load()


def constraints_from(wishes: dict[str, Any]) -> Constraints:
    """From JSON or `key=value` flags. `residency` is short for `data_residency`, `label.team` asks for a label.

    Raises UsageError that names the unknown key or the value that does not fit.
    """
    known = Constraints.__struct_fields__
    given: dict[str, Any] = {}
    labels = dict(wishes.get("labels") or {})
    for key, value in wishes.items():
        name = "data_residency" if key == "residency" else key
        if name.startswith("label."):
            labels[name.removeprefix("label.")] = str(value)
        elif name not in known:
            near = difflib.get_close_matches(name, [*known, "residency"], n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}, label.NAME."
            raise UsageError(f"There is no constraint {name!r}.", hint=hint)
        elif value not in ("", None) and name != "labels":
            given[name] = _listed(value) if name in ("data_residency", "allow_nodes", "deny_nodes") else value
    if labels:
        given["labels"] = tuple(labels.items())
    try:
        return msgspec.convert(given, Constraints, strict=False)
    except msgspec.ValidationError as exc:
        what, _, where = str(exc).partition(" - at `$.")
        raise UsageError(f"The constraint {where.rstrip('`')} does not fit: {what.lower()}.") from exc


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

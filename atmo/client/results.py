"""What a node tells, with names for what matters.

A `Report` is the node's JSON itself, so nothing that a later version adds is lost, with properties for what every
version has. What the client puts together (`Answer`, `Embeddings`, `Outcome`) are plain frozen structs.
"""

from __future__ import annotations

import binascii
import sys
from array import array
from typing import Any, cast

import msgspec

from atmo.client.options import Json, Message
from atmo.errors import AtmoError

Labels = tuple[tuple[str, float], ...]


class Report(dict[str, Any]):
    """JSON as the node told it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({super().__repr__()})"


class Step(Report):
    """One step of an answer: `route`, `text`, `vector`, `labels`, `retry`, and `done` at the end."""

    __slots__ = ()

    @property
    def kind(self) -> str:
        return str(self["event"])

    @property
    def text(self) -> str:
        """What this step adds to the answer's text; of labels the likeliest."""
        if self["event"] == "labels":
            return str(self["labels"][0][0]) if self["labels"] else ""
        return str(self.get("text", ""))


class Event(Report):
    """Something that happened at the node; which there are stands in docs/watch.md."""

    __slots__ = ()

    @property
    def seq(self) -> int:
        """Grows by one with each event; where to go on after a break."""
        return int(self["seq"])

    @property
    def at_s(self) -> float:
        """Seconds since 1970."""
        return float(self["at_s"])

    @property
    def kind(self) -> str:
        """Such as `joined`, `dead`, `asked`, `answered`."""
        return str(self["event"])

    @property
    def peer(self) -> str:
        """The id of the node it is about, empty if it is about none."""
        return str(self.get("peer", ""))

    @property
    def name(self) -> str:
        return str(self.get("name", ""))

    @property
    def detail(self) -> str:
        """Why, for people."""
        return str(self.get("detail", ""))


class Decision(Report):
    """Where a request goes, and why."""

    __slots__ = ()

    @property
    def node(self) -> str:
        return str(self["chosen"]["node"])

    @property
    def capability(self) -> str:
        return str(self["chosen"]["capability"])

    @property
    def why(self) -> str:
        return str(self["chosen"]["why"])

    @property
    def probability(self) -> float:
        """That the capability is the right one, by the text; 1 where the text did not decide."""
        return float(self.get("probability", 1.0))

    @property
    def lines(self) -> list[str]:
        """All of it in words."""
        return list(self.get("lines", ()))


class NodeView(Report):
    """A node as the node that was asked sees it."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return str(self["name"])

    @property
    def peer(self) -> str:
        return str(self["peer"])

    @property
    def state(self) -> str:
        """`self`, `linked`, `known`, `lost`, `suspect` or `dead`."""
        return str(self["state"])

    @property
    def mode(self) -> str:
        return str(self.get("mode", ""))

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.get("labels", {}))

    @property
    def load(self) -> float:
        """Requests that are answered or wait, for each slot."""
        return float((self["in_flight"] + self["queued"]) / self["slots"]) if self.get("slots") else 0.0

    @property
    def capabilities(self) -> list[str]:
        """Ids of what it offers."""
        return [str(offer["id"]) for offer in self.get("capabilities", ())]


class Mesh(Report):
    """All nodes that a node knows."""

    __slots__ = ()

    @property
    def nodes(self) -> list[NodeView]:
        return [NodeView(node) for node in self["nodes"]]

    @property
    def dead(self) -> list[NodeView]:
        """Those that died lately."""
        return [NodeView(node) for node in self.get("dead", ())]

    @property
    def problems(self) -> list[str]:
        return list(self.get("problems", ()))


class Status(Report):
    """The node that was asked."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return str(self["node"]["name"])

    @property
    def peer(self) -> str:
        return str(self["node"]["peer"])

    @property
    def url(self) -> str:
        """Of its OpenAI-compatible API, empty if it has none."""
        return str(self["node"].get("api", ""))

    @property
    def problems(self) -> list[str]:
        return list(self.get("problems", ()))


class Model(Report):
    """A model that somebody serves."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """Of the capability, such as `atmo:chat:qwen`."""
        return str(self["id"])

    @property
    def type(self) -> str:
        parts = self.id.split(":")
        return parts[1] if len(parts) > 2 else ""

    @property
    def name(self) -> str:
        """The model itself."""
        return str(self["model"])

    @property
    def nodes(self) -> list[str]:
        return list(self["nodes"])


class Models(Report):
    """Models of the mesh."""

    __slots__ = ()

    @property
    def served(self) -> list[Model]:
        return [Model(entry) for entry in self["served"]]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and who gave it how fast.

    text: of a chat; of a classifier the likeliest label; vector: of an embedding; labels: of a classifier, the
    likeliest first, with their probabilities. finish: `stop`, `length` or `tool_calls`. first_s, total_s: from the
    question to the first word and to the end; decode_s: of writing, as the engine measured it. retries: why it had to
    be asked of another node; resumed: an answer that had begun went on there. decision: why it went where it went.
    """

    text: str = ""
    vector: tuple[float, ...] = ()
    labels: Labels = ()
    node: str = ""
    capability: str = ""
    local: bool = False
    request_id: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    queue_s: float = 0.0
    decode_s: float = 0.0
    first_s: float = 0.0
    total_s: float = 0.0
    retries: tuple[str, ...] = ()
    resumed: bool = False
    decision: Decision = msgspec.field(default_factory=Decision)

    @property
    def tps(self) -> float:
        """Tokens a second while it was written; 0 where there were hardly any."""
        return self.output_tokens / self.decode_s if self.decode_s and self.output_tokens > 1 else 0.0

    @property
    def message(self) -> Message:
        """As the next turn of a conversation."""
        return {"role": "assistant", "content": self.text}

    def __str__(self) -> str:
        return self.text


_DONE = frozenset(Answer.__struct_fields__) - {"text", "vector", "labels", "retries", "resumed", "decision"}


class Gathering:
    """An answer while its steps come."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._facts: Json = {}
        self._retries: list[str] = []
        self._resumed = False
        self.done = False

    def add(self, step: Step) -> None:
        kind = step.kind
        self._text.append(step.text)
        if kind == "route":
            self._facts["decision"] = Decision(step)
        elif kind == "vector":
            self._facts["vector"] = tuple(step["vector"])
        elif kind == "labels":
            self._facts["labels"] = tuple((str(label), float(share)) for label, share in step["labels"])
        elif kind == "retry":
            self._retries.append(str(step["because"]))
            self._resumed = self._resumed or bool(step.get("resumed"))
        elif kind == "done":
            self._facts |= {name: step[name] for name in _DONE & step.keys()}
            self.done = True

    def answer(self) -> Answer:
        """As far as it came."""
        return Answer(text="".join(self._text), retries=tuple(self._retries), resumed=self._resumed, **self._facts)


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """vectors: one for each text, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    model: str
    node: str
    capability: str
    request_id: str
    prompt_tokens: int


def vectors(encoded: list[str]) -> tuple[tuple[float, ...], ...]:
    """From base64 of float32, little-endian."""
    found = []
    for text in encoded:
        numbers = array("f", binascii.a2b_base64(text))
        if sys.byteorder == "big":
            numbers.byteswap()
        found.append(tuple(numbers))
    return tuple(found)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one of a batch. number: its place in the batch; either `answer` or `error` is there."""

    number: int
    answer: Answer | None = None
    error: AtmoError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def unwrap(self) -> Answer:
        """The answer. Raises the error if there is none."""
        if self.error is not None:
            raise self.error
        return cast(Answer, self.answer)

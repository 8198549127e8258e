"""Every message of the protocol, in one place. docs/protocol.md says when each is sent and what answers it.

All are MessagePack arrays whose first element is the tag. Decoding is strict: a field of a wrong type, one too many or one
too few is an error of the sender. Times that cross the wire are durations in seconds: clocks of two machines differ.
"""

from __future__ import annotations

import msgspec

from atmo.mesh.capability import Load
from atmo.mesh.rows import SignedRow


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


class Rows(Message, tag=1):
    """Rows on their way: new ones on the gossip lane, a peer's whole table on the control lane after a link came up."""

    rows: tuple[SignedRow, ...]


class Turn(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message of a conversation. role: `system`, `user` or `assistant`."""

    role: str
    content: str


class Sampling(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How to write the answer. max_tokens 0: as many as the context holds. seed -1: any."""

    max_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = -1
    stop: tuple[str, ...] = ()


class Ask(Message, tag=10):
    """Do this. `window` parts may be sent before the first Grant; `deadline_s` is what is left of the request's time.

    id: 16 random bytes, the request's name everywhere; attempt: 0 for the first node that is asked, 1 for the next.
    """

    id: bytes
    attempt: int
    capability: str
    turns: tuple[Turn, ...]
    sampling: Sampling
    deadline_s: float
    window: int


class Part(Message, tag=11):
    """The next piece of an answer. seq counts from 0 without gaps; token_ids may be empty where an engine has none."""

    id: bytes
    attempt: int
    seq: int
    text: str
    token_ids: tuple[int, ...]


class Vectors(Message, tag=12):
    """An embedding answer: one unit vector, float32 little-endian bytes."""

    id: bytes
    attempt: int
    seq: int
    vector: bytes


class Scores(Message, tag=13):
    """A classification answer, the likeliest label first."""

    id: bytes
    attempt: int
    seq: int
    labels: tuple[tuple[str, float], ...]


class Done(Message, tag=14):
    """The answer is complete after `seq` parts. finish: `stop`, `length` or `cancelled`. Times as the engine measured."""

    id: bytes
    attempt: int
    seq: int
    finish: str
    prompt_tokens: int
    output_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    load: Load | None


class Failed(Message, tag=15):
    """The answer will not come, or not all of it. code is the error's, `retry_after_s` matters for `overloaded`."""

    id: bytes
    attempt: int
    code: str
    message: str
    hint: str
    retry_after_s: float
    load: Load | None


class Cancel(Message, tag=16):
    """The requester has no more use for the answer."""

    id: bytes
    attempt: int


class Grant(Message, tag=17):
    """The requester has used parts of the answer: so many more may be sent."""

    id: bytes
    attempt: int
    parts: int


AnyMessage = Rows | Ask | Part | Vectors | Scores | Done | Failed | Cancel | Grant

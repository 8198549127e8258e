"""Every message of the protocol, in one place. docs/protocol.md says when each is sent and what answers it.

All are MessagePack arrays whose first element is the tag. Decoding is strict: a field of a wrong type, one too many or
one too few is an error of the sender. Times that cross the wire are durations in seconds: clocks of two machines
differ.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from atmo.keys import Sealed
from atmo.mesh.capability import Load
from atmo.mesh.limits import (
    MAX_ORIGINS,
    MAX_ROWS_PER_FRAME,
    Big,
    CallId,
    Count,
    Credits,
    Duration,
    Finite,
    Ident,
    Key32,
    Name,
    Order,
    Passage,
    Positive,
    Seed,
    Sentence,
    Temperature,
    TokenId,
    Unit,
    Word,
)
from atmo.mesh.rows import SignedRow

# Of about 170 bytes each, in one frame. A guess.
MAX_STATEMENTS = 256


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


class Rows(Message, frozen=True, tag=1):
    """Rows on their way: new ones on the gossip lane, a peer's whole table on the control lane after a link came up."""

    rows: Annotated[tuple[SignedRow, ...], Meta(max_length=MAX_ROWS_PER_FRAME)]


class Summary(Message, frozen=True, tag=2):
    """What the sender knows of each origin: (peer, generation, sum over its rows), see RowStore.summary.

    answer: True asks for the receiver's own summary in return.
    """

    origins: Annotated[tuple[tuple[Key32, Order, Big], ...], Meta(max_length=MAX_ORIGINS)]
    answer: bool


class Revoked(Message, frozen=True, tag=3):
    """What the mesh's root took back: all that is known after a link came up, later what is news. Control lane only."""

    statements: Annotated[tuple[Sealed, ...], Meta(max_length=MAX_STATEMENTS)]


class Turn(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message of a conversation. role: `system`, `user` or `assistant`."""

    role: Word
    content: str


class Sampling(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How to write the answer. max_tokens 0: as many as the context holds. seed -1: any."""

    max_tokens: Count = 0
    temperature: Temperature = 0.0
    top_p: Unit = 1.0
    seed: Seed = -1
    stop: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()


class Ask(Message, frozen=True, tag=10):
    """Do this. `window` parts may be sent before the first Grant; `deadline_s` is what is left of the request's time.

    id: 16 random bytes, the request's name everywhere; attempt: 0 for the first node that is asked, 1 for the next.
    """

    id: CallId
    attempt: Count
    capability: Ident
    turns: Annotated[tuple[Turn, ...], Meta(max_length=2048)]
    sampling: Sampling
    deadline_s: Duration
    window: Credits


class Part(Message, frozen=True, tag=11):
    """The next piece of an answer. seq counts from 0 without gaps; token_ids may be empty where an engine has none."""

    id: CallId
    attempt: Count
    seq: Count
    text: Passage
    token_ids: Annotated[tuple[TokenId, ...], Meta(max_length=4096)]


class Vectors(Message, frozen=True, tag=12):
    """An embedding answer: one unit vector, float32 little-endian bytes."""

    id: CallId
    attempt: Count
    seq: Count
    vector: Annotated[bytes, Meta(min_length=4, max_length=64 << 10)]


class Scores(Message, frozen=True, tag=13):
    """A classification answer, the likeliest label first."""

    id: CallId
    attempt: Count
    seq: Count
    labels: Annotated[tuple[tuple[Name, Finite], ...], Meta(max_length=1024)]


class Done(Message, frozen=True, tag=14):
    """The answer is complete after `seq` parts. finish: `stop`, `length` or `cancelled`. Times are the engine's."""

    id: CallId
    attempt: Count
    seq: Count
    finish: Word
    prompt_tokens: Count
    output_tokens: Count
    queue_s: Positive
    prefill_s: Positive
    decode_s: Positive
    load: Load | None


class Failed(Message, frozen=True, tag=15):
    """The answer will not come, or not all of it. code is the error's, `retry_after_s` matters for `overloaded`."""

    id: CallId
    attempt: Count
    code: Word
    message: Sentence
    hint: Sentence
    retry_after_s: Duration
    load: Load | None


class Cancel(Message, frozen=True, tag=16):
    """The requester has no more use for the answer."""

    id: CallId
    attempt: Count


class Grant(Message, frozen=True, tag=17):
    """The requester has used parts of the answer: so many more may be sent."""

    id: CallId
    attempt: Count
    parts: Credits


AnyMessage = Rows | Summary | Revoked | Ask | Part | Vectors | Scores | Done | Failed | Cancel | Grant

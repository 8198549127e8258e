"""What is asked of a model and what it gives, in the words that everybody between user and engine uses.

These structs cross every border as they are: from the API through the mesh to the engine's worker, and back. They are
MessagePack arrays, their bounds are checked while they are decoded, and a new field goes to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Annotated

import msgspec
from msgspec import Meta

# Where no origin is given a bound is a guess: several times what is met.
MAX_TURNS = 2048
MAX_STOPS = 16
MAX_IMAGES = 16
MAX_TOP_SCORES = 20  # OpenAI's limit for top_logprobs
MAX_BIASES = 1024
MAX_PREFIX_TOKENS = 1 << 17
MAX_IMAGE_BYTES = 20 << 20

Count = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
TokenId = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
TokenIds = Annotated[tuple[TokenId, ...], Meta(max_length=4096)]
Seed = Annotated[int, Meta(ge=-1, le=(1 << 53) - 1)]
Temperature = Annotated[float, Meta(ge=0.0, le=100.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Bias = Annotated[float, Meta(ge=-100.0, le=100.0)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e12)]
LogProbability = Annotated[float, Meta(ge=-1e30, le=0.0)]
Word = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(max_length=200)]
Passage = Annotated[str, Meta(max_length=64 << 10)]
"""A piece of an answer, in characters."""


class _Struct(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all of them."""


class ToolCall(_Struct, frozen=True):
    """A call the model made. arguments: JSON as the model wrote it."""

    id: Name
    name: Name
    arguments: str


class Turn(_Struct, frozen=True):
    """One message of a conversation. role: `system`, `user`, `assistant` or `tool`.

    images: PNG or JPEG files. calls: what an assistant's turn called. call_id, name: which call a tool's turn answers.
    """

    role: Word
    content: str
    images: Annotated[tuple[Annotated[bytes, Meta(max_length=MAX_IMAGE_BYTES)], ...], Meta(max_length=MAX_IMAGES)] = ()
    calls: Annotated[tuple[ToolCall, ...], Meta(max_length=128)] = ()
    call_id: Name = ""
    name: Name = ""


class Sampling(_Struct, frozen=True):
    """How to write the answer. max_tokens 0: as many as the context holds. seed -1: any. top_k 0: all tokens.

    logit_bias: (token id, what is added to its logit).
    """

    max_tokens: Count = 0
    temperature: Temperature = 0.0
    top_p: Share = 1.0
    seed: Seed = -1
    stop: Annotated[tuple[Name, ...], Meta(max_length=MAX_STOPS)] = ()
    top_k: Count = 0
    min_p: Share = 0.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: Annotated[tuple[tuple[TokenId, Bias], ...], Meta(max_length=MAX_BIASES)] = ()


class Form(_Struct, frozen=True):
    """What the answer has to be made of. Empty: free text.

    tools: JSON array of OpenAI's tool definitions; tool_choice: `auto`, `none`, `required` or a function's name;
    schema: JSON schema that the answer fits, `{}` for any JSON object; grammar: the same in GBNF; logprobs: how many of
    the likeliest tokens to tell at each place, 0 for the chosen one's probability alone, -1 for nothing; raw: the one
    turn's content is the prompt itself, without a chat template.
    """

    tools: str = ""
    tool_choice: Name = "auto"
    schema: str = ""
    grammar: str = ""
    logprobs: Annotated[int, Meta(ge=-1, le=MAX_TOP_SCORES)] = -1
    raw: bool = False


class Prefix(_Struct, frozen=True):
    """What of the answer is there already, to be continued. A model of the same root takes the ids, any other the text.

    root: of the model that gave it. text: all it wrote, what was parsed away (tool calls) included.
    """

    root: Word = ""
    token_ids: Annotated[tuple[TokenId, ...], Meta(max_length=MAX_PREFIX_TOKENS)] = ()
    text: str = ""


class Task(_Struct, frozen=True):
    """All that is asked of a model. An embedding model takes each turn as a text of its own, a classifier the last."""

    turns: Annotated[tuple[Turn, ...], Meta(max_length=MAX_TURNS)]
    sampling: Sampling = Sampling()
    form: Form = Form()
    prefix: Prefix = Prefix()


class TokenScore(_Struct, frozen=True):
    """A token as text with its natural log probability, and the likeliest at its place, the likeliest first."""

    text: Name
    logprob: LogProbability
    top: Annotated[tuple[tuple[Name, LogProbability], ...], Meta(max_length=MAX_TOP_SCORES)] = ()


class CallDelta(_Struct, frozen=True):
    """More of a tool call. index: which call of the answer. id and name come with its first delta."""

    index: Count
    id: Name = ""
    name: Name = ""
    arguments: Passage = ""


class Piece(_Struct, frozen=True):
    """Some more of an answer: the text and the ids of its tokens. Text never ends inside a character; ids may come with
    empty text while a character is incomplete. scores: one for each id, when asked for.

    raw: what the model really wrote, where `text` and `calls` are not all of it (tool calls); else empty.
    """

    text: Passage
    token_ids: TokenIds = ()
    scores: Annotated[tuple[TokenScore, ...], Meta(max_length=4096)] = ()
    calls: Annotated[tuple[CallDelta, ...], Meta(max_length=128)] = ()
    raw: Passage = ""


class Finish(_Struct, frozen=True, kw_only=True):
    """The end of an answer. reason: `stop`, `length` or `tool_calls`. Times in seconds, as the engine measured them.

    output_tokens: without those of a prefix that was continued. cached_tokens: of the prompt, not computed anew.
    """

    reason: Word
    prompt_tokens: Count = 0
    output_tokens: Count = 0
    cached_tokens: Count = 0
    queue_s: Seconds = 0.0
    prefill_s: Seconds = 0.0
    decode_s: Seconds = 0.0


def joined(pieces: Sequence[Piece]) -> Piece:
    """The same in one piece."""
    if len(pieces) == 1:
        return pieces[0]
    return Piece(
        "".join(piece.text for piece in pieces),
        tuple(chain.from_iterable(piece.token_ids for piece in pieces)),
        tuple(chain.from_iterable(piece.scores for piece in pieces)),
        tuple(chain.from_iterable(piece.calls for piece in pieces)),
        "".join(piece.raw or piece.text for piece in pieces) if any(piece.raw for piece in pieces) else "",
    )

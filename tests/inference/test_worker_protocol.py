"""Frames between node and worker: whole, cut anywhere, too large, or nonsense."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.errors import ContextOverflow, EngineUnavailable, ProtocolError, UsageError
from atmo.generation import Finish, Piece, Turn
from atmo.inference.channel import Channel
from atmo.inference.engine import ModelFacts
from atmo.inference.protocol import (
    MAX_FRAME_BYTES,
    Cancel,
    Chat,
    Done,
    Failed,
    Frame,
    FrameBuffer,
    FromWorker,
    Load,
    Ping,
    Ready,
    Said,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode,
    failed,
    raised,
)
from tests.inference.running import gguf_spec, job, until

TO_WORKER: list[ToWorker] = [Chat(1, job("hé", stop=("x",))), Cancel(1), Ping(2)]
FROM_WORKER: list[FromWorker] = [
    Ready(ModelFacts(engine="xllamacpp", context=7)),
    Said(1, Piece("é", (195, 169))),
    Done(1, Finish(reason="stop", prompt_tokens=1, output_tokens=2)),
    Failed(3, "engine_unavailable", "gone", "wait"),
]


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_frames_arrive_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    """Any split of the bytes of a sequence of frames gives the same frames."""
    stream = b"".join(encode(frame) for frame in TO_WORKER)
    buffer, bodies, at = FrameBuffer(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        bodies += buffer.feed(stream[at:cut])
        at = max(at, cut)
    assert [decode_to_worker(body) for body in bodies] == TO_WORKER


def test_every_answer_survives_the_way_back() -> None:
    buffer = FrameBuffer()
    for frame in FROM_WORKER:
        (body,) = buffer.feed(encode(frame))
        assert decode_from_worker(body) == frame


def test_an_announced_monster_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="was announced"):
        FrameBuffer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_a_frame_too_large_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="too large for an engine"):
        encode(Said(1, Piece("x" * (MAX_FRAME_BYTES + 1))))


def test_half_a_character_is_refused() -> None:
    with pytest.raises(UsageError, match="half a character"):
        encode(Chat(1, job("\ud83d")))


@given(st.binary(max_size=80))
def test_nonsense_is_a_protocol_error_and_nothing_else(body: bytes) -> None:
    """No bytes make the decoders raise anything but ProtocolError."""
    for decode in (decode_to_worker, decode_from_worker):
        try:
            decode(body)
        except ProtocolError:
            pass


def test_errors_cross_with_their_kind_their_words_and_their_hint() -> None:
    error = raised(failed(4, ContextOverflow("too long", hint="shorten")))
    assert isinstance(error, ContextOverflow)
    assert (error.message, error.hint) == ("too long", "shorten")
    assert isinstance(raised(Failed(1, "engine_unavailable", "gone")), EngineUnavailable)


@pytest.mark.asyncio
async def test_a_channel_ends_at_the_first_bad_frame() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ended: list[str] = []
    seen: list[Frame] = []
    channel = await Channel.open(ours, lambda body: seen.append(decode_to_worker(body)), ended.append)
    theirs.sendall(encode(Ping(1)) + b"\x00\x00\x00\x01\xc1" + encode(Ping(2)))
    await until(lambda: ended)
    assert seen == [Ping(1)]
    assert "does not decode" in ended[0]
    channel.send(Ping(3))  # dropped: the channel is closed
    theirs.close()
    await asyncio.sleep(0)


def test_specs_and_jobs_travel_unchanged() -> None:
    chat = Chat(9, job("x", temperature=0.5, seed=3))
    (body,) = FrameBuffer().feed(encode(chat))
    assert decode_to_worker(body) == chat
    assert chat.task.turns == (Turn("user", "x"),)
    load = Load(gguf_spec(Path("x.gguf")), "/tmp/x")
    (body,) = FrameBuffer().feed(encode(load))
    assert decode_to_worker(body) == load

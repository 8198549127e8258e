"""A request from the requester's side: asked of one node at a time, nothing lost, nothing twice, always an end."""

from __future__ import annotations

from atmo.errors import ContextOverflow, Overloaded, PeerUnreachable, RequestTimeout
from atmo.generation import Finish, Piece, Task, Turn
from atmo.ids import PeerId
from atmo.mesh.calls import (
    MAX_ATTEMPTS,
    WINDOW_PARTS,
    Call,
    Choose,
    Effect,
    Emit,
    End,
    Observe,
    State,
    Transmit,
)
from atmo.mesh.messages import Ask, Cancel, Done, Failed, Grant, Part

ANNA, BEN = PeerId(b"a" * 32), PeerId(b"b" * 32)
CHAT = "atmo:chat:x"
ID = b"i" * 16


def new_call(deadline_s: float = 60.0) -> Call:
    return Call(ID, Task((Turn("user", "Hello"),)), deadline_s)


def part(seq: int, attempt: int = 0) -> Part:
    return Part(ID, attempt, seq, Piece(f"w{seq}", (seq,)))


def done(seq: int, attempt: int = 0) -> Done:
    finish = Finish(reason="stop", prompt_tokens=3, output_tokens=seq, prefill_s=0.1, decode_s=0.2)
    return Done(ID, attempt, seq, finish, None)


def failed(code: str, attempt: int = 0) -> Failed:
    return Failed(ID, attempt, code, "It broke.", "", 1.0, None)


def sent(effects: list[Effect]) -> list[object]:
    return [effect.message for effect in effects if isinstance(effect, Transmit)]


def seen(effects: list[Effect]) -> list[str]:
    return [effect.what for effect in effects if isinstance(effect, Observe)]


def ending(effects: list[Effect]) -> End:
    (end,) = [effect for effect in effects if isinstance(effect, End)]
    return end


def test_an_answer_arrives_whole_and_in_order() -> None:
    call = new_call()
    (ask,) = sent(call.assign(ANNA, CHAT, 0.0))
    assert isinstance(ask, Ask)
    assert ask.deadline_s == 60.0
    items = [
        effect.item for seq in range(3) for effect in call.receive(ANNA, part(seq), 1.0) if isinstance(effect, Emit)
    ]
    assert items == [Piece("w0", (0,)), Piece("w1", (1,)), Piece("w2", (2,))]
    last = call.receive(ANNA, done(3), 2.0)
    assert ending(last).error is None
    assert seen(last) == ["finished"]
    assert any(isinstance(effect, Emit) and isinstance(effect.item, Finish) for effect in last)
    assert call.state is State.OVER


def test_a_node_that_cannot_be_reached_is_replaced_before_anyone_notices() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, 0.0)
    (lost, choose) = call.peer_lost(ANNA, "gone")
    assert isinstance(lost, Observe)
    assert lost.what == "failed"
    assert isinstance(choose, Choose)
    assert isinstance(choose.because, PeerUnreachable)
    (ask,) = sent(call.assign(BEN, CHAT, 1.0))
    assert isinstance(ask, Ask)
    assert (ask.attempt, ask.deadline_s) == (1, 59.0)
    assert call.tried == [ANNA, BEN]


def test_late_words_of_an_attempt_that_was_given_up_are_ignored() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, 0.0)
    call.receive(ANNA, failed("overloaded"), 0.1)
    call.assign(BEN, CHAT, 0.2)
    assert call.receive(ANNA, part(0, attempt=0), 0.3) == []
    assert call.receive(BEN, part(0, attempt=0), 0.3) == []
    assert call.receive(ANNA, part(0, attempt=1), 0.3) == []
    assert call.receive(BEN, part(0, attempt=1), 0.3)


def test_a_broken_stream_is_an_error_and_never_a_second_beginning() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, 0.0)
    call.receive(ANNA, part(0), 0.1)
    effects = call.peer_lost(ANNA, "killed")
    assert "broke off after 1 parts" in str(ending(effects).error)
    assert not any(isinstance(effect, Choose) for effect in effects)


def test_a_gap_or_a_repetition_ends_the_attempt() -> None:
    for wrong in (part(2), part(0), done(5)):
        call = new_call()
        call.assign(ANNA, CHAT, 0.0)
        call.receive(ANNA, part(0), 0.1)
        effects = call.receive(ANNA, wrong, 0.2)
        assert isinstance(sent(effects)[0], Cancel)
        assert ending(effects).error is not None


def test_a_prompt_that_does_not_fit_is_not_sent_around() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, 0.0)
    effects = call.receive(ANNA, failed("context_length_exceeded"), 0.1)
    assert isinstance(ending(effects).error, ContextOverflow)
    assert seen(effects) == ["cancelled"], "the node did nothing wrong"


def test_giving_up_after_some_nodes_keeps_the_last_reason() -> None:
    call = new_call()
    for attempt in range(MAX_ATTEMPTS):
        peer = PeerId(bytes([attempt]) * 32)
        call.assign(peer, CHAT, 0.0)
        effects = call.receive(peer, failed("overloaded", attempt), 0.1)
    assert isinstance(ending(effects).error, Overloaded)


def test_the_deadline_holds_in_every_state() -> None:
    waiting = new_call(5.0)
    waiting.assign(ANNA, CHAT, 0.0)
    assert waiting.expire(4.9) == []
    effects = waiting.expire(5.0)
    assert isinstance(ending(effects).error, RequestTimeout)
    assert isinstance(sent(effects)[0], Cancel)

    choosing = new_call(5.0)
    assert isinstance(ending(choosing.assign(ANNA, CHAT, 5.0)).error, RequestTimeout)
    assert choosing.expire(6.0) == []


def test_leaving_cancels_at_the_node_once() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, 0.0)
    call.receive(ANNA, part(0), 0.1)
    effects = call.cancel()
    assert isinstance(sent(effects)[0], Cancel)
    assert seen(effects) == ["cancelled"]
    assert call.cancel() == []
    assert call.receive(ANNA, part(1), 0.2) == []


def test_credit_goes_back_in_halves_of_the_window_and_never_exceeds_what_was_used() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, 0.0)
    granted = 0
    for seq in range(4 * WINDOW_PARTS):
        call.receive(ANNA, part(seq), 0.1)
        for message in sent(call.consumed(1)):
            assert isinstance(message, Grant)
            granted += message.parts
        assert granted <= seq + 1
    assert granted == 4 * WINDOW_PARTS

"""A request from the requester's side: asked of one node at a time, nothing lost, nothing twice, always an end."""

from __future__ import annotations

import msgspec

from atmo.errors import ContextOverflow, Overloaded, PeerUnreachable, RequestTimeout
from atmo.generation import Finish, Piece, Prefix, Task, Turn
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
from atmo.mesh.capability import Load
from atmo.mesh.messages import Ask, Cancel, Done, Failed, Grant, Part, Vectors
from atmo.mesh.service import Vector

ANNA, BEN, CARL = PeerId(b"a" * 32), PeerId(b"b" * 32), PeerId(b"c" * 32)
ROOT = "5f" * 32
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


def emitted(effects: list[Effect]) -> list[object]:
    return [effect.item for effect in effects if isinstance(effect, Emit)]


def seen(effects: list[Effect]) -> list[str]:
    return [effect.what for effect in effects if isinstance(effect, Observe)]


def ending(effects: list[Effect]) -> End:
    (end,) = [effect for effect in effects if isinstance(effect, End)]
    return end


def test_an_answer_arrives_whole_and_in_order() -> None:
    call = new_call()
    (ask,) = sent(call.assign(ANNA, CHAT, ROOT, 0.0))
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


def test_however_an_attempt_ends_its_node_says_how_busy_it_is() -> None:
    load = Load(CHAT, in_flight=3, slots=4, queued=2, service_s=1.0, prompt_tps=0.0, decode_tps=0.0, ready=True)
    ends: list[Done | Failed] = [msgspec.structs.replace(done(0), load=load)]
    ends += [msgspec.structs.replace(failed(code), load=load) for code in ("overloaded", "context_overflow")]
    for end in ends:
        call = new_call()
        call.assign(ANNA, CHAT, ROOT, 0.0)
        told = [effect for effect in call.receive(ANNA, end, 1.0) if isinstance(effect, Observe)]
        assert told[-1].load == load


def test_a_node_that_cannot_be_reached_is_replaced_before_anyone_notices() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    (lost, choose) = call.peer_lost(ANNA, "gone")
    assert isinstance(lost, Observe)
    assert lost.what == "failed"
    assert isinstance(choose, Choose)
    assert isinstance(choose.because, PeerUnreachable)
    (ask,) = sent(call.assign(BEN, CHAT, ROOT, 1.0))
    assert isinstance(ask, Ask)
    assert (ask.attempt, ask.deadline_s) == (1, 59.0)
    assert call.tried == [ANNA, BEN]


def test_late_words_of_an_attempt_that_was_given_up_are_ignored() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    call.receive(ANNA, failed("overloaded"), 0.1)
    call.assign(BEN, CHAT, ROOT, 0.2)
    assert call.receive(ANNA, part(0, attempt=0), 0.3) == []
    assert call.receive(BEN, part(0, attempt=0), 0.3) == []
    assert call.receive(ANNA, part(0, attempt=1), 0.3) == []
    assert call.receive(BEN, part(0, attempt=1), 0.3)


def test_a_broken_answer_goes_on_at_another_node_behind_what_was_shown() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    shown = emitted(call.receive(ANNA, part(0), 0.1)) + emitted(call.receive(ANNA, part(1), 0.1))
    (_, choose) = call.peer_lost(ANNA, "killed")
    assert isinstance(choose, Choose)
    assert (choose.begun, choose.root) == (True, ROOT)
    (ask,) = sent(call.assign(BEN, CHAT, ROOT, 0.2))
    assert isinstance(ask, Ask)
    assert ask.task.prefix == Prefix(ROOT, (0, 1), "w0w1")
    shown += emitted(call.receive(BEN, Part(ID, 1, 0, Piece("w2", (2,))), 0.3))
    last = emitted(call.receive(BEN, Done(ID, 1, 1, Finish(reason="stop", output_tokens=1), None), 0.4))
    assert [piece.text for piece in shown if isinstance(piece, Piece)] == ["w0", "w1", "w2"]
    assert isinstance(last[0], Finish)
    assert last[0].output_tokens == 3, "the whole answer's tokens, whoever wrote them"


def test_half_a_character_is_not_shown_and_not_given_to_the_next_node() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    call.receive(ANNA, part(0), 0.1)
    assert emitted(call.receive(ANNA, Part(ID, 0, 1, Piece("", (195,))), 0.1)) == []
    call.peer_lost(ANNA, "killed")
    (ask,) = sent(call.assign(BEN, CHAT, ROOT, 0.2))
    assert isinstance(ask, Ask)
    assert ask.task.prefix.token_ids == (0,)
    call.receive(BEN, Part(ID, 1, 0, Piece("", (195,))), 0.3)
    assert emitted(call.receive(BEN, Part(ID, 1, 1, Piece("é", (169,))), 0.3)) == [Piece("é", (195, 169))]


def test_another_model_is_given_the_text_and_ids_of_two_models_are_never_mixed() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    call.receive(ANNA, part(0), 0.1)
    call.peer_lost(ANNA, "killed")
    call.assign(BEN, CHAT, "another root", 0.2)
    call.receive(BEN, part(0, attempt=1), 0.3)
    call.peer_lost(BEN, "killed")
    (ask,) = sent(call.assign(CARL, CHAT, ROOT, 0.4))
    assert isinstance(ask, Ask)
    assert (ask.task.prefix.root, ask.task.prefix.text) == ("", "w0w0")


def test_vectors_that_were_shown_are_passed_over_the_second_time() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    assert emitted(call.receive(ANNA, Vectors(ID, 0, 0, b"aaaa"), 0.1)) == [Vector(b"aaaa")]
    call.peer_lost(ANNA, "killed")
    call.assign(BEN, CHAT, ROOT, 0.2)
    again = [emitted(call.receive(BEN, Vectors(ID, 1, seq, data), 0.3)) for seq, data in enumerate((b"aaaa", b"bbbb"))]
    assert again == [[], [Vector(b"bbbb")]]


def test_an_answer_that_grows_may_lose_any_number_of_nodes() -> None:
    call = new_call()
    for attempt in range(3 * MAX_ATTEMPTS):
        peer = PeerId(bytes([attempt]) * 32)
        call.assign(peer, CHAT, ROOT, 0.0)
        call.receive(peer, part(0, attempt), 0.1)
        (_, choose) = call.peer_lost(peer, "killed")
        assert isinstance(choose, Choose)


def test_the_first_of_two_to_answer_is_the_one_that_counts() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    (ask,) = sent(call.hedge(BEN, CHAT, ROOT, 0.5))
    assert isinstance(ask, Ask)
    assert ask.attempt == 1
    effects = call.receive(BEN, part(0, attempt=1), 0.6)
    assert sent(effects) == [Cancel(ID, 0)]
    assert seen(effects) == ["cancelled", "first_part"]
    assert call.receive(ANNA, part(0), 0.7) == []
    assert call.peer_lost(ANNA, "gone") == [], "nobody waits for it any more"
    assert call.hedge(CARL, CHAT, ROOT, 0.8) == [], "an answer that runs needs no second"


def test_one_of_two_may_fail_without_anyone_noticing() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    call.hedge(BEN, CHAT, ROOT, 0.5)
    assert seen(call.receive(ANNA, failed("overloaded"), 0.6)) == ["failed"]
    assert emitted(call.receive(BEN, part(0, attempt=1), 0.7)) == [Piece("w0", (0,))]


def test_a_gap_or_a_repetition_ends_the_attempt() -> None:
    for wrong in (part(2), part(0), done(5)):
        call = new_call()
        call.assign(ANNA, CHAT, ROOT, 0.0)
        call.receive(ANNA, part(0), 0.1)
        effects = call.receive(ANNA, wrong, 0.2)
        assert isinstance(sent(effects)[0], Cancel)
        assert isinstance(effects[-1], Choose)


def test_a_prompt_that_does_not_fit_is_not_sent_around() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    effects = call.receive(ANNA, failed("context_length_exceeded"), 0.1)
    assert isinstance(ending(effects).error, ContextOverflow)
    assert seen(effects) == ["cancelled"], "the node did nothing wrong"


def test_giving_up_after_some_nodes_keeps_the_last_reason() -> None:
    call = new_call()
    for attempt in range(MAX_ATTEMPTS):
        peer = PeerId(bytes([attempt]) * 32)
        call.assign(peer, CHAT, ROOT, 0.0)
        effects = call.receive(peer, failed("overloaded", attempt), 0.1)
    assert isinstance(ending(effects).error, Overloaded)


def test_the_deadline_holds_in_every_state() -> None:
    waiting = new_call(5.0)
    waiting.assign(ANNA, CHAT, ROOT, 0.0)
    assert waiting.expire(4.9) == []
    effects = waiting.expire(5.0)
    assert isinstance(ending(effects).error, RequestTimeout)
    assert isinstance(sent(effects)[0], Cancel)

    choosing = new_call(5.0)
    assert isinstance(ending(choosing.assign(ANNA, CHAT, ROOT, 5.0)).error, RequestTimeout)
    assert choosing.expire(6.0) == []


def test_leaving_cancels_at_the_node_once() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    call.receive(ANNA, part(0), 0.1)
    effects = call.cancel()
    assert isinstance(sent(effects)[0], Cancel)
    assert seen(effects) == ["cancelled"]
    assert call.cancel() == []
    assert call.receive(ANNA, part(1), 0.2) == []


def test_credit_goes_back_in_halves_of_the_window_and_never_exceeds_what_was_used() -> None:
    call = new_call()
    call.assign(ANNA, CHAT, ROOT, 0.0)
    granted = 0
    for seq in range(4 * WINDOW_PARTS):
        call.receive(ANNA, part(seq), 0.1)
        for message in sent(call.consumed(1)):
            assert isinstance(message, Grant)
            granted += message.parts
        assert granted <= seq + 1
    assert granted == 4 * WINDOW_PARTS

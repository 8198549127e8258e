"""What is read of a conversation to route it."""

from __future__ import annotations

import numpy as np
import pytest

from atmo.generation import Turn
from atmo.inference.encoder import Encoder
from atmo.mesh.capability import Descriptor
from atmo.node.meaning import EARLIER_CHARS, LAST_WEIGHT, Meaning, conversation, last_question

HAIKU = (
    Turn("user", "what is a haiku"),
    Turn("assistant", "A poem of three lines."),
    Turn("user", "put one into Finnish"),
)


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    made = Meaning()
    made._encoder = Encoder.load()
    return made


def test_one_question_is_read_as_it_is() -> None:
    assert conversation((Turn("system", "You are kind."), Turn("user", "How tall is K2?"))) == "How tall is K2?"


def test_the_last_question_is_read_behind_what_it_goes_on_from() -> None:
    assert conversation(HAIKU) == "user: what is a haiku\nassistant: A poem of three lines.\nuser: put one into Finnish"
    assert last_question(HAIKU) == "put one into Finnish"


def test_a_long_past_does_not_push_the_last_question_out() -> None:
    past = [Turn(role, f"{role} {number} " + "word " * 400) for number in range(50) for role in ("user", "assistant")]
    read = conversation([*past, Turn("user", "and in Finnish?")])
    assert read.endswith("\nuser: and in Finnish?")
    assert "user 49" in read
    assert "user 48" not in read
    assert len(read) < 2 * EARLIER_CHARS + 100


def test_what_follows_the_last_question_is_not_read() -> None:
    turns = (Turn("user", "weather in Rome?"), Turn("assistant", ""), Turn("tool", "21 degrees"))
    assert conversation(turns) == "weather in Rome?"
    assert conversation(()) == last_question(()) == ""


def test_the_last_question_counts_most_and_its_context_a_little(meaning: Meaning) -> None:
    mixed, _ = meaning.read("put one into Finnish", HAIKU)
    alone, _ = meaning.read("put one into Finnish")
    everything = meaning.encoder.encode(conversation(HAIKU))
    assert float(np.linalg.norm(mixed)) == pytest.approx(1, abs=1e-5)
    assert 1 > mixed @ alone > mixed @ everything > alone @ everything


def test_the_second_reading_weighs_question_and_context_alike(meaning: Meaning) -> None:
    _, tokens = meaning.read("put one into Finnish", HAIKU)
    question = meaning.encoder.read("put one into Finnish").weighted()
    assert np.linalg.norm(tokens, axis=1).sum() == pytest.approx(1, abs=0.01)
    assert np.linalg.norm(tokens[: len(question)], axis=1).sum() == pytest.approx(LAST_WEIGHT, abs=0.01)


def test_a_single_question_is_read_as_its_text(meaning: Meaning) -> None:
    in_a_conversation = meaning.read("How tall is K2?", (Turn("user", "How tall is K2?"),))
    for told, alone in zip(in_a_conversation, meaning.read("How tall is K2?"), strict=True):
        assert np.array_equal(told, alone)


def test_a_capability_whose_text_cannot_be_read_is_like_nothing(meaning: Meaning) -> None:
    """Anybody may publish one; it must not stop the routing of those who hear of it."""
    assert not meaning.tokens(Descriptor(id="odd", type="chat", description="\u200b")).any()

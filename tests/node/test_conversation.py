"""What is read of a conversation to route it."""

from __future__ import annotations

import numpy as np
import pytest

from atmo.generation import Turn
from atmo.inference.encoder import Encoder
from atmo.node.meaning import EARLIER_CHARS, Meaning, conversation, last_question

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
    mixed = meaning.vector("put one into Finnish", HAIKU)
    alone = meaning.vector("put one into Finnish")
    everything = meaning.encoder.encode(conversation(HAIKU))
    assert float(np.linalg.norm(mixed)) == pytest.approx(1, abs=1e-5)
    assert 1 > mixed @ alone > mixed @ everything > alone @ everything


def test_a_single_question_has_the_vector_of_its_text(meaning: Meaning) -> None:
    assert np.array_equal(
        meaning.vector("How tall is K2?", (Turn("user", "How tall is K2?"),)), meaning.vector("How tall is K2?")
    )

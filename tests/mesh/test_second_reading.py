"""The best few capabilities are read a second time, token by token: what that changes, and how it is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmo.mesh.capability import Descriptor
from atmo.mesh.classes import TOKENS_KEPT, ClassIndex
from atmo.mesh.decision import Decision
from atmo.mesh.explain import as_dict, lines
from atmo.mesh.query import Query
from atmo.mesh.routing import decide
from atmo.mesh.views import READ_WIDTH, SECOND_WEIGHT, second_reading
from tests.mesh.routing_support import Town, capability, direction


def token(*topics: str) -> NDArray[np.float32]:
    """A unit vector for each topic, any two nearly orthogonal."""
    vectors = np.stack([direction(topic)[:READ_WIDTH] for topic in topics])
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def read(descriptor: Descriptor) -> NDArray[np.int8]:
    """The tokens of a capability: the words of its description."""
    return np.rint(token(*descriptor.description.split()) * 127).astype(np.int8)


def town_of(*descriptions: str) -> Town:
    """One node for each, all about the same topic, so that the first reading cannot tell them apart."""
    town = Town()
    for at, description in enumerate(descriptions):
        offer = capability(description, "weather")
        town.node(f"node {at}", offer)
    town.table.classes.reader = read
    return town


def ask(town: Town, *words: str) -> Decision:
    tokens = token(*words) / np.float32(len(words))
    query = Query(local=town.home, vector=direction("weather"), tokens=tokens)
    return decide(town.table, town.field, query, town.now, town.rng)


def test_where_the_first_reading_is_a_draw_the_second_one_decides() -> None:
    town = town_of("storm warnings today", "storm archive since 1950")

    assert ask(town, "storm", "today").capability == "atmo:chat:storm warnings today"
    assert ask(town, "storm", "1950").capability == "atmo:chat:storm archive since 1950"


def test_relevance_is_both_readings_weighted() -> None:
    [terms] = ask(town_of("storm warnings today"), "storm", "today").classes

    assert terms.second == pytest.approx(1, abs=0.01)  # both words are there; a vector's numbers are rounded to 1/127
    assert terms.first == pytest.approx(1, abs=0.01)
    assert terms.relevance == pytest.approx((1 - SECOND_WEIGHT) * terms.first + SECOND_WEIGHT * terms.second)


def test_a_word_counts_by_its_share() -> None:
    offered, asked = token("storm"), token("storm", "banana") * np.array([[0.9], [0.1]], np.float32)

    [found] = second_reading(offered, np.array([0]), asked)

    assert found == pytest.approx(0.9 + 0.1 * float(token("banana")[0] @ token("storm")[0]))


def test_the_sum_is_told_so_that_it_can_be_redone() -> None:
    decision = ask(town_of("storm warnings today"), "storm", "banana")
    [terms] = decision.classes

    told = [line for line in lines(decision) if "second reading" in line]
    assert told == [
        f"atmo:chat:storm warnings today: relevance {terms.relevance:.3f} = 0.5 x {terms.first:.3f} first reading"
        f" + 0.5 x {terms.second:.3f} second reading"
    ]
    assert as_dict(decision)["classes"][0]["second"] == terms.second


def test_without_a_reader_the_first_reading_counts_alone_and_nothing_is_told_of_a_second() -> None:
    town = town_of("storm warnings today")
    town.table.classes.reader = None

    decision = ask(town, "banana")

    [terms] = decision.classes
    assert np.isnan(terms.second)
    assert terms.relevance == pytest.approx(1, abs=0.01)
    assert not any("second reading" in line for line in lines(decision))
    assert as_dict(decision)["classes"][0]["second"] is None


def test_a_capability_is_read_once_however_often_it_is_asked_for() -> None:
    town, seen = town_of("storm warnings today"), []

    def reader(descriptor: Descriptor) -> NDArray[np.int8]:
        seen.append(descriptor.id)
        return read(descriptor)

    town.table.classes.reader = reader
    for word in ("storm", "warnings", "today"):
        ask(town, word)
    assert seen == ["atmo:chat:storm warnings today"]


def test_a_bounded_number_of_capabilities_is_remembered() -> None:
    classes, count = ClassIndex(), TOKENS_KEPT + 5
    classes.reader = lambda _: np.zeros((1, READ_WIDTH), np.int8)
    for at in range(count):
        classes.tokens(classes.intern(capability(f"number {at}", "weather")))
    assert len(classes._tokens) == TOKENS_KEPT


def test_what_all_classes_have_in_common_does_not_tell_them_apart() -> None:
    """Of "today's storm" both know today, so only the storm counts, though its share is small."""
    offered = token("storm", "today", "harvest", "today")
    asked = token("storm", "today") * np.array([[0.1], [0.9]], np.float32)

    warnings, yields = second_reading(offered, np.array([0, 2]), asked)

    assert warnings == pytest.approx(1, abs=1e-4)
    assert yields == pytest.approx(max(float(token("storm")[0] @ other) for other in token("harvest", "today")))


def test_classes_that_say_the_same_are_read_as_one_alone() -> None:
    offered, asked = token("storm"), token("storm", "banana") / np.float32(2)

    [alone] = second_reading(offered, np.array([0]), asked)

    assert second_reading(np.tile(offered, (3, 1)), np.arange(3), asked) == pytest.approx([alone] * 3)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 6))
def test_each_token_counts_by_its_share_and_by_how_far_the_classes_lie_apart_in_it(
    sizes: list[int], asked: int
) -> None:
    """The formula once more, class by class and token by token."""
    rng = np.random.default_rng(sum(sizes) * 7 + asked)
    offers = [rng.standard_normal((size, READ_WIDTH)).astype(np.float32) for size in sizes]
    tokens = rng.standard_normal((asked, READ_WIDTH)).astype(np.float32)
    starts = np.cumsum([0, *sizes[:-1]])

    together = second_reading(np.concatenate(offers), starts, tokens)

    shares = np.linalg.norm(tokens, axis=1)
    found = np.stack([(offer @ tokens.T).max(axis=0) for offer in offers]) / shares
    weights = shares * found.std(axis=0)
    expected = found @ (weights / weights.sum() if len(sizes) > 1 else shares)
    assert together == pytest.approx(expected, rel=1e-3, abs=1e-3)

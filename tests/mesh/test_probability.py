"""How relevance becomes a probability, and what a decision says of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.mesh.explain import lines
from atmo.mesh.ranking import TEMPERATURE, UNFIT_MOST, Ranking, probabilities, unfit
from tests.mesh.routing_support import Town, capability


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_they_make_one_and_follow_the_order_of_relevance(scores: list[float]) -> None:
    shares, nothing = probabilities(scores, 0.4)
    assert sum(shares) + nothing == pytest.approx(1)
    assert [one for _, one in sorted(zip(scores, shares, strict=True))] == sorted(shares)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.integers(1, 1000))
def test_nothing_is_likeliest_just_where_the_best_class_does_not_fit(scores: list[float], among: int) -> None:
    ranking = Ranking(list(range(len(scores))), scores, by_text=True, among=among)
    shares, nothing = ranking.probabilities
    if ranking.fits(max(scores)):
        assert max(shares) >= nothing
    else:
        assert nothing >= max(shares)


def test_the_best_of_many_has_to_fit_better_than_one_that_is_alone() -> None:
    """Of many wrong ones the best lies higher."""
    town = Town()
    town.node("desk", capability("coder", "code"))
    alone = town.ask("code").unfit
    town.node("parlour", capability("talker", "small talk"))
    both = town.ask("code")
    assert alone < both.unfit < unfit(40) < unfit(UNFIT_MOST) == unfit(10 * UNFIT_MOST)
    assert f"Below a relevance of {both.unfit:.3f} nothing would have fitted." in lines(both)


def test_one_class_is_weighed_against_nothing_alone() -> None:
    (share,), nothing = probabilities([0.4 + TEMPERATURE], 0.4)
    assert share / nothing == pytest.approx(math.e)


def test_a_decision_says_how_likely_it_is_right() -> None:
    town = Town()
    town.node("desk", capability("coder", "code"))
    town.node("parlour", capability("talker", "small talk"))
    decision = town.ask("code")
    assert decision.probability > 0.99
    assert any("right in 100%" in line for line in lines(decision))


def test_where_the_text_has_no_say_there_is_no_doubt() -> None:
    town = Town()
    town.node("desk", capability("coder", "code"))
    assert town.ask(None, model="coder").probability == 1.0

"""The gradient field: each term by hand, what it learns, and what a liar cannot do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.mesh.field import (
    FieldSettings,
    FieldTerms,
    nearest_rank,
    peak_ewma,
)
from atmo.mesh.pace import Size, size_of
from tests.mesh.routing_support import Town, capability, load, peer

CODER = "atmo:chat:coder"
OFFER = capability("coder", "code")
USUAL = Size(0, 128)


@pytest.fixture
def town() -> Iterator[Town]:
    made = Town()
    yield made
    made.table.validate()


def terms(town: Town, *names: str, size: Size = USUAL) -> FieldTerms:
    rows = np.array([town.table.find(peer(name), CODER) for name in names], dtype=np.int32)
    return town.field.terms(rows, size, town.home, town.now)


def term(town: Town, node: str, name: str, *others: str) -> float:
    return float(terms(town, node, *others).term(name)[0])


def test_peak_ewma_rises_at_once_and_falls_with_its_time_constant() -> None:
    assert peak_ewma(-1.0, 0.3, 1e9, 10.0) == 0.3
    assert peak_ewma(0.1, 0.3, 0.0, 10.0) == 0.3
    assert peak_ewma(0.3, 0.1, 10.0, 10.0) == pytest.approx(0.3 / math.e + 0.1 * (1 - 1 / math.e))
    assert peak_ewma(0.3, 0.1, 0.0, 10.0) == 0.3


@pytest.mark.parametrize(("share", "value"), [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4), (0.01, 1)])
def test_nearest_rank_is_a_value_that_occurs(share: float, value: float) -> None:
    assert nearest_rank(np.array([4.0, 1.0, 3.0, 2.0]), share) == value


def test_work_counts_output_fully_and_a_prompt_at_its_share() -> None:
    assert size_of(80, 100).units == 110
    assert size_of(0, 0) == Size(0, 1)


@pytest.mark.parametrize(
    ("in_flight", "queued", "slots", "expected"),
    [(0, 0, 1, 1.0), (1, 0, 1, 2.0), (3, 0, 4, 1.0), (4, 0, 4, 1.25), (4, 3, 4, 2.0), (2, 0, 2, 1.5)],
)
def test_a_request_waits_for_those_that_are_there_beyond_the_slots(
    town: Town, in_flight: int, queued: int, slots: int, expected: float
) -> None:
    who = town.node("desk", OFFER)
    town.field.observe_rtt(who, 0.0, town.now)
    town.tell(who, load("coder", in_flight=in_flight, queued=queued, slots=slots, service_s=1.0))

    assert term(town, "desk", "phi_s") == pytest.approx(expected)


def test_our_own_requests_count_until_the_peer_reports_them(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.tell(who, load("coder"))
    town.field.observe_start(who, CODER, town.now)
    assert (term(town, "desk", "in_flight"), term(town, "desk", "own")) == (0, 1)

    town.now += 1.0
    town.tell(who, load("coder", in_flight=1))
    assert (term(town, "desk", "in_flight"), term(town, "desk", "own")) == (1, 0)

    town.field.observe_finish(who, CODER, 1.0, 10, 10, town.now)
    assert (term(town, "desk", "in_flight"), term(town, "desk", "own")) == (0, 0)


def test_a_report_written_before_our_request_came_does_not_hide_it(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.field.observe_rtt(who, 0.05, town.now)
    town.field.observe_start(who, CODER, town.now)

    town.now += 0.04
    town.tell(who, load("coder", in_flight=3))

    assert (term(town, "desk", "in_flight"), term(town, "desk", "own")) == (3, 1)


def test_a_cancelled_or_failed_request_is_no_longer_in_flight(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.field.observe_start(who, CODER, town.now)
    town.field.observe_start(who, CODER, town.now)
    town.field.observe_cancel(who, CODER)
    town.field.observe_failure(who, CODER, town.now)

    assert term(town, "desk", "own") == 0
    assert repr(town.field) == "<GradientField 0 of our requests in flight at 0 places>"


def test_requests_to_a_row_that_left_and_came_back_are_still_counted(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.field.observe_start(who, CODER, town.now)
    town.table.drop_capability(who, CODER)
    town.field.observe_start(who, CODER, town.now)
    town.table.put_capability(who, OFFER)
    town.field.observe_start(who, CODER, town.now)
    assert term(town, "desk", "own") == 3

    for _ in range(3):
        town.field.observe_finish(who, CODER, 1.0, 1, 1, town.now)
    assert term(town, "desk", "own") == 0


def test_an_advert_counts_until_three_answers_came(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.tell(who, load("coder", service_s=9.0))
    for _ in range(2):
        town.field.observe_finish(who, CODER, 1.28, 0, 128, town.now)
    assert term(town, "desk", "service_s") == 9.0

    town.field.observe_finish(who, CODER, 1.28, 0, 128, town.now)
    assert term(town, "desk", "service_s") == pytest.approx(1.28)


def test_what_was_learned_of_one_size_foretells_another(town: Town) -> None:
    who = town.node("desk", OFFER)
    for _ in range(3):
        town.field.observe_finish(who, CODER, 2.0, 800, 100, town.now)  # 200 units in 2 s

    assert float(terms(town, "desk", size=Size(0, 50)).term("service_s")[0]) == pytest.approx(0.5)


def test_service_time_comes_from_the_rate_where_nothing_better_is_known(town: Town) -> None:
    who = town.node("desk", OFFER)
    assert term(town, "desk", "service_s") == FieldSettings().default_service_s

    town.tell(who, load("coder", service_s=0.0, decode_tps=64.0))
    assert term(town, "desk", "service_s") == pytest.approx(2.0)


def test_an_absurd_advert_is_bounded_by_what_its_rivals_need(town: Town) -> None:
    """Zero seconds and endless slots do not make a node infinitely attractive."""
    for name in ("a", "b", "c"):
        town.tell(town.node(name, OFFER), load("coder", service_s=2.0))
    town.tell(town.node("liar", OFFER), load("coder", service_s=1e-300, slots=2**60))

    assert term(town, "liar", "service_s", "a", "b", "c") == pytest.approx(0.5)
    assert term(town, "liar", "slots", "a", "b", "c") == 2


def test_a_liar_is_found_out_by_three_outcomes(town: Town) -> None:
    offers = [town.node(name, OFFER) for name in ("a", "b", "c", "liar")]
    for who in offers:
        town.tell(who, load("coder", service_s=0.001 if who == peer("liar") else 1.0))
    for _ in range(3):
        town.field.observe_finish(peer("liar"), CODER, 4.0, 0, 128, town.now)

    assert town.shares(1000, "code").get("liar", 0.0) < 1.5 / 4


def test_an_old_report_drifts_towards_what_is_usual_in_the_class(town: Town) -> None:
    for name, in_flight in (("a", 0), ("b", 4), ("c", 4), ("d", 4)):
        who = town.node(name, OFFER)
        town.field.observe_rtt(who, 0.0, town.now)
        town.tell(who, load("coder", in_flight=in_flight))
    assert term(town, "a", "potential_s", "b", "c", "d") == pytest.approx(1.0)

    town.now += 20.0
    weight = 1 / math.e
    assert term(town, "a", "weight", "b", "c", "d") == pytest.approx(weight)
    assert term(town, "a", "potential_s", "b", "c", "d") == pytest.approx(weight * 1.0 + (1 - weight) * 5.0)


def test_a_node_that_never_told_its_load_counts_as_the_slower_quarter(town: Town) -> None:
    for name in ("a", "b", "c"):
        town.tell(town.node(name, OFFER), load("coder", in_flight=2))
    town.node("silent", OFFER)

    assert term(town, "silent", "age_s", "a", "b", "c") == math.inf
    assert term(town, "silent", "potential_s", "a", "b", "c") == pytest.approx(3.005)


def test_failures_weigh_and_fade(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.tell(who, load("coder"))
    healthy = term(town, "desk", "potential_s")
    town.field.observe_failure(who, CODER, town.now)
    assert term(town, "desk", "potential_s") == pytest.approx(3 * healthy)

    town.field.observe_failure(who, CODER, town.now)
    assert term(town, "desk", "failures") == 2.0
    town.now += 10.0
    assert term(town, "desk", "failures") == pytest.approx(1.0)


def test_rest_after_failures_grows_and_ends_with_success(town: Town) -> None:
    who, row_of = town.node("desk", OFFER), town.table.find
    out_s = [town.field.observe_failure(who, CODER, town.now) for _ in range(10)]
    assert out_s == [0, 0, 0, 0, 30.0, 0, 0, 0, 0, 0], "the last five were on their way when it was put out"
    assert town.field.ejected_s(who, CODER, town.now + 20.0) == 10.0

    town.now += 31.0
    assert town.field.ejected_s(who, CODER, town.now) == 0.0
    assert town.field.observe_failure(who, CODER, town.now) == 60.0, "on trial, one failure is enough"

    town.now += 61.0
    assert town.field.observe_finish(who, CODER, 1.0, 1, 1, town.now), "it has passed its trial"
    assert not town.field.observe_finish(who, CODER, 1.0, 1, 1, town.now), "which it does once"
    row = row_of(who, CODER)
    assert (town.table.rows.streak[row], town.table.rows.ejections[row]) == (0, 0)


def test_path_latency_is_nothing_at_home_and_guessed_until_measured(town: Town) -> None:
    town.node("home", OFFER)
    who = town.node("desk", OFFER)
    assert term(town, "home", "latency_s") == 0.0
    assert term(town, "desk", "latency_s") == FieldSettings().unknown_rtt_s

    town.field.observe_rtt(who, 0.2, town.now)
    assert term(town, "desk", "latency_s") == 0.2


def test_a_first_token_that_is_late_without_reason_raises_the_latency_for_a_while(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.tell(who, load("coder", service_s=1.0, in_flight=2, slots=1))
    town.field.observe_first_token(who, CODER, 1.5, town.now)
    assert term(town, "desk", "latency_s") == pytest.approx(0.5)  # one second of the wait is the queue it admits

    town.now += 10.0
    assert term(town, "desk", "latency_s") == pytest.approx(0.5 / math.e)


def test_a_node_that_stays_silent_longer_than_expected_grows_less_attractive(town: Town) -> None:
    """Long before its first outcome, which a liar's hidden queue may delay for ever."""
    who = town.node("desk", OFFER)
    town.tell(who, load("coder", service_s=1.0))
    town.field.observe_start(who, CODER, town.now)
    started = town.now
    assert term(town, "desk", "latency_s") == FieldSettings().unknown_rtt_s

    town.now = started + 8.0
    town.tell(who, load("coder", in_flight=1, service_s=1.0))
    assert term(town, "desk", "latency_s") == pytest.approx(6.0)  # two seconds were to be expected

    town.field.observe_first_token(who, CODER, 8.0, town.now)
    town.now += 1000.0
    assert term(town, "desk", "latency_s") < 0.1, "an answer that is on its way may be long"


def test_of_several_silent_requests_the_oldest_counts_until_it_ends(town: Town) -> None:
    who = town.node("desk", OFFER)
    for _ in range(2):
        town.field.observe_start(who, CODER, town.now)
        town.now += 50.0
    town.tell(who, load("coder", in_flight=2, slots=4, service_s=1.0))
    assert term(town, "desk", "latency_s") == pytest.approx(99.0)

    town.field.observe_finish(who, CODER, 100.0, 0, 10, town.now)
    assert term(town, "desk", "latency_s") == pytest.approx(49.0)

    town.field.observe_cancel(who, CODER)
    assert term(town, "desk", "latency_s") < 0.1


def test_feedback_with_an_answer_is_a_fresh_report(town: Town) -> None:
    who = town.node("desk", OFFER)
    town.field.observe_start(who, CODER, town.now)
    town.now += 2.0
    town.field.observe_finish(who, CODER, 2.0, 1, 1, town.now)
    town.field.on_feedback(who, load("coder", in_flight=4), town.now)

    assert (term(town, "desk", "in_flight"), term(town, "desk", "age_s")) == (4, 0.0)


def test_outcomes_of_unknown_places_change_nothing(town: Town) -> None:
    stranger = peer("stranger")
    town.field.observe_start(stranger, CODER, town.now)
    town.field.observe_first_token(stranger, CODER, 1.0, town.now)
    town.field.observe_finish(stranger, CODER, 1.0, 1, 1, town.now)
    town.field.observe_failure(stranger, CODER, town.now)
    town.field.on_feedback(stranger, load("coder"), town.now)
    assert len(town.table) == 0


floats = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(floats, floats, st.integers(-5, 2**40), st.integers(-5, 2**40)), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_every_potential_is_finite_and_positive_whatever_is_told_or_seen(
    told: list[tuple[float, float, int, int]],
) -> None:
    town = Town()
    names = [f"n{number}" for number in range(len(told))]
    for name, (service_s, seen_s, in_flight, slots) in zip(names, told, strict=True):
        who = town.node(name, OFFER)
        town.tell(who, load("coder", service_s=service_s, decode_tps=seen_s, in_flight=in_flight, slots=slots))
        town.field.observe_rtt(who, seen_s, town.now)
        town.field.observe_first_token(who, CODER, seen_s, town.now)
        for _ in range(3):
            town.field.observe_finish(who, CODER, seen_s, 1, 1, town.now)

    potential_s = terms(town, *names).potential_s

    assert np.isfinite(potential_s).all()
    assert (potential_s > 0).all()
    town.table.validate()


@given(
    st.lists(
        st.tuples(
            st.one_of(st.just(0.0), st.floats(0.0, 1e4)),  # as told: seconds, tokens a second, requests, slots
            st.one_of(st.just(0.0), st.floats(0.0, 1e4)),
            st.integers(0, 9),
            st.integers(1, 9),
            st.lists(st.sampled_from("tsfwpa"), max_size=8),  # what happens then
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_terms_of_a_candidate_without_rivals_are_those_that_it_has_among_other_classes(
    told: list[tuple[float, float, int, int, list[str]]],
) -> None:
    town = Town()
    names = [f"n{number}" for number in range(len(told))]
    for name, (service_s, tps, in_flight, slots, story) in zip(names, told, strict=True):
        who = town.node(name, OFFER)
        for what in story:
            town.now += 0.7
            if what == "t":
                town.tell(who, load("coder", service_s=service_s, decode_tps=tps, in_flight=in_flight, slots=slots))
            elif what == "s":
                town.field.observe_start(who, CODER, town.now)
            elif what == "f":
                town.field.observe_failure(who, CODER, town.now)
            elif what == "w":
                town.field.observe_first_token(who, CODER, 3.0, town.now)
            elif what == "p":
                town.field.observe_rtt(who, 0.02, town.now)
            else:
                town.field.observe_finish(who, CODER, 0.4, 10, 20, town.now)
    rows = [np.array([town.table.find(peer(name), CODER)], dtype=np.int32) for name in names]

    alone = [town.field.terms(row, USUAL, peer(names[0]), town.now).values for row in rows]
    among = town.field.terms_of_each([*rows, *rows], USUAL, peer(names[0]), town.now)

    for one, several in zip(alone, among, strict=False):
        assert one == pytest.approx(several.values)

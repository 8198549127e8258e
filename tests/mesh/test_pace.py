"""Seconds a prompt token and an output token, told apart from outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.mesh.pace import PREFILL_SHARE, Size, rates, remember, size_of
from tests.mesh.routing_support import Town, capability, load

CODER = "atmo:chat:coder"
OFFER = capability("coder", "code")


def learnt(outcomes: list[tuple[float, float, float]], rate: float = 0.1) -> tuple[float, float]:
    """outcomes: prompt tokens, output tokens, seconds."""
    means = [0.0] * 5
    for number, (prompt, output, time_s) in enumerate(outcomes, 1):
        means = remember(means, size_of(prompt, output), time_s, max(rate, 1 / number))
    return rates(means)


def test_requests_of_one_shape_leave_the_usual_ratio() -> None:
    prompt_s, output_s = learnt([(80, 100, 1.1)] * 5)

    assert output_s == pytest.approx(0.01)
    assert prompt_s == pytest.approx(0.01 * PREFILL_SHARE)


def test_requests_of_several_shapes_tell_the_two_rates_apart() -> None:
    """A graphics card: 0.02 s a token written, 0.0001 s a token read."""
    chance = np.random.default_rng(1)
    sizes = [(float(chance.integers(10, 4000)), float(chance.integers(5, 300))) for _ in range(60)]
    noisy = [(prompt, output, (prompt * 1e-4 + output * 0.02) * chance.lognormal(0, 0.1)) for prompt, output in sizes]

    prompt_s, output_s = learnt(noisy)

    assert output_s == pytest.approx(0.02, rel=0.25)
    assert prompt_s < 0.0006, "not 0.0025, the usual ratio"


def test_a_node_is_chosen_by_the_shape_of_the_request_that_suits_it() -> None:
    """One reads fast and writes slowly, the other the other way round: neither says so, both are found out."""
    town = Town()
    reader, writer = town.node("reader", OFFER), town.node("writer", OFFER)
    for _ in range(8):
        for prompt, output in ((4000, 10), (20, 400)):
            town.field.observe_finish(reader, CODER, prompt * 0.0002 + output * 0.04, prompt, output, town.now)
            town.field.observe_finish(writer, CODER, prompt * 0.003 + output * 0.01, prompt, output, town.now)
    for who in (reader, writer):
        town.tell(who, load("coder", service_s=5.0))

    long_prompt = [town.ask("code", prompt_tokens=4000, expected_output_tokens=10).chosen.node for _ in range(100)]
    long_answer = [town.ask("code", prompt_tokens=20, expected_output_tokens=400).chosen.node for _ in range(100)]

    assert long_prompt.count("reader") > 90
    assert long_answer.count("writer") > 90


def test_a_request_without_a_known_size_counts_as_one_token() -> None:
    assert size_of(0, 0) == Size(0, 1)
    assert size_of(-5, float("-inf")) == Size(0, 1)
    assert learnt([(0, 0, 0.3)] * 3) == pytest.approx((0.3 * PREFILL_SHARE, 0.3))


tokens = st.floats(0, 1e6)


@given(st.lists(st.tuples(tokens, tokens, st.floats(0.0005, 3600)), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_rates_are_finite_and_never_negative(outcomes: list[tuple[float, float, float]]) -> None:
    prompt_s, output_s = learnt(outcomes)

    assert np.isfinite([prompt_s, output_s]).all()
    assert prompt_s >= 0
    assert output_s >= 0
    assert prompt_s + output_s > 0

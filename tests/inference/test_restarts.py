"""When a dead engine is started again."""

from __future__ import annotations

from random import Random

from atmo.inference.restarts import RestartPolicy, Restarts

POLICY = RestartPolicy(first_s=1.0, most_s=6.0, quick_s=30.0, quick_deaths=6)


def test_pauses_double_up_to_the_longest_and_then_it_gives_up() -> None:
    restarts = Restarts(POLICY)
    pauses = [restarts.died(0.0, Random(seed)) for seed in range(6)]
    for pause, most in zip(pauses[:5], (1.0, 2.0, 4.0, 6.0, 6.0), strict=True):
        assert pause is not None
        assert most / 2 <= pause <= most
    assert pauses[5] is None


def test_a_long_life_clears_the_count() -> None:
    restarts = Restarts(POLICY)
    for seed in range(50):
        pause = restarts.died(31.0, Random(seed))
        assert pause is not None
        assert pause <= 1.0
    assert restarts.deaths == 1


def test_engines_that_die_together_do_not_come_back_together() -> None:
    pauses = {Restarts(POLICY).died(0.0, Random(seed)) for seed in range(20)}
    assert len(pauses) == 20

"""The simulation of the balance benchmark, small: what the choice of node promises, and that a run can be repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.balance import liars_share
from bench.fleet import Mishap, Run, Setting, new_fleet, simulate
from bench.policies import POLICIES

SMALL = Setting(routers=8, servers=16, requests=1600, load=0.7, report_every_s=0.2, seed=3)


def play(setting: Setting, policy: str = "this") -> Run:
    fleet = new_fleet(setting)
    return simulate(setting, fleet, POLICIES[policy](setting, fleet))


def mean(run: Run) -> float:
    return float(np.mean(run.settled()))


@pytest.fixture(scope="module")
def fresh() -> Run:
    return play(SMALL)


def test_equal_seeds_give_equal_runs(fresh: Run) -> None:
    assert play(SMALL).times_s == fresh.times_s
    assert play(replace(SMALL, seed=4)).times_s != fresh.times_s


@pytest.mark.parametrize("every_s", [0.2, 2.0, 20.0])
@pytest.mark.parametrize("mixed", [True, False])
def test_never_worse_than_power_of_two(every_s: float, mixed: bool) -> None:
    setting = replace(SMALL, report_every_s=every_s, mixed=mixed)

    assert mean(play(setting)) < mean(play(setting, "power of two")) * 1.03


def test_old_reports_cost_little(fresh: Run) -> None:
    old = play(replace(SMALL, report_every_s=20.0))

    assert np.percentile(old.settled(), 99) < 1.5 * np.percentile(fresh.settled(), 99)
    assert mean(old) < mean(play(replace(SMALL, report_every_s=20.0), "least loaded")) / 3


def test_nine_tenths_of_the_useful_work_of_one_who_knows_all(fresh: Run) -> None:
    assert fresh.useful(5.0) > 0.9 * play(SMALL, "omniscient").useful(5.0)


@pytest.mark.parametrize("every_s", [0.2, 20.0])
def test_a_liar_gets_less_than_half_more_than_its_share_after_three_outcomes(every_s: float) -> None:
    setting = replace(SMALL, report_every_s=every_s, mishap=Mishap.LIAR, wrong=1, requests=3200)

    assert liars_share(setting, play(setting)) < 1.5


def test_a_server_that_becomes_slow_is_sent_little_from_then_on() -> None:
    setting = replace(SMALL, mishap=Mishap.SLOW, wrong=1)
    run = play(setting)
    late = [setting.is_wrong(server) for _, server, sent in run.log[len(run.log) // 2 :] if sent]

    assert np.mean(late) < 0.5 / sum(setting.speeds)


def test_what_a_dead_server_lost_is_answered_by_others() -> None:
    run = play(replace(SMALL, mishap=Mishap.DEAD, wrong=1))

    assert 0 < run.lost < 60
    assert min(run.times_s) > 0
    assert max(run.settled()) < 30

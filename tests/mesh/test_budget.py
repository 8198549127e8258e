"""Retries cost what first attempts bring in, so that a mesh in trouble is not asked twice as much."""

from __future__ import annotations

from atmo.mesh.budget import Budget


def test_of_many_requests_that_all_fail_a_fifth_is_tried_again() -> None:
    budget = Budget(share=0.2, trickle_per_s=0.0)
    retried = 0
    for _ in range(1000):
        budget.first(now_s=0.0)
        retried += budget.take(now_s=0.0)
    assert 200 <= retried <= 206, "the share, and what there was to begin with"


def test_a_quiet_node_may_retry_again_after_a_while() -> None:
    budget = Budget(trickle_per_s=1.0)
    while budget.take(now_s=0.0):
        pass
    assert not budget.take(now_s=0.5)
    assert budget.take(now_s=1.5)


def test_quiet_hours_do_not_save_up_for_a_storm() -> None:
    budget = Budget(most=20.0)
    assert sum(budget.take(now_s=100_000.0) for _ in range(100)) == 20

"""How long a suspect may take, and how far a node trusts itself: tables of numbers."""

from __future__ import annotations

import pytest

from atmo.mesh.suspicion import LATE_S, LONGEST, MAX_MULTIPLIER, RECOVERY_S, Awareness, patience_s


@pytest.mark.parametrize(
    ("nodes", "confirmations", "expected_s"),
    [
        (2, 0, 4.0),  # nobody else is there to confirm
        (3, 0, 4.0),
        (4, 0, 24.0),  # memberlist: 6 times the shortest
        (10, 0, 24.0),
        (10, 1, 11.38),  # 24 - 20 * log 2 / log 3
        (10, 2, 4.0),
        (10, 9, 4.0),
        (100, 2, 8.0),
        (1000, 0, 72.0),
        (1000, 2, 12.0),
        (10_000, 2, 16.0),
    ],
)
def test_the_wait_grows_with_the_mesh_and_shrinks_with_each_accuser(
    nodes: int, confirmations: int, expected_s: float
) -> None:
    assert patience_s(4.0, nodes, confirmations) == pytest.approx(expected_s, abs=0.01)


@pytest.mark.parametrize("nodes", [1, 2, 5, 30, 1000, 100_000])
def test_more_accusers_never_lengthen_the_wait_and_its_bounds_hold(nodes: int) -> None:
    waits = [patience_s(4.0, nodes, confirmations) for confirmations in range(6)]

    assert waits == sorted(waits, reverse=True)
    assert waits[0] <= LONGEST * waits[-1]
    assert waits[-1] >= 4.0


def test_a_node_that_is_in_time_trusts_itself() -> None:
    aware = Awareness()
    aware.late(LATE_S / 2, 10.0)

    assert aware.multiplier(10.0) == 1.0


def test_a_node_that_is_late_doubts_itself_and_recovers() -> None:
    aware = Awareness()
    aware.late(1.5, 10.0)

    assert aware.multiplier(10.0) == 4.0
    assert aware.multiplier(10.0 + RECOVERY_S) == 3.0
    assert aware.multiplier(10.0 + 3 * RECOVERY_S) == 1.0


def test_doubt_has_a_bound() -> None:
    aware = Awareness()
    for _ in range(20):
        aware.late(3600.0, 10.0)
        aware.accused(10.0)

    assert aware.multiplier(10.0) == MAX_MULTIPLIER


def test_being_accused_is_one_point() -> None:
    aware = Awareness()
    aware.accused(5.0)
    aware.accused(5.0)

    assert aware.multiplier(5.0) == 3.0

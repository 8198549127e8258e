"""What is asked for often and is missing is worth fetching; what is asked for once in a while is not."""

from __future__ import annotations

from atmo.models.demand import HALF_LIFE_S, MAX_COUNTED, WANTED, Demand

GB = 10**9


def wanted(demand: Demand, root: str, times: int, every_s: float, now_s: float = 0.0) -> float:
    for _ in range(times):
        demand.asked(root, now_s)
        now_s += every_s
    return now_s


def test_what_is_wanted_often_within_a_day_is_fetched() -> None:
    demand = Demand()
    now_s = wanted(demand, "often", int(WANTED) + 1, 600.0)
    wanted(demand, "seldom", 2, 600.0)
    assert demand.choose({"often": GB, "seldom": GB}, 10 * GB, now_s) == "often"


def test_what_is_wanted_once_a_day_never_is() -> None:
    demand = Demand()
    now_s = wanted(demand, "daily", 100, HALF_LIFE_S)
    assert demand.choose({"daily": GB}, 10 * GB, now_s) is None


def test_nothing_is_fetched_beyond_the_room_that_there_is_or_that_nobody_has() -> None:
    demand = Demand()
    for root in ("large", "small", "gone"):
        wanted(demand, root, 20 if root != "small" else 10, 1.0)
    assert demand.choose({"large": 8 * GB, "small": GB}, 2 * GB, 20.0) == "small"
    demand.forget("small")
    assert demand.choose({"large": 8 * GB, "small": GB}, 2 * GB, 20.0) is None


def test_the_least_wanted_is_forgotten_first() -> None:
    demand = Demand()
    wanted(demand, "often", 20, 1.0)
    for number in range(2 * MAX_COUNTED):
        demand.asked(f"{number}", 20.0)
    assert demand.choose({"often": 1}, 1, 21.0) == "often"

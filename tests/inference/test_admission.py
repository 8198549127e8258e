"""Slots, the queue before them, and who is told to come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.inference.admission import Admission, Admit, Queue, Refuse

LATER = 1_000.0


def test_slots_are_filled_then_the_queue_then_nobody_more() -> None:
    door: Admission[str] = Admission(slots=2, queue_limit=1)
    assert door.offer("a", 0.0, LATER) == Admit()
    assert door.offer("b", 0.0, LATER) == Admit()
    assert door.offer("c", 0.0, LATER) == Queue(position=0, expected_wait_s=0.0)
    assert door.offer("d", 0.0, LATER) == Refuse(0.5, "queue full")
    assert door.release("a", 1.0) == ["c"]
    assert (door.running, door.queued) == (2, 0)
    assert repr(door) == "<Admission 2/2 running, 0/1 waiting>"


def test_who_came_first_goes_first_and_priority_before_that() -> None:
    door: Admission[str] = Admission(slots=1, queue_limit=5)
    for name, priority in (("a", 0), ("b", 0), ("c", 0), ("own", 1), ("own2", 1)):
        door.offer(name, 0.0, LATER, priority)
        door.validate()
    order = []
    current = "a"
    while admitted := door.release(current, 1.0):
        (current,) = admitted
        order.append(current)
    assert order == ["own", "own2", "b", "c"]


def test_a_request_whose_time_would_be_up_is_refused_at_once() -> None:
    door: Admission[str] = Admission(slots=2, queue_limit=9)
    door.offer("a", 0.0, LATER)
    door.release("a", 4.0)
    assert door.service_s == 4.0
    for name in ("b", "c"):
        assert door.offer(name, 10.0, LATER) == Admit()
    assert door.offer("patient", 10.0, 12.5) == Queue(0, 2.0)
    assert door.offer("hurried", 10.0, 13.5) == Refuse(4.0, "too late")
    assert door.queued == 1


def test_who_stops_waiting_makes_room_and_is_not_counted_as_served() -> None:
    door: Admission[str] = Admission(slots=1, queue_limit=1)
    door.offer("a", 0.0, LATER)
    door.offer("b", 0.0, LATER)
    assert door.release("b", 5.0) == []
    assert door.service_s == 0.0
    assert isinstance(door.offer("c", 5.0, LATER), Queue)
    assert door.release("nobody", 5.0) == []
    assert door.release("a", 6.0) == ["c"]


def test_the_service_time_follows_what_it_sees() -> None:
    door: Admission[int] = Admission(slots=1, queue_limit=0)
    for number in range(30):
        door.offer(number, 0.0, LATER)
        door.release(number, 10.0 if number < 5 else 1.0)
    assert 1.0 < door.service_s < 1.1


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="0 slots"):
        Admission(slots=0, queue_limit=1)
    door: Admission[str] = Admission(slots=1, queue_limit=1)
    door.offer("a", 0.0, LATER)
    with pytest.raises(ValueError, match="offered twice"):
        door.offer("a", 0.0, LATER)


@given(
    slots=st.integers(1, 4),
    limit=st.integers(0, 4),
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 2)), max_size=60),
)
def test_no_order_of_events_breaks_the_invariants(slots: int, limit: int, moves: list[tuple[bool, int, int]]) -> None:
    """Never more at work or waiting than allowed, nobody waits beside a free slot, and nobody is admitted twice."""
    door: Admission[int] = Admission(slots, limit)
    inside: set[int] = set()
    for now, (arrives, number, priority) in enumerate(moves):
        if arrives and number not in inside:
            if not isinstance(door.offer(number, float(now), now + 50.0, priority), Refuse):
                inside.add(number)
        elif not arrives:
            inside.discard(number)
            assert set(door.release(number, float(now))) <= inside
        door.validate()
        assert door.running + door.queued == len(inside)

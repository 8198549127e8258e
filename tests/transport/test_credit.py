"""Credit: nothing is lost between the two sides, and nobody waits for ever."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.errors import LocalProtocolError, RemoteProtocolError
from atmo.transport.credit import CreditGrants, CreditWindow


def test_credits_are_spent_and_come_back_by_half_windows() -> None:
    sender, receiver = CreditWindow(100), CreditGrants(100)
    for _ in range(4):
        sender.take(25)
        receiver.receive(25)
    assert not sender.try_take(1)
    assert [receiver.release(25), receiver.release(25)] == [0, 50]
    sender.refill(50)
    assert (sender.available, sender.in_flight, receiver.unreleased) == (50, 50, 50)


def test_what_could_never_fit_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError):
        CreditWindow(100).try_take(51)
    with pytest.raises(LocalProtocolError):
        CreditWindow(100).take(-1)


def test_taking_what_is_not_there_is_a_local_error() -> None:
    window = CreditWindow(10)
    window.take(5)
    window.take(4)
    with pytest.raises(LocalProtocolError, match="1 are left"):
        window.take(2)


def test_a_peer_that_sends_too_much_or_grants_too_much_is_a_remote_error() -> None:
    with pytest.raises(RemoteProtocolError):
        CreditGrants(10).receive(11)
    with pytest.raises(RemoteProtocolError):
        CreditWindow(10).refill(1)


def test_releasing_more_than_came_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError):
        CreditGrants(10).release(1)


@pytest.mark.parametrize("kind", [CreditWindow, CreditGrants])
def test_a_window_that_lets_nothing_through_is_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="nothing through"):
        kind(1)


@given(window=st.integers(2, 1000), data=st.data())
def test_any_stream_of_items_up_to_half_a_window_gets_through(window: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, window // 2), max_size=60))
    sender, receiver = CreditWindow(window), CreditGrants(window)
    unsent, unreleased = deque(sizes), deque[int]()
    while unsent or unreleased:
        if unsent and sender.try_take(unsent[0]):
            receiver.receive(unsent[0])
            unreleased.append(unsent.popleft())
        else:
            assert unreleased, "the sender waits and the receiver has nothing to release: deadlock"
            sender.refill(receiver.release(unreleased.popleft()))
        assert sender.in_flight - receiver.unreleased in range(window), "what is neither is held back"
        assert 0 <= sender.available <= window
    assert sender.in_flight * 2 < window, "all but what is held back has come home"

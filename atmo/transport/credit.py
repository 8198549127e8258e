"""Credit: how a receiver bounds what a sender may have in flight.

The idea. Both sides agree on a window. The sender owns that many credits and spends them on what it sends; with none
left it waits. The receiver gives credits back when it has dealt with what arrived, not when it arrived, so the window
bounds everything between the two: sockets, kernel buffers, queues. (HTTP/2's flow control, RFC 9113 section 5.2, for
one stream.)

Credits are any integer: bytes for model chunks, parts for the stream of an answer. Returned credits are held back until
half a window has gathered, so that the news costs two messages per window instead of one per frame. For this to be free
of deadlock a single item may cost at most half a window: the sender then has room for it once all else is released.

Invariant, with nothing lost between the two: available + in flight + unreleased + held back == window.
"""

from __future__ import annotations

from atmo.errors import LocalProtocolError, RemoteProtocolError


class CreditWindow:
    """The sender's side: what may still be sent."""

    __slots__ = ("_available", "_window")

    def __init__(self, window: int) -> None:
        if window < 2:
            raise ValueError(f"a credit window of {window} lets nothing through")
        self._window = window
        self._available = window

    @property
    def available(self) -> int:
        return self._available

    @property
    def in_flight(self) -> int:
        """Spent and not yet given back."""
        return self._window - self._available

    def try_take(self, amount: int) -> bool:
        """Spend `amount` if there is as much. Raises LocalProtocolError for what could never fit."""
        if not 0 <= amount <= self._window // 2:
            raise LocalProtocolError(f"{amount} credits do not fit into half a window of {self._window}.")
        if amount > self._available:
            return False
        self._available -= amount
        return True

    def take(self, amount: int) -> None:
        """Spend `amount`. Raises LocalProtocolError when there is not as much: the caller had to wait."""
        if not self.try_take(amount):
            raise LocalProtocolError(f"{amount} credits wanted, {self._available} are left.")

    def refill(self, amount: int) -> None:
        """The receiver gave credits back. Raises RemoteProtocolError when it gives more than were ever spent."""
        if not 0 <= amount <= self.in_flight:
            raise RemoteProtocolError(f"The peer gave back {amount} credits, {self.in_flight} were out.")
        self._available += amount

    def widen(self, amount: int, most: int) -> None:
        """The receiver makes the window larger. Raises RemoteProtocolError beyond `most` in all."""
        if amount < 0 or self._window + amount > most:
            raise RemoteProtocolError(f"The peer widens a window of {self._window} by {amount}, {most} are allowed.")
        self._window += amount
        self._available += amount

    def __repr__(self) -> str:
        return f"<CreditWindow {self._available} of {self._window} left>"


class CreditGrants:
    """The receiver's side: what has come in and what to give back when."""

    __slots__ = ("_held_back", "_unreleased", "_window")

    def __init__(self, window: int) -> None:
        if window < 2:
            raise ValueError(f"a credit window of {window} lets nothing through")
        self._window = window
        self._unreleased = 0
        self._held_back = 0

    @property
    def unreleased(self) -> int:
        """Received and not yet dealt with."""
        return self._unreleased

    def receive(self, amount: int) -> None:
        """Something of this size arrived. Raises RemoteProtocolError when its sender had no credit for it."""
        if amount < 0 or self._unreleased + self._held_back + amount > self._window:
            raise RemoteProtocolError(f"The peer sent {amount} beyond its window of {self._window}.")
        self._unreleased += amount

    def release(self, amount: int) -> int:
        """Dealt with. Returns the credits to send back now, 0 while they are still gathered.

        Raises LocalProtocolError for more than was received.
        """
        if not 0 <= amount <= self._unreleased:
            raise LocalProtocolError(f"{amount} released, {self._unreleased} were received.")
        self._unreleased -= amount
        self._held_back += amount
        if self._held_back * 2 < self._window:
            return 0
        grant, self._held_back = self._held_back, 0
        return grant

    def widen(self, window: int) -> int:
        """Make the window so large; how much that is more, which the sender has to be told. 0 for no larger one."""
        more = max(0, window - self._window)
        self._window += more
        return more

    def __repr__(self) -> str:
        return f"<CreditGrants {self._unreleased} of {self._window} unreleased>"

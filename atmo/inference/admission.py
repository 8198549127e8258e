"""Who may work now, who waits and who is told to come back. Pure: the time is an argument, the caller does the waiting.

Theory of operation. There are as many slots as the engine answers at once, and a bounded queue, by priority and then
by arrival. What a request would have to wait is estimated from the service times seen so far: with S their moving
average, k slots and p requests before it, about S * (p + 1) / k. A request whose time is up before its turn is
refused at once: to queue it would only make the others wait (as in Google's and Netflix's load shedding). Without a
sample nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

_WEIGHT = 0.2  # of the newest service time in the average; a guess: the last ten count
_LEAST_RETRY_S = 0.5  # sooner than this nothing will have changed; a guess

Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Admit:
    """Work now, and release when done."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Wait: a `release` will name you. position: 0 is next; expected_wait_s: 0 when nothing is known yet."""

    position: int
    expected_wait_s: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Come back in about `retry_after_s` seconds. reason: `queue full` or `too late`."""

    retry_after_s: float
    reason: str


Verdict: TypeAlias = Admit | Queue | Refuse


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Id]):
    id: Id
    priority: int


class Admission(Generic[Id]):
    """slots: requests at work at once, at least 1; queue_limit: requests that may wait. Times in seconds, of one clock.

    A higher priority goes first; among equals, who came first. Work that runs is never interrupted.
    """

    def __init__(self, slots: int, queue_limit: int) -> None:
        if slots < 1 or queue_limit < 0:
            raise ValueError(f"{slots} slots and a queue of {queue_limit} make no admission")
        self.slots = slots
        self.queue_limit = queue_limit
        self.service_s = 0.0  # moving average, 0 before the first
        self._running: dict[Id, float] = {}  # since when
        self._queue: list[_Waiting[Id]] = []

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Admission {self.running}/{self.slots} running, {self.queued}/{self.queue_limit} waiting>"

    def offer(self, request: Id, now: float, deadline: float, priority: int = 0) -> Verdict:
        """Ask to be served until `deadline`. Raises ValueError when `request` is here already."""
        if request in self._running or any(each.id == request for each in self._queue):
            raise ValueError(f"{request!r} was offered twice")
        if self.running < self.slots and not self._queue:
            self._running[request] = now
            return Admit()
        position = sum(each.priority >= priority for each in self._queue)
        wait_s = self.expected_wait_s(position)
        if self.queued >= self.queue_limit:
            return Refuse(max(_LEAST_RETRY_S, self.expected_wait_s(self.queued)), "queue full")
        if now + wait_s > deadline:
            return Refuse(max(_LEAST_RETRY_S, wait_s), "too late")
        self._queue.insert(position, _Waiting(request, priority))
        return Queue(position, wait_s)

    def release(self, request: Id, now: float) -> list[Id]:
        """It is done, or no longer wants to wait. Returns who is admitted in its place. Unknown ones change nothing."""
        started_s = self._running.pop(request, None)
        if started_s is None:
            self._queue = [each for each in self._queue if each.id != request]
        else:
            took_s = max(0.0, now - started_s)
            self.service_s = took_s if self.service_s == 0 else self.service_s + _WEIGHT * (took_s - self.service_s)
        return self._admit_waiting(now)

    def expected_wait_s(self, position: int) -> float:
        """Seconds until the request at `position` of the queue gets a slot."""
        return self.service_s * (position + 1) / self.slots

    def validate(self) -> None:
        """The invariants: never more at work or in the queue than allowed, and nobody waits while a slot is free."""
        assert len(self._running) <= self.slots
        assert len(self._queue) <= self.queue_limit
        assert not self._queue or len(self._running) == self.slots
        ids = [each.id for each in self._queue]
        assert len(set(ids)) == len(ids)
        assert not set(ids) & set(self._running)
        assert [each.priority for each in self._queue] == sorted((each.priority for each in self._queue), reverse=True)

    def _admit_waiting(self, now: float) -> list[Id]:
        admitted: list[Id] = []
        while self._queue and self.running < self.slots:
            next_one = self._queue.pop(0)
            self._running[next_one.id] = now
            admitted.append(next_one.id)
        return admitted

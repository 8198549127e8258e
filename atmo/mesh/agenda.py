"""What to look at next, and when: a heap of keyed appointments of which only the latest word for each key counts.

Moving an appointment pushes a new heap entry and leaves the old one behind, to be skipped when it comes up (lazy
deletion).
"""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar

K = TypeVar("K")


class Chance(Protocol):
    """The part of `random.Random` that the mesh uses. Given from outside, so that equal seeds give equal runs."""

    def uniform(self, a: float, b: float) -> float: ...

    def random(self) -> float: ...


class Agenda(Generic[K]):
    """Appointments of keys. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []  # the counter keeps keys from being compared
        self._count = 0

    def put(self, key: K, at_s: float) -> None:
        """Make the key's appointment, or move it."""
        self._at[key] = at_s
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, key))
        if len(self._heap) > 64 + 4 * len(self._at):
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def put_if_sooner(self, key: K, at_s: float) -> None:
        if at_s < self._at.get(key, float("inf")):
            self.put(key, at_s)

    def drop(self, key: K) -> None:
        """No appointment any more. It need not have one."""
        self._at.pop(key, None)

    def take_due(self, now_s: float) -> list[K]:
        """The keys whose time has come, in order of time; they have no appointment any more."""
        due = []
        while self._heap and self._heap[0][0] <= now_s:
            at_s, _, key = heapq.heappop(self._heap)
            if self._at.get(key) == at_s:
                del self._at[key]
                due.append(key)
        return due

    def next_s(self) -> float | None:
        """When the next appointment is."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def at(self, key: K) -> float | None:
        return self._at.get(key)

    def __len__(self) -> int:
        return len(self._at)

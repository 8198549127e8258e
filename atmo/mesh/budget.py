"""How many requests may be asked a second time: a share of those asked the first time, so that trouble is not doubled.

Theory of operation. Retries are what turns an overloaded mesh into a dead one: each failure makes another request.
A bucket gains `share` tokens with each first attempt and, so that a quiet node may retry at all, a trickle with time;
each retry takes one (Finagle's RetryBudget, whose defaults these are but for the trickle). An answer that has begun is
not charged: it was promised, and it is bounded by its own count of attempts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """share: retries for each first attempt; trickle_per_s: tokens gained each second; most: tokens that are kept."""

    share: float = 0.2
    trickle_per_s: float = 1.0  # a guess: a single user's node may retry once a second without having asked anything
    most: float = 20.0  # a guess: what a hundred requests bring
    _tokens: float = 5.0  # to begin with; a guess
    _at_s: float = 0.0

    def first(self, now_s: float) -> None:
        """A request was asked for the first time."""
        self._flow(now_s)
        self._tokens = min(self.most, self._tokens + self.share)

    def take(self, now_s: float) -> bool:
        """May one be asked again?"""
        self._flow(now_s)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _flow(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._tokens = min(self.most, self._tokens + passed_s * self.trickle_per_s)

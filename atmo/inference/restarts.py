"""When to start a dead engine again, and when to stop trying. Pure: times and randomness are arguments.

Theory of operation. The pause doubles with each quick death in a row and is drawn at random from its upper half, so
that many engines that died of one cause do not come back in step. A life that was long enough clears the count: a
crash once a day is restarted for ever, a crash at every start is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """first_s, most_s: shortest and longest pause; quick_s: a shorter life is a quick death; quick_deaths: so many in a
    row and the engine is given up. All guesses, in the range of systemd's and Kubernetes' defaults."""

    first_s: float = 0.5
    most_s: float = 30.0
    quick_s: float = 30.0
    quick_deaths: int = 5


class Restarts:
    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self.deaths = 0  # quick ones in a row

    def died(self, lived_s: float, rng: Random) -> float | None:
        """Seconds to wait before the next start, or None to give up. lived_s: since it became ready, 0 when it never
        did."""
        self.deaths = self.deaths + 1 if lived_s < self._policy.quick_s else 1
        if self.deaths >= self._policy.quick_deaths:
            return None
        pause_s = min(self._policy.most_s, self._policy.first_s * 2.0 ** (self.deaths - 1))
        return pause_s * rng.uniform(0.5, 1.0)

"""The arithmetic of doubt: how long to wait before a suspect is taken for dead, and how far to trust oneself.

Theory of operation. SWIM (Das et al. 2002, section 4.2) lets a suspect live on for a while, so that it can contradict.
Lifeguard (Dadgar et al. 2018, section IV) adds two things. The wait starts long and each independent accuser shortens
it, on a logarithmic scale: where several nodes see the same there is little doubt, and one accuser alone may be the
sick one. And a node that notices that it is itself slow (its timers fire late, it is accused) multiplies all its waits:
most false accusations come from accusers that were starved of CPU, not from the accused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, log10

# memberlist: SuspicionMaxTimeoutMult; Lifeguard's beta.
LONGEST = 6.0
# memberlist: SuspicionMult (4) less 2; Lifeguard's K is 3. So many confirmations shorten the wait as far as it goes.
CONFIRMATIONS = 2
# memberlist: AwarenessMaxMultiplier.
MAX_MULTIPLIER = 8
# A timer that fires later than this was starved of CPU. A guess: ten times what a busy event loop adds.
LATE_S = 0.5
# One point is forgiven in this time. memberlist: one for each successful probe, one probe a second.
RECOVERY_S = 1.0


def patience_s(base_s: float, nodes: int, confirmations: int) -> float:
    """How long a suspect may take to contradict.

    base_s: the shortest wait in a mesh of up to ten nodes; it grows with log10(nodes), as gossip takes longer.
    confirmations: accusers beyond the first. Where there cannot be `CONFIRMATIONS` of them nobody waits for them.
    """
    shortest_s = base_s * max(1.0, log10(max(1, nodes)))
    if nodes - 2 < CONFIRMATIONS or confirmations >= CONFIRMATIONS:
        return shortest_s
    share = log(confirmations + 1) / log(CONFIRMATIONS + 1)
    return shortest_s * (LONGEST - (LONGEST - 1.0) * share)


@dataclass(slots=True)
class Awareness:
    """Lifeguard's local health multiplier: 1 for a node that is well, up to `MAX_MULTIPLIER`."""

    _score: float = 0.0
    _at_s: float = float("-inf")

    def late(self, by_s: float, now_s: float) -> None:
        """A timer fired so much later than it was set for."""
        if by_s > LATE_S:
            self._add(ceil(by_s / LATE_S), now_s)

    def accused(self, now_s: float) -> None:
        """Somebody took this node for dead, perhaps with reason."""
        self._add(1, now_s)

    def multiplier(self, now_s: float) -> float:
        return 1.0 + ceil(self._left(now_s))

    def _add(self, points: int, now_s: float) -> None:
        self._score = min(self._left(now_s) + points, MAX_MULTIPLIER - 1.0)
        self._at_s = now_s

    def _left(self, now_s: float) -> float:
        return max(0.0, self._score - (now_s - self._at_s) / RECOVERY_S) if self._score else 0.0

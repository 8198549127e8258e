"""Looking for the dead whom nobody saw die.

Theory of operation. In an overlay a node is watched by its few neighbours (detector.py). If all of them die in the same
moment as it does, nobody is left to accuse it: of a mesh of which half dies at once that befalls one of 2^6 = 64 of the
dead. Such deaths do not come alone, so who learns of several ends within a short time *patrols*: it dials some random
nodes that it has no link to, spread over a while. A dial that fails is an observation as good as a lost link: the node
is accused, and buried if it does not contradict. A dial that succeeds makes an extra link, which ends as extras do.

Coverage. If S nodes of N survive and each dials m of those N, a ghost is dialled S * m / N times and missed by all with
probability exp(-S * m / N): with m = 20 and half of the mesh dead that is 10 times, and 1 in 20,000 is missed. Two
accusers are enough for all (detector.py, `poll`). Burials of ghosts are ends as well, and may start another patrol.

A node that accepts no connections is accused too, and refutes: that costs a row. Having done so once it is *spared*:
for an hour no failed dial of this node counts against it, until it starts a new life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from atmo.ids import PeerId
from atmo.mesh.agenda import Agenda, Chance

# So many ends within this time begin a patrol. A guess: a node that dies with all its neighbours is one of seven.
ENDS, WITHIN_S = 3, 10.0
# So many dials, spread over this time. Coverage above; a guess: below one handshake a second at each node.
DIALS, OVER_S = 20, 30.0
# From the beginning of a patrol to that of the next: under steady churn ends never cease to come. A guess.
INTERVAL_S = 120.0
# How long a failed dial counts no more against a node that has refuted one. A guess.
SPARED_S = 3600.0
NEVER = float("inf")


@dataclass(slots=True)
class Patrol:
    """Says whom to dial, and which failed dials are evidence. outcome_s: in that time a dial comes to its end."""

    rng: Chance
    outcome_s: float
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=ENDS))
    _began_s: float = -NEVER
    _next_s: float = NEVER
    _left: int = 0
    _dialled: Agenda[PeerId] = field(default_factory=Agenda)  # when the outcome is not waited for any more
    _spared: dict[PeerId, tuple[int, float]] = field(default_factory=dict)  # in which generation, and until when

    def ended(self, now_s: float) -> None:
        """A node has died or left."""
        self._ends.append(now_s)
        if self._left == 0 and len(self._ends) == ENDS and now_s - self._ends[0] <= WITHIN_S:
            self._began_s = max(now_s, self._began_s + INTERVAL_S)
            self._left = DIALS
            self._next_s = self._began_s + self._pause_s()

    def next_due(self) -> float | None:
        times = (self._next_s if self._left else None, self._dialled.next_s())
        return min((at_s for at_s in times if at_s is not None), default=None)

    def due(self, strangers: Callable[[], Sequence[PeerId]], now_s: float) -> PeerId | None:
        """Whom to dial now. strangers: the living nodes without a link."""
        if self._next_s > now_s:
            return None
        self._left -= 1
        self._next_s = now_s + self._pause_s() if self._left else NEVER
        among = [peer for peer in strangers() if self._dialled.at(peer) is None and not self._is_spared(peer, now_s)]
        return among[int(self.rng.random() * len(among))] if among else None

    def dialled(self, peer: PeerId, now_s: float) -> None:
        self._dialled.put(peer, now_s + self.outcome_s)

    def over(self, peer: PeerId) -> bool:
        """The node is linked, or cannot be. True if that is what a dial of this patrol came to."""
        waited = self._dialled.at(peer) is not None
        self._dialled.drop(peer)
        return waited

    def unanswered(self, now_s: float) -> list[PeerId]:
        """Whose dials came to no end that was told: that says nothing."""
        return self._dialled.take_due(now_s)

    @property
    def under_way(self) -> bool:
        """While it is, whatever dial fails is evidence."""
        return self._left > 0

    def counts(self, peer: PeerId, generation: int, now_s: float) -> bool:
        """True if a failed dial is evidence against the peer in this generation; the next one will not be for long."""
        spared = self._spared.get(peer)
        if spared is not None and spared[0] == generation and spared[1] > now_s:
            return False
        self._spared = {other: each for other, each in self._spared.items() if each[1] > now_s}
        self._spared[peer] = (generation, now_s + SPARED_S)
        return True

    def _is_spared(self, peer: PeerId, now_s: float) -> bool:
        spared = self._spared.get(peer)
        return spared is not None and spared[1] > now_s

    def _pause_s(self) -> float:
        return OVER_S / DIALS * self.rng.uniform(0.5, 1.5)

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert (self._left > 0) == (self._next_s < NEVER), "a patrol that nobody will walk, or that has no end"

    def __repr__(self) -> str:
        return f"<Patrol {self._left} dials left, {len(self._dialled)} under way, {len(self._spared)} spared>"

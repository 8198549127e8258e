"""How peers behave: a leaky bucket of offences for each.

An offence is what no honest peer of this version sends: a frame that does not decode, a forged row. Memory errors and
half-written programs exist, so one is forgiven; many in a short time end the link and keep it ended for a while.

Rows cost a signature check each, whoever wrote them: a token bucket for each peer bounds them. What is above it is not
read; comparing tables makes up for it, and more than a moment of it is an offence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atmo.ids import PeerId

# Guesses. Ten offences within a second or a hundred within a minute are not an accident.
OFFENCES_ALLOWED = 8.0
FORGIVEN_PER_S = 0.5
BAN_S = 60.0
# What a peer may make this node check: a fifth of a core at 100 us a signature, and once the rows of the largest mesh
# that is simulated. Guesses.
ROWS_PER_S = 2_000.0
ROWS_BURST = 30_000.0


@dataclass(slots=True)
class _Record:
    offences: float
    at_s: float
    banned_until_s: float


@dataclass(slots=True)
class Conduct:
    _records: dict[PeerId, _Record] = field(default_factory=dict)
    _tokens: dict[PeerId, tuple[float, float]] = field(default_factory=dict)  # how many, as of when

    def admits(self, peer: PeerId, rows: int, now_s: float) -> bool:
        """True if so many rows of the peer may be read now."""
        tokens, at_s = self._tokens.get(peer, (ROWS_BURST, now_s))
        tokens = min(ROWS_BURST, tokens + (now_s - at_s) * ROWS_PER_S)
        admitted = tokens >= rows
        self._tokens[peer] = tokens - rows if admitted else tokens, now_s
        return admitted

    def forget(self, peer: PeerId) -> None:
        """It is gone: keep its offences, not its tokens."""
        self._tokens.pop(peer, None)

    def blame(self, peer: PeerId, now_s: float) -> bool:
        """Note an offence. True if it is one too many: the link should end."""
        record = self._records.setdefault(peer, _Record(0.0, now_s, float("-inf")))
        record.offences = max(0.0, record.offences - (now_s - record.at_s) * FORGIVEN_PER_S) + 1.0
        record.at_s = now_s
        if record.offences <= OFFENCES_ALLOWED:
            return False
        record.offences = 0.0
        record.banned_until_s = now_s + BAN_S
        return True

    def banned(self, peer: PeerId, now_s: float) -> bool:
        return now_s < self.banned_until_s(peer)

    def banned_until_s(self, peer: PeerId) -> float:
        record = self._records.get(peer)
        return record.banned_until_s if record else float("-inf")

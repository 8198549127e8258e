"""How peers behave: a leaky bucket of offences for each.

An offence is what no honest peer of this version sends: a frame that does not decode, a forged row. Memory errors and
half-written programs exist, so one is forgiven; many in a short time end the link and keep it ended for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atmo.ids import PeerId

# Guesses. Ten offences within a second or a hundred within a minute are not an accident.
OFFENCES_ALLOWED = 8.0
FORGIVEN_PER_S = 0.5
BAN_S = 60.0


@dataclass(slots=True)
class _Record:
    offences: float
    at_s: float
    banned_until_s: float


@dataclass(slots=True)
class Conduct:
    _records: dict[PeerId, _Record] = field(default_factory=dict)

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

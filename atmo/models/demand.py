"""What is asked for often and is not here: a count that fades, and what to fetch because of it. Pure.

Each time a model is wanted that is not on this machine, its score grows by one; scores halve each day, so what was
wanted once in a while is forgotten and what is wanted daily stays. A model is worth fetching from `WANTED` on, if it
fits beside what is kept: nothing that is here makes room for a guess.
"""

from __future__ import annotations

from collections.abc import Mapping

HALF_LIFE_S = 86_400.0
# Wanted so often, all within a day or so. A guess.
WANTED = 5.0
# Models that are counted; the least wanted is forgotten.
MAX_COUNTED = 256


class Demand:
    def __init__(self) -> None:
        self._scores: dict[str, tuple[float, float]] = {}  # root -> score, as of when

    def asked(self, root: str, now_s: float) -> None:
        """A model with this root was wanted and is not here."""
        self._scores[root] = self.score(root, now_s) + 1.0, now_s
        if len(self._scores) > MAX_COUNTED:
            del self._scores[min(self._scores, key=lambda each: self.score(each, now_s))]

    def forget(self, root: str) -> None:
        """It is here now, or cannot be had."""
        self._scores.pop(root, None)

    def score(self, root: str, now_s: float) -> float:
        score, at_s = self._scores.get(root, (0.0, now_s))
        return float(score * 0.5 ** ((now_s - at_s) / HALF_LIFE_S))

    def choose(self, to_be_had: Mapping[str, int], room_bytes: int, now_s: float) -> str | None:
        """The root that is most worth fetching. to_be_had: size in bytes by root; room_bytes: what may be added."""
        worth = [
            (self.score(root, now_s), root)
            for root, size_bytes in to_be_had.items()
            if size_bytes <= room_bytes and self.score(root, now_s) >= WANTED - 1e-6
        ]
        return max(worth)[1] if worth else None

    def __repr__(self) -> str:
        return f"<Demand for {len(self._scores)} models>"

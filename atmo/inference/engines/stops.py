"""Stop strings, the same for every engine: an answer ends before the first of them, and no part of one is ever shown.

Theory of operation. Pieces are held back while the end of what was said could be the beginning of a stop string, and
let go, whole, once it cannot be. When a stop string is complete, what came before it is let go and the answer is
over. Doing this here and not in llama.cpp keeps every token's id: its server leaves out the ids of tokens that it
held back.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from atmo.generation import Piece


class StopFilter:
    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held: list[Piece] = []
        self.hit = False

    def push(self, piece: Piece) -> list[Piece]:
        """The pieces that may be shown now. After `hit` is set nothing more is."""
        if self.hit:
            return []
        if not self._stops:
            return [piece]
        self._held.append(piece)
        said = "".join(each.text for each in self._held)
        found = [at for at in (said.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.hit = True
            return self._release(min(found), cut=True)
        return self._release(len(said) - self._open_end(said), cut=False)

    def flush(self) -> list[Piece]:
        """What is held when the model ends by itself."""
        held, self._held = self._held, []
        return [] if self.hit else held

    def _open_end(self, said: str) -> int:
        """How many characters at the end of `said` could be the beginning of a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(said)), longest, -1):
                if said.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _release(self, safe_chars: int, *, cut: bool) -> list[Piece]:
        """Take the pieces that lie within the first `safe_chars`; with `cut` also the part of the one that crosses."""
        released: list[Piece] = []
        while self._held and len(self._held[0].text) <= safe_chars:
            safe_chars -= len(self._held[0].text)
            released.append(self._held.pop(0))
        if cut:
            if self._held and safe_chars:
                released.append(structs.replace(self._held[0], text=self._held[0].text[:safe_chars]))
            self._held.clear()
        return released

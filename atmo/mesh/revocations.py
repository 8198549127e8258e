"""What the root took back: a set of signed statements that only grows, the same on every node in the end.

A statement names a public key, a member's or an invite's, and is signed by the mesh's root; no date ends it.
Statements are told to every peer when a link comes up and passed on to all links when they are news, over the lane
that loses nothing. A set that only grows, merged by union, needs no versions: order and repetition do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from atmo.ids import MeshId
from atmo.keys import Revocation, Sealed, check_revocation
from atmo.mesh.messages import MAX_STATEMENTS, Revoked

# Enough for a mesh of ten thousand in which a tenth was revoked; 170 bytes each. A guess.
MAX_KNOWN = 1000


class Revocations:
    """All statements known to this node."""

    def __init__(self, mesh: MeshId, known: Iterable[Sealed] = ()) -> None:
        self._mesh = mesh
        self._known: dict[bytes, Sealed] = {}
        for statement in known:
            self.learn(statement)

    def learn(self, statement: Sealed) -> Revocation | None:
        """What it says if that is news. Raises RemoteProtocolError for a statement that the root did not sign."""
        if statement in self._known.values() or len(self._known) >= MAX_KNOWN:
            return None
        said = check_revocation(statement, self._mesh)
        if said.key in self._known:
            return None
        self._known[said.key] = statement
        return said

    def messages(self) -> Iterator[Revoked]:
        """Everything, for a peer that may know nothing."""
        everything = tuple(self._known.values())
        for start in range(0, len(everything), MAX_STATEMENTS):
            yield Revoked(everything[start : start + MAX_STATEMENTS])

    @property
    def statements(self) -> tuple[Sealed, ...]:
        return tuple(self._known.values())

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._known))

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<Revocations {len(self)}>"

"""Who belongs to the mesh, as far as this node knows.

A credential proves what the root once allowed. Two things come later and stand in no credential: the root may revoke a
member or an invite, and an invite may be used more often than it allows. Both are kept here. Revocations are facts:
once known, for ever. Uses are counted as seen: every member counts the members it meets by each invite, and meets no
more than the invite allows; whoever came first stays. Members that were never connected may each let in a full count,
which is why an invite is short-lived, and can be revoked as a whole with everyone it made.

Read on the transport's IO thread, changed on the event loop's: what is shared is replaced, never changed in place.
"""

from __future__ import annotations

from collections.abc import Iterable

from atmo.errors import RemoteProtocolError
from atmo.ids import MeshId, PeerId, short
from atmo.keys import Credential, Passport, check_credential

# Invites whose uses are counted. Beyond it the oldest are forgotten; revoke what leaked before that. A guess.
MAX_INVITES = 10_000


class Trust:
    """`check` is all a door needs."""

    def __init__(self, mesh: MeshId, revoked: Iterable[bytes] = ()) -> None:
        self.mesh = mesh
        self._revoked = frozenset(revoked)
        self._met: dict[bytes, frozenset[PeerId]] = {}

    @property
    def revoked(self) -> frozenset[bytes]:
        """Public keys of revoked members and invites."""
        return self._revoked

    def check(self, credential: Credential, wall_s: float) -> Passport:
        """The bearer's passport. Raises RemoteProtocolError for a bad, expired, revoked or overused credential."""
        passport = check_credential(credential, self.mesh, wall_s)
        if not self.allows(passport):
            raise RemoteProtocolError("The peer was revoked.", hint="Ask the owner of the mesh for a new invite.")
        if passport.invite:
            self._count(passport)
        return passport

    def allows(self, passport: Passport) -> bool:
        """False once the member or the invite that made it is revoked."""
        return passport.peer not in self._revoked and passport.invite not in self._revoked

    def revoke(self, key: bytes) -> bool:
        """Remember the root's word. True if it is news."""
        if key in self._revoked:
            return False
        self._revoked |= {key}
        return True

    def _count(self, passport: Passport) -> None:
        met = self._met.get(passport.invite, frozenset())
        if passport.peer in met:
            return
        if len(met) >= passport.invite_uses:
            raise RemoteProtocolError(
                f"The peer's invite was used by {len(met)} others already.", hint="Ask for a new invite."
            )
        if passport.invite not in self._met and len(self._met) >= MAX_INVITES:
            self._met.pop(next(iter(self._met)))
        self._met[passport.invite] = met | {passport.peer}

    def __repr__(self) -> str:
        return f"<Trust in mesh {short(self.mesh)}, {len(self._revoked)} revoked, {len(self._met)} invites met>"

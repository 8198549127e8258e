"""Who belongs to the mesh, as far as this node knows.

A credential proves what the root once allowed. Two things come later and stand in no credential: the root may revoke a
member or an invite, and an invite may be used more often than it allows. Both are kept here. Revocations are facts:
once known, for ever. Uses are counted as seen: every member counts the members it meets by each invite, and meets no
more than the invite allows; whoever came first stays. Members that were never connected may each let in a full count,
which is why an invite is short-lived, and can be revoked as a whole with everyone it made.

The same for curve keys: a peer's newer one, by the serial of its binding, takes the place of the older one, so that a
curve key that was stolen and replaced is of no use wherever the peer was met since.

Used on the transport's IO thread (who knocks) and on the event loop's (whose rows count): sets that both read are
replaced, never changed in place, and counting takes a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from atmo.errors import Untrusted
from atmo.ids import MeshId, PeerId, short
from atmo.keys import Certificate, Credential, Passport, Standing, check_certificate, check_credential

# Invites whose uses are counted. Beyond it the oldest are forgotten; revoke what leaked before that. A guess.
MAX_INVITES = 10_000
# Peers whose curve key's serial is remembered. A guess: what a table holds.
MAX_PEERS = 16_384

REVOKED_HINT = "It needs a new key and a new token: atmo node rotate, then atmo mesh join TOKEN"

Guests = Mapping[bytes, frozenset[PeerId]]
"""The members met by each invite."""


class Trust:
    """`check` is all a door needs, `read` and `welcomes` what the table of rows asks (mesh/roll.py).

    guests: whom this node's user has met by which invite, from earlier lives; on_guest: called with all of them when
    there is one more, on either thread.
    """

    def __init__(
        self,
        mesh: MeshId,
        revoked: Iterable[bytes] = (),
        guests: Guests | None = None,
        on_guest: Callable[[Guests], None] = lambda guests: None,
    ) -> None:
        self.mesh = mesh
        self._revoked = frozenset(revoked)
        self._met: dict[bytes, frozenset[PeerId]] = dict(guests or {})
        self._on_guest = on_guest
        self._curves: dict[PeerId, tuple[int, bytes]] = {}  # the newest curve key of a peer, by its serial
        self._lock = threading.Lock()

    @property
    def revoked(self) -> frozenset[bytes]:
        """Public keys of revoked members and invites."""
        return self._revoked

    @property
    def guests(self) -> Guests:
        with self._lock:
            return dict(self._met)

    def check(self, credential: Credential, wall_s: float) -> Passport:
        """The bearer's passport. Raises Untrusted for a bad, expired, revoked or overused credential."""
        passport = check_credential(credential, self.mesh, wall_s)
        if self._is_revoked(passport):
            raise Untrusted("The peer was revoked.", why="revoked", hint=REVOKED_HINT)
        if not self._count(passport.peer, passport.invite, passport.invite_uses):
            raise Untrusted(
                f"The peer's invite was used by {len(self._met[passport.invite])} others already.",
                why="used",
                hint="Ask for a new token.",
            )
        self._compare(passport)
        return passport

    def allows(self, passport: Passport) -> bool:
        """False once the member or the invite that made it is revoked, or its curve key was replaced."""
        return not self._is_revoked(passport) and not self._outdated(passport)

    def read(self, certificate: Certificate) -> Standing:
        """What a certificate says, dates unchecked. Raises Untrusted for a chain that is not in order."""
        return check_certificate(certificate, self.mesh)

    def welcomes(self, standing: Standing) -> bool:
        """False for one member more than its invite may make."""
        return self._count(standing.peer, standing.invite, standing.invite_uses)

    def revoke(self, key: bytes) -> bool:
        """Remember the root's word. True if it is news."""
        if key in self._revoked:
            return False
        self._revoked |= {key}
        return True

    def _is_revoked(self, passport: Passport) -> bool:
        return passport.peer in self._revoked or passport.invite in self._revoked

    def _count(self, peer: PeerId, invite: bytes, uses: int) -> bool:
        """True if the peer is among the first by its invite. Those whom the root itself vouches for (no uses) always
        are, and take a place."""
        if not invite:
            return True
        with self._lock:
            met = self._met.get(invite, frozenset())
            if peer in met:
                return True
            if uses and len(met) >= uses:
                return False
            if invite not in self._met and len(self._met) >= MAX_INVITES:
                self._met.pop(next(iter(self._met)))
            self._met[invite] = met | {peer}
            self._on_guest(self._met)
        return True

    def _compare(self, passport: Passport) -> None:
        """Raises Untrusted for a curve key that a newer one has replaced."""
        if self._outdated(passport):
            raise Untrusted(
                "The peer's curve key was replaced by a newer one.",
                why="replaced",
                hint="If it was not restarted, its key was copied: give it a new one with `atmo node rotate`.",
            )
        with self._lock:
            serial, _ = self._curves.get(passport.peer, (-1, b""))
            if passport.serial >= serial:
                self._curves[passport.peer] = passport.serial, passport.curve
            while len(self._curves) > MAX_PEERS:
                self._curves.pop(next(iter(self._curves)))

    def _outdated(self, passport: Passport) -> bool:
        serial, curve = self._curves.get(passport.peer, (-1, b""))
        return passport.serial < serial and passport.curve != curve

    def __repr__(self) -> str:
        return f"<Trust in mesh {short(self.mesh)}, {len(self._revoked)} revoked, {len(self._met)} invites met>"

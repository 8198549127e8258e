"""Memberships that near their end are renewed before they do.

Theory of operation. Whoever holds the mesh's root key may renew; that is the owner's nodes. Each of them renews its own
certificate, and looks through the roll for guests whose membership is in its last third. If their invite allows it, it
signs a new one and puts it on the table, in a CERT row whose key is the guest's name. Rows find everyone who is linked
to anyone, and wait for who is not, so the owner and the guest need no link and need not be up at the same time as
anybody in particular; the root's signature makes it good, whoever hands it on. The guest takes it, shows it in its NODE
row from then on, and the owner takes the CERT row back.

Two nodes of one owner look for each other's CERT row first; if they sign at once the guest takes the later date.

Links stand on the credential that they were made with. They end when that ends, and are dialled again with the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from atmo.clock import Clock
from atmo.errors import RemoteProtocolError
from atmo.ids import MeshId, PeerId, format_peer, short
from atmo.keys import (
    YEAR_S,
    Certificate,
    Credential,
    Invite,
    Sealed,
    Standing,
    bind_curve,
    check_certificate,
    check_invite,
    issue_membership,
    read_membership,
)
from atmo.mesh.node import MeshNode
from atmo.mesh.rows import Kind, Renewal
from atmo.node.home import Home
from atmo.problems import Problem

# How often the dates are looked at, in seconds. A guess: the shortest membership lasts a quarter of an hour.
LOOK_S = 60.0
# What is left of a membership when it is renewed, and when its end is told to people where nobody will renew it.
RENEW_SHARE = 1 / 3
WARN_SHARE = 1 / 10
# Renewals on the table at a time: rows of one origin are bounded. A guess.
MAX_RENEWALS = 64
_ABOUT = "certificate"


class Renewals:
    """`adopt` is called with each new credential of this node."""

    def __init__(self, home: Home, mesh: MeshNode, clock: Clock, adopt: Callable[[Credential], None]) -> None:
        self._home = home
        self._mesh = mesh
        self._clock = clock
        self._adopt = adopt
        self.certificate = home.credential.certificate

    def look(self) -> None:
        """Renew what has to be, and say what cannot. Call it every LOOK_S."""
        wall_s = self._clock.wall()
        if self._home.mesh_home.root is not None:
            if _share_left(self.standing, wall_s) < RENEW_SHARE:
                self._take(self._sign(self._mesh.peer, b"", YEAR_S, wall_s))
            self._take_back(wall_s)
            for standing in self._due(wall_s):
                self._renew(standing, wall_s)
        self._mesh.complain(_ABOUT, ending(self.standing, wall_s))

    @property
    def standing(self) -> Standing:
        """This node's own."""
        return check_certificate(self.certificate, self._home.mesh)

    def heard(self, membership: Sealed) -> None:
        """A CERT row for this node. One that is not what it should be is nobody's fault that could be told: any member
        may have put it there."""
        try:
            fresh = check_certificate(Certificate(membership), self._home.mesh)
            fresh.check_dates(self._clock.wall())
        except RemoteProtocolError:
            return
        mine = self.standing
        if fresh.peer == self._mesh.peer and fresh.not_after_s > mine.not_after_s and fresh.invite == mine.invite:
            self._take(membership)

    def _take(self, membership: Sealed) -> None:
        home = self._home
        self.certificate = Certificate(membership)
        if home.mesh_home.root is None:
            home.mesh_home.keep(home.folder, self.certificate)
        self._adopt(bind_curve(membership, home.identity, home.curve, serial=home.generation))
        self._mesh.certified(self.certificate)
        self._mesh.complain(_ABOUT, ending(self.standing, self._clock.wall()))

    # The owner's part

    def _due(self, wall_s: float) -> list[Standing]:
        """Guests whose membership ends soon, of whom no renewal is on the table."""
        roll = self._mesh.core.store.roll
        found = (standing for peer in roll if (standing := roll.standing(peer)) is not None and standing.invite)
        waiting = {row.id.key for row in self._mesh.core.store.rows(Kind.CERT)}
        due = [
            standing
            for standing in found
            if 0.0 < _share_left(standing, wall_s) < RENEW_SHARE and format_peer(standing.peer) not in waiting
        ]
        return due[: max(0, MAX_RENEWALS - len(waiting))]

    def _renew(self, standing: Standing, wall_s: float) -> None:
        terms = invites(self._home).get(standing.invite)
        if terms is not None and terms.renewable and standing.invite not in self._mesh.core.revocations:
            membership = self._sign(standing.peer, standing.invite, terms.lifetime_s, wall_s)
            self._mesh.certify(standing.peer, membership)
            self._mesh.note("renewed", short(standing.peer))

    def _take_back(self, wall_s: float) -> None:
        """Renewals that were taken, or that nobody will take any more."""
        store = self._mesh.core.store
        for row in list(store.rows(Kind.CERT, self._mesh.peer)):
            if isinstance(row.body, Renewal):
                given = read_membership(row.body.membership)
                now = store.roll.standing(PeerId(given.peer))
                if now is None or now.not_after_s >= given.not_after_s or wall_s > now.not_after_s:
                    self._mesh.certify(PeerId(given.peer), None)

    def _sign(self, peer: PeerId, invite: bytes, lifetime_s: int, wall_s: float) -> Sealed:
        root = self._home.mesh_home.root
        assert root is not None
        return issue_membership(
            root, peer, wall_s=wall_s, serial=int(wall_s), lifetime_s=lifetime_s, came_by=invite
        )  # fmt: skip


def invites(home: Home) -> dict[bytes, Invite]:
    """What the owner allowed, by the invite's key."""
    terms = [check_invite(sealed, MeshId(home.mesh)) for sealed in home.mesh_home.invites()]
    return {invite.key: invite for invite in terms}


def ending(standing: Standing, wall_s: float) -> Problem | None:
    """What a user should know of a membership's end."""
    until = f"{datetime.fromtimestamp(standing.not_after_s, UTC):%Y-%m-%d %H:%M} UTC"
    remedy = "Ask the owner for a new token: atmo mesh join TOKEN" if standing.invite else "Restart the node."
    if wall_s > standing.not_after_s:
        return Problem(f"This node's certificate expired on {until}; the mesh refuses it.", remedy)
    if _share_left(standing, wall_s) < WARN_SHARE:
        return Problem(f"This node's certificate ends on {until} and was not renewed yet.", remedy, serious=False)
    return None


def _share_left(standing: Standing, wall_s: float) -> float:
    """What is left of its life: 1 at the beginning, below 0 when it is over."""
    return (standing.not_after_s - wall_s) / max(1, standing.not_after_s - standing.not_before_s)

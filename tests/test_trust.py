"""Invites: a chain that any member can check offline, bounded in time and number, and revocable."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from atmo.errors import RemoteProtocolError, UsageError
from atmo.ids import MeshId, Multiaddr
from atmo.invitation import Token, read_token, write_token
from atmo.keys import (
    YEAR_S,
    Credential,
    CurveKeys,
    Identity,
    Sealed,
    bind_curve,
    issue_credential,
    issue_invite,
    issue_membership,
)
from atmo.trust import Trust

NOW_S = 1_780_000_000.0
HOUR_S = 3600


@dataclass
class Mesh:
    """A mesh with one invite of two uses, valid for an hour."""

    root: Identity = field(default_factory=Identity.generate)
    key: Identity = field(default_factory=Identity.generate)

    def __post_init__(self) -> None:
        self.invite = issue_invite(self.root, self.key, wall_s=NOW_S, valid_s=HOUR_S, uses=2)
        self.trust = Trust(MeshId(self.root.public))

    def guest(self, at_s: float = NOW_S, lifetime_s: int = YEAR_S, invite: Sealed | None = None) -> Credential:
        """A stranger joins with the token at `at_s`."""
        invite = invite or self.invite
        member = Identity.generate()
        membership = issue_membership(
            self.key, member.public, wall_s=at_s, serial=1, lifetime_s=lifetime_s, invite=invite
        )
        return bind_curve(membership, member, CurveKeys.generate(), serial=1, invite=invite)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def test_a_guest_is_known_to_any_member_offline(mesh: Mesh) -> None:
    passport = mesh.trust.check(mesh.guest(), NOW_S)
    assert passport.invite == mesh.key.public
    assert Trust(MeshId(mesh.root.public)).check(mesh.guest(), NOW_S).peer, "another member, which never saw the invite"


def test_a_guest_stays_when_the_invite_has_expired_and_nobody_new_comes(mesh: Mesh) -> None:
    early = mesh.guest()
    later_s = NOW_S + 2 * HOUR_S
    assert mesh.trust.check(early, later_s).peer
    with pytest.raises(RemoteProtocolError, match="had expired when it was used"):
        mesh.trust.check(mesh.guest(at_s=later_s), later_s)


def test_an_invite_makes_as_many_members_as_it_says(mesh: Mesh) -> None:
    first, second, third = mesh.guest(), mesh.guest(), mesh.guest()
    for _ in range(3):
        mesh.trust.check(first, NOW_S)
    mesh.trust.check(second, NOW_S)
    with pytest.raises(RemoteProtocolError, match="used by 2 others"):
        mesh.trust.check(third, NOW_S)
    assert mesh.trust.check(first, NOW_S).peer, "whoever came first stays"


def test_a_guest_cannot_write_itself_a_longer_stay(mesh: Mesh) -> None:
    short = issue_invite(mesh.root, mesh.key, wall_s=NOW_S, valid_s=HOUR_S, uses=1, lifetime_s=HOUR_S)
    member = Identity.generate()
    greedy = issue_membership(mesh.key, member.public, wall_s=NOW_S, serial=1, came_by=mesh.key.public)
    stay = msgspec.msgpack.decode(greedy.payload)
    stay[0] = bytes(mesh.root.public)
    payload = msgspec.msgpack.encode(stay)
    forged = Sealed(payload, mesh.key.sign(b"atmo/membership/1", payload))
    credential = bind_curve(forged, member, CurveKeys.generate(), serial=1, invite=short)
    with pytest.raises(RemoteProtocolError, match="not what its invite allows"):
        mesh.trust.check(credential, NOW_S)


def test_an_invite_of_another_mesh_or_of_nobody_lets_nobody_in(mesh: Mesh) -> None:
    foreign = issue_invite(Identity.generate(), mesh.key, wall_s=NOW_S, valid_s=HOUR_S, uses=2)
    with pytest.raises(RemoteProtocolError, match="another mesh"):
        mesh.trust.check(mesh.guest(invite=foreign), NOW_S)
    self_made = Sealed(mesh.invite.payload, mesh.key.sign(b"atmo/invite/1", mesh.invite.payload))
    with pytest.raises(RemoteProtocolError, match="not signed by this mesh"):
        mesh.trust.check(mesh.guest(invite=self_made), NOW_S)


def test_a_guest_cannot_invite(mesh: Mesh) -> None:
    """A member's own key signs no membership, with or without the invite that made it."""
    friend, guest = Identity.generate(), Identity.generate()
    membership = issue_membership(guest, friend.public, wall_s=NOW_S, serial=1, invite=mesh.invite)
    for invite in (mesh.invite, None):
        credential = bind_curve(membership, friend, CurveKeys.generate(), serial=1, invite=invite)
        with pytest.raises(RemoteProtocolError, match="not signed by this mesh"):
            mesh.trust.check(credential, NOW_S)


def test_revoking_a_member_or_an_invite(mesh: Mesh) -> None:
    one, other = mesh.guest(), mesh.guest()
    passport = mesh.trust.check(one, NOW_S)
    assert mesh.trust.revoke(passport.peer)
    assert not mesh.trust.revoke(passport.peer), "no news"
    assert not mesh.trust.allows(passport)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        mesh.trust.check(one, NOW_S)
    assert mesh.trust.check(other, NOW_S).peer
    mesh.trust.revoke(mesh.key.public)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        mesh.trust.check(other, NOW_S)
    own = issue_credential(mesh.root, Identity.generate(), CurveKeys.generate(), wall_s=NOW_S)
    assert mesh.trust.check(own, NOW_S).peer


def test_a_token_survives_being_printed_and_typed(mesh: Mesh) -> None:
    address = str(Multiaddr("192.168.1.4", 4600, mesh.root.public))
    token = Token(mesh.root.public, mesh.invite, mesh.key.secret, (address,))
    text = write_token(token)
    assert read_token(f"  {text[:40]}\n{text[40:]} ") == token
    assert mesh.key.secret.hex() not in repr(token)


@pytest.mark.parametrize("damage", ["short", "letter", "prefix", "empty", "foreign"])
def test_a_damaged_token_is_told_from_a_whole_one(mesh: Mesh, damage: str) -> None:
    text = write_token(Token(mesh.root.public, mesh.invite, mesh.key.secret, ()))
    foreign = write_token(Token(Identity.generate().public, mesh.invite, mesh.key.secret, ()))
    middle = "A" if text[60] != "A" else "B"
    bad = {
        "short": text[:-9],
        "letter": text[:60] + middle + text[61:],
        "prefix": text[3:],
        "empty": "",
        "foreign": foreign,
    }
    with pytest.raises(UsageError, match="whole token"):
        read_token(bad[damage])

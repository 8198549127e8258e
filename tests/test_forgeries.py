"""Credentials that are not in order: none opens a door, and each is refused for what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from atmo.errors import Untrusted
from atmo.ids import MeshId
from atmo.keys import (
    CLOCK_TOLERANCE_S,
    YEAR_S,
    Credential,
    CurveKeys,
    Identity,
    Passport,
    Sealed,
    bind_curve,
    issue_credential,
    issue_invite,
    issue_membership,
)
from atmo.transport import wire
from atmo.transport.door import Doorkeeper, Ports
from atmo.trust import Trust

NOW_S = 1_780_000_000.0
HOUR_S = 3600


@dataclass
class World:
    """A mesh with an honest member, a guest with a token, and somebody who should not get in."""

    root: Identity = field(default_factory=Identity.generate)
    token: Identity = field(default_factory=Identity.generate)
    thief: Identity = field(default_factory=Identity.generate)
    honest: Identity = field(default_factory=Identity.generate)
    curve: CurveKeys = field(default_factory=CurveKeys.generate)

    def __post_init__(self) -> None:
        self.mesh = MeshId(self.root.public)
        self.trust = Trust(self.mesh)
        self.invite = issue_invite(self.root, self.token, wall_s=NOW_S, valid_s=HOUR_S, uses=1, lifetime_s=HOUR_S)

    def member(self, who: Identity, root: Identity | None = None, at_s: float = NOW_S) -> Credential:
        return issue_credential(root or self.root, who, self.curve, wall_s=at_s)

    def guest(self, who: Identity, at_s: float = NOW_S, invite: Sealed | None = None) -> Credential:
        made = issue_membership(self.token, who.public, wall_s=at_s, serial=1, invite=invite or self.invite)
        return bind_curve(made, who, self.curve, serial=1, invite=invite or self.invite)

    def signed(self, by: Identity, domain: bytes, fields: list[object]) -> Sealed:
        payload = msgspec.msgpack.encode(fields)
        return Sealed(payload, by.sign(domain, payload))

    def fields(self, sealed: Sealed) -> list[object]:
        return list(msgspec.msgpack.decode(sealed.payload))


def another_key(world: World) -> Credential:
    """Somebody else's certificate, the thief's curve key."""
    return Credential(world.member(world.honest).membership, world.member(world.thief).binding)


def another_signature(world: World) -> Credential:
    """The certificate and the name are the honest member's, the binding is signed by the thief."""
    honest = world.member(world.honest)
    return Credential(honest.membership, Sealed(honest.binding.payload, world.member(world.thief).binding.signature))


def self_made(world: World) -> Credential:
    """A member lets a friend in, in the root's name."""
    made = issue_membership(world.honest, world.thief.public, wall_s=NOW_S, serial=1)
    fields = world.fields(made)
    fields[0] = bytes(world.mesh)
    forged = world.signed(world.honest, b"atmo/membership/1", fields)
    return bind_curve(forged, world.thief, world.curve, serial=1)


def wrong_domain(world: World) -> Credential:
    """The root did sign exactly these bytes, but for another purpose."""
    fields = world.fields(world.member(world.thief).membership)
    return bind_curve(world.signed(world.root, b"atmo/row/1", fields), world.thief, world.curve, serial=1)


def wrong_domain_binding(world: World) -> Credential:
    honest = world.member(world.honest)
    payload = honest.binding.payload
    return Credential(honest.membership, Sealed(payload, world.honest.sign(b"atmo/row/1", payload)))


def chain_too_short(world: World) -> Credential:
    """A guest leaves the invite out, so that nobody counts it."""
    guest = world.guest(world.thief)
    return Credential(guest.membership, guest.binding, None)


def chain_too_long(world: World) -> Credential:
    """The root's own membership under an invite that did not make it."""
    member = world.member(world.thief)
    return Credential(member.membership, member.binding, world.invite)


def other_invite(world: World) -> Credential:
    """Made with one invite, shown with another of the same mesh that allows more."""
    larger = issue_invite(world.root, Identity.generate(), wall_s=NOW_S, valid_s=YEAR_S, uses=999)
    guest = world.guest(world.thief)
    return Credential(guest.membership, guest.binding, larger)


def names_other_invite(world: World) -> Credential:
    """Signed with the token, but it says that it came by another invite: that one would be revoked in its place."""
    fields = world.fields(world.guest(world.thief).membership)
    fields[5] = Identity.generate().public
    forged = world.signed(world.token, b"atmo/membership/1", fields)
    return bind_curve(forged, world.thief, world.curve, serial=1, invite=world.invite)


def longer_stay(world: World) -> Credential:
    fields = world.fields(world.guest(world.thief).membership)
    fields[4] = int(NOW_S) + 2 * HOUR_S
    forged = world.signed(world.token, b"atmo/membership/1", fields)
    return bind_curve(forged, world.thief, world.curve, serial=1, invite=world.invite)


def too_many_fields(world: World) -> Credential:
    fields = [*world.fields(world.member(world.thief).membership), 0]
    forged = world.signed(world.root, b"atmo/membership/1", fields)
    return Credential(forged, world.member(world.thief).binding)


def too_few_fields(world: World) -> Credential:
    fields = world.fields(world.member(world.thief).membership)[:5]
    forged = world.signed(world.root, b"atmo/membership/1", fields)
    return Credential(forged, world.member(world.thief).binding)


def expired(world: World) -> Credential:
    return world.member(world.thief, at_s=NOW_S - YEAR_S - 1)


def early(world: World) -> Credential:
    return world.member(world.thief, at_s=NOW_S + CLOCK_TOLERANCE_S + 1)


def wrong_mesh(world: World) -> Credential:
    return world.member(world.thief, root=Identity.generate())


def late_use(world: World) -> Credential:
    return world.guest(world.thief, at_s=NOW_S + HOUR_S + 1)


def used_up(world: World) -> Credential:
    world.trust.check(world.guest(world.honest), NOW_S)
    return world.guest(world.thief)


def used_up_by_one_who_was_only_heard_of(world: World) -> Credential:
    """The first guest was never at this door: its row came by way of others."""
    assert world.trust.welcomes(world.trust.read(world.guest(world.honest).certificate))
    return world.guest(world.thief)


def used_up_in_a_former_life(world: World) -> Credential:
    world.trust = Trust(world.mesh, guests={world.token.public: frozenset({world.honest.public})})
    return world.guest(world.thief)


def revoked(world: World) -> Credential:
    world.trust.revoke(world.thief.public)
    return world.member(world.thief)


def revoked_invite(world: World) -> Credential:
    world.trust.revoke(world.token.public)
    return world.guest(world.thief)


def revoked_invite_of_a_renewed_guest(world: World) -> Credential:
    """The root's renewal does not hide by which invite a guest came."""
    world.trust.revoke(world.token.public)
    made = issue_membership(world.root, world.thief.public, wall_s=NOW_S, serial=2, came_by=world.token.public)
    return bind_curve(made, world.thief, world.curve, serial=2)


def replaced_curve_key(world: World) -> Credential:
    """Stolen with the machine's backup; the node has taken a newer one since."""
    newer = issue_credential(world.root, world.honest, CurveKeys.generate(), wall_s=NOW_S, serial=7)
    world.trust.check(newer, NOW_S)
    return issue_credential(world.root, world.honest, world.curve, wall_s=NOW_S, serial=6)


FORGERIES: list[tuple[Callable[[World], Credential], str]] = [
    (another_key, "forged"),
    (another_signature, "forged"),
    (self_made, "forged"),
    (wrong_domain, "forged"),
    (wrong_domain_binding, "forged"),
    (chain_too_short, "forged"),
    (chain_too_long, "forged"),
    (other_invite, "forged"),
    (names_other_invite, "forged"),
    (longer_stay, "forged"),
    (too_many_fields, "forged"),
    (too_few_fields, "forged"),
    (expired, "expired"),
    (early, "early"),
    (wrong_mesh, "mesh"),
    (late_use, "used"),
    (used_up, "used"),
    (used_up_by_one_who_was_only_heard_of, "used"),
    (used_up_in_a_former_life, "used"),
    (revoked, "revoked"),
    (revoked_invite, "revoked"),
    (revoked_invite_of_a_renewed_guest, "revoked"),
    (replaced_curve_key, "replaced"),
]


@pytest.mark.parametrize(("forge", "why"), FORGERIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_forgery_is_refused_at_the_door_for_what_is_wrong_with_it(
    forge: Callable[[World], Credential], why: str
) -> None:
    world = World()
    admitted: list[Passport] = []
    credential = forge(world)
    with pytest.raises(Untrusted) as caught:
        world.trust.check(credential, NOW_S + (HOUR_S + 2 if forge is late_use else 0))
    assert caught.value.why == why

    own = world.member(Identity.generate())
    keeper = Doorkeeper(own, world.trust, Ports(1, 2, 3), admitted.append, 0.0)
    wall_s = NOW_S + (HOUR_S + 2 if forge is late_use else 0)
    answer = keeper.answer("10.0.0.1", wire.encode_door(wire.Introduce(credential)), now_s=0.0, wall_s=wall_s)
    assert answer is not None
    refusal = wire.decode_door(answer)
    assert isinstance(refusal, wire.Refusal)
    assert refusal.code == why
    assert admitted == []


def test_the_honest_counterpart_of_each_forgery_is_let_in() -> None:
    """Or the table above would prove nothing."""
    world = World()
    for credential in (world.member(world.honest), world.guest(world.thief)):
        assert world.trust.check(credential, NOW_S).mesh == world.mesh
    renewed = issue_membership(world.root, world.thief.public, wall_s=NOW_S, serial=2, came_by=world.token.public)
    assert (
        world.trust.check(bind_curve(renewed, world.thief, world.curve, serial=2), NOW_S).invite == world.token.public
    )


def test_a_curve_key_that_was_replaced_loses_the_links_that_stand() -> None:
    world = World()
    old = world.trust.check(issue_credential(world.root, world.honest, world.curve, wall_s=NOW_S, serial=6), NOW_S)
    assert world.trust.allows(old)
    newer = issue_credential(world.root, world.honest, CurveKeys.generate(), wall_s=NOW_S, serial=7)
    assert world.trust.allows(world.trust.check(newer, NOW_S))

    assert not world.trust.allows(old)


def test_a_node_that_forgot_its_generation_but_not_its_curve_key_is_let_in() -> None:
    world = World()
    for serial in (7, 1):
        credential = issue_credential(world.root, world.honest, world.curve, wall_s=NOW_S, serial=serial)
        assert world.trust.check(credential, NOW_S).serial == serial

"""Whose rows count: an insider cannot invent origins, and what overtakes a certificate is not lost."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from atmo.clock import ManualClock, moment
from atmo.ids import MeshId, PeerId
from atmo.keys import (
    YEAR_S,
    Certificate,
    Identity,
    issue_invite,
    issue_membership,
    verify,
)
from atmo.mesh import events
from atmo.mesh.codec import encode
from atmo.mesh.conduct import OFFENCES_ALLOWED
from atmo.mesh.lobby import MAX_WAITING, MAX_WAITING_BYTES, Lobby
from atmo.mesh.messages import Rows
from atmo.mesh.roll import Roll
from atmo.mesh.rows import Body, Gradient, Kind, NodeInfo, Row, RowId, SignedRow, seal
from atmo.mesh.rowstore import RowStore
from atmo.mesh.sim import Conditions, Sim, SimNode
from atmo.mesh.verdict import Applied, Reason, Rejected
from atmo.trust import Trust

ROOT = Identity(bytes([9]) * 32)
MESH = MeshId(ROOT.public)
OWN = Identity(bytes([8]) * 32)
DAY_S = 24 * 3600


@dataclass
class Mesh:
    """A table with a real roll, and the keys to make members for it."""

    clock: ManualClock = field(default_factory=ManualClock)
    token: Identity = field(default_factory=lambda: Identity(bytes([7]) * 32))
    checked: int = 0

    def __post_init__(self) -> None:
        self.trust = Trust(MESH)
        self.chains = 0
        self.store = RowStore(OWN.public, MESH, self._verify, Roll(self._read, self.trust.welcomes))
        self.invite = issue_invite(ROOT, self.token, wall_s=self.clock.wall(), valid_s=DAY_S, uses=2)

    def _verify(self, public: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
        self.checked += 1
        return verify(public, domain, payload, signature)

    def _read(self, certificate: Certificate):  # type: ignore[no-untyped-def]
        self.chains += 1
        return self.trust.read(certificate)

    def member(self, who: Identity, lifetime_s: int = YEAR_S) -> Certificate:
        """The root admits somebody."""
        wall_s = self.clock.wall()
        return Certificate(issue_membership(ROOT, who.public, wall_s=wall_s, serial=1, lifetime_s=lifetime_s))

    def guest(self, who: Identity) -> Certificate:
        """Somebody joins with the token."""
        wall_s = self.clock.wall()
        made = issue_membership(self.token, who.public, wall_s=wall_s, serial=1, invite=self.invite)
        return Certificate(made, self.invite)

    def row(self, who: Identity, body: Body | None, version: int = 1, kind: Kind = Kind.NODE) -> Row:
        return seal(
            RowId(who.public, kind, ""),
            body,
            mesh=MESH,
            order=(1, version),
            issued_s=self.clock.wall(),
            ttl_s=60.0,
            sign=who.sign,
        )

    def hears(self, row: Row) -> Reason | None:
        """None if the row was taken."""
        outcome = self.store.apply(row.signed, moment(self.clock))
        checked = self.checked
        self.store.validate()
        self.checked = checked
        if isinstance(outcome, Applied):
            return None
        assert isinstance(outcome, Rejected)
        return outcome.reason


def node(certificate: Certificate | None) -> NodeInfo:
    return NodeInfo(name="n", addresses=(), mode="participant", software="test", certificate=certificate)


def someone(number: int = 1) -> Identity:
    return Identity(bytes([100 + number]) * 32)


LOAD = Gradient(())


def test_rows_count_once_their_origin_has_shown_that_it_is_a_member() -> None:
    mesh, who = Mesh(), someone()
    load = mesh.row(who, LOAD, 2, Kind.GRADIENT)

    assert mesh.hears(load) is Reason.UNKNOWN_ORIGIN
    assert not Reason.UNKNOWN_ORIGIN.culpable
    assert mesh.checked == 0  # not even looked at
    assert mesh.hears(mesh.row(who, node(mesh.member(who)))) is None
    assert mesh.hears(load) is None


def test_one_signature_for_a_row_and_one_chain_for_an_origin() -> None:
    mesh, who = Mesh(), someone()
    shown = node(mesh.member(who))
    for version in range(1, 11):
        assert mesh.hears(mesh.row(who, shown, version)) is None
    for version in range(11, 21):
        assert mesh.hears(mesh.row(who, LOAD, version, Kind.GRADIENT)) is None

    assert (mesh.checked, mesh.chains) == (20, 1)


def forged(mesh: Mesh, who: Identity, how: str) -> Certificate | None:
    """What an insider could put into the NODE row of a key that nobody admitted."""
    insider, wall_s = someone(9), mesh.clock.wall()
    other_root = Identity(bytes([6]) * 32)
    made_up = issue_invite(insider, insider, wall_s=wall_s, valid_s=DAY_S, uses=9)
    return {
        "none": None,
        "another member's": mesh.member(insider),
        "signed by a member": Certificate(issue_membership(insider, who.public, wall_s=wall_s, serial=1)),
        "signed by a member in the root's name": Certificate(
            issue_membership(insider, who.public, wall_s=wall_s, serial=1, invite=mesh.invite), mesh.invite
        ),
        "of another mesh": Certificate(issue_membership(other_root, who.public, wall_s=wall_s, serial=1)),
        "by an invite of its own": Certificate(
            issue_membership(insider, who.public, wall_s=wall_s, serial=1, invite=made_up), made_up
        ),
        "a chain too short": Certificate(mesh.guest(who).membership),
        "a chain too long": Certificate(mesh.member(who).membership, mesh.invite),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "none",
        "another member's",
        "signed by a member",
        "signed by a member in the root's name",
        "of another mesh",
        "by an invite of its own",
        "a chain too short",
        "a chain too long",
    ],
)
def test_an_invented_origin_gets_nothing_into_the_table(how: str) -> None:
    mesh, invented = Mesh(), someone()

    assert mesh.hears(mesh.row(invented, node(forged(mesh, invented, how)))) is Reason.UNCERTIFIED
    assert Reason.UNCERTIFIED.culpable  # whoever passed it on should have refused it
    assert mesh.hears(mesh.row(invented, LOAD, 2, Kind.GRADIENT)) is Reason.UNKNOWN_ORIGIN
    assert mesh.hears(mesh.row(invented, None, 3)) is Reason.UNKNOWN_ORIGIN
    assert "0 rows of 0 origins" in repr(mesh.store)


def test_a_guest_with_the_token_in_hand_cannot_invent_more_members_than_it_allows() -> None:
    mesh = Mesh()
    outcomes = [mesh.hears(mesh.row(who, node(mesh.guest(who)))) for who in map(someone, range(5))]

    assert outcomes == [None, None, *[Reason.OVERUSED] * 3]
    assert mesh.hears(mesh.row(someone(0), node(mesh.guest(someone(0))), 2)) is None, "whoever came first stays"


def test_the_root_renews_a_guest_and_the_invite_still_counts_and_still_ends_it() -> None:
    mesh, who = Mesh(), someone()
    assert mesh.hears(mesh.row(who, node(mesh.guest(who)))) is None
    mesh.clock.advance(300 * DAY_S)
    renewed = issue_membership(ROOT, who.public, wall_s=mesh.clock.wall(), serial=2, came_by=mesh.token.public)
    assert mesh.hears(mesh.row(who, node(Certificate(renewed)), 2)) is None
    mesh.clock.advance(100 * DAY_S)
    assert mesh.hears(mesh.row(who, LOAD, 3, Kind.GRADIENT)) is None

    gone = mesh.store.ban(mesh.token.public)

    assert {change.id.kind for change in gone} == {Kind.NODE, Kind.GRADIENT}
    assert mesh.hears(mesh.row(who, node(Certificate(renewed)), 4)) is Reason.REVOKED
    assert mesh.hears(mesh.row(who, LOAD, 5, Kind.GRADIENT)) is Reason.UNKNOWN_ORIGIN


def test_no_row_outlives_its_origins_certificate() -> None:
    mesh, who = Mesh(), someone()
    assert mesh.hears(mesh.row(who, node(mesh.member(who, lifetime_s=30)))) is None
    assert mesh.hears(mesh.row(who, LOAD, 2, Kind.GRADIENT)) is None
    mesh.clock.advance(31.0)

    gone = mesh.store.expire(moment(mesh.clock))

    assert len(gone) == 2
    assert mesh.hears(mesh.row(who, LOAD, 3, Kind.GRADIENT)) is Reason.LAPSED
    assert mesh.hears(mesh.row(who, node(mesh.member(who, lifetime_s=-1)), 4)) is Reason.LAPSED
    assert not Reason.LAPSED.culpable  # clocks differ
    assert mesh.hears(mesh.row(who, node(mesh.member(who)), 5)) is None
    assert mesh.hears(mesh.row(who, LOAD, 6, Kind.GRADIENT)) is None


def test_a_certificate_from_the_future_waits() -> None:
    mesh, who = Mesh(), someone()
    ahead = issue_membership(ROOT, who.public, wall_s=mesh.clock.wall() + 400, serial=1)

    assert mesh.hears(mesh.row(who, node(Certificate(ahead)))) is Reason.LAPSED
    mesh.clock.advance(101.0)
    assert mesh.hears(mesh.row(who, node(Certificate(ahead)), 2)) is None


def test_a_revoked_member_is_struck_though_it_was_never_linked() -> None:
    mesh, who = Mesh(), someone()
    shown = node(mesh.member(who))
    assert mesh.hears(mesh.row(who, shown)) is None

    assert [change.row for change in mesh.store.ban(who.public)] == [None]
    checked = mesh.checked
    assert mesh.hears(mesh.row(who, shown, 2)) is Reason.REVOKED
    assert mesh.checked == checked


def test_nothing_is_remembered_of_who_is_long_gone() -> None:
    mesh, who = Mesh(), someone()
    assert mesh.hears(mesh.row(who, node(mesh.member(who)))) is None
    for _ in range(800):
        mesh.clock.advance(10.0)
        mesh.store.expire(moment(mesh.clock))

    assert len(mesh.store.roll) == 0
    mesh.store.validate()


# Waiting for the certificate


def test_what_waits_comes_out_in_order_once() -> None:
    lobby, teller = Lobby(), PeerId(bytes(32))
    rows = [SignedRow(bytes([number]), bytes(64)) for number in range(4)]
    for row in (rows[0], rows[1], rows[0], rows[2]):
        lobby.wait(PeerId(b"a"), teller, row)
    lobby.wait(PeerId(b"b"), teller, rows[3])

    assert [row for _, row in lobby.admit(PeerId(b"a"))] == rows[:3]
    assert lobby.admit(PeerId(b"a")) == []
    assert len(lobby) == 1


def test_the_lobby_is_bounded_in_rows_and_bytes() -> None:
    lobby, teller = Lobby(), PeerId(bytes(32))
    for number in range(MAX_WAITING + 100):
        lobby.wait(PeerId(b"a"), teller, SignedRow(number.to_bytes(4, "big"), bytes(64)))
    assert len(lobby) == MAX_WAITING
    for number in range(60):
        lobby.wait(PeerId(b"a"), teller, SignedRow(bytes([number]) * (31 << 10), bytes(64)))
    assert sum(len(row.payload) for _, row in lobby.admit(PeerId(b"a"))) <= MAX_WAITING_BYTES
    assert len(lobby) == 0


# In a mesh


def settled(count: int) -> Sim:
    sim = Sim(count, seed=3, real_keys=True, conditions=Conditions(min_ms=1.0, max_ms=5.0))
    sim.wait_until(sim.converged, 10.0)
    return sim


def written(sim: Sim, who: Identity, body: Body, version: int = 1, kind: Kind = Kind.NODE) -> Row:
    """A row with a genuine signature of somebody who runs no node."""
    where = RowId(who.public, kind, "")
    issued_s = sim.nodes[0].moment(sim.time_s).wall_s
    return seal(where, body, mesh=sim.mesh, order=(1, version), issued_s=issued_s, ttl_s=60.0, sign=who.sign)


def told(sim: Sim, source: SimNode, target: SimNode, *rows: Row) -> None:
    sim.inject(source, target, encode(Rows(tuple(row.signed for row in rows))))


def test_a_member_that_invents_origins_is_hung_up_on_and_nobody_hears_of_them() -> None:
    sim = settled(4)
    insider, victim = sim.nodes[0], sim.nodes[1]
    invented = [someone(number) for number in range(int(OFFENCES_ALLOWED) + 2)]
    for who in invented:
        told(sim, insider, victim, written(sim, who, node(None)), written(sim, who, LOAD, 2, Kind.GRADIENT))
    sim.run(5.0)

    assert any(isinstance(effect, events.Misbehaved) for _, effect in victim.effects)
    members = {member.peer for member in sim.nodes}
    assert all({row.id.origin for row in member.core.store.rows()} <= members for member in sim.nodes)
    sim.validate_cores()


def test_rows_that_overtake_the_certificate_count_when_it_comes_whoever_brings_it() -> None:
    sim = settled(4)
    first, second, target = sim.nodes[0], sim.nodes[1], sim.nodes[2]
    newcomer = someone()
    load = written(sim, newcomer, LOAD, 2, Kind.GRADIENT)
    shown = written(sim, newcomer, node(sim.registry.certify(newcomer.public)))

    told(sim, first, target, load)
    assert target.core.store.get(load.id) is None
    told(sim, second, target, shown)

    assert target.core.store.get(load.id) == load
    assert not any(isinstance(effect, events.Misbehaved) for _, effect in target.effects)


def test_a_goodbye_that_overtakes_the_greeting_is_the_last_word() -> None:
    sim = settled(3)
    newcomer, target = someone(), sim.nodes[2]
    goodbye = seal(
        RowId(newcomer.public, Kind.NODE, ""), None, mesh=sim.mesh, order=(1, 2),
        issued_s=target.moment(sim.time_s).wall_s, ttl_s=60.0, sign=newcomer.sign,
    )  # fmt: skip
    told(sim, sim.nodes[0], target, goodbye)
    told(sim, sim.nodes[1], target, written(sim, newcomer, node(sim.registry.certify(newcomer.public))))

    assert target.core.store.get(goodbye.id) is None
    target.core.validate()


def test_forgeries_that_waited_are_blamed_on_who_brought_them() -> None:
    sim = settled(3)
    liar, honest, target = sim.nodes
    newcomer = someone()
    for version in range(2, int(OFFENCES_ALLOWED) + 4):
        row = written(sim, newcomer, LOAD, version, Kind.GRADIENT)
        sim.inject(liar, target, encode(Rows((SignedRow(row.signed.payload, bytes(64)),))))
    told(sim, honest, target, written(sim, newcomer, node(sim.registry.certify(newcomer.public))))

    (blamed,) = {effect.peer for _, effect in target.effects if isinstance(effect, events.Misbehaved)}
    assert blamed == liar.peer

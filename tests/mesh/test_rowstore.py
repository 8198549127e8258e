"""The table of rows, one rule after the other, with real signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.clock import ManualClock, Moment, moment
from atmo.ids import MeshId, PeerId
from atmo.keys import CLOCK_TOLERANCE_S, Identity, verify
from atmo.mesh.capability import Load
from atmo.mesh.rows import ROW_DOMAIN, Body, Gradient, Kind, NodeInfo, Row, RowId, RowPayload, SignedRow, peek, seal
from atmo.mesh.rowstore import MARK_LIFE_S, Limits, RowStore, digest
from atmo.mesh.verdict import Applied, Reason, Rejected
from tests.mesh.membership import OpenRoll

MESH = MeshId(Identity(bytes(32)).public)
ORIGIN = Identity(bytes([1]) * 32)
OTHER = Identity(bytes([2]) * 32)
OWN = Identity(bytes([3]) * 32)
# The order of the group that Ed25519 works in (RFC 8032, section 5.1): adding it to S keeps the equation true.
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


class Table:
    """A store with a clock, and a count of the signatures it checked."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = ManualClock()
        self.checked = 0
        self.store = RowStore(OWN.public, MESH, self._verify, OpenRoll(), limits)

    def _verify(self, public: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
        self.checked += 1
        return verify(public, domain, payload, signature)

    @property
    def now(self) -> Moment:
        return moment(self.clock)

    def apply(self, row: Row | SignedRow) -> Applied | Rejected:
        return self.store.apply(row.signed if isinstance(row, Row) else row, self.now)

    def refuses(self, row: Row | SignedRow) -> Reason:
        before = self.store.fingerprint()
        outcome = self.apply(row)
        assert isinstance(outcome, Rejected)
        assert self.store.fingerprint() == before
        return outcome.reason

    def takes(self, row: Row) -> Applied:
        outcome = self.apply(row)
        assert isinstance(outcome, Applied), outcome
        return outcome

    def write(
        self,
        body: Body | None,
        order: tuple[int, int] = (1, 1),
        *,
        key: str = "",
        kind: Kind = Kind.NODE,
        origin: Identity = ORIGIN,
        mesh: MeshId = MESH,
        ttl_s: float = 60.0,
        issued_s: float | None = None,
    ) -> Row:
        return seal(
            RowId(origin.public, kind, key),
            body,
            mesh=mesh,
            order=order,
            issued_s=self.clock.wall() if issued_s is None else issued_s,
            ttl_s=ttl_s,
            sign=origin.sign,
        )


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.store.validate()


def node(name: str = "n") -> NodeInfo:
    return NodeInfo(name=name, addresses=(), mode="participant", software="test")


NODE = RowId(ORIGIN.public, Kind.NODE, "")


def test_a_new_row_is_taken_and_told(table: Table) -> None:
    row = table.write(node())

    (change,) = table.takes(row).changes

    assert (change.id, change.row, change.old) == (NODE, row, None)
    assert table.store.get(NODE) == row


def test_a_newer_version_replaces_and_an_older_one_does_not(table: Table) -> None:
    old, new = table.write(node("old")), table.write(node("new"), (1, 2))
    table.takes(old)

    (change,) = table.takes(new).changes

    assert (change.row, change.old, change.renewal) == (new, old, False)
    assert table.refuses(old) is Reason.STALE


def test_a_signature_is_checked_once_for_a_row_and_never_for_a_repetition(table: Table) -> None:
    row = table.write(node(), (1, 2))
    table.takes(row)
    assert table.checked == 1

    assert table.refuses(row) is Reason.DUPLICATE
    assert table.refuses(table.write(node("older"))) is Reason.STALE
    assert table.checked == 1


def resigned(row: Row, **changes: object) -> SignedRow:
    """The payload with other fields, under the old signature."""
    payload = msgspec.structs.replace(peek(row.signed), **changes)
    return SignedRow(msgspec.msgpack.encode(payload), row.signed.signature)


def test_each_forgery_changes_nothing(table: Table) -> None:
    row = table.write(node())
    payload, signature = row.signed.payload, row.signed.signature
    s = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    forgeries = {
        "another's name": resigned(row, origin=OTHER.public),
        "another body": resigned(row, body=msgspec.Raw(msgspec.msgpack.encode(node("evil")))),
        "a later version": resigned(row, version=9),
        "a longer life": resigned(row, ttl_s=300.0),
        "no signature": SignedRow(payload, bytes(64)),
        "one bit off": SignedRow(payload, bytes([signature[0] ^ 1]) + signature[1:]),
        "malleable": SignedRow(payload, signature[:32] + s.to_bytes(32, "little")),
        "another domain": SignedRow(payload, ORIGIN.sign(b"atmo/other/1", payload)),
        "no domain": SignedRow(payload, ORIGIN.sign(b"", payload)),
        "another signer": SignedRow(payload, OTHER.sign(ROW_DOMAIN, payload)),
        "a small-order key": SignedRow(
            msgspec.msgpack.encode(msgspec.structs.replace(peek(row.signed), origin=bytes([1]) + bytes(31))),
            bytes([1]) + bytes(63),
        ),
    }
    for what, forgery in forgeries.items():
        assert table.refuses(forgery) is Reason.FORGED, what
    assert len(table.store) == 0
    table.takes(row)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (Reason.FOREIGN_MESH, {"mesh": MeshId(OTHER.public)}),
        (Reason.EXPIRED, {"issued_s": ManualClock().epoch_s - 60.0 - CLOCK_TOLERANCE_S - 1}),
        (Reason.FUTURE, {"issued_s": ManualClock().epoch_s + CLOCK_TOLERANCE_S + 1}),
        (Reason.OWN, {"origin": OWN}),
    ],
)
def test_a_genuine_row_that_does_not_belong_here_changes_nothing(
    table: Table, reason: Reason, changes: dict[str, object]
) -> None:
    row = table.write(node(), **changes)  # type: ignore[arg-type]

    assert table.refuses(row) is reason


def test_a_kind_that_is_not_known_yet_is_nobody_s_fault(table: Table) -> None:
    header = RowPayload(MESH, ORIGIN.public, 77, "", 1, 1, table.clock.wall(), 60.0, msgspec.Raw(b"\xc0"))
    payload = msgspec.msgpack.encode(header)

    assert table.refuses(SignedRow(payload, ORIGIN.sign(ROW_DOMAIN, payload))) is Reason.UNKNOWN_KIND
    assert not Reason.UNKNOWN_KIND.culpable


def test_a_genuine_row_with_a_body_of_another_kind_is_malformed(table: Table) -> None:
    header = replace_header(table.write(node()), kind=int(Kind.GRADIENT))
    signed = SignedRow(header, ORIGIN.sign(ROW_DOMAIN, header))

    assert table.refuses(signed) is Reason.MALFORMED
    assert Reason.MALFORMED.culpable


def replace_header(row: Row, **changes: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(peek(row.signed), **changes))


def test_clocks_may_differ_by_the_tolerance(table: Table) -> None:
    ahead = table.write(node(), issued_s=table.clock.wall() + CLOCK_TOLERANCE_S - 1)
    behind = table.write(node(), issued_s=table.clock.wall() - CLOCK_TOLERANCE_S, origin=OTHER)

    table.takes(ahead)
    table.takes(behind)


def test_a_withdrawn_row_is_gone_and_does_not_come_back(table: Table) -> None:
    row, withdrawal = table.write(node()), table.write(None, (1, 2))
    table.takes(row)

    (change,) = table.takes(withdrawal).changes

    assert (change.row, change.old) == (None, row)
    assert table.refuses(row) is Reason.STALE
    assert len(table.store) == 0


def test_a_withdrawal_that_comes_first_keeps_the_row_out(table: Table) -> None:
    assert table.takes(table.write(None, (1, 2))).changes == ()

    assert table.refuses(table.write(node())) is Reason.STALE


def test_a_row_that_is_not_renewed_expires_at_its_time(table: Table) -> None:
    table.takes(table.write(node()))
    assert table.store.next_expiry() == table.clock.now() + 60.0
    table.clock.advance(59.9)
    assert table.store.expire(table.now) == []

    table.clock.advance(0.1)
    (change,) = table.store.expire(table.now)

    assert change.id == NODE
    assert change.row is None
    assert len(table.store) == 0


def test_a_renewed_row_lives_on(table: Table) -> None:
    table.takes(table.write(node()))
    table.clock.advance(30.0)
    (change,) = table.takes(table.write(node(), (1, 2))).changes
    assert change.renewal

    table.clock.advance(45.0)
    assert table.store.expire(table.now) == []
    table.clock.advance(15.0)
    assert len(table.store.expire(table.now)) == 1


def test_a_short_life_after_a_long_one_ends_in_time(table: Table) -> None:
    table.takes(table.write(node(), ttl_s=200.0))
    table.takes(table.write(node(), (1, 2), ttl_s=5.0))

    table.clock.advance(5.0)
    assert len(table.store.expire(table.now)) == 1


def test_a_replayed_row_stays_dead_until_its_date_has_passed_everywhere(table: Table) -> None:
    """The origin's clock is as far ahead as it may be: the worst case for the mark's life."""
    row = table.write(node(), issued_s=table.clock.wall() + CLOCK_TOLERANCE_S - 1)
    table.takes(row)
    for _ in range(int(MARK_LIFE_S) // 10 + 10):
        table.clock.advance(10.0)
        table.store.expire(table.now)
        if len(table.store) == 0:
            assert table.refuses(row) in (Reason.DUPLICATE, Reason.EXPIRED)
    assert "0 origins" in repr(table.store)  # and in the end nothing is remembered


def test_a_new_life_voids_what_was_said_in_the_old_one(table: Table) -> None:
    load = Gradient((Load("atmo:chat:x", 0, 1, 0, 0.0, 0.0, 0.0, True),))
    table.takes(table.write(load, (1, 1), kind=Kind.GRADIENT))
    table.takes(table.write(node("old"), (1, 2)))

    voided, replaced = table.takes(table.write(node("new"), (2, 1))).changes

    assert (voided.id.kind, voided.row) == (Kind.GRADIENT, None)
    assert replaced.old is not None
    assert [row.body for row in table.store.rows()] == [node("new")]
    assert table.refuses(table.write(load, (1, 3), kind=Kind.GRADIENT)) is Reason.STALE


def test_equivocation_is_proven_and_settled_alike_everywhere() -> None:
    first, second = Table(), Table()
    rows = [first.write(node("a")), first.write(node("b"))]
    winner, loser = sorted(rows, key=lambda row: digest(row.signed))

    first.takes(winner)
    refused = first.apply(loser)
    second.takes(loser)
    applied = second.takes(winner)

    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.EQUIVOCATES
    assert refused.equivocation == applied.equivocation == first.store.proofs[0] == second.store.proofs[0]
    assert first.store.fingerprint() == second.store.fingerprint()
    assert first.refuses(loser) is Reason.EQUIVOCATES
    assert first.checked == 2  # the third was refused without looking
    first.store.validate()
    second.store.validate()


def test_the_same_payload_under_another_genuine_signature_is_the_same_row(table: Table) -> None:
    row = table.write(node())
    table.takes(row)

    assert table.refuses(SignedRow(row.signed.payload, bytes(64))) is Reason.DUPLICATE


def test_one_origin_cannot_fill_the_table() -> None:
    table = Table(Limits(rows_per_origin=3, marks_per_origin=5, origins=2))
    for version in range(3):
        table.takes(table.write(node(), (1, version + 1), key=f"k{version}"))

    assert table.refuses(table.write(node(), (1, 9), key="one more")) is Reason.FULL
    table.takes(table.write(node("changed"), (1, 10), key="k1"))  # what is there may change
    table.takes(table.write(None, (1, 11), key="k0"))  # and go
    table.takes(table.write(node(), (1, 12), key="k3"))
    table.takes(table.write(None, (1, 13), key="k3"))
    table.takes(table.write(node(), (1, 14), key="k4"))
    table.takes(table.write(None, (1, 15), key="k4"))
    assert table.refuses(table.write(node(), (1, 16), key="k5")) is Reason.FULL  # tombstones count too
    table.store.validate()


def test_strangers_cannot_fill_the_table() -> None:
    table = Table(Limits(origins=2))
    for seed in (1, 2):
        table.takes(table.write(node(), origin=Identity(bytes([seed]) * 32)))

    assert table.refuses(table.write(node(), origin=Identity(bytes([9]) * 32))) is Reason.FULL
    assert table.checked == 2


def test_a_newcomer_is_told_live_rows_and_fresh_withdrawals_but_nothing_overdue(table: Table) -> None:
    table.takes(table.write(node(), key="a"))
    table.takes(table.write(node(), (1, 2), key="b"))
    table.takes(table.write(None, (1, 3), key="b"))
    told = {peek(signed).key: peek(signed).body for signed in table.store.transcript(ORIGIN.public, table.now)}
    assert told.keys() == {"a", "b"}
    assert bytes(told["b"]) == b"\xc0"

    table.clock.advance(50.0)  # a renewal was due at 30 at the latest
    assert [peek(signed).key for signed in table.store.transcript(ORIGIN.public, table.now)] == ["b"]


def test_own_rows_do_not_expire_under_their_author(table: Table) -> None:
    row = table.write(node(), origin=OWN)
    table.store.write(row, table.now)

    table.clock.advance(10_000.0)

    assert table.store.expire(table.now) == []
    assert table.store.get(row.id) == row


def test_an_own_row_of_a_former_life_is_noticed_however_old_it_is(table: Table) -> None:
    former = table.write(node(), (1, 9), origin=OWN, issued_s=table.clock.wall() - 100_000.0)

    assert table.refuses(former) is Reason.OWN


def test_the_newest_of_an_origin_is_kept_as_evidence_after_it_has_expired(table: Table) -> None:
    row = table.write(node(), (1, 2))
    table.takes(row)
    table.takes(table.write(node(), (1, 1), key="other"))
    table.clock.advance(61.0)
    table.store.expire(table.now)

    assert table.store.newest(ORIGIN.public) == row.signed
    assert table.store.newest(OTHER.public) is None


# Merging: the same rows in any order, any number of times, give the same table.

STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),  # origin
        st.sampled_from(["a", "b"]),  # key
        st.integers(1, 3),  # generation
        st.integers(1, 3),  # version
        st.sampled_from(["x", "y", None]),  # body: two of one version equivocate
    ),
    max_size=12,
)


def merged(rows: list[Row]) -> RowStore:
    table = Table()
    for row in rows:
        table.apply(row)
    table.store.validate()
    return table.store


def written(steps: list[tuple[int, str, int, int, str | None]]) -> list[Row]:
    table = Table()
    return [
        table.write(node(text) if text else None, (generation, version), key=key, origin=(ORIGIN, OTHER)[who])
        for who, key, generation, version, text in steps
    ]


@given(STEPS, st.integers(0, 1 << 32))
@settings(max_examples=120, deadline=None)
def test_the_order_of_arrival_does_not_matter(steps: list[tuple[int, str, int, int, str | None]], seed: int) -> None:
    rows = written(steps)
    shuffled = rows.copy()
    Random(seed).shuffle(shuffled)

    one, other = merged(rows), merged(shuffled)

    assert one.fingerprint() == other.fingerprint()
    assert sorted(one.summary()) == sorted(other.summary())


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_repeating_rows_changes_nothing(steps: list[tuple[int, str, int, int, str | None]]) -> None:
    rows = written(steps)

    assert merged(rows).fingerprint() == merged(rows + rows).fingerprint()


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_the_table_is_what_a_naive_reading_of_the_rules_gives(
    steps: list[tuple[int, str, int, int, str | None]],
) -> None:
    rows = written(steps)
    newest: dict[PeerId, int] = {}
    for row in rows:
        newest[row.id.origin] = max(row.generation, newest.get(row.id.origin, 0))
    best: dict[RowId, Row] = {}
    for row in rows:
        if row.generation == newest[row.id.origin]:
            rival = best.get(row.id)
            if rival is None or naive_rank(row) > naive_rank(rival):
                best[row.id] = row

    assert {row.id: row for row in merged(rows).rows()} == {
        row_id: row for row_id, row in best.items() if row.body is not None
    }


def naive_rank(row: Row) -> tuple[int, int]:
    lower_wins = -int.from_bytes(hashlib.sha256(row.signed.payload).digest(), "big")
    return row.version, lower_wins

"""Comparing tables: after one exchange any two tables are the same, and no more travels than must."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.clock import Moment
from atmo.ids import MeshId, PeerId
from atmo.mesh.codec import decode, encode
from atmo.mesh.messages import Digest, Versions
from atmo.mesh.rows import Kind, NodeInfo, Row, RowId, SignedRow, seal
from atmo.mesh.rowstore import RowStore
from atmo.mesh.sim.node import fast_sign, fast_verify
from atmo.mesh.sync import FEW_ORIGINS, Sync
from tests.mesh.membership import OpenRoll

MESH = MeshId(bytes(31) + b"m")
NOW = Moment(100.0, 1_750_000_000.0)


def origin(number: int) -> PeerId:
    return PeerId(number.to_bytes(2, "big") * 16)


@cache
def row(number: int, key: str, order: tuple[int, int], gone: bool = False) -> Row:
    body = None if gone else NodeInfo(name=f"{number}", addresses=(), mode="m", software="s")
    who = origin(number)
    row_id = RowId(who, Kind.NODE, key)
    return seal(row_id, body, mesh=MESH, order=order, issued_s=NOW.wall_s, ttl_s=60.0, sign=fast_sign(who))


def table(own: int, rows: list[Row]) -> RowStore:
    store = RowStore(origin(own), MESH, fast_verify, OpenRoll())
    for each in rows:
        store.apply(each.signed, NOW)
    return store


def exchange(a: RowStore, b: RowStore, salt: bytes = bytes(range(16))) -> tuple[int, int]:
    """One comparison that a begins, through the codec; returns how many rows and how many other bytes travelled."""
    ends = (Sync(a, lambda origin: False), Sync(b, lambda origin: False))
    ahead: list[tuple[int, bytes]] = [(1, encode(ends[0].opening(salt)))]
    rows, size = 0, 0
    while ahead:
        at, frame = ahead.pop(0)
        size += len(frame)
        message = decode(frame)
        if isinstance(message, Digest):
            ahead += [(1 - at, encode(versions)) for versions in ends[at].on_digest(message)]
            continue
        assert isinstance(message, Versions)
        sent, answer = ends[at].on_versions(message, NOW)
        rows += len(sent)
        give((a, b)[1 - at], sent)
        if answer is not None:
            ahead.append((1 - at, encode(answer)))
    return rows, size


def give(store: RowStore, rows: list[SignedRow]) -> None:
    for signed in rows:
        store.apply(signed, NOW)


kinds = st.tuples(
    st.integers(2, 80), st.sampled_from(["", "a", "b"]), st.integers(1, 3), st.integers(1, 6), st.booleans()
)


def rows_of(picks: list[tuple[int, str, int, int, bool]]) -> list[Row]:
    """Rows as honest origins write them: a version is given to one row only."""
    known: dict[tuple[int, int, int], tuple[str, bool]] = {}
    return [
        row(
            who,
            *(lambda said: (said[0], (generation, version), said[1]))(
                known.setdefault((who, generation, version), (key, gone))
            ),
        )
        for who, key, generation, version, gone in picks
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(kinds, max_size=120), st.data(), st.binary(min_size=16, max_size=16))
def test_any_two_tables_are_the_same_after_one_exchange(
    picks: list[tuple[int, str, int, int, bool]], data: st.DataObject, salt: bytes
) -> None:
    said = rows_of(picks)
    halves = data.draw(st.lists(st.sampled_from(["a", "b", "both"]), min_size=len(said), max_size=len(said)))
    a = table(0, [each for each, where in zip(said, halves, strict=True) if where != "b"])
    b = table(1, [each for each, where in zip(said, halves, strict=True) if where != "a"])

    exchange(a, b, salt)

    assert a.fingerprint() == b.fingerprint() == table(3000, said).fingerprint()
    assert exchange(a, b, salt)[0] == 0
    a.validate()
    b.validate()


def test_equal_tables_of_a_thousand_origins_cost_two_kilobytes() -> None:
    rows = [row(number, "", (1, 1)) for number in range(2, 1002)]
    a, b = table(0, rows), table(1, rows)

    rows_sent, size = exchange(a, b)

    assert rows_sent == 0
    assert size < 2200


def test_one_new_row_among_a_thousand_costs_little_more_than_itself() -> None:
    rows = [row(number, "", (1, 1)) for number in range(2, 1002)]
    a, b = table(0, rows), table(1, [*rows, row(500, "", (1, 2))])

    rows_sent, size = exchange(a, b)

    assert rows_sent <= 2  # the old one may be offered in return
    assert size < 3200
    assert a.fingerprint() == b.fingerprint()


def test_a_newcomer_asks_for_the_whole_table_with_its_first_frame() -> None:
    rows = [row(number, "", (1, 1)) for number in range(2, 502)]
    newcomer, other = table(0, []), table(1, rows)

    rows_sent, size = exchange(newcomer, other)

    assert rows_sent == 500
    assert size < 100


def test_a_small_table_needs_no_digest() -> None:
    few = table(0, [row(number, "", (1, 1)) for number in range(2, 2 + FEW_ORIGINS)])
    many = table(0, [row(number, "", (1, 1)) for number in range(2, 3 + FEW_ORIGINS)])

    assert isinstance(Sync(few, lambda origin: False).opening(bytes(16)), Versions)
    assert isinstance(Sync(many, lambda origin: False).opening(bytes(16)), Digest)


def test_a_renewal_that_is_on_its_way_is_not_told_but_what_is_missing_is() -> None:
    news, renewal, other = row(2, "", (1, 1)), row(2, "", (1, 2)), row(2, "another", (1, 3))
    behind, ahead = table(0, [news]), table(1, [news, renewal])
    versions = Sync(behind, lambda origin: False).opening(bytes(16))
    assert isinstance(versions, Versions)

    assert Sync(ahead, lambda origin: False, lambda: 5.0).on_versions(versions, NOW)[0] == []
    late = Moment(NOW.mono_s + 6.0, NOW.wall_s + 6.0)
    assert Sync(ahead, lambda origin: False, lambda: 5.0).on_versions(versions, late)[0] == [renewal.signed]
    ahead.apply(other.signed, NOW)
    told = Sync(ahead, lambda origin: False, lambda: 5.0).on_versions(versions, NOW)[0]
    assert len(told) == 2
    assert all(row.signed in told for row in (renewal, other))


def test_two_small_tables_that_agree_find_that_out_at_once() -> None:
    rows = [row(number, "", (1, 1)) for number in range(2, 2 + FEW_ORIGINS)]
    one, other = (Sync(table(number, rows), lambda origin: False) for number in (0, 1))

    opening = one.opening(bytes(16), again=True)

    assert isinstance(opening, Digest)
    assert other.on_digest(opening) == []
    assert len(encode(opening)) < 160


def test_a_digest_that_no_node_would_send_is_not_answered() -> None:
    sync = Sync(table(0, [row(2, "", (1, 1))]), lambda origin: False)

    for length in (8 * 3, 12, 8 * 255):
        assert sync.on_digest(Digest(bytes(16), bytes(length))) == []

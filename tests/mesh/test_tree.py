"""The tree alone: who is eager, who is lazy, and what is asked for when it does not come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atmo.ids import MeshId, PeerId
from atmo.keys import Identity
from atmo.mesh.messages import Graft, IHave, Prune, Push
from atmo.mesh.rows import Kind, NodeInfo, Row, RowId, SignedRow, seal
from atmo.mesh.tree import (
    MAX_ANNOUNCERS,
    MAX_MISSING,
    MAX_RECENT,
    PATIENCE_S,
    QUIET_ANNOUNCE_S,
    Out,
    Tree,
    id_of,
)

KEY = Identity(bytes(32))
MESH = MeshId(KEY.public)
BATCH_S = 0.1
A, B, C, D = (PeerId(bytes([number]) * 32) for number in range(1, 5))


class Bench:
    """A tree with neighbours, and the rows that are in its table."""

    def __init__(self) -> None:
        self.table: dict[RowId, SignedRow] = {}
        self.tree = Tree(BATCH_S, self.table.get)
        self.tree.neighbours([A, B, C])

    def row(self, version: int = 1) -> Row:
        """A row as it comes from somewhere: not in the table."""
        info = NodeInfo(name=f"version {version}", addresses=(), mode="provider", software="-")
        name = RowId(KEY.public, Kind.NODE, "")
        return seal(name, info, mesh=MESH, order=(1, version), issued_s=0.0, ttl_s=60.0, sign=KEY.sign)

    def have(self, row: Row) -> Row:
        """It is in the table now."""
        self.table[row.id] = row.signed
        self.tree.note(row)
        return row


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.tree.validate()


def ihave(*rows: Row) -> IHave:
    return IHave(b"".join(id_of(row.signed) for row in rows))


def graft(*rows: Row) -> Graft:
    return Graft(b"".join(id_of(row.signed) for row in rows))


def test_a_new_row_is_pushed_to_the_eager_and_announced_to_the_lazy_but_not_to_its_source(bench: Bench) -> None:
    bench.tree.on_prune(C)
    row = bench.have(bench.row())

    bench.tree.send(row, A, 0.0)

    assert bench.tree.due(1.0) == [Out(B, Push((row.signed,))), Out(C, ihave(row))]


def test_rows_within_a_batch_travel_together_and_only_the_newest_of_a_name(bench: Bench) -> None:
    bench.tree.neighbours([A])
    bench.tree.send(bench.have(bench.row(1)), None, 0.0)
    bench.tree.due(1.0)
    for version in (2, 3):
        bench.tree.send(bench.have(bench.row(version)), None, 0.0)

    assert bench.tree.due(1.0 + BATCH_S / 2) == []
    assert bench.tree.next_due() == pytest.approx(1.0 + BATCH_S)
    assert bench.tree.due(1.0 + BATCH_S) == [Out(A, Push((bench.row(3).signed,)))]


def test_a_link_that_brings_nothing_new_becomes_lazy_at_both_ends(bench: Bench) -> None:
    assert bench.tree.pushed(A, any_new=False) == [Out(A, Prune())]
    assert list(bench.tree.lazy) == [A]

    bench.tree.on_prune(B)  # and this is the other end of such a link
    assert list(bench.tree.lazy) == [A, B]


def test_a_link_that_brings_something_new_is_or_becomes_eager(bench: Bench) -> None:
    bench.tree.on_prune(A)

    assert bench.tree.pushed(A, any_new=True) == []

    assert A in bench.tree.eager


def test_what_was_announced_and_does_not_come_is_asked_for_at_one_announcer_after_the_other(bench: Bench) -> None:
    for peer in (A, B):
        bench.tree.on_prune(peer)
        bench.tree.on_ihave(peer, ihave(bench.row()), 1.0)

    assert bench.tree.due(1.0 + PATIENCE_S / 2) == []
    assert bench.tree.due(1.0 + PATIENCE_S) == [Out(A, graft(bench.row()))]
    assert A in bench.tree.eager  # what heals the tree
    assert bench.tree.due(1.0 + 2 * PATIENCE_S) == [Out(B, graft(bench.row()))]
    assert bench.tree.due(9.0) == []
    assert bench.tree.next_due() is None  # the rest is up to comparing tables


def test_what_arrives_in_time_is_not_asked_for(bench: Bench) -> None:
    bench.tree.on_ihave(A, ihave(bench.row()), 1.0)

    bench.have(bench.row())

    assert bench.tree.due(9.0) == []


def test_an_announcer_that_is_no_neighbour_any_more_is_not_asked(bench: Bench) -> None:
    bench.tree.on_ihave(A, ihave(bench.row()), 1.0)
    bench.tree.neighbours([B, C])

    assert bench.tree.due(9.0) == []


def test_a_graft_is_answered_with_the_row_as_it_is_now_and_makes_the_link_eager(bench: Bench) -> None:
    old, new = bench.have(bench.row(1)), bench.have(bench.row(2))
    bench.tree.on_prune(A)

    assert bench.tree.on_graft(A, graft(old)) == [Out(A, Push((new.signed,)))]
    assert A in bench.tree.eager
    assert bench.tree.on_graft(A, graft(bench.row(9))) == []  # never heard of


def test_announcements_of_any_length_and_number_cost_bounded_memory(bench: Bench) -> None:
    for number in range(MAX_MISSING // 100 + 10):
        names = b"".join((100 * number + at).to_bytes(8, "big") for at in range(100))
        for peer in (A, B, C, D):
            bench.tree.on_ihave(peer, IHave(names + b"rest"), 1.0)
        bench.tree.validate()

    asked: dict[bytes, int] = {}
    for round_ in range(1, MAX_ANNOUNCERS + 3):
        for out in bench.tree.due(1.0 + round_ * PATIENCE_S):
            assert isinstance(out.message, Graft)
            for at in range(0, len(out.message.ids), 8):
                name = out.message.ids[at : at + 8]
                asked[name] = asked.get(name, 0) + 1
    assert len(asked) == MAX_MISSING
    assert set(asked.values()) == {3}  # D is no neighbour
    assert bench.tree.next_due() is None


def test_only_so_many_ids_are_remembered(bench: Bench) -> None:
    first = bench.have(bench.row(1))
    for number in range(MAX_RECENT):
        bench.tree.note(first._replace(signed=SignedRow(number.to_bytes(8, "big"), b"")))

    assert bench.tree.on_graft(A, graft(first)) == []


def test_a_quiet_tree_pushes_nothing_and_announces_seldom(bench: Bench) -> None:
    bench.tree.neighbours([A, B], quiet=True)
    first, second = bench.have(bench.row(1)), bench.have(bench.row(2))
    bench.tree.send(first, A, 0.0)
    assert bench.tree.due(1.0) == [Out(B, ihave(first))]

    bench.tree.send(second, A, 0.0)
    assert bench.tree.due(1.0 + BATCH_S) == []
    assert bench.tree.due(1.0 + QUIET_ANNOUNCE_S) == [Out(B, ihave(second))]


def test_in_a_quiet_tree_who_asks_is_answered_and_nobody_becomes_eager(bench: Bench) -> None:
    bench.tree.neighbours([A, B], quiet=True)
    row = bench.have(bench.row())

    assert bench.tree.on_graft(A, graft(row)) == [Out(A, Push((row.signed,)))]
    assert bench.tree.pushed(A, any_new=True) == []
    assert bench.tree.pushed(B, any_new=False) == []  # it was asked for, and came twice
    assert not bench.tree.eager


def test_a_mesh_that_grows_has_eager_links_again(bench: Bench) -> None:
    bench.tree.neighbours([A, B], quiet=True)
    bench.tree.neighbours([A, B, C])

    assert list(bench.tree.eager) == [A, B, C]
    assert not bench.tree.lazy

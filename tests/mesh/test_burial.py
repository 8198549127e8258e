"""What happens to the rows of a node that is taken for dead, with real signatures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atmo.mesh.capability import Load
from atmo.mesh.rows import Gradient, Kind, NodeInfo, RowId
from atmo.mesh.rowstore import MARK_LIFE_S
from atmo.mesh.verdict import Reason
from tests.mesh.test_rowstore import NODE, ORIGIN, OTHER, Table

LOAD = RowId(ORIGIN.public, Kind.GRADIENT, "")
BUSY = Gradient((Load("c", 1, 4, 0, 1.0, 1.0, 1.0, True),))
IDLE = Gradient((Load("c", 0, 4, 0, 1.0, 1.0, 1.0, True),))


def node(incarnation: int = 0) -> NodeInfo:
    return NodeInfo(name="n", addresses=(), mode="participant", software="test", incarnation=incarnation)


@pytest.fixture
def table() -> Iterator[Table]:
    """Holds two rows of ORIGIN, which is dead, and one of OTHER, which is not."""
    made = Table()
    made.takes(made.write(node()))
    made.takes(made.write(BUSY, (1, 2), kind=Kind.GRADIENT))
    made.takes(made.write(node(), origin=OTHER))
    changes = made.store.bury(ORIGIN.public)
    assert {change.id for change in changes} == {NODE, LOAD}
    assert all(change.row is None and change.old is not None for change in changes)
    yield made
    made.store.validate()


def test_the_rows_of_the_dead_are_in_nobody_s_sight(table: Table) -> None:
    assert table.store.get(NODE) is None
    assert [row.id.origin for row in table.store.rows()] == [OTHER.public]
    assert list(table.store.rows(origin=ORIGIN.public)) == []
    assert list(table.store.transcript(ORIGIN.public, table.now)) == []
    assert len(table.store) == 1
    assert table.store.population() == 1


def test_nobody_is_buried_twice(table: Table) -> None:
    assert table.store.bury(ORIGIN.public) == ()
    assert table.store.bury(OTHER.public) != ()


def test_a_renewal_of_the_same_incarnation_brings_nothing_back(table: Table) -> None:
    assert table.refuses(table.write(node(), (1, 3))) is Reason.DEAD
    assert table.refuses(table.write(IDLE, (1, 4), kind=Kind.GRADIENT)) is Reason.DEAD


def test_a_repeated_row_of_the_dead_costs_no_signature_check(table: Table) -> None:
    row = table.write(node(), (1, 3))
    table.refuses(row)
    before = table.checked

    assert table.refuses(row) is Reason.DUPLICATE
    assert table.checked == before


def test_its_refutation_brings_back_all_it_said_and_the_newest_of_it(table: Table) -> None:
    table.refuses(table.write(IDLE, (1, 3), kind=Kind.GRADIENT))

    applied = table.takes(table.write(node(1), (1, 4)))

    assert {change.id for change in applied.changes} == {NODE, LOAD}
    assert all(change.old is None for change in applied.changes)
    load = table.store.get(LOAD)
    assert load is not None
    assert load.body == IDLE


def test_what_it_withdrew_while_it_was_dead_does_not_come_back(table: Table) -> None:
    table.refuses(table.write(None, (1, 3), kind=Kind.GRADIENT))

    applied = table.takes(table.write(node(1), (1, 4)))

    assert [change.id for change in applied.changes] == [NODE]


def test_a_new_life_is_no_business_of_the_dead_one(table: Table) -> None:
    applied = table.takes(table.write(node(), (2, 1)))

    assert [change.id for change in applied.changes] == [NODE]
    assert table.store.get(LOAD) is None
    assert not table.store.is_dead(ORIGIN.public)


def test_rows_of_the_dead_expire_without_a_word(table: Table) -> None:
    table.clock.advance(61.0)

    changes = table.store.expire(table.now)

    assert [change.id.origin for change in changes] == [OTHER.public]
    assert table.store.is_dead(ORIGIN.public)
    assert table.refuses(table.write(node(), (1, 9))) is Reason.DEAD
    assert table.store.life(ORIGIN.public) == (1, 0)


def test_a_grave_is_forgotten_when_no_copy_of_its_rows_could_be_accepted(table: Table) -> None:
    table.clock.advance(61.0)
    table.store.expire(table.now)
    table.clock.advance(MARK_LIFE_S)
    table.store.expire(table.now)

    assert not table.store.is_dead(ORIGIN.public)
    assert table.store.life(ORIGIN.public) is None


def test_forged_refutations_are_refused(table: Table) -> None:
    genuine = table.write(node(1), (1, 5))
    forged = genuine.signed.__class__(genuine.signed.payload, bytes(64))

    assert table.refuses(forged) is Reason.FORGED
    assert table.store.is_dead(ORIGIN.public)

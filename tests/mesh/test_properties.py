"""Laws that hold for whatever chance picks: merging tables, comparing them, trees, appointments."""

from __future__ import annotations

from itertools import permutations
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from atmo.ids import PeerId
from atmo.mesh.agenda import Agenda
from atmo.mesh.messages import Graft, IHave, Push
from atmo.mesh.rows import Kind, NodeInfo, Row, RowId, SignedRow, seal
from atmo.mesh.sim.node import fast_sign
from atmo.mesh.tree import Out, Tree, id_of
from tests.mesh.test_sync import MESH, NOW, exchange, origin, table


def written(number: int, order: tuple[int, int], text: str | None) -> Row:
    """Two texts under one order are equivocation. An origin counts its versions over all its rows, so that each belongs
    to one of them (docs/protocol.md says what becomes of who does not)."""
    who, key = origin(number), "" if order[1] % 2 else "a"
    body = NodeInfo(name=text, addresses=(), mode="m", software="s") if text else None
    return seal(
        RowId(who, Kind.NODE, key), body, mesh=MESH, order=order, issued_s=NOW.wall_s, ttl_s=60.0, sign=fast_sign(who)
    )


ROW = st.builds(
    written,
    st.integers(2, 60),
    st.tuples(st.integers(1, 2), st.integers(1, 4)),
    st.sampled_from(["x", "y", None]),
)


def lies(rows: list[Row]) -> bool:
    """Two rows under one version: which of them counts may be found by the second comparison only, if the first one
    brings something else of their origin."""
    return len({row.signed.payload for row in rows}) > len({(row.id.origin, row.order) for row in rows})


def union(*parts: list[Row]) -> bytes:
    return table(3000, [row for part in parts for row in part]).fingerprint()


LIAR = [written(2, (1, 1), "y")], [written(2, (1, 1), "x"), written(2, (1, 2), "x")]


@given(st.lists(st.lists(ROW, max_size=40), min_size=3, max_size=3))
@example([[], *LIAR])
@settings(max_examples=60, deadline=None)
def test_merging_is_associative_and_commutative(parts: list[list[Row]]) -> None:
    """By comparing tables, whoever begins and in whatever order: (a + b) + c = a + (b + c), liars included."""
    for first, second, third in permutations(range(3)):
        tables = [table(4000 + number, rows) for number, rows in enumerate(parts)]
        for _ in range(2 if lies([row for rows in parts for row in rows]) else 1):
            exchange(tables[first], tables[second])
            exchange(tables[second], tables[third])
            exchange(tables[third], tables[first])

        assert {each.fingerprint() for each in tables} == {union(*parts)}
        for each in tables:
            each.validate()


@given(st.lists(ROW, max_size=120), st.integers(0, 1 << 30), st.binary(min_size=16, max_size=16))
@settings(max_examples=60, deadline=None)
def test_comparing_random_tables_makes_them_equal_and_once_is_enough(rows: list[Row], seed: int, salt: bytes) -> None:
    """Tables of up to sixty origins in buckets, with withdrawals, later lives and two rows under one version."""
    chance = Random(seed)
    a, b = (table(number, [row for row in rows if chance.random() < 0.7]) for number in (0, 1))
    both = {row.signed.payload for each in (a, b) for row in each.rows()}

    for _ in range(2 if lies(rows) else 1):
        exchange(a, b, salt)

    assert a.fingerprint() == b.fingerprint()
    assert {row.signed.payload for row in a.rows()} <= both  # nothing that neither had
    assert exchange(a, b, salt[::-1])[0] == 0


@given(st.lists(ROW, max_size=60), st.lists(ROW, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_table_never_goes_back(rows: list[Row], more: list[Row]) -> None:
    """Whatever else is merged, no origin's generation and no row's version becomes lower."""
    store = table(0, rows)
    before = {row.id: row.order for row in store.rows()}
    lives = {who: generation for who, generation, _ in store.summary()}

    for row in more:
        store.apply(row.signed, NOW)

    for who, generation, _ in store.summary():
        assert generation >= lives.get(who, 0)
    for row in store.rows():
        assert row.order >= before.get(row.id, (0, 0))


NEIGHBOURS = [PeerId(bytes([number]) * 32) for number in range(1, 7)]
PEERS = st.sampled_from(NEIGHBOURS)
SAID = [written(number, (1, 1), "x") for number in range(2, 12)]
SOME = st.lists(st.sampled_from(SAID), min_size=1, max_size=5)
STEPS = st.one_of(
    st.tuples(st.just("neighbours"), st.lists(PEERS, max_size=6, unique=True), st.just(0.0)),
    st.tuples(st.just("new"), SOME, st.sampled_from([0.0, 0.5, 5.0])),
    st.tuples(st.just("heard of"), SOME, st.just(0.0)),
    st.tuples(st.just("asked for"), SOME, st.just(0.0)),
    st.tuples(st.just("pushed"), st.booleans(), st.just(0.0)),
    st.tuples(st.just("pruned"), st.booleans(), st.just(0.0)),
)


@given(st.lists(st.tuples(PEERS, STEPS, st.floats(0.0, 2.0)), max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_tree_keeps_its_invariants_and_every_announced_row_is_asked_for_or_here(
    steps: list[tuple[PeerId, tuple[str, object, float], float]],
) -> None:
    here: dict[RowId, SignedRow] = {}
    tree, now_s = Tree(0.1, here.get), 0.0
    tree.neighbours(NEIGHBOURS)
    for peer, (what, given_, wait_s), passes_s in steps:
        now_s += passes_s
        out = take(tree, here, peer, what, given_, wait_s, now_s)
        while (due_s := tree.next_due()) is not None and due_s <= now_s:
            out += tree.due(now_s)
            tree.validate()
        tree.validate()
        for each in out:
            assert each.peer in tree.eager or each.peer in tree.lazy or isinstance(each.message, Push | Graft)
            assert not isinstance(each.message, Push) or each.message.rows
    for _ in range(50):  # in the end nothing is awaited or owed any more
        if (due_s := tree.next_due()) is None:
            break
        tree.due(due_s)
    assert tree.next_due() is None


def take(
    tree: Tree, here: dict[RowId, SignedRow], peer: PeerId, what: str, given_: object, wait_s: float, now_s: float
) -> list[Out]:
    """Let something happen to the tree."""
    if what == "neighbours":
        assert isinstance(given_, list)
        tree.neighbours(given_)
    elif what == "pushed":
        if peer in tree.eager or peer in tree.lazy:
            return tree.pushed(peer, bool(given_))
    elif what == "pruned":
        tree.on_prune(peer)
    else:
        assert isinstance(given_, list)
        ids = b"".join(id_of(row.signed) for row in given_)
        if what == "new":
            for row in given_:
                here[row.id] = row.signed
                tree.note(row)
                tree.send(row, peer, now_s, wait_s)
        elif what == "heard of":
            tree.on_ihave(peer, IHave(ids), now_s)
        else:
            return tree.on_graft(peer, Graft(ids))
    return []


APPOINTMENTS = st.lists(
    st.tuples(st.sampled_from(["put", "sooner", "drop", "due"]), st.integers(0, 5), st.integers(0, 20)), max_size=80
)


@given(APPOINTMENTS)
@settings(max_examples=200, deadline=None)
def test_an_agenda_is_a_table_of_times(steps: list[tuple[str, int, int]]) -> None:
    agenda: Agenda[int] = Agenda()
    naive: dict[int, float] = {}
    for what, key, at_s in steps:
        if what == "put":
            agenda.put(key, at_s)
            naive[key] = at_s
        elif what == "sooner":
            agenda.put_if_sooner(key, at_s)
            naive[key] = min(at_s, naive.get(key, at_s))
        elif what == "drop":
            agenda.drop(key)
            naive.pop(key, None)
        else:
            due = agenda.take_due(at_s)
            assert sorted(due) == sorted(found for found, when_s in naive.items() if when_s <= at_s)
            assert [naive[found] for found in due] == sorted(naive.pop(found) for found in list(due))
        assert agenda.next_s() == min(naive.values(), default=None)
        assert len(agenda) == len(naive)

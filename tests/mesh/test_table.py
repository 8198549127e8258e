"""The routing table against a naive model, under any order of events."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atmo.ids import PeerId
from atmo.mesh.capability import Capability, Load
from atmo.mesh.columns import Columns, IntBag
from atmo.mesh.rows import Gradient, NodeInfo
from atmo.mesh.table import MAX_IN_FLIGHT, MAX_SLOTS, RoutingTable
from tests.mesh.routing_support import capability, load, peer

PEERS = [peer(f"p{number}") for number in range(5)]
NAMES = ["a", "b", "c"]
OFFERS = {(name, topic): capability(name, topic) for name in NAMES for topic in ("x", "y")}

a_peer = st.sampled_from(PEERS)
a_name = st.sampled_from(NAMES)


class TableAgainstModel(RuleBasedStateMachine):
    """The model is what anybody would write with dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RoutingTable(capacity=1)
        self.offers: dict[tuple[PeerId, str], Capability] = {}
        self.loads: dict[PeerId, dict[str, int]] = {}  # the last gradient: capability -> in flight
        self.shown: dict[tuple[PeerId, str], int] = {}  # what the table must show as in flight
        self.lost: set[PeerId] = set()
        self.named: dict[PeerId, str] = {}
        self.now = 0.0

    @rule(who=a_peer, name=a_name, topic=st.sampled_from(["x", "y"]))
    def put_capability(self, who: PeerId, name: str, topic: str) -> None:
        offer = OFFERS[name, topic]
        key = (who, offer.descriptor.id)
        if key not in self.offers:
            self.shown[key] = self.loads.get(who, {}).get(key[1], 0)
        self.offers[key] = offer
        self.table.put_capability(who, offer)

    @rule(who=a_peer, names=st.sets(a_name), in_flight=st.integers(0, 9))
    def put_gradient(self, who: PeerId, names: set[str], in_flight: int) -> None:
        self.now += 1.0
        loads = tuple(load(name, in_flight=in_flight) for name in sorted(names))
        self.loads[who] = {told.capability: in_flight for told in loads}
        for told in loads:
            if (who, told.capability) in self.shown:
                self.shown[who, told.capability] = in_flight
        self.table.put_gradient(who, Gradient(loads), self.now)

    @rule(who=a_peer, name=st.sampled_from(["one", "two"]))
    def put_node(self, who: PeerId, name: str) -> None:
        self.named[who] = name
        self.table.put_node(who, NodeInfo(name=name, addresses=(), mode="participant", software="test"))

    @rule(who=a_peer, name=a_name)
    def drop_capability(self, who: PeerId, name: str) -> None:
        key = (who, f"atmo:chat:{name}")
        self.offers.pop(key, None)
        self.shown.pop(key, None)
        self.table.drop_capability(*key)

    @rule(who=a_peer)
    def drop_node(self, who: PeerId) -> None:
        for key in [key for key in self.offers if key[0] == who]:
            del self.offers[key], self.shown[key]
        self.loads.pop(who, None)
        self.named.pop(who, None)
        self.lost.discard(who)
        self.table.drop_node(who)

    @rule(who=a_peer, gone=st.booleans())
    def link(self, who: PeerId, gone: bool) -> None:
        if gone:
            self.lost.add(who)
            self.table.mark_lost(who)
        else:
            self.lost.discard(who)
            self.table.mark_back(who)

    @invariant()
    def they_agree(self) -> None:
        table = self.table
        table.validate()
        assert len(table) == len(self.offers)
        assert len(table.classes) == len({offer.class_key for offer in self.offers.values()})
        for (who, name), offer in self.offers.items():
            row = table.find(who, name)
            assert table.place_of(row) == (who, name)
            assert table.classes.capability[int(table.rows.klass[row])] == offer
            assert table.rows.in_flight[row] == self.shown[who, name]
            assert bool(table.peers.lost[table.rows.peer[row]]) == (who in self.lost)
            if who in self.named:
                assert table.node_name(row) == self.named[who]
        for name in ("one", "two"):
            known = {table.peers.id[index] for index in table.peers_named.get(name, set())}
            assert known == {who for who, given in self.named.items() if given == name}


TestTableAgainstModel = TableAgainstModel.TestCase
TestTableAgainstModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(numbers, numbers, numbers, st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
@settings(max_examples=100, deadline=None)
def test_whatever_is_advertised_the_table_holds_finite_bounded_numbers(
    service_s: float, prompt_tps: float, decode_tps: float, in_flight: int, slots: int
) -> None:
    table, who = RoutingTable(), peer("liar")
    table.put_capability(who, capability("a"))

    table.put_gradient(
        who, Gradient((Load("atmo:chat:a", in_flight, slots, 0, service_s, prompt_tps, decode_tps, True),)), 1.0
    )

    table.validate()
    row = table.find(who, "atmo:chat:a")
    assert 0 <= table.rows.in_flight[row] <= MAX_IN_FLIGHT
    assert 1 <= table.rows.slots[row] <= MAX_SLOTS


def test_a_gradient_that_comes_before_its_capability_is_kept_for_it() -> None:
    table, who = RoutingTable(), peer("early")

    table.put_gradient(who, Gradient((load("a", in_flight=7),)), 3.0)
    table.put_capability(who, capability("a"))

    row = table.find(who, "atmo:chat:a")
    assert table.rows.in_flight[row] == 7
    assert table.rows.said_s[row] == 3.0


def test_a_changed_description_moves_the_row_and_keeps_what_was_observed() -> None:
    table, who = RoutingTable(), peer("editor")
    table.put_capability(who, capability("a", "x"))
    table.rows.samples[table.find(who, "atmo:chat:a")] = 9

    table.put_capability(who, capability("a", "y"))

    table.validate()
    assert len(table) == len(table.classes) == 1
    assert table.rows.samples[table.find(who, "atmo:chat:a")] == 9


def test_a_place_that_is_used_again_remembers_nothing() -> None:
    table = RoutingTable()
    table.put_capability(peer("old"), capability("a"))
    row = table.find(peer("old"), "atmo:chat:a")
    table.rows.failures[row] = 5.0
    table.mark_lost(peer("old"))
    table.drop_node(peer("old"))

    table.put_capability(peer("new"), capability("a"))

    assert table.find(peer("new"), "atmo:chat:a") == row
    assert table.rows.failures[row] == 0.0
    assert not table.peers.lost[table.rows.peer[row]]


def test_an_operator_sees_rows_classes_and_lost_peers() -> None:
    table = RoutingTable()
    table.put_capability(peer("a"), capability("x"))
    table.put_capability(peer("b"), capability("x"))
    table.mark_lost(peer("b"))

    assert repr(table) == "<RoutingTable 2 rows (2 ready), 1 classes, 2 peers (1 without a link)>"


@given(st.lists(st.booleans(), max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_a_bag_is_a_set_with_positions(steps: list[bool], chance: np.random.Generator) -> None:
    bag = IntBag()
    where: dict[int, int] = {}
    for number, add in enumerate(steps):
        if add or not where:
            where[number] = bag.add(number)
        else:
            gone = chance.choice(sorted(where))
            place = where.pop(gone)
            moved = bag.remove_at(place)
            if moved >= 0:
                where[moved] = place
    assert sorted(bag.view().tolist()) == sorted(where)
    assert all(bag.view()[place] == item for item, place in where.items())


def test_columns_grow_and_hand_out_freed_places_first() -> None:
    class Pair(Columns):
        SPEC = {"left": ("int32", 7)}  # noqa: RUF012

    pair = Pair(capacity=1)
    places = [pair.take() for _ in range(5)]
    assert places == [0, 1, 2, 3, 4]
    assert pair.left.tolist()[:5] == [7] * 5  # type: ignore[attr-defined]
    pair.give_back(2)
    assert pair.live().tolist() == [0, 1, 3, 4]
    assert pair.take() == 2


def test_load_of_an_unknown_capability_changes_nothing() -> None:
    table = RoutingTable()
    table.put_load(peer("a"), Load("atmo:chat:x", 1, 1, 0, 1.0, 0.0, 0.0, True), 1.0)
    table.drop_capability(peer("a"), "atmo:chat:x")
    table.drop_node(peer("a"))
    assert len(table) == 0
    table.validate()


def test_links_of_more_peers_than_there_are_columns_for_are_all_known() -> None:
    """A link comes up before any row: it may be what makes the columns grow."""
    table = RoutingTable()
    peers = [peer(f"link {number}") for number in range(100)]
    for index, who in enumerate(peers):
        (table.mark_back if index % 2 else table.mark_lost)(who)

    assert [bool(table.peers.lost[table.find_peer(who)]) for who in peers] == [index % 2 == 0 for index in range(100)]
    table.validate()

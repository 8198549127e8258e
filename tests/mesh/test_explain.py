"""A reader with the printed lines and a pencil comes to the same result as the decision."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pytest

from atmo.mesh.explain import as_dict, lines
from atmo.mesh.field import FieldSettings
from tests.mesh.routing_support import Town, capability, load, peer

CODER = "atmo:chat:coder"
NUMBER = r"([\d.]+)"
SUM = re.compile(
    rf"{NUMBER} ms path \+ {NUMBER} ms service x \(1 \+ {NUMBER}/{NUMBER}\) = {NUMBER} ms"
    rf"(?:; its load is (?:never told|{NUMBER} s old), so {NUMBER} of that \+ {NUMBER} of {NUMBER} ms)?"
    rf"(?:; x \(1 \+ {NUMBER} x {NUMBER} recent failures\))?"
    rf"; potential {NUMBER} ms\."
)
FITNESS = re.compile(
    r"fitness ([+-][\d.]+) = ([\d.]+) strength \+ ([\d.]+) version - ([\d.]+) relevance gap - ([\d.]+) price"
    r" - ([\d.]+) time"
)


@pytest.fixture
def town() -> Iterator[Town]:
    """Nodes that differ in every term of the sum: path, speed, queue, slots, age, failures."""
    town, offer = Town(), capability("coder", "code", strength=0.4)
    for number in range(6):
        who = town.node(f"n{number}", offer)
        town.field.observe_rtt(who, 0.001 * 3**number, town.now)
        if number:
            town.tell(who, load("coder", service_s=0.02 * 2**number, in_flight=number, slots=1 + number % 3))
        town.now += 3.0
    town.field.observe_start(peer("n2"), CODER, town.now)
    town.field.observe_failure(peer("n3"), CODER, town.now - 2.0)
    town.tell(town.node("rival", capability("writer", "code", strength=0.9, price=15.0)), load("writer"))
    yield town
    town.table.validate()


def by_hand(line: str) -> tuple[float, float]:
    """The potential as it follows from the numbers before it, and as it is printed; milliseconds."""
    found = SUM.search(line)
    assert found, line
    path, service, queue, slots, phi, _, weight, rest, usual, each, failures, potential = (
        float(number or "nan") for number in found.groups()
    )
    redone = path + service * (1 + queue / slots)
    assert redone == pytest.approx(phi, rel=2e-3)
    if not math.isnan(weight):
        redone = weight * redone + rest * usual
    if not math.isnan(each):
        redone *= 1 + each * failures
    return redone, potential


def test_every_printed_sum_can_be_redone(town: Town) -> None:
    decision = town.ask("code", model="coder")
    sums = [line for line in lines(decision) if "ms path" in line]

    assert len(sums) == 1 + len(decision.runners) == 6
    for line in sums:
        redone, printed = by_hand(line)
        assert redone == pytest.approx(printed, rel=5e-3), line
    assert any("recent failures" in line for line in sums)
    assert any("never told" in line for line in sums)


def test_the_printed_potential_is_the_one_that_decided(town: Town) -> None:
    decision = town.ask("code", model="coder")
    told = lines(decision)
    drawn = [line for line in told if line.startswith("Not ") and "drawn too" in line]
    _, chosen = by_hand(next(line for line in told if line[0].isdigit() and "ms path" in line))

    assert decision.explored or all(by_hand(line)[1] >= chosen for line in drawn)


def test_the_fitness_can_be_redone_and_orders_the_classes(town: Town) -> None:
    found = [FITNESS.search(line) for line in lines(town.ask("code"))]
    sums = [[float(number) for number in match.groups()] for match in found if match]

    assert len(sums) == 2
    for fitness, strength, version, gap, price, time in sums:
        assert fitness == pytest.approx(strength + version - gap - price - time, abs=0.003)
    assert sums[0][0] >= sums[1][0]


def test_the_weight_of_a_failure_is_printed_as_it_is_used(town: Town) -> None:
    told = next(line for line in lines(town.ask("code", model="coder")) if "recent failures" in line)

    assert f"(1 + {FieldSettings().failure_weight:g} x " in told


def test_the_account_stays_the_same_when_the_table_changes_afterwards(town: Town) -> None:
    """Nothing is worked out before somebody asks, but from what was known at the decision."""
    early, late = Town(seed=4), Town(seed=4)
    for each in (early, late):
        for name in ("a", "b", "c"):
            each.tell(each.node(name, capability("coder", "code")), load("coder", in_flight=ord(name) % 3))
    told_at_once = as_dict(early.ask("code"))
    decision = late.ask("code")
    for name in ("a", "b", "c"):
        late.tell(peer(name), load("coder", in_flight=9, slots=3))
        late.table.drop_node(peer(name))
    late.node("d", capability("writer", "prose"))

    assert as_dict(decision) == told_at_once

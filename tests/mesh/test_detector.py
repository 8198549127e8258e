"""The detector alone: who accuses whom, and when that has consequences."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from atmo.ids import PeerId
from atmo.mesh.detector import ENOUGH, REFUTE_INTERVAL_S, SAID_S, Detector
from atmo.mesh.events import Health
from atmo.mesh.rows import Charge
from atmo.mesh.timing import MeshTiming

OWN, A, B, C, VICTIM = (PeerId(bytes([number]) * 32) for number in range(5))
TIMING = MeshTiming()


@dataclass
class Known:
    """What the table would know: everyone in the first life."""

    lives: dict[PeerId, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys((OWN, A, B, C, VICTIM), (1, 0)))
    dead: set[PeerId] = field(default_factory=set)

    def life(self, peer: PeerId) -> tuple[int, int] | None:
        return self.lives.get(peer)

    def is_dead(self, peer: PeerId) -> bool:
        return peer in self.dead

    def population(self) -> int:
        return len(self.lives) - len(self.dead)


class Bench:
    def __init__(self) -> None:
        self.known = Known()
        self.detector = Detector(OWN, self.known, TIMING, Random(1))
        self.now_s = 100.0

    def accuse(self, accuser: PeerId, *victims: PeerId, life: tuple[int, int] = (1, 0)) -> None:
        self.detector.accused(accuser, [Charge(victim, *life) for victim in victims], 1, self.now_s)

    def after(self, seconds: float) -> list[tuple[PeerId, Health]]:
        """What is found until then, as a core would poll."""
        until_s = self.now_s + seconds
        found: list[tuple[PeerId, Health]] = []
        for _ in range(1000):
            due_s = self.detector.next_due()
            if due_s is None or due_s > until_s:
                self.now_s = until_s
                return found
            self.now_s = max(self.now_s, due_s)
            for peer, health in self.detector.poll(self.now_s):
                found.append((peer, health))
                if health is Health.DEAD:
                    self.known.dead.add(peer)
            self.detector.take_refutation(self.now_s)
        raise AssertionError("the detector asks to be woken without end")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_one_accuser_is_heard_and_nobody_dies_of_it(bench: Bench) -> None:
    bench.accuse(A, VICTIM)

    assert bench.after(1000.0) == [(VICTIM, Health.SUSPECT)]


def test_two_accusers_are_believed_after_the_wait(bench: Bench) -> None:
    bench.accuse(A, VICTIM)
    bench.accuse(B, VICTIM)

    assert bench.after(TIMING.suspicion_s) == [(VICTIM, Health.SUSPECT)]
    assert bench.after(10.0) == [(VICTIM, Health.DEAD)]


def test_three_accusers_make_it_short(bench: Bench) -> None:
    for accuser in (A, B, C):
        bench.accuse(accuser, VICTIM)

    assert bench.after(TIMING.suspicion_s) == [(VICTIM, Health.SUSPECT), (VICTIM, Health.DEAD)]


def test_an_own_loss_counts_once_the_probe_has_failed(bench: Bench) -> None:
    bench.detector.link_up(VICTIM, bench.now_s)
    bench.detector.link_down(VICTIM, bench.now_s)
    assert bench.after(TIMING.probe_s - 0.1) == []
    assert bench.detector.charges() == ()
    assert bench.detector.doubts(VICTIM)

    bench.detector.dial_failed(VICTIM, bench.now_s)

    assert bench.after(0.0) == [(VICTIM, Health.SUSPECT)]
    assert bench.detector.charges() == (Charge(VICTIM, 1, 0),)


def test_a_dial_that_fails_to_a_stranger_is_evidence_only_where_it_is_said_to_be(bench: Bench) -> None:
    bench.detector.dial_failed(VICTIM, bench.now_s)
    assert bench.after(100.0) == []

    bench.detector.dial_failed(VICTIM, bench.now_s, evidence=True)

    assert bench.after(0.0) == [(VICTIM, Health.SUSPECT)]
    assert bench.detector.charges() == (Charge(VICTIM, 1, 0),)
    assert bench.after(60.0) == [(VICTIM, Health.DEAD)]


def test_a_stranger_that_could_not_be_dialled_and_contradicts_is_believed(bench: Bench) -> None:
    bench.detector.dial_failed(VICTIM, bench.now_s, evidence=True)
    bench.after(1.0)
    bench.known.lives[VICTIM] = (1, 1)
    bench.detector.life_changed(VICTIM, bench.now_s)

    assert bench.after(1000.0) == [(VICTIM, Health.REFUTED)]
    assert not bench.detector.doubts(VICTIM)


def test_a_failed_dial_is_no_evidence_against_who_is_linked_or_unknown_or_dead(bench: Bench) -> None:
    bench.detector.link_up(A, bench.now_s)
    del bench.known.lives[B]
    bench.known.dead.add(C)

    for peer in (A, B, C):
        bench.detector.dial_failed(peer, bench.now_s, evidence=True)

    assert bench.after(1000.0) == []
    assert bench.detector.charges() == ()


def test_a_peer_that_is_back_before_the_probe_is_over_was_never_suspected(bench: Bench) -> None:
    bench.detector.link_up(VICTIM, bench.now_s)
    bench.detector.link_down(VICTIM, bench.now_s)
    bench.after(1.0)
    bench.detector.link_up(VICTIM, bench.now_s)

    assert bench.after(100.0) == []


def test_a_suspect_that_is_linked_again_is_healed_and_its_accusation_taken_back(bench: Bench) -> None:
    bench.detector.link_up(VICTIM, bench.now_s)
    bench.detector.link_down(VICTIM, bench.now_s)
    bench.after(2.0)
    bench.detector.link_up(VICTIM, bench.now_s)

    assert bench.after(0.0) == [(VICTIM, Health.HEALED)]
    assert bench.detector.charges() == ()


def test_nothing_is_believed_of_a_linked_node(bench: Bench) -> None:
    bench.detector.link_up(VICTIM, bench.now_s)
    for accuser in (A, B, C):
        bench.accuse(accuser, VICTIM)

    assert bench.after(1000.0) == []


def test_a_higher_incarnation_refutes(bench: Bench) -> None:
    bench.accuse(A, VICTIM)
    bench.accuse(B, VICTIM)
    bench.after(1.0)
    bench.known.lives[VICTIM] = (1, 1)
    bench.detector.life_changed(VICTIM, bench.now_s)

    assert bench.after(1000.0) == [(VICTIM, Health.REFUTED)]


@pytest.mark.parametrize(("life", "outlived"), [((1, 0), False), ((1, 1), True), ((0, 5), False), ((2, 0), False)])
def test_who_is_accused_in_an_incarnation_that_it_never_had_has_forgotten_a_life(
    bench: Bench, life: tuple[int, int], outlived: bool
) -> None:
    """One of a later generation proves nothing: anybody can name one, and only so many are left."""
    bench.accuse(A, OWN, life=life)

    assert bench.detector.take_outlived() is outlived
    assert not bench.detector.take_outlived(), "once is enough"


def test_accusations_that_are_taken_back_count_no_more(bench: Bench) -> None:
    bench.accuse(A, VICTIM)
    bench.accuse(B, VICTIM)
    bench.after(1.0)
    bench.accuse(A)
    bench.accuse(B)

    assert bench.after(1000.0) == [(VICTIM, Health.HEALED)]


def test_accusers_that_are_dead_or_unknown_do_not_count(bench: Bench) -> None:
    bench.known.dead.add(A)
    del bench.known.lives[B]
    for accuser in (A, B, C):
        bench.accuse(accuser, VICTIM)

    assert bench.after(1000.0) == [(VICTIM, Health.SUSPECT)]


def test_a_node_that_is_unwell_waits_longer(bench: Bench) -> None:
    bench.detector.link_up(VICTIM, bench.now_s)
    bench.detector.awareness.late(60.0, bench.now_s)
    bench.detector.link_down(VICTIM, bench.now_s)
    bench.detector.dial_failed(VICTIM, bench.now_s)

    assert bench.after(TIMING.probe_s * 2) == []
    assert bench.after(10.0) == [(VICTIM, Health.SUSPECT)]


def test_its_own_accusation_is_answered_once_a_second_at_most(bench: Bench) -> None:
    bench.accuse(A, OWN)
    bench.after(0.0)
    assert bench.detector.incarnation == 1

    bench.accuse(A, OWN, life=(1, 0))  # an old one
    bench.after(5.0)
    assert bench.detector.incarnation == 1

    bench.accuse(B, OWN, life=(1, 1))
    bench.after(0.0)
    bench.accuse(C, OWN, life=(1, 2))
    bench.after(REFUTE_INTERVAL_S / 2)
    assert bench.detector.incarnation == 2
    bench.after(REFUTE_INTERVAL_S)
    assert bench.detector.incarnation == 3


def test_a_peer_that_was_sent_away_is_not_accused(bench: Bench) -> None:
    bench.detector.link_up(VICTIM, bench.now_s)
    bench.detector.excuse(VICTIM)
    bench.detector.link_down(VICTIM, bench.now_s)

    assert bench.after(1000.0) == []


def test_the_last_of_many_accusers_says_nothing_but_believes_its_eyes(bench: Bench) -> None:
    for number in range(ENOUGH):
        accuser = PeerId(bytes([50 + number]) * 32)
        bench.known.lives[accuser] = (1, 0)
        bench.accuse(accuser, VICTIM)
    bench.detector.link_up(VICTIM, bench.now_s)
    bench.detector.link_down(VICTIM, bench.now_s)

    found = bench.after(10.0)

    assert (VICTIM, Health.DEAD) in found
    assert bench.detector.charges() == ()


def test_an_accusation_ends_when_nothing_renews_it(bench: Bench) -> None:
    bench.detector.link_up(VICTIM, bench.now_s)
    bench.detector.link_down(VICTIM, bench.now_s)
    assert bench.after(40.0)[-1] == (VICTIM, Health.DEAD)
    assert bench.detector.charges() != ()

    bench.after(SAID_S)

    assert bench.detector.charges() == ()


def test_a_sign_of_life_of_the_dead_is_answered_with_the_accusation(bench: Bench) -> None:
    bench.known.dead.add(VICTIM)
    bench.detector.heard(VICTIM, bench.now_s)
    bench.after(3.0)

    assert bench.detector.charges() == (Charge(VICTIM, 1, 0),)


def test_of_several_who_hear_from_the_dead_one_tells_it(bench: Bench) -> None:
    bench.known.dead.add(VICTIM)
    bench.detector.heard(VICTIM, bench.now_s)
    bench.accuse(A, VICTIM)
    bench.after(3.0)

    assert bench.detector.charges() == ()

"""Which chunk is asked of whom. Sources here are invented; what they send, and when, is up to chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.ids import PeerId
from atmo.models import swarm
from atmo.models.swarm import Ban, Download, Effect, Request, Save, Withdraw

MIB = 1 << 20


def peer(number: int) -> PeerId:
    return PeerId(bytes([number]) * 32)


def has(chunks: int, *which: int) -> np.ndarray:
    found = np.zeros(chunks, dtype=bool)
    found[list(which)] = True
    return found


def empty(chunks: int, seed: int = 0) -> Download:
    return Download(np.zeros(chunks, dtype=bool), np.random.default_rng(seed))


def everything(chunks: int) -> np.ndarray:
    return np.ones(chunks, dtype=bool)


def asked(effects: list[Effect]) -> dict[PeerId, list[int]]:
    found: dict[PeerId, list[int]] = {}
    for effect in effects:
        if isinstance(effect, Request):
            found.setdefault(effect.peer, []).extend(effect.chunks)
    return found


@dataclass
class World:
    """Sources that answer as they are told to, on a clock of their own."""

    download: Download
    now_s: float = 0.0
    open: list[tuple[PeerId, int]] = field(default_factory=list)
    corrupt: set[PeerId] = field(default_factory=set)
    silent: set[PeerId] = field(default_factory=set)
    banned: list[PeerId] = field(default_factory=list)
    sent: dict[PeerId, int] = field(default_factory=dict)
    asked: dict[int, set[PeerId]] = field(default_factory=dict)

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Request) and effect.peer in self.banned:
                continue  # it was asked while its chunk was being checked, which takes no time here
            if isinstance(effect, Request):
                self.open += [(effect.peer, chunk) for chunk in effect.chunks]
                for chunk in effect.chunks:
                    self.asked.setdefault(chunk, set()).add(effect.peer)
            elif isinstance(effect, Withdraw):
                self.open = [one for one in self.open if one[0] != effect.peer or one[1] not in effect.chunks]
            elif isinstance(effect, Save):
                self.save(effect.peer, effect.chunk)
            elif isinstance(effect, Ban):
                self.banned.append(effect.peer)
                self.open = [one for one in self.open if one[0] != effect.peer]
        self.download.validate()

    def save(self, source: PeerId, chunk: int) -> None:
        if source in self.corrupt:
            self.do(self.download.corrupt(chunk, self.now_s))
        else:
            self.do(self.download.stored(chunk, self.now_s))

    def deliver(self, choose: Callable[[int], int]) -> bool:
        """One chunk comes from one of those that are not silent."""
        ready = [one for one in self.open if one[0] not in self.silent]
        if not ready:
            return False
        source, chunk = ready[choose(len(ready))]
        self.open.remove((source, chunk))
        self.now_s += 0.01
        self.sent[source] = self.sent.get(source, 0) + 1
        self.do(self.download.arrived(source, chunk, MIB, self.now_s))
        return True

    def run(self, choose: Callable[[int], int] = lambda count: 0, steps: int = 10_000) -> None:
        """Until all is here, or nothing moves any more."""
        for _ in range(steps):
            if self.download.done:
                return
            if not self.deliver(choose):
                self.now_s += 1.0
                self.do(self.download.tick(self.now_s))


def test_one_source_gives_all_of_it_in_windows() -> None:
    world = World(empty(100))
    world.do(world.download.source(peer(1), everything(100), 0.0))
    assert len(world.open) == swarm.FIRST_WINDOW

    world.run()

    assert world.download.done
    assert world.sent == {peer(1): 100}


def test_what_is_here_already_is_not_asked_for() -> None:
    world = World(Download(has(10, 0, 1, 2, 5), np.random.default_rng(0)))
    world.do(world.download.source(peer(1), everything(10), 0.0))

    world.run()

    assert world.download.done
    assert set(world.asked) == {3, 4, 6, 7, 8, 9}


def test_what_the_fewest_have_comes_first() -> None:
    download = empty(64)
    rare = {3, 30, 60}
    common = everything(64)
    common[list(rare)] = False
    for number in range(2, 6):
        download.source(peer(number), common, 0.0)

    first = asked(download.source(peer(1), everything(64), 0.0))[peer(1)]

    assert rare <= set(first)


def test_two_nodes_do_not_ask_in_the_same_order() -> None:
    orders = []
    for seed in range(2):
        world = World(empty(50, seed))
        world.do(world.download.source(peer(1), everything(50), 0.0))
        world.run()
        orders.append(list(world.asked))
    assert orders[0] != orders[1]


def test_a_window_grows_with_rate_times_delay_and_no_further_than_its_bound() -> None:
    near, far = empty(10_000), empty(10_000)
    for download, delay_s in ((near, 0.001), (far, 0.2)):
        now_s, queue = 0.0, []
        queue += [(chunk, 0.0) for chunk in asked(download.source(peer(1), everything(10_000), 0.0))[peer(1)]]
        for _ in range(800):  # a wire that carries 100 chunks a second
            chunk, at_s = queue.pop(0)
            now_s = max(now_s + 0.01, at_s + delay_s)
            effects = download.arrived(peer(1), chunk, MIB, now_s)
            effects += download.stored(chunk, now_s)
            queue += [(more, now_s) for more in asked(effects).get(peer(1), [])]
    assert near.sources[peer(1)].window <= 100 * swarm.PAUSE_S + 1
    assert 16 <= far.sources[peer(1)].window <= swarm.MOST_WINDOW


def test_a_corrupt_source_is_out_after_its_first_chunk() -> None:
    world = World(empty(60), corrupt={peer(1)})
    world.do(world.download.source(peer(1), everything(60), 0.0))
    world.do(world.download.source(peer(2), everything(60), 0.0))

    world.run()

    assert world.download.done
    assert world.banned == [peer(1)]
    assert world.sent[peer(1)] == 1
    assert world.download.source(peer(1), everything(60), world.now_s) == []


def test_what_was_never_asked_for_is_an_offence() -> None:
    download = empty(60)
    wanted = asked(download.source(peer(1), everything(60), 0.0))[peer(1)]
    other = next(chunk for chunk in range(60) if chunk not in wanted)

    effects = download.arrived(peer(1), other, MIB, 0.1)

    assert any(isinstance(effect, Ban) and effect.peer == peer(1) for effect in effects)
    assert not any(isinstance(effect, Save) for effect in effects)
    download.validate()


def test_a_silent_source_loses_what_it_owes_to_the_others() -> None:
    world = World(empty(60), silent={peer(1)})
    world.do(world.download.source(peer(1), everything(60), 0.0))
    world.do(world.download.source(peer(2), everything(60), 0.0))

    world.run()

    assert world.download.done
    assert world.sent == {peer(2): 60}
    assert world.banned == []


def test_a_late_chunk_is_taken_all_the_same() -> None:
    download = empty(4)
    (late, *_) = asked(download.source(peer(1), everything(4), 0.0))[peer(1)]
    download.tick(60.0)
    download.lost(peer(2), 60.0)

    effects = download.arrived(peer(1), late, MIB, 61.0)

    assert Save(peer(1), late) in effects
    download.validate()


def test_at_the_end_an_idle_source_is_asked_for_what_a_slow_one_owes() -> None:
    world = World(empty(12), silent={peer(1)})
    world.do(world.download.source(peer(1), everything(12), 0.0))
    world.do(world.download.source(peer(2), everything(12), 0.0))
    while world.deliver(lambda count: 0):
        pass

    assert world.download.done, "the endgame did not wait for the slow one to be late"
    assert world.now_s < swarm.LEAST_PATIENCE_S


def test_who_is_sent_elsewhere_asks_for_others_meanwhile() -> None:
    download = empty(40)
    first = asked(download.source(peer(1), everything(40), 0.0))[peer(1)]

    again = asked(download.deferred(peer(1), first, 3.0, 0.1))[peer(1)]

    assert not set(again) & set(first)
    download.tick(4.0)
    assert not download.sources[peer(1)].deferred
    download.validate()


def test_a_chunk_that_could_not_be_written_is_missing_again() -> None:
    download = empty(1)
    (chunk,) = asked(download.source(peer(1), everything(1), 0.0))[peer(1)]
    download.arrived(peer(1), chunk, MIB, 0.1)

    download.unsaved(chunk)

    download.validate()
    assert chunk in asked(download.tick(0.2))[peer(1)]


def test_what_nobody_has_is_said_to_be_out_of_reach() -> None:
    download = empty(4)
    download.source(peer(1), has(4, 0, 1, 2), 0.0)
    assert not download.reachable()
    download.news(peer(1), [3], 0.1)
    assert download.reachable()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happens_the_books_are_right_and_what_honest_sources_have_arrives(data: st.DataObject) -> None:
    """Sources come, go, lie, fall silent and learn in any order; each step keeps the invariants."""
    chance = random.Random(data.draw(st.integers(0, 1 << 30)))
    chunks = chance.randrange(1, 80)
    world = World(Download(np.array([chance.random() < 0.2 for _ in range(chunks)]), np.random.default_rng(1)))
    world.corrupt = {peer(1)}
    for _ in range(120):
        source = peer(chance.randrange(1, 6))
        which = np.array([chance.random() < 0.7 for _ in range(chunks)])
        now_s = world.now_s = world.now_s + chance.random()
        event = chance.randrange(8)
        if event < 3:
            world.deliver(chance.randrange)
        elif event == 3:
            world.do(world.download.source(source, which, now_s))
        elif event == 4:
            world.do(world.download.news(source, [chance.randrange(chunks)], now_s))
        elif event == 5:
            world.open = [one for one in world.open if one[0] != source]
            world.do(world.download.lost(source, now_s))
        elif event == 6:
            some = [chunk for who, chunk in world.open if who == source][:2]
            world.open = [one for one in world.open if one[0] != source or one[1] not in some]
            world.do(world.download.deferred(source, some, 2.0, now_s))
        else:
            world.do(world.download.tick(now_s))
    world.do(world.download.source(peer(9), everything(chunks), world.now_s))

    world.run(chance.randrange)

    assert world.download.done
    assert set(world.banned) <= {peer(1)}


@pytest.mark.parametrize("count", [1, 7, 48, 49, 200])
def test_memory_is_bounded_however_many_sources_there_are(count: int) -> None:
    download = empty(2000)
    for number in range(count):
        download.source(PeerId(number.to_bytes(32, "big")), everything(2000), 0.0)
    assert download.in_flight <= swarm.IN_FLIGHT_CHUNKS

"""A queueing simulation: routers that send requests to servers which they know by old reports only.

Requests arrive at random routers (Poisson), with work drawn from an exponential distribution, and go where the router's
policy says, over a path of `PATH_S`. A server works one request at a time, first come first served, and reports its
queue every so often; all routers hear it. Time is counted in seconds of a slow server's mean request. Deterministic by
seed: arrivals and sizes are drawn before anything else, so every policy meets the same ones.

What may go wrong (`Mishap`): a liar always reports an empty queue, 256 slots and a tenth of its service time, and hides
the wait when it answers; a slow one works at a tenth of its speed from a third of the run on, and does not say so; a
dead one stops at a third of the run and loses what it has; who asks it learns that after `LOST_S` and asks elsewhere.
"""

from __future__ import annotations

import enum
import heapq
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

PATH_S = 0.002
LOST_S = 1.0  # until a request to a dead server is known to be lost
SPEEDS = (4.0, 1.0, 1.0, 1.0)  # every fourth server is four times as fast
LIED_SLOTS = 256


class Mishap(enum.Enum):
    NONE = "none"
    LIAR = "liar"
    SLOW = "slow"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Setting:
    """load: share of the servers' speed that is asked for; report_every_s: staleness; mixed: speeds as in SPEEDS, else
    all alike; wrong: servers with the mishap."""

    routers: int
    servers: int
    requests: int
    load: float
    report_every_s: float
    mixed: bool = True
    mishap: Mishap = Mishap.NONE
    wrong: int = 0
    seed: int = 1

    @property
    def speeds(self) -> list[float]:
        return [SPEEDS[number % len(SPEEDS)] if self.mixed else 1.0 for number in range(self.servers)]

    def is_wrong(self, server: int) -> bool:
        """The first ones of the slow kind, so that honest adverts would give them little."""
        return server % len(SPEEDS) == 1 and server // len(SPEEDS) < self.wrong

    def lies(self, server: int) -> bool:
        return self.mishap is Mishap.LIAR and self.is_wrong(server)


@dataclass(slots=True)
class Fleet:
    """The servers as they are, and as they said they are."""

    speed: list[float]
    present: list[int]
    free_at_s: list[float]
    said: np.ndarray[tuple[int], np.dtype[np.float64]]  # (servers,) queue at the last report
    said_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    alive: list[bool]

    def shows(self, server: int, setting: Setting) -> int:
        """The queue as the server tells it."""
        return 0 if setting.lies(server) else self.present[server]


class Policy(Protocol):
    """What a router does. `answered` is told what the router would know."""

    def choose(self, router: int, size: float, now: float) -> int: ...
    def started(self, router: int, server: int, now: float) -> None: ...
    def began(self, router: int, server: int, wait_s: float, now: float) -> None: ...
    def answered(self, router: int, server: int, outcome: Outcome, now: float) -> None: ...
    def failed(self, router: int, server: int, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """total_s: from the start to the answer; admitted_s: the wait in the queue, as the server
    says; queue: there now, as it says."""

    size: float
    total_s: float
    admitted_s: float
    queue: int


@dataclass(slots=True)
class Run:
    """What came of it. times_s: of each request from its arrival to its answer; log: router, server, and whether a
    request went there or an answer came from there, in order."""

    times_s: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    log: list[tuple[int, int, bool]] = field(default_factory=list)
    lost: int = 0
    span_s: float = 0.0

    def settled(self) -> list[float]:
        """Without the first fifth, in which queues fill and policies learn."""
        return self.times_s[len(self.times_s) // 5 :]

    def useful(self, deadline_s: float) -> float:
        """Share of the work that was answered in time."""
        skip = len(self.times_s) // 5
        done = sum(
            size for size, time_s in zip(self.sizes[skip:], self.times_s[skip:], strict=True) if time_s <= deadline_s
        )
        return done / sum(self.sizes[skip:])


def new_fleet(setting: Setting) -> Fleet:
    n = setting.servers
    return Fleet(setting.speeds, [0] * n, [0.0] * n, np.zeros(n), np.full(n, -np.inf), [True] * n)


def simulate(setting: Setting, fleet: Fleet, policy: Policy) -> Run:
    """Run until the last request is answered."""
    return _Simulation(setting, fleet, policy).run()


class _Simulation:
    def __init__(self, setting: Setting, fleet: Fleet, policy: Policy) -> None:
        self.setting, self.fleet, self.policy = setting, fleet, policy
        chance = np.random.default_rng(setting.seed)
        rate = setting.load * sum(fleet.speed)
        self.arrivals = np.cumsum(chance.exponential(1 / rate, setting.requests)).tolist()
        self.sizes = chance.exponential(1.0, setting.requests).tolist()
        self.routers = chance.integers(setting.routers, size=setting.requests).tolist()
        self.turn_s = self.arrivals[-1] / 3
        self.result = Run([0.0] * setting.requests, self.sizes, [], 0, self.arrivals[-1])
        self.queue: list[tuple[float, int, str, int, int, float]] = []
        self.order = 0

    def run(self) -> Run:
        for number, at_s in enumerate(self.arrivals):
            self.later(at_s, "arrive", number, -1)
        for server in range(self.setting.servers):
            self.later(self.setting.report_every_s * server / self.setting.servers, "report", -1, server)
        if self.setting.mishap in (Mishap.SLOW, Mishap.DEAD):
            self.later(self.turn_s, "turn", -1, -1)
        waiting = self.setting.requests
        while waiting:
            now, _, what, number, server, began_s = heapq.heappop(self.queue)
            if what == "arrive":
                self.send(number, now)
            elif what == "begin":
                if self.fleet.alive[server]:
                    self.policy.began(self.routers[number], server, now - began_s, now)
            elif what == "answer":
                waiting -= self.answer(number, server, began_s, now)
            elif what == "fail":
                self.policy.failed(self.routers[number], server, now)
                self.send(number, now)
            elif what == "report":
                self.report(server, now)
            else:
                self.turn()
        return self.result

    def later(self, at_s: float, what: str, number: int, server: int, began_s: float = 0.0) -> None:
        self.order += 1
        heapq.heappush(self.queue, (at_s, self.order, what, number, server, began_s))

    def send(self, number: int, now: float) -> None:
        fleet, router, size = self.fleet, self.routers[number], self.sizes[number]
        server = self.policy.choose(router, size, now)
        self.result.log.append((router, server, True))
        self.policy.started(router, server, now)
        if not fleet.alive[server]:
            self.result.lost += 1
            self.later(now + LOST_S, "fail", number, server)
            return
        fleet.present[server] += 1
        begin_s = max(now + PATH_S / 2, fleet.free_at_s[server])
        fleet.free_at_s[server] = begin_s + size / fleet.speed[server]
        self.later(begin_s + PATH_S / 2, "begin", number, server, now)
        self.later(fleet.free_at_s[server] + PATH_S / 2, "answer", number, server, begin_s)
        self.result.times_s[number] = now  # until the answer is there

    def answer(self, number: int, server: int, begin_s: float, now: float) -> int:
        """1 when this request is over."""
        fleet, router, sent_s = self.fleet, self.routers[number], self.result.times_s[number]
        if not fleet.alive[server]:
            self.result.lost += 1
            self.later(max(now, self.turn_s) + LOST_S, "fail", number, server)
            return 0
        fleet.present[server] -= 1
        waited_s = max(0.0, begin_s - sent_s - PATH_S / 2)
        queue, lies = fleet.shows(server, self.setting), self.setting.lies(server)
        outcome = Outcome(self.sizes[number], now - sent_s, 0.0 if lies else waited_s, queue)
        self.result.log.append((router, server, False))
        self.policy.answered(router, server, outcome, now)
        self.result.times_s[number] = now - self.arrivals[number]
        return 1

    def report(self, server: int, now: float) -> None:
        fleet, setting = self.fleet, self.setting
        if fleet.alive[server]:
            fleet.said[server] = fleet.shows(server, setting)
            fleet.said_s[server] = now
            self.later(now + setting.report_every_s, "report", -1, server)

    def turn(self) -> None:
        for server in range(self.setting.servers):
            if self.setting.is_wrong(server):
                if self.setting.mishap is Mishap.DEAD:
                    self.fleet.alive[server] = False
                else:
                    self.fleet.speed[server] /= 10

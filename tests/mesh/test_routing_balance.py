"""Many routers, shared servers, old reports: the choice of node must not herd.

A small queueing simulation: requests arrive at random routers, each router sees the servers' load only when they
report, and sends its request where it decides. Servers work one request at a time, every fourth four times as fast.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import pytest

from atmo.mesh.rows import Gradient
from tests.mesh.routing_support import Town, capability, load, peer

ROUTERS, SERVERS, REQUESTS, UTILISATION = 6, 12, 1500, 0.7
SPEED = [4.0 if number % 4 == 0 else 1.0 for number in range(SERVERS)]
NAMES = [f"s{number}" for number in range(SERVERS)]
NUMBER_OF = {peer(name): number for number, name in enumerate(NAMES)}
CODER = "atmo:chat:coder"

Choose = Callable[["Servers", Town], int]


class Servers:
    """The queues, and what was last reported of them."""

    def __init__(self) -> None:
        self.present = [0] * SERVERS
        self.free_at = [0.0] * SERVERS
        self.reported = [0] * SERVERS


def by_decision(servers: Servers, town: Town) -> int:
    return NUMBER_OF[town.ask(None, model="coder").peer]


def by_minimum(servers: Servers, town: Town) -> int:
    return int(np.argmin([(there + 1) / speed for there, speed in zip(servers.reported, SPEED, strict=True)]))


def by_chance(servers: Servers, town: Town) -> int:
    return int(town.rng.integers(SERVERS))


def p99_s(choose: Choose, report_every_s: float) -> float:
    """99th percentile of the time in the system, in service times of a slow server."""
    chance, servers, towns = np.random.default_rng(7), Servers(), [Town(seed) for seed in range(ROUTERS)]
    for town in towns:
        for name in NAMES:
            town.field.observe_rtt(town.node(name, capability("coder")), 0.002, 0.0)
    arrivals = np.cumsum(chance.exponential(1 / (UTILISATION * sum(SPEED)), REQUESTS))
    events: list[tuple[float, int, str, int, int, float]] = []
    for number, at_s in enumerate(arrivals.tolist()):
        events.append((at_s, number, "arrive", int(chance.integers(ROUTERS)), 0, float(chance.exponential())))
    for number in range(int(arrivals[-1] / report_every_s) * SERVERS + SERVERS):
        at_s = (number // SERVERS + number % SERVERS / SERVERS) * report_every_s
        events.append((at_s, REQUESTS + number, "report", 0, number % SERVERS, 0.0))
    heapq.heapify(events)
    times: list[float] = []
    while events:
        now, order, kind, router, server, size = heapq.heappop(events)
        town = towns[router]
        if kind == "arrive":
            town.now = now
            server = choose(servers, town)
            town.field.observe_start(peer(NAMES[server]), CODER, now)
            servers.present[server] += 1
            service_s = size / SPEED[server]
            servers.free_at[server] = max(now, servers.free_at[server]) + service_s
            times.append(servers.free_at[server] - now)
            heapq.heappush(events, (servers.free_at[server], order, "finish", router, server, service_s))
        elif kind == "finish":
            servers.present[server] -= 1
            town.field.observe_finish(peer(NAMES[server]), CODER, size, 0, 128, now)
        else:
            servers.reported[server] = servers.present[server]
            told = load("coder", in_flight=servers.present[server], service_s=1 / SPEED[server])
            for each in towns:
                each.table.put_gradient(peer(NAMES[server]), Gradient((told,)), now)
    return float(np.percentile(times[REQUESTS // 5 :], 99))


@pytest.mark.parametrize("report_every_s", [0.5, 20.0])
def test_decisions_do_not_herd_however_old_the_reports(report_every_s: float) -> None:
    decided, minimum, chance = (p99_s(choose, report_every_s) for choose in (by_decision, by_minimum, by_chance))

    assert decided < chance / 2
    assert decided < minimum * 1.1
    if report_every_s > 10:
        assert decided < minimum / 2

"""Ways to choose a server, for `bench balance`: the decision as it is shipped, five usual ones, and one that knows all.

Every policy of a router knows the reports, the servers' speeds (as honest adverts) and its own requests in flight,
except where its definition ignores them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np

from atmo.ids import PeerId
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.constraints import Constraints
from atmo.mesh.field import GradientField
from atmo.mesh.query import Query
from atmo.mesh.routing import decide
from atmo.mesh.rows import Gradient
from atmo.mesh.table import RoutingTable
from atmo.mesh.views import build_views
from bench.fleet import LIED_SLOTS, PATH_S, Fleet, Outcome, Policy, Setting

TOKENS = 128  # of a request of mean size
DECAY_S = 10.0  # of Peak EWMA: Finagle's default


class Shipped:
    """`decide` with a table and a field for each router, fed as a node feeds them."""

    def __init__(self, setting: Setting, fleet: Fleet) -> None:
        self.fleet, self.setting = fleet, setting
        self.peers = [PeerId(hashlib.sha256(b"%d" % number).digest()) for number in range(setting.servers)]
        self.number_of = {peer: number for number, peer in enumerate(self.peers)}
        descriptor = Descriptor(id="atmo:chat:one", type="chat", description="one")
        axis = np.eye(1, EMBEDDING_DIM, dtype=np.float32)[0]
        self.capability = Capability(descriptor, "none", build_views(axis, []))
        self.rngs = [np.random.default_rng([setting.seed, router]) for router in range(setting.routers)]
        self.fields = [self._field() for _ in range(setting.routers)]
        self.query = Query(PeerId(b"\0" * 32), None, 0, TOKENS, Constraints(model="one"))

    def _field(self) -> GradientField:
        field = GradientField(RoutingTable(self.setting.servers))
        for server, peer in enumerate(self.peers):
            field.table.put_capability(peer, self.capability)
            field.table.put_gradient(peer, Gradient((self._load(server, 0),)), 0.0)
            field.observe_rtt(peer, PATH_S, 0.0)
        return field

    def _load(self, server: int, queue: int) -> Load:
        lies = self.setting.lies(server)
        service_s = 1 / self.setting.speeds[server] / (10 if lies else 1)
        slots = LIED_SLOTS if lies else 1
        return Load("atmo:chat:one", min(queue, slots), slots, max(0, queue - slots), service_s, 0.0, 0.0, True)

    def choose(self, router: int, size: float, now: float) -> int:
        field = self.fields[router]
        rows = field.table.rows
        newer = np.flatnonzero(self.fleet.said_s > rows.said_s[: self.setting.servers])  # row n is server n
        rows.in_flight[newer], rows.said_s[newer] = self.fleet.said[newer], self.fleet.said_s[newer]
        decision = decide(field.table, field, self.query, now, self.rngs[router])
        for peer, _ in decision.probes:
            server = self.number_of[peer]
            if self.fleet.alive[server]:
                field.on_feedback(peer, self._load(server, self.fleet.shows(server, self.setting)), now)
        if decision.probes:
            decision = decide(field.table, field, self.query, now, self.rngs[router])
        return self.number_of[decision.peer]

    def started(self, router: int, server: int, now: float) -> None:
        self.fields[router].observe_start(self.peers[server], "atmo:chat:one", now)

    def began(self, router: int, server: int, wait_s: float, now: float) -> None:
        self.fields[router].observe_first_token(self.peers[server], "atmo:chat:one", wait_s, now)

    def answered(self, router: int, server: int, outcome: Outcome, now: float) -> None:
        field, peer = self.fields[router], self.peers[server]
        tokens = max(1, round(outcome.size * TOKENS))
        field.observe_finish(peer, "atmo:chat:one", outcome.total_s - outcome.admitted_s, 0, tokens, now)
        field.on_feedback(peer, self._load(server, outcome.queue), now)

    def failed(self, router: int, server: int, now: float) -> None:
        self.fields[router].observe_failure(self.peers[server], "atmo:chat:one", now)


class Counting:
    """Base of the usual ones: own requests in flight since the last report, and chance."""

    def __init__(self, setting: Setting, fleet: Fleet) -> None:
        self.fleet, self.setting = fleet, setting
        self.speed = np.array(setting.speeds)
        self.own = np.zeros((setting.routers, setting.servers))
        self.rng = np.random.default_rng([setting.seed, 99])

    def started(self, router: int, server: int, now: float) -> None:
        self.own[router, server] += 1

    def began(self, router: int, server: int, wait_s: float, now: float) -> None:
        """Nothing to learn."""

    def answered(self, router: int, server: int, outcome: Outcome, now: float) -> None:
        self.own[router, server] -= 1

    def failed(self, router: int, server: int, now: float) -> None:
        self.own[router, server] -= 1


class Chance(Counting):
    def choose(self, router: int, size: float, now: float) -> int:
        return int(self.rng.random() * self.setting.servers)


class RoundRobin(Counting):
    """Each router in turn, from a place of its own."""

    def __init__(self, setting: Setting, fleet: Fleet) -> None:
        super().__init__(setting, fleet)
        self.next = [int(self.rng.random() * setting.servers) for _ in range(setting.routers)]

    def choose(self, router: int, size: float, now: float) -> int:
        self.next[router] = (self.next[router] + 1) % self.setting.servers
        return self.next[router]


class LeastLoaded(Counting):
    """The minimum of the table: the reported queue and one more, by speed; ties by chance."""

    def choose(self, router: int, size: float, now: float) -> int:
        cost = (self.fleet.said + 1) / self.speed
        return int(np.argmin(cost + self.rng.random(len(cost)) * 1e-6))


class PowerOfTwo(Counting):
    """Two evenly, the one with fewer: reported, or own in flight if that is more; by speed."""

    def choose(self, router: int, size: float, now: float) -> int:
        one, two = (int(self.rng.random() * self.setting.servers) for _ in range(2))
        return min(one, two, key=lambda at: (max(self.fleet.said[at], self.own[router, at]) + 1) / self.speed[at])


class PeakEwma(Counting):
    """Finagle's: two evenly, the one of lower (peak EWMA of latency) x (own in flight + 1); no reports."""

    def __init__(self, setting: Setting, fleet: Fleet) -> None:
        super().__init__(setting, fleet)
        self.level = np.zeros((setting.routers, setting.servers))
        self.at_s = np.zeros((setting.routers, setting.servers))

    def choose(self, router: int, size: float, now: float) -> int:
        one, two = (int(self.rng.random() * self.setting.servers) for _ in range(2))
        return min(one, two, key=lambda at: self._cost(router, at, now))

    def _cost(self, router: int, at: int, now: float) -> float:
        level = self.level[router, at] * math.exp((self.at_s[router, at] - now) / DECAY_S)
        return float(level * (self.own[router, at] + 1))

    def answered(self, router: int, server: int, outcome: Outcome, now: float) -> None:
        super().answered(router, server, outcome, now)
        keep = math.exp((self.at_s[router, server] - now) / DECAY_S)
        level, seen = float(self.level[router, server]), outcome.total_s
        self.level[router, server] = seen if seen > level else level * keep + seen * (1 - keep)
        self.at_s[router, server] = now


class Omniscient(Counting):
    """Knows every queue, every size and every speed: where the answer will be there first."""

    def choose(self, router: int, size: float, now: float) -> int:
        fleet = self.fleet
        ends = [
            max(now, free_at) + size / speed if alive else math.inf
            for free_at, speed, alive in zip(fleet.free_at_s, fleet.speed, fleet.alive, strict=True)
        ]
        return ends.index(min(ends))


POLICIES: dict[str, Callable[[Setting, Fleet], Policy]] = {
    "this": Shipped,
    "random": Chance,
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "power of two": PowerOfTwo,
    "peak EWMA": PeakEwma,
    "omniscient": Omniscient,
}

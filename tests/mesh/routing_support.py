"""A small town of nodes for the tests of routing: who offers what, how busy, and requests to it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atmo.ids import PeerId
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.constraints import Constraints
from atmo.mesh.decision import Decision
from atmo.mesh.field import GradientField
from atmo.mesh.query import Query
from atmo.mesh.routing import decide
from atmo.mesh.rows import Gradient, NodeInfo
from atmo.mesh.table import RoutingTable
from atmo.mesh.views import build_views


def peer(name: str) -> PeerId:
    return PeerId(hashlib.sha256(name.encode()).digest())


def direction(topic: str) -> NDArray[np.float32]:
    """A unit vector of its own for each topic; any two are nearly orthogonal."""
    seed = int.from_bytes(hashlib.sha256(topic.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(EMBEDDING_DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def capability(name: str, topic: str = "", kind: str = "chat", **more: Any) -> Capability:
    """A capability about one topic, with the topic's direction as its only view."""
    descriptor = Descriptor(id=f"atmo:{kind}:{name}", type=kind, description=name, **more)
    return Capability(descriptor, "test", build_views(direction(topic or name), []))


def load(name: str, kind: str = "chat", **more: Any) -> Load:
    told: dict[str, Any] = {
        "in_flight": 0,
        "slots": 1,
        "queued": 0,
        "service_s": 1.0,
        "prompt_tps": 0.0,
        "decode_tps": 0.0,
        "ready": True,
    }
    return Load(capability=f"atmo:{kind}:{name}", **(told | more))


class Town:
    """A table and a field with a clock that stands at 100 s unless it is set."""

    def __init__(self, seed: int = 1) -> None:
        self.table = RoutingTable(capacity=2)
        self.field = GradientField(self.table)
        self.rng = np.random.default_rng(seed)
        self.now = 100.0
        self.home = self.node("home")

    def node(self, name: str, *offers: Capability, **labels: str) -> PeerId:
        who = peer(name)
        info = NodeInfo(name=name, addresses=(), mode="participant", software="test", labels=tuple(labels.items()))
        self.table.put_node(who, info)
        for offer in offers:
            self.table.put_capability(who, offer)
        return who

    def tell(self, who: PeerId, *loads: Load) -> None:
        self.table.put_gradient(who, Gradient(loads), self.now)

    def query(self, topic: str | None = None, **wanted: Any) -> Query:
        """About a topic, or about anything; `exclude` and sizes go to the query, the rest are constraints."""
        of_query = {key: wanted.pop(key) for key in tuple(wanted) if key in QUERY_FIELDS}
        vector = direction(topic) if topic is not None else None
        return Query(local=self.home, vector=vector, constraints=Constraints(**wanted), **of_query)

    def ask(self, topic: str | None = None, **wanted: Any) -> Decision:
        return decide(self.table, self.field, self.query(topic, **wanted), self.now, self.rng)

    def shares(self, times: int, topic: str | None = None, **wanted: Any) -> dict[str, float]:
        """How often each node is chosen, as shares of 1."""
        chosen = [self.ask(topic, **wanted).chosen.node for _ in range(times)]
        return {name: chosen.count(name) / times for name in set(chosen)}


QUERY_FIELDS = ("exclude", "root", "prompt_tokens", "expected_output_tokens")

"""The simulation: a heap of (time, sequence number, what happens), and the verbs that a test's story is told with.

Everything is drawn from seeded generators and the heap is ordered by time and then by the order of scheduling, so equal
seeds and equal stories give equal runs: `trace` is a digest over all that happened. The cores are the real ones.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from atmo.ids import PeerId
from atmo.mesh import events
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.rows import Body, Gradient, Kind, NodeInfo, RowId
from atmo.mesh.sim.network import Conditions, Link, Network, pair
from atmo.mesh.sim.node import Registry, SimNode
from atmo.mesh.timing import MeshTiming


class SimTimeout(AssertionError):
    """What a test waited for did not come about in simulated time."""


class Sim:
    """A world of nodes. `n` of them start at once; each knows the address of the first."""

    def __init__(
        self,
        n: int = 0,
        *,
        seed: int = 1,
        conditions: Conditions | None = None,
        timing: MeshTiming | None = None,
        sizes: ViewSizes | None = None,
        real_keys: bool = False,
    ) -> None:
        self.time_s = 0.0
        self.nodes: list[SimNode] = []
        self.handled = 0
        self.registry = Registry(real_keys=real_keys)
        self.mesh = self.registry.mesh
        self.network = Network(conditions or Conditions(), Random(f"network {seed}"))  # noqa: S311 - repeatable
        self._seed = seed
        self._timing = timing or MeshTiming()
        self._sizes = sizes or ViewSizes()
        self._real_keys = real_keys
        self._chance = Random(f"scenario {seed}")  # noqa: S311 - repeatable
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._hash = hashlib.sha256()
        self._by_peer: dict[PeerId, SimNode] = {}
        self._by_host: dict[str, SimNode] = {}
        self.add(n)

    # The story's verbs

    def add(self, n: int = 1, *, reachable: bool = True) -> list[SimNode]:
        """More nodes. Each publishes what it is and dials the first; the rest is the protocol's business."""
        return [self._enter(reachable=reachable, via=self.nodes[0] if self.nodes else None) for _ in range(n)]

    def grow(self, n: int, *, rows: int, over_s: float = 10.0) -> list[SimNode]:
        """Let n more nodes join one after the other, each by way of one that is there, and run until the last has.

        rows: how many of all the nodes say what they are, spread evenly. The others are members like any other, but the
        table stays small: with a thousand nodes a million entries would have to be made.
        """
        first, every = len(self.nodes), max(1, (len(self.nodes) + n) // max(1, rows))
        for at in range(first, first + n):
            via = self.nodes[int(self._chance.random() * at)] if at else None
            self._enter(speaks=at % every == 0 and at // every < rows, via=via)
            self.run(over_s / n)
        return self.nodes[first:]

    def publish(self, node: SimNode, kind: Kind, key: str, body: Body) -> None:
        self.tell(node, events.Publish(kind, key, body))

    def describe(self, node: SimNode) -> NodeInfo:
        """What a node says of itself."""
        name, addresses = f"node-{node.number}", (str(node.address),)
        return NodeInfo(name=name, addresses=addresses, mode="participant", software="sim")

    def offer(self, node: SimNode, capability: str, description: str = "Answers questions.") -> None:
        """Publish a small capability."""
        descriptor = Descriptor(id=capability, type="chat", description=description)
        view = bytes([127]) + bytes(EMBEDDING_DIM - 1)
        self.publish(node, Kind.CAPABILITY, capability, Capability(descriptor, "test", (view,)))

    def load(self, node: SimNode, capability: str, in_flight: int) -> None:
        """Publish how busy a node is."""
        self.publish(node, Kind.GRADIENT, "", Gradient((Load(capability, in_flight, 4, 0, 1.0, 100.0, 10.0, True),)))

    def withdraw(self, node: SimNode, kind: Kind, key: str) -> None:
        self.tell(node, events.Withdraw(kind, key))

    def stop(self, node: SimNode) -> None:
        """A clean end: it says goodbye, lingers until that has arrived, and its process goes."""
        self.tell(node, events.Stop())
        given = self.network.conditions
        linger_s = (given.max_ms + given.jitter_ms) / 1e3
        self._at(self.time_s + linger_s, self._die, node, node.generation)

    def kill(self, node: SimNode) -> None:
        """kill -9: the kernel closes its sockets, so its neighbours know after one trip."""
        self._die(node, node.generation)

    def restart(self, node: SimNode, *, forgot: bool = False, via: SimNode | None = None) -> None:
        """A new life of a dead node. It remembers how often it was started, and not that it began a generation in
        between: as if its home came from an older copy. forgot: it lost the state that counts its lives, and begins
        with the first.

        via: the node it knows, the first one if not given.
        """
        assert not node.alive, "restart what was killed"
        node.start(1 if forgot else node.generation + 1)
        self._introduce(node, via or self.nodes[0])

    def cut(self, a: SimNode, b: SimNode) -> None:
        """Nothing passes between the two; both notice when heartbeats stay away."""
        self.network.cut(a.number, b.number)
        self._miss_heartbeats()

    def partition(self, *islands: list[SimNode]) -> None:
        """Nothing passes between islands. Whoever is not named belongs to the first."""
        self.network.partition([[node.number for node in island] for island in islands])
        self._miss_heartbeats()

    def heal(self) -> None:
        """All cables are back; links are the nodes' own business."""
        self.network.heal()

    def inject(self, source: SimNode, target: SimNode, frame: bytes, *, gossip: bool = True) -> None:
        """Let the target receive a frame over its link with the source."""
        self.tell(target, events.FrameReceived(source.peer, gossip, frame))

    def tell(self, node: SimNode, event: events.Event) -> None:
        """Let an event happen to a node now, and carry out what it wants done."""
        if not node.alive:
            return
        if node.backlog is not None:
            node.backlog.append(event)
            return
        self.handled += 1
        self._note(node, event)
        for effect in node.core.handle(event, node.moment(self.time_s)):
            self._perform(node, effect)
        self._plan_tick(node)

    # Time

    def run(self, seconds: float) -> None:
        """Let this much time pass."""
        until_s = self.time_s + seconds
        while self._heap and self._heap[0][0] <= until_s:
            self._step()
        self.time_s = until_s

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str = "") -> float:
        """Let time pass until it holds; returns how long that took. Raises SimTimeout."""
        began_s = self.time_s
        while not condition():
            if not self._heap or self._heap[0][0] > began_s + timeout_s:
                raise SimTimeout(f"{what or 'the condition'} did not hold within {timeout_s} s: {self!r}")
            at_s = self._heap[0][0]
            while self._heap and self._heap[0][0] <= at_s + 1e-3:  # look once a millisecond at most
                self._step()
        return self.time_s - began_s

    # Looking

    @property
    def living(self) -> list[SimNode]:
        return [node for node in self.nodes if node.alive]

    def converged(self) -> bool:
        """True if all living nodes hold the same rows, and every living node is among them."""
        living = self.living
        first = living[0].core.store
        if any(first.get(RowId(node.peer, Kind.NODE, "")) is None for node in living):
            return False
        fingerprint = first.fingerprint()
        return all(node.core.store.fingerprint() == fingerprint for node in living[1:])

    def converged_rows(self) -> bool:
        """True if all living nodes hold the same rows, whoever is missing among them."""
        fingerprints = {node.core.store.fingerprint() for node in self.living}
        return len(fingerprints) == 1

    def connected(self) -> bool:
        """True if links lead from every living node to every other."""
        living = {node.number for node in self.living}
        reached = set(list(living)[:1])
        ahead = list(reached)
        while ahead:
            found = [one for one in self.network.linked_to(ahead.pop()) if one in living and one not in reached]
            reached.update(found)
            ahead += found
        return reached == living

    def fully_linked(self) -> bool:
        n = len(self.living)
        return all(len(node.core.links) == n - 1 for node in self.living)

    def knows(self, node: SimNode, origin: SimNode, kind: Kind = Kind.NODE, key: str = "") -> bool:
        return node.core.store.get(RowId(origin.peer, kind, key)) is not None

    def all_know(self, origin: SimNode, kind: Kind = Kind.NODE, key: str = "") -> bool:
        return all(self.knows(node, origin, kind, key) for node in self.living)

    @property
    def trace(self) -> str:
        """Digest over everything that happened so far."""
        return self._hash.hexdigest()

    def validate_cores(self) -> None:
        """Raises AssertionError if an invariant of a living core does not hold."""
        for node in self.living:
            node.core.validate()

    def validate(self) -> None:
        """The same, and core and network must agree about links: not so while the news of a lost one is on its way."""
        self.validate_cores()
        for node in self.living:
            if node.backlog is not None:
                continue  # it has not heard yet
            linked = {self.nodes[other].peer for other in self.network.linked_to(node.number)}
            assert linked >= node.core.links, "a core believes in a link that is not there"

    def __repr__(self) -> str:
        return f"<Sim {self.time_s:.3f} s: {len(self.living)} of {len(self.nodes)} nodes, {self.handled} events>"

    # Carrying out

    def _perform(self, node: SimNode, effect: events.Effect) -> None:
        if isinstance(effect, events.Send):
            target = self._by_peer[effect.peer]
            link = self.network.links.get(pair(node.number, target.number))
            if link is not None:
                at_s = self.network.control_arrival_s(node.number, target.number, link, effect.frame, self.time_s)
                self._at(at_s, self._arrive, node, target, link, effect.frame, False)
        elif isinstance(effect, events.Broadcast):
            for number in self.network.linked_to(node.number):
                self._publish_to(node, self.nodes[number], effect.frame)
        elif isinstance(effect, events.Dial):
            self._dial(node, effect)
        elif isinstance(effect, events.HangUp):
            self._at(self.time_s, self._unlink, node, self._by_peer[effect.peer], effect.reason)
        elif isinstance(effect, events.Misbehaved):
            node.remember(self.time_s, effect)
            self._at(self.time_s, self._unlink, node, self._by_peer[effect.peer], effect.reason)
        else:
            node.remember(self.time_s, effect)

    def _publish_to(self, node: SimNode, target: SimNode, frame: bytes) -> None:
        link = self.network.links[pair(node.number, target.number)]
        at_s = self.network.gossip_arrival_s(node.number, target.number, link, frame, self.time_s)
        if at_s is not None:
            self._at(at_s, self._arrive, node, target, link, frame, True)

    def _arrive(self, source: SimNode, target: SimNode, link: Link, frame: bytes, gossip: bool) -> None:
        key = pair(source.number, target.number)
        if self.network.links.get(key) is link and not self.network.silent(source.number, target.number):
            self.tell(target, events.FrameReceived(source.peer, gossip, frame))

    def _dial(self, node: SimNode, dial: events.Dial) -> None:
        target = self._by_host.get(dial.address.host)
        known = target is not None and dial.address.peer in (None, target.peer)
        delay_s = self.network.setup_s(node.number, target.number) if target is not None else 0.1
        if target is None or not known or not target.reachable or not target.alive or target is node:
            self._at(self.time_s + delay_s, self.tell, node, events.DialFailed(dial.address))
        elif pair(node.number, target.number) not in self.network.links:
            self._at(self.time_s + delay_s, self._link, node, target, dial, node.generation, target.generation)

    def _link(self, node: SimNode, target: SimNode, dial: events.Dial, ours: int, theirs: int) -> None:
        """The end of a dial. Of two that crossed the first makes the link, the second finds it made."""
        key = pair(node.number, target.number)
        same_lives = node.alive and node.generation == ours and target.alive and target.generation == theirs
        if same_lives and target.backlog is not None:  # its kernel accepts the connection, and nobody answers
            patience_s = self.network.conditions.dial_ms / 1e3
            self._at(self.time_s + patience_s, self.tell, node, events.DialFailed(dial.address))
        elif not same_lives or self.network.blocked(*key):
            if node.generation == ours:
                self.tell(node, events.DialFailed(dial.address))
        elif key not in self.network.links:
            self.network.open(*key, self.time_s)
            self.tell(node, events.LinkUp(target.peer, target.address, outbound=True))
            self.tell(target, events.LinkUp(node.peer, node.address if node.reachable else None))

    def _unlink(self, a: SimNode, b: SimNode, reason: str) -> None:
        if pair(a.number, b.number) in self.network.links:
            self.network.close(a.number, b.number)
            self.tell(a, events.LinkDown(b.peer, reason))
            self.tell(b, events.LinkDown(a.peer, reason))

    def _die(self, node: SimNode, generation: int) -> None:
        if not node.alive or node.generation != generation:
            return
        node.alive = False
        for number in self.network.linked_to(node.number):
            other = self.nodes[number]
            self.network.close(node.number, number)
            after_s = self.network.latency_s(node.number, number)
            self._at(self.time_s + after_s, self.tell, other, events.LinkDown(node.peer, "connection reset"))

    def _miss_heartbeats(self) -> None:
        notice_s = self.time_s + self.network.conditions.heartbeat_ms / 1e3
        for (a, b), link in self.network.links.items():
            if self.network.blocked(a, b):
                self._at(notice_s, self._give_up, self.nodes[a], self.nodes[b], link)

    def _give_up(self, a: SimNode, b: SimNode, link: Link) -> None:
        if self.network.links.get(pair(a.number, b.number)) is link and self.network.blocked(a.number, b.number):
            self._unlink(a, b, "heartbeats stayed away")

    def _enter(self, *, reachable: bool = True, speaks: bool = True, via: SimNode | None) -> SimNode:
        node = SimNode(len(self.nodes), self.registry, self._seed, self._timing, self._sizes, real_keys=self._real_keys)
        node.reachable, node.speaks = reachable, speaks
        if not speaks:
            self.registry.silent.add(node.peer)
        self.nodes.append(node)
        self._by_peer[node.peer] = node
        self._by_host[node.address.host] = node
        self._introduce(node, via)
        return node

    def _introduce(self, node: SimNode, via: SimNode | None) -> None:
        node.began_s = self.time_s
        if node.speaks:
            self.publish(node, Kind.NODE, "", self.describe(node))
        if via is not None and via is not node:
            self.tell(node, events.Discovered(via.address))

    # The heap

    def _note(self, node: SimNode, event: events.Event) -> None:
        if isinstance(event, events.FrameReceived):
            head, frame = f"{event.peer.hex()} {event.gossip}", event.frame
        else:
            head, frame = repr(event), b""
        self._hash.update(f"{self.time_s:.9f} {node.number} {type(event).__name__} {head}".encode() + frame)

    def _at(self, time_s: float, what: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (time_s, self._sequence, what, arguments))

    def _step(self) -> None:
        self.time_s, _, what, arguments = heapq.heappop(self._heap)
        what(*arguments)

    def _plan_tick(self, node: SimNode) -> None:
        at_s = node.core.next_wakeup()
        if at_s is None:
            return
        at_s = max(at_s, self.time_s)
        if node.wakes_s is None or at_s < node.wakes_s:
            node.wakes_s = at_s
            self._at(at_s, self._tick, node, node.generation, at_s)

    def _tick(self, node: SimNode, generation: int, at_s: float) -> None:
        if node.alive and node.generation == generation and node.wakes_s == at_s:
            node.wakes_s = None
            self.tell(node, events.Tick())

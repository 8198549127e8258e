"""The simulated network: what it does to frames, dials and links.

It models what ZeroMQ over TCP really does, faults included: control frames arrive in order or the link goes down;
gossip frames are lost without a word, and always while the subscription of a fresh link is still on its way (slow
joiner); a cut cable is noticed by nobody until a heartbeat is missed, a dead process at once; what was in flight is
lost with its link.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """min_ms, max_ms: one-way latency of a pair of nodes, fixed when they meet; jitter_ms: added to it, frame by frame.

    loss: share of gossip frames that vanish. setup_rtts: round trips from dial to link (door, handshake, hello).
    slow_join_ms: after a link came up, how long gossip is lost on it. heartbeat_ms: how long a silent peer goes
    unnoticed. dial_ms: after it, a dial to one who does not answer has failed.
    """

    min_ms: float = 1.0
    max_ms: float = 20.0
    jitter_ms: float = 1.0
    loss: float = 0.0
    setup_rtts: float = 4.0
    slow_join_ms: float = 0.0  # the transport uses the control lane until a subscription flows; not all might
    heartbeat_ms: float = 1500.0
    dial_ms: float = 5000.0


# What a frame costs besides itself over IPv4: the transport's kind byte, CURVE's MESSAGE command (name 8, nonce 8,
# authenticator 16, flags 1; ZeroMQ RFC 26) and ZMTP's frame header; for each segment of TCP an IPv4 and a TCP header
# with the time stamp option, and as much again as its acknowledgement: seldom does a frame travel back at that moment.
CURVE_BYTES = 1 + 8 + 8 + 16 + 1
SEGMENT_BYTES = 1448
HEADER_BYTES = 20 + 32

Pair = tuple[int, int]


def wire_bytes(frame_bytes: int) -> int:
    """An estimate of what a frame of this size costs the network, headers and acknowledgements included."""
    message = frame_bytes + CURVE_BYTES
    message += 2 if message < 256 else 9
    return message + -(-message // SEGMENT_BYTES) * 2 * HEADER_BYTES


def pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)


@dataclass(slots=True)
class Link:
    """serial: tells this link from an earlier one of the same pair. arrives_s: per direction, when the last control
    frame arrives; the next one may not overtake it."""

    serial: int
    up_s: float
    arrives_s: dict[int, float]


class Network:
    """Nodes are numbers here. A pair is blocked while it is cut or in different partitions."""

    def __init__(self, conditions: Conditions, rng: Random) -> None:
        self.conditions = conditions
        self.links: dict[Pair, Link] = {}
        self.frames = 0
        self.bytes = 0  # of frames
        self.wire_bytes = 0  # with all headers, an estimate
        self._rng = rng
        self._base_s: dict[Pair, float] = {}
        self._cut: dict[Pair, None] = {}
        self._island: dict[int, int] = {}
        self._deaf: dict[Pair, None] = {}  # (from, to): nothing arrives in that direction
        self._linked: dict[int, dict[int, None]] = {}
        self._serial = 0

    def blocked(self, a: int, b: int) -> bool:
        """True if no link can live: TCP needs both directions."""
        return self.silent(a, b) or self.silent(b, a)

    def silent(self, source: int, target: int) -> bool:
        """True if nothing of the source arrives at the target."""
        if pair(source, target) in self._cut or (source, target) in self._deaf:
            return True
        return self._island.get(source, 0) != self._island.get(target, 0)

    def latency_s(self, a: int, b: int) -> float:
        given = self.conditions
        key = pair(a, b)
        if key not in self._base_s:
            self._base_s[key] = self._rng.uniform(given.min_ms, given.max_ms) / 1e3
        return self._base_s[key] + self._rng.uniform(0.0, given.jitter_ms) / 1e3

    def setup_s(self, a: int, b: int) -> float:
        return 2.0 * self.latency_s(a, b) * self.conditions.setup_rtts

    def open(self, a: int, b: int, now_s: float) -> Link:
        self._serial += 1
        link = self.links[pair(a, b)] = Link(self._serial, now_s, {})
        self._linked.setdefault(a, {})[b] = None
        self._linked.setdefault(b, {})[a] = None
        return link

    def close(self, a: int, b: int) -> None:
        del self.links[pair(a, b)]
        del self._linked[a][b], self._linked[b][a]

    def linked_to(self, node: int) -> list[int]:
        return list(self._linked.get(node, ()))

    def control_arrival_s(self, source: int, target: int, link: Link, frame: bytes, now_s: float) -> float:
        """When a control frame arrives: after those sent before it."""
        self._count(frame)
        at_s = max(now_s + self.latency_s(source, target), link.arrives_s.get(target, 0.0))
        link.arrives_s[target] = at_s
        return at_s

    def gossip_arrival_s(self, source: int, target: int, link: Link, frame: bytes, now_s: float) -> float | None:
        """When a gossip frame arrives, None if it never does."""
        self._count(frame)
        joining = now_s - link.up_s < self.conditions.slow_join_ms / 1e3
        if joining or (self.conditions.loss and self._rng.random() < self.conditions.loss):
            return None
        return now_s + self.latency_s(source, target)

    def cut(self, a: int, b: int) -> None:
        self._cut[pair(a, b)] = None

    def deafen(self, source: int, target: int) -> None:
        """The target hears nothing of the source any more; the source still hears the target."""
        self._deaf[source, target] = None

    def partition(self, islands: list[list[int]]) -> None:
        self._island = {node: number for number, island in enumerate(islands) for node in island}

    def heal(self) -> None:
        self._cut.clear()
        self._deaf.clear()
        self._island.clear()

    def _count(self, frame: bytes) -> None:
        self.frames += 1
        self.bytes += len(frame)
        self.wire_bytes += wire_bytes(len(frame))

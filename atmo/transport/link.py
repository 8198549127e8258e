"""A link: what both threads know about one peer at the other end.

The IO thread owns sockets and liveness; the event loop's thread owns what was accepted and what was read. Each counter
has exactly one writer, so none needs a lock: a reader of the other thread sees a value that is at most a moment old.

How much the peer has not read is known by acknowledgement, not by ZeroMQ's high-water marks, which count messages and
drop in silence: backlog = accepted here - acknowledged by the peer's event loop. It covers every queue on the way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol

from atmo.ids import Multiaddr, PeerId, short
from atmo.keys import Passport
from atmo.transport.base import BULK_WINDOW_BYTES, Frame, Lane
from atmo.transport.credit import CreditGrants
from atmo.transport.outbox import BulkOutbox

# What a queued frame costs besides its bytes: zmq_msg_t, a bytes object, a queue entry. Estimated.
FRAME_OVERHEAD_BYTES = 128
# Share of the new sample in the running round-trip time; TCP's (RFC 6298).
_RTT_GAIN = 0.125


@dataclass(frozen=True, slots=True)
class LinkTiming:
    """When an idle link is asked, and when it is given up. All in seconds.

    A stopped peer is noticed within `timeout_s + tick_s`. The ZMTP heartbeat watches the gossip and bulk connections
    and is a backstop only, hence slower.
    """

    ping_s: float = 0.5
    timeout_s: float = 1.5
    dial_s: float = 5.0
    tick_s: float = 0.2  # each costs a quarter of a millisecond of a processor
    gossip_retry_s: float = 1.0
    gossip_retry_max_s: float = 60.0
    zmtp_heartbeat_s: float = 2.0
    zmtp_timeout_s: float = 5.0

    @classmethod
    def with_heartbeat(cls, heartbeat_s: float) -> LinkTiming:
        """Ask so often, and give up after three times as long; nothing else watches more closely than that."""
        usual = cls()
        timeout_s = 3 * heartbeat_s
        return cls(
            ping_s=heartbeat_s,
            timeout_s=timeout_s,
            tick_s=min(usual.tick_s, heartbeat_s),
            zmtp_timeout_s=max(usual.zmtp_timeout_s, timeout_s),
        )

    def __post_init__(self) -> None:
        if not 0 < self.tick_s <= self.ping_s < self.timeout_s:
            raise ValueError("LinkTiming needs 0 < tick_s <= ping_s < timeout_s")


@dataclass(slots=True)
class LaneStats:
    """Frames and payload bytes since the link came up."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0

    def count_in(self, size_bytes: int) -> None:
        self.frames_in += 1
        self.bytes_in += size_bytes

    def count_out(self, size_bytes: int) -> None:
        self.frames_out += 1
        self.bytes_out += size_bytes


@dataclass(frozen=True, slots=True)
class LinkStats:
    """A snapshot of one link for operators. `rtt_s` is smoothed, None before the first pong; `plain` is what of
    the bulk lane was not encrypted."""

    peer: PeerId
    outbound: bool
    address: Multiaddr | None
    up_s: float
    rtt_s: float | None
    backlog_bytes: int
    gossip_direct: bool
    lanes: dict[Lane, LaneStats]
    plain: LaneStats


class Way(Protocol):
    """One direction of one connection."""

    def send(self, frame: bytes) -> bool: ...

    def send_large(self, frame: Frame) -> bool:
        """The same without a copy: the frame is held until it has left."""
        ...


@dataclass(eq=False)
class Link:
    """From LinkUp to LinkDown of one peer. A peer that comes back gets a new one."""

    peer: PeerId
    passport: Passport
    outbound: bool
    address: Multiaddr | None
    hosts: tuple[str, ...]  # where the peer may be reached, best first; empty when it cannot be dialled
    gossip_port: int
    bulk_port: int
    instance: bytes
    sequence: int  # of the peer's HELLO
    own_sequence: int  # of ours
    up_s: float
    way: Way  # control frames go here

    # written by the IO thread
    down: bool = False
    heard_s: float = 0.0
    asked_s: float = 0.0
    rtt_s: float | None = None
    acked_bytes: int = 0  # of what was sent here, read by the peer
    relayed_bytes: int = 0  # gossip sent over the control connection
    relayed_in_bytes: int = 0
    received_bytes: int = 0  # control frames, handed to the event loop
    ack_sent_bytes: int = 0
    gossip_queued_bytes: int = 0  # gossip handed to the event loop
    gossip_direct: bool = False
    bulk_way: Way | None = None
    plain_way: Way | None = None
    plain: LaneStats = field(default_factory=LaneStats)  # what of the bulk lane was not encrypted
    bulk_held: deque[Frame] = field(default_factory=deque)  # accepted before the bulk connection was ready
    bulk_grants: CreditGrants = field(default_factory=lambda: CreditGrants(BULK_WINDOW_BYTES))
    lanes: dict[Lane, LaneStats] = field(default_factory=lambda: {lane: LaneStats() for lane in Lane})

    # written by the event loop's thread
    hung_up: bool = False
    sent_bytes: int = 0
    read_bytes: int = 0  # control frames the layer above has seen
    ack_asked_bytes: int = 0
    gossip_read_bytes: int = 0
    bulk_window_bytes: int = BULK_WINDOW_BYTES  # what the peer may have in flight, as asked for
    bulk_released_bytes: int = 0  # of received frames; gathered, so that the IO thread is woken twice in a window
    outbox: BulkOutbox = field(default_factory=BulkOutbox)

    @property
    def backlog_bytes(self) -> int:
        """Sent over the control connection and not read by the peer, with overhead."""
        return self.sent_bytes + self.relayed_bytes - self.acked_bytes

    def heard(self, now_s: float) -> None:
        self.heard_s = now_s

    def measured(self, sample_s: float) -> None:
        self.rtt_s = sample_s if self.rtt_s is None else self.rtt_s + _RTT_GAIN * (sample_s - self.rtt_s)

    def stats(self, now_s: float) -> LinkStats:
        lanes = {
            lane: LaneStats(seen.frames_in, seen.bytes_in, seen.frames_out, seen.bytes_out)
            for lane, seen in self.lanes.items()
        }
        return LinkStats(
            self.peer, self.outbound, self.address, now_s - self.up_s, self.rtt_s, self.backlog_bytes,
            self.gossip_direct, lanes, replace(self.plain),
        )  # fmt: skip

    def __repr__(self) -> str:
        arrow = "->" if self.outbound else "<-"
        rtt = f"{self.rtt_s * 1000:.1f} ms" if self.rtt_s is not None else "no rtt yet"
        state = "down" if self.down else f"up, {rtt}, {self.backlog_bytes} bytes unread"
        return f"<Link {arrow} {short(self.peer)} {state}>"


def cost_bytes(frame: Frame) -> int:
    """What a frame counts for in a backlog."""
    return len(frame) + FRAME_OVERHEAD_BYTES

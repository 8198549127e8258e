"""The gossip lane: every node binds a SUB and connects its one XPUB to the SUB of each neighbour.

Upside down on purpose: the side that binds is the CURVE server, so the receiver's allow-list authenticates who
forwarded each frame. XPUB instead of PUB because it sees subscriptions: each SUB subscribes to everything and, once
more, to its own peer id, which no frame begins with in particular but which tells the XPUB whose subscription has
arrived. Until then, and for peers whose gossip port cannot be reached (behind NAT), frames go over the control
connection; so gossip flows from the moment of LinkUp.

One send serves all neighbours: libzmq shares the message between its pipes.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from atmo.ids import PeerId
from atmo.transport import sockets
from atmo.transport.base import MAX_BACKLOG_BYTES, MAX_FRAME_BYTES, Lane
from atmo.transport.control import FRAMES_PER_ROUND, ControlLane
from atmo.transport.link import Link
from atmo.transport.local import LinkTable, Local
from atmo.transport.reactor import Reactor
from atmo.transport.zap import AllowList

# Frames that wait for one neighbour before more are dropped: 0.3 MiB of usual ones, 250 MiB of the largest; no longer
# than its link lasts without an answer. A guess.
HIGH_WATER_FRAMES = 1000
MAX_UNREAD_BYTES = MAX_BACKLOG_BYTES // 4


@dataclass(slots=True)
class _Attempt:
    """A connection to a neighbour's SUB. `host_index` walks its hosts, `retry_at_s` is when to try the next."""

    endpoint: str
    host_index: int
    retry_at_s: float
    wait_s: float


class GossipLane:
    """Belongs to the IO thread."""

    def __init__(
        self,
        local: Local,
        reactor: Reactor,
        table: LinkTable,
        allowed: AllowList,
        context: sockets.Context,
        control: ControlLane,
    ) -> None:
        self._local = local
        self._reactor = reactor
        self._table = table
        self._allowed = allowed
        self._control = control
        self._attempts: dict[Link, _Attempt] = {}
        self._sub = context.socket(zmq.SUB)
        self._xpub = context.socket(zmq.XPUB)

    def bind(self, host: str, port: int) -> int:
        """Raises PortInUse."""
        limit_bytes = MAX_FRAME_BYTES[Lane.GOSSIP]
        timing = self._local.timing
        for socket in (self._sub, self._xpub):
            sockets.set_common(socket, max_frame_bytes=limit_bytes, host=host)
            sockets.set_heartbeat(socket, timing.zmtp_heartbeat_s, timing.zmtp_timeout_s)
            socket.setsockopt(zmq.RCVHWM, HIGH_WATER_FRAMES)
            socket.setsockopt(zmq.SNDHWM, HIGH_WATER_FRAMES)
        self._xpub.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._xpub.linger = 0
        sockets.make_curve_server(self._sub, self._local.keys)
        bound = sockets.bind(self._sub, host, port)
        self._sub.subscribe(b"")
        self._sub.subscribe(self._local.peer)
        self._reactor.watch(self._sub, self._on_sub)
        self._reactor.watch(self._xpub, self._on_xpub)
        return bound

    def publish(self, frame: bytes) -> None:
        direct = False
        for link in list(self._table.links.values()):
            link.lanes[Lane.GOSSIP].count_out(len(frame))
            if link.gossip_direct:
                direct = True
            else:
                self._control.relay(link, frame)
        if direct:
            self._xpub.send(frame, zmq.NOBLOCK)

    def tick(self, now_s: float) -> None:
        for link, attempt in list(self._attempts.items()):
            if not link.gossip_direct and now_s >= attempt.retry_at_s:
                self._disconnect(attempt)
                wait_s = min(attempt.wait_s * 2, self._local.timing.gossip_retry_max_s)
                self._connect(link, attempt.host_index + 1, wait_s)

    def opened(self, link: Link) -> None:
        if link.hosts:
            self._connect(link, 0, self._local.timing.gossip_retry_s)

    def closed(self, link: Link, reason: str) -> None:
        attempt = self._attempts.pop(link, None)
        if attempt is not None:
            self._disconnect(attempt)
        link.gossip_direct = False

    def close(self) -> None:
        for socket in (self._sub, self._xpub):
            self._reactor.forget(socket)
            socket.close(linger=0)

    def _connect(self, link: Link, host_index: int, wait_s: float) -> None:
        host = link.hosts[host_index % len(link.hosts)]
        endpoint = sockets.endpoint(host, link.gossip_port)
        self._attempts[link] = _Attempt(endpoint, host_index, self._local.clock.now() + wait_s, wait_s)
        sockets.make_curve_client(self._xpub, self._local.keys, link.passport.curve)
        self._xpub.setsockopt(zmq.IPV6, int(":" in host))
        try:
            self._xpub.connect(endpoint)
        except zmq.ZMQError:
            pass  # not an address; the next attempt takes another, and the control connection serves meanwhile

    def _disconnect(self, attempt: _Attempt) -> None:
        try:
            self._xpub.disconnect(attempt.endpoint)
        except zmq.ZMQError:
            pass  # it broke already

    def _on_sub(self) -> None:
        for _ in range(FRAMES_PER_ROUND):
            try:
                parts = self._sub.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            passport = self._allowed.get(sockets.about(parts[0], "User-Id"))
            link = self._table.links.get(passport.peer) if passport is not None else None
            if link is not None and len(parts) == 1:
                self._on_frame(link, parts[0].bytes)

    def _on_frame(self, link: Link, frame: bytes) -> None:
        """Drops what a loop that is behind has no room for."""
        if link.gossip_queued_bytes - link.gossip_read_bytes < MAX_UNREAD_BYTES:
            link.gossip_queued_bytes += len(frame)
            self._table.received(link, Lane.GOSSIP, frame)

    def _on_xpub(self) -> None:
        for _ in range(FRAMES_PER_ROUND):
            try:
                news = self._xpub.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            link = self._table.links.get(PeerId(news[1:]))
            attempt = self._attempts.get(link) if link is not None else None
            if link is None or attempt is None:
                continue
            link.gossip_direct = news[:1] == b"\x01"
            if not link.gossip_direct:
                attempt.retry_at_s = self._local.clock.now() + self._local.timing.gossip_retry_s

"""The bulk lane: model chunks, on connections and a ZeroMQ context of their own.

Whoever dialled the link opens its one bulk connection too, since that way is known to be open; chunks go both ways over
it. Its first frame is HELLO with the number of the link's own HELLO, so that the other end knows which link it serves;
all others are the layer above's as they are, for a byte in front would cost a copy of a megabyte.
Frames that were accepted before the connection is ready wait with the link, and the credit window bounds them, as it
bounds everything here: a sender never has more in flight than the receiver has room for.
"""

from __future__ import annotations

from functools import partial

import zmq

from atmo.errors import RemoteProtocolError
from atmo.keys import Passport
from atmo.transport import sockets, wire
from atmo.transport.base import MAX_BULK_WINDOW_BYTES, MAX_FRAME_BYTES, Frame, Lane
from atmo.transport.control import ControlLane
from atmo.transport.link import Link, Way
from atmo.transport.local import LinkTable, Local
from atmo.transport.reactor import Reactor
from atmo.transport.zap import AllowList

MAX_BULK_BYTES = MAX_FRAME_BYTES[Lane.BULK]
# A chunk costs this thread 0.05 ms of copying (measured); so few per round keep a heartbeat's wait far below a
# millisecond.
FRAMES_PER_ROUND = 4


class BulkLane:
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
        self._context = context
        self._control = control
        self._wires: dict[Link, sockets.Wire] = {}
        self._inbound: dict[bytes, Link] = {}
        self._router = context.socket(zmq.ROUTER)

    def bind(self, host: str, port: int) -> int:
        """Raises PortInUse."""
        sockets.set_common(self._router, max_frame_bytes=MAX_BULK_BYTES, host=host)
        sockets.set_unlimited(self._router)
        sockets.set_heartbeat(self._router, self._local.timing.zmtp_heartbeat_s, self._local.timing.zmtp_timeout_s)
        sockets.make_curve_server(self._router, self._local.keys)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._reactor.watch(self._router, self._on_router)
        return sockets.bind(self._router, host, port)

    def send(self, link: Link, frame: Frame, plain: bool = False) -> None:
        """A frame whose credit was taken. plain: it may go unencrypted, where there is such a way."""
        if link.down:
            return
        if plain and link.plain_way is not None:
            self._send_plain(link, link.plain_way, frame)
        elif link.bulk_way is None:
            link.bulk_held.append(frame)
        elif link.bulk_way.send_large(frame):
            link.lanes[Lane.BULK].count_out(len(frame))
        else:
            self._table.down(link, "the bulk connection closed")

    def _send_plain(self, link: Link, way: Way, frame: Frame) -> None:
        if way.send_large(frame):
            link.lanes[Lane.BULK].count_out(len(frame))
            link.plain.count_out(len(frame))
        else:
            self._table.down(link, "the plain connection closed")

    def release(self, link: Link, size_bytes: int) -> None:
        """The layer above is done with a received frame."""
        grant_bytes = link.bulk_grants.release(size_bytes) if not link.down else 0
        if grant_bytes:
            self._control.grant(link, grant_bytes)

    def widen(self, link: Link, window_bytes: int) -> None:
        """This end first, so that nothing comes that it does not expect."""
        more = link.bulk_grants.widen(min(window_bytes, MAX_BULK_WINDOW_BYTES)) if not link.down else 0
        if more:
            self._control.widen(link, more)

    def opened(self, link: Link) -> None:
        if not link.outbound:
            return
        timing = self._local.timing
        connection = sockets.Wire(
            self._context,
            link.hosts[0],
            link.bulk_port,
            max_frame_bytes=MAX_BULK_BYTES,
            curve=(self._local.keys, link.passport.curve),
            heartbeat_s=(timing.zmtp_heartbeat_s, timing.zmtp_timeout_s),
        )
        self._wires[link] = connection
        self._reactor.watch(connection.socket, partial(self._on_wire, link, connection))
        self._reactor.watch(connection.monitor.socket, partial(self._on_monitor, link, connection))
        connection.send(wire.encode_number(wire.HELLO, link.own_sequence))
        link.bulk_way = connection

    def closed(self, link: Link, reason: str) -> None:
        link.bulk_held.clear()
        connection = self._wires.pop(link, None)
        if connection is not None:
            self._reactor.forget(connection.socket)
            self._reactor.forget(connection.monitor.socket)
            connection.socket.linger = 0
            connection.close()
        elif isinstance(link.bulk_way, sockets.Route):
            self._inbound.pop(link.bulk_way.routing_id, None)
        link.bulk_way = None

    def close(self) -> None:
        self._reactor.forget(self._router)
        self._router.close(linger=0)

    def _on_router(self) -> None:
        for _ in range(FRAMES_PER_ROUND):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            passport = self._allowed.get(sockets.about(parts[-1], "User-Id"))
            if passport is not None and len(parts) == 2:
                self._on_inbound(parts[0].bytes, passport, parts[1])

    def _on_inbound(self, routing_id: bytes, passport: Passport, frame: zmq.Frame) -> None:
        link = self._inbound.get(routing_id)
        if link is not None:
            if link.passport.curve == passport.curve and not link.down:
                self._on_frame(link, frame)
            return
        link = self._table.links.get(passport.peer)
        if link is None or link.outbound or link.bulk_way is not None:
            return
        if frame.bytes != wire.encode_number(wire.HELLO, link.sequence):
            return  # of an older link, or a stranger's habit
        link.bulk_way = sockets.Route(self._router, routing_id)
        self._inbound[routing_id] = link
        while link.bulk_held and not link.down:
            self.send(link, link.bulk_held.popleft())

    def _on_wire(self, link: Link, connection: sockets.Wire) -> None:
        for _ in range(FRAMES_PER_ROUND):
            if link.down:
                return
            try:
                frame = connection.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._on_frame(link, frame)

    def _on_frame(self, link: Link, frame: zmq.Frame) -> None:
        payload = frame.buffer  # a view: copying a megabyte costs this thread 0.1 ms
        link.heard(self._local.clock.now())
        try:
            link.bulk_grants.receive(len(payload))
        except RemoteProtocolError as exc:
            self._table.down(link, f"broke the protocol: {exc}")
            return
        self._table.received(link, Lane.BULK, payload)

    def _on_monitor(self, link: Link, connection: sockets.Wire) -> None:
        if connection.monitor.events():
            self._table.down(link, "the bulk connection closed")

"""The plain lane: chunks of models that anybody may have, unencrypted, between two nodes that both asked for it.

Theory of operation. Encryption is what a transfer on a trusted network costs most, and a chunk is checked against its
hash either way. So where the users of both ends say so, chunks that are nobody's secret go over a connection of their
own, without CURVE. What is asked for, and by whom, is still said over the encrypted control connection, which is also
where the right to connect comes from: whoever was dialled gives the dialler a ticket, 128 random bits, good for one
connection and for as long as the link lives. libzmq's PLAIN mechanism carries it and ZAP redeems it, so a stranger does
not get beyond the handshake.

What is not promised: whoever can read the network reads these chunks, and whoever can change its packets can put wrong
bytes in. So nothing but chunks is taken from here, each is checked, and a wrong one is nobody's offence: the link ends,
and with this peer this lane is not used again (`Local.plain_avoided`).

This lane carries frames in the bulk lane's name: they have its credit and its bounds, and where there is no such
connection (yet) they go over the bulk lane.
"""

from __future__ import annotations

import os
from functools import partial

import zmq

from atmo.errors import RemoteProtocolError
from atmo.transport import sockets, wire, zap
from atmo.transport.base import MAX_FRAME_BYTES, Lane
from atmo.transport.control import ControlLane
from atmo.transport.link import Link
from atmo.transport.local import LinkTable, Local
from atmo.transport.reactor import Reactor

MAX_PLAIN_BYTES = MAX_FRAME_BYTES[Lane.BULK]
FRAMES_PER_ROUND = 4
# Frames of one connection that wait to be read: the credit window bounds an honest sender, this whoever is none.
RECEIVE_FRAMES = 8
_TICKET_BYTES = 16


class Tickets:
    """Implements `zap.Redeemer`. Ticket -> link, before and after it was shown."""

    def __init__(self) -> None:
        self._waiting: dict[str, Link] = {}
        self._shown: dict[str, Link] = {}

    def issue(self, link: Link) -> str:
        ticket = os.urandom(_TICKET_BYTES).hex()
        self._waiting[ticket] = link
        return ticket

    def redeem(self, ticket: str) -> bool:
        """The first time, while its link lives."""
        link = self._waiting.pop(ticket, None)
        if link is None or link.down:
            return False
        self._shown[ticket] = link
        return True

    def link_of(self, ticket: str) -> Link | None:
        """Of one that was redeemed."""
        return self._shown.get(ticket)

    def forget(self, link: Link) -> None:
        for known in (self._waiting, self._shown):
            for ticket in [ticket for ticket, of in known.items() if of is link]:
                del known[ticket]

    def __repr__(self) -> str:
        return f"<Tickets {len(self._waiting)} to be shown, {len(self._shown)} shown>"


class PlainLane:
    """Belongs to the IO thread. Made only where the user asked for it."""

    def __init__(
        self,
        local: Local,
        reactor: Reactor,
        table: LinkTable,
        tickets: Tickets,
        context: sockets.Context,
        control: ControlLane,
    ) -> None:
        self._local = local
        self._reactor = reactor
        self._table = table
        self._tickets = tickets
        self._context = context
        self._control = control
        self._wires: dict[Link, sockets.Wire] = {}
        self._port = 0
        self._router = context.socket(zmq.ROUTER)
        control.on_plain = self._on_offer

    def bind(self, host: str, port: int) -> None:
        """Raises PortInUse."""
        sockets.set_common(self._router, max_frame_bytes=MAX_PLAIN_BYTES, host=host)
        self._router.setsockopt(zmq.SNDHWM, 0)
        self._router.setsockopt(zmq.RCVHWM, RECEIVE_FRAMES)
        sockets.set_heartbeat(self._router, self._local.timing.zmtp_heartbeat_s, self._local.timing.zmtp_timeout_s)
        self._router.setsockopt(zmq.PLAIN_SERVER, 1)
        self._router.setsockopt(zmq.ZAP_DOMAIN, zap.PLAIN_DOMAIN)
        self._router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._reactor.watch(self._router, self._on_router)
        self._port = sockets.bind(self._router, host, port)

    def opened(self, link: Link) -> None:
        """Whoever was dialled invites: the way from the other end to this one is known to be open."""
        if not link.outbound and link.peer not in self._local.plain_avoided:
            self._control.offer_plain(link, self._port, self._tickets.issue(link))

    def closed(self, link: Link, reason: str) -> None:
        self._tickets.forget(link)
        self._drop_wire(link)
        link.plain_way = None

    def close(self) -> None:
        self._reactor.forget(self._router)
        self._router.close(linger=0)

    # Where this end was dialled

    def _on_router(self) -> None:
        for _ in range(FRAMES_PER_ROUND):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            link = self._tickets.link_of(sockets.about(parts[-1], "User-Id"))
            if link is None or link.down or len(parts) != 2:
                continue
            if link.plain_way is None:
                way = sockets.Route(self._router, parts[0].bytes)
                if way.send(wire.encode_number(wire.HELLO, link.sequence)):
                    link.plain_way = way
            else:
                self._on_frame(link, parts[1])

    # Where this end has dialled

    def _on_offer(self, link: Link, port: int, ticket: str) -> None:
        if not link.outbound or link in self._wires or link.peer in self._local.plain_avoided:
            return
        timing = self._local.timing
        connection = self._wires[link] = sockets.Wire(
            self._context,
            link.hosts[0],
            port,
            max_frame_bytes=MAX_PLAIN_BYTES,
            curve=None,
            ticket=ticket,
            heartbeat_s=(timing.zmtp_heartbeat_s, timing.zmtp_timeout_s),
        )
        self._reactor.watch(connection.socket, partial(self._on_wire, link, connection))
        self._reactor.watch(connection.monitor.socket, partial(self._on_monitor, link, connection))
        connection.send(wire.encode_number(wire.HELLO, link.own_sequence))

    def _on_wire(self, link: Link, connection: sockets.Wire) -> None:
        for _ in range(FRAMES_PER_ROUND):
            if link.down:
                return
            try:
                frame = connection.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if link.plain_way is None:
                link.plain_way = connection  # the answer to HELLO: the ticket was good
            else:
                self._on_frame(link, frame)

    def _on_monitor(self, link: Link, connection: sockets.Wire) -> None:
        if not connection.monitor.events():
            return
        if link.plain_way is connection:
            self._table.down(link, "the plain connection closed")  # with frames on it, perhaps, that had credit
        else:
            self._drop_wire(link)  # no such way: the bulk lane carries everything

    def _drop_wire(self, link: Link) -> None:
        connection = self._wires.pop(link, None)
        if connection is not None:
            self._reactor.forget(connection.socket)
            self._reactor.forget(connection.monitor.socket)
            connection.socket.linger = 0
            connection.close()

    def _on_frame(self, link: Link, frame: zmq.Frame) -> None:
        """It is no sign of life: anybody may have sent it."""
        payload = frame.buffer
        try:
            link.bulk_grants.receive(len(payload))
        except RemoteProtocolError as exc:
            self._table.down(link, f"broke the protocol on the plain lane: {exc}")
            return
        self._table.received(link, Lane.BULK, payload, plain=True)

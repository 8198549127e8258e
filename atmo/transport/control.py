"""The control lane: one encrypted connection per link, on which a link begins, lives and ends.

Theory of operation. Whoever dials opens a DEALER to the other's ROUTER; both ends then use this one connection, and no
other, for the life of the link. One connection is what keeps frames in order, and its end is the link's end.

*HELLO.* The dialler says HELLO first; the other answers with its own, and for both the link is up. Anything else before
HELLO is ignored, so a strange program behind a reused port achieves nothing.

*Two dials that cross.* Let A and B dial each other at once, and A have the smaller peer id. A's connection shall be the
link: when B's HELLO reaches A while A's own HELLO is out, A ignores it; when A's reaches B, B drops its own dial and
answers. A only insists once it has been introduced, that is, has reached B's host; before that it takes what it gets.
A HELLO of B that arrives after all this would look like a new dial, so each HELLO carries a number that grows: one that
is not newer than the link's is late and is ignored, one that is newer means that B has lost the link and dials anew.

*Liveness.* A peer not heard for `ping_s` is asked, one not heard for `timeout_s` is gone. A peer that was killed is
noticed at once: its kernel closes the connection, the monitor says so, and, since a ROUTER's monitor does not tell
whose connection it was, a PING down each finds the dead one (ROUTER_MANDATORY). After a pause of this very process
everyone would look silent: the caller reports the pause and all get a full timeout again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import zmq

from atmo.errors import AtmoError, RemoteProtocolError
from atmo.ids import Multiaddr, PeerId, parse_multiaddr
from atmo.keys import Passport
from atmo.transport import sockets, wire
from atmo.transport.base import MAX_BACKLOG_BYTES, MAX_FRAME_BYTES, Lane
from atmo.transport.hosts import is_ip
from atmo.transport.link import Link, cost_bytes
from atmo.transport.local import LinkTable, Local
from atmo.transport.reactor import Reactor
from atmo.transport.zap import AllowList

MAX_CONTROL_BYTES = max(MAX_FRAME_BYTES[Lane.CONTROL], MAX_FRAME_BYTES[Lane.GOSSIP]) + 1
FRAMES_PER_ROUND = 256
# The reader acknowledges after this much: often enough that an unread backlog is told from an unacknowledged one.
ACK_EVERY_BYTES = MAX_BACKLOG_BYTES // 16
# An honest sender stops at MAX_BACKLOG_BYTES; gossip relayed in the same moment may add to it.
MAX_QUEUED_BYTES = 2 * MAX_BACKLOG_BYTES
# A round-trip time older than this is measured again though the link is busy. A guess.
RTT_AGE_S = 5.0
# How long after a broken inbound connection the others are probed for which it was, and how often: ZeroMQ's pipe ends
# a moment after its monitor has said so.
PROBE_FOR_S, PROBE_EVERY_S = 0.3, 0.02
_INBOUND_BROKEN = zmq.EVENT_DISCONNECTED


class ControlLane:
    """Belongs to the IO thread. `contest` is asked when a peer greets: may its connection become the link?"""

    def __init__(
        self,
        local: Local,
        reactor: Reactor,
        table: LinkTable,
        allowed: AllowList,
        context: sockets.Context,
        contest: Callable[[PeerId], bool],
    ) -> None:
        self._local = local
        self._reactor = reactor
        self._table = table
        self._allowed = allowed
        self._contest = contest
        self._wires: dict[Link, sockets.Wire] = {}
        self._inbound: dict[bytes, Link] = {}
        self._probe_until_s = 0.0
        self._router = context.socket(zmq.ROUTER)
        sockets.make_curve_server(self._router, local.keys)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._monitor = sockets.Monitor(self._router, _INBOUND_BROKEN)
        self._handlers: dict[bytes, Callable[[Link, bytes], None]] = {
            wire.DATA: self._on_data,
            wire.GOSSIP: self._on_gossip,
            wire.PING: self._on_ping,
            wire.PONG: self._on_pong,
            wire.ACK: self._on_ack,
            wire.GRANT: self._on_grant,
            wire.WIDEN: self._on_widen,
            wire.BYE: self._on_bye,
            wire.PLAIN: self._on_plain,
        }
        self.on_plain: Callable[[Link, int, str], None] = lambda link, port, ticket: None

    def bind(self, host: str, port: int) -> int:
        """Raises PortInUse."""
        sockets.set_common(self._router, max_frame_bytes=MAX_CONTROL_BYTES, host=host)
        sockets.set_unlimited(self._router)
        sockets.set_heartbeat(self._router, *self._heartbeat)
        self._reactor.watch(self._router, self._on_router)
        self._reactor.watch(self._monitor.socket, self._on_router_monitor)
        return sockets.bind(self._router, host, port)

    @property
    def _heartbeat(self) -> tuple[float, float]:
        return self._local.timing.zmtp_heartbeat_s, self._local.timing.zmtp_timeout_s

    # what the other parts ask for

    def adopt(self, connection: sockets.Wire, link: Link) -> None:
        """Make a dialled, greeted connection the link."""
        current = self._table.links.get(link.peer)
        if current is not None:
            self._table.down(current, "replaced by a newer connection")
        self._wires[link] = connection
        self._reactor.watch(connection.socket, partial(self._on_wire, link, connection))
        self._reactor.watch(connection.monitor.socket, partial(self._on_wire_monitor, link, connection))
        self._begin(link)

    def send(self, link: Link, frame: bytes) -> None:
        """A frame of the layer above; its backlog was counted when it was accepted."""
        if self._say(link, wire.DATA + frame):
            link.lanes[Lane.CONTROL].count_out(len(frame))

    def relay(self, link: Link, frame: bytes) -> None:
        """A gossip frame over this lane. Gossip may be lost, and is when the peer is behind with reading."""
        if link.backlog_bytes > MAX_BACKLOG_BYTES // 4:
            return
        link.relayed_bytes += cost_bytes(frame)
        self._say(link, wire.GOSSIP + frame)

    def acknowledge(self, link: Link) -> None:
        """Tell the peer how much of its control frames was read, if that is news enough."""
        read_bytes = link.read_bytes + link.relayed_in_bytes
        if not link.down and read_bytes - link.ack_sent_bytes >= ACK_EVERY_BYTES:
            link.ack_sent_bytes = read_bytes
            self._say(link, wire.encode_number(wire.ACK, read_bytes))

    def grant(self, link: Link, size_bytes: int) -> None:
        self._say(link, wire.encode_number(wire.GRANT, size_bytes))

    def widen(self, link: Link, size_bytes: int) -> None:
        self._say(link, wire.encode_number(wire.WIDEN, size_bytes))

    def offer_plain(self, link: Link, port: int, ticket: str) -> None:
        self._say(link, wire.encode_plain(port, ticket))

    def forgive(self, now_s: float) -> None:
        """This process was paused: nobody could be heard."""
        for link in self._table.links.values():
            link.heard_s = max(link.heard_s, now_s)

    def tick(self, now_s: float) -> None:
        timing = self._local.timing
        if self.probing:
            self._probe(now_s)
        for link in list(self._table.links.values()):
            silent_s = now_s - link.heard_s
            if silent_s > timing.timeout_s:
                self._table.down(link, f"not heard for {silent_s:.1f} s")
            elif now_s - link.asked_s >= (timing.ping_s if silent_s >= timing.ping_s else RTT_AGE_S):
                self._ping(link, now_s)

    @property
    def probing(self) -> bool:
        """An inbound connection broke a moment ago and it may not be known yet which."""
        return self._probe_until_s > 0

    def _probe(self, now_s: float) -> None:
        if now_s > self._probe_until_s:
            self._probe_until_s = 0.0
        for link in list(self._inbound.values()):
            self._ping(link, now_s)

    # LaneOwner

    def opened(self, link: Link) -> None:
        pass

    def closed(self, link: Link, reason: str) -> None:
        link.way.send(wire.encode_bye(reason))
        connection = self._wires.pop(link, None)
        if connection is not None:
            self._reactor.forget(connection.socket)
            self._reactor.forget(connection.monitor.socket)
            connection.close()
        elif isinstance(link.way, sockets.Route):
            self._inbound.pop(link.way.routing_id, None)

    def close(self) -> None:
        self._reactor.forget(self._router)
        self._reactor.forget(self._monitor.socket)
        self._monitor.close()
        self._router.close()

    # inbound connections

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
            if link.passport.curve == passport.curve:
                self._on_frame(link, frame.bytes)
        elif frame.bytes[:1] == wire.HELLO:
            self._on_greeting(routing_id, passport, frame)
        elif frame.bytes[:1] == wire.PING:  # it believes in a link that is no more
            sockets.Route(self._router, routing_id).send(wire.encode_bye("this link is no more"))

    def _on_greeting(self, routing_id: bytes, passport: Passport, frame: zmq.Frame) -> None:
        way = sockets.Route(self._router, routing_id)
        try:
            hello = wire.decode_hello(frame.bytes)
        except RemoteProtocolError as exc:
            way.send(wire.encode_bye(str(exc)))
            return
        if hello.peer != passport.peer:
            way.send(wire.encode_bye("HELLO names another peer than the curve key belongs to"))
            return
        current = self._table.links.get(passport.peer)
        if current is not None and current.instance == hello.instance and hello.sequence <= current.sequence:
            return  # late: the other of two dials that crossed
        if not self._contest(passport.peer):
            return
        if current is not None:
            restarted = current.instance != hello.instance
            self._table.down(current, "the peer restarted" if restarted else "the peer dialled anew")
        self._answer(way, passport, hello, sockets.about(frame, "Peer-Address"))

    def _answer(self, way: sockets.Route, passport: Passport, hello: wire.Hello, observed_host: str) -> None:
        own_sequence, answer = self._local.next_hello()
        address = dialable_address(hello, passport.peer)
        hosts = () if address is None else usable_hosts(address.host, observed_host)
        now_s = self._local.clock.now()
        link = Link(
            passport.peer, passport, False, address, hosts, hello.gossip_port,
            hello.bulk_port, hello.instance, hello.sequence, own_sequence, now_s, way,
        )  # fmt: skip
        self._inbound[way.routing_id] = link
        if way.send(answer):
            self._begin(link)
        else:
            del self._inbound[way.routing_id]

    def _begin(self, link: Link) -> None:
        link.heard(self._local.clock.now())
        self._table.up(link)  # the next tick asks for the round-trip time, when the work of setting up is done

    def _on_router_monitor(self) -> None:
        if self._monitor.events():
            self._on_router()  # what came before the break
            now_s = self._local.clock.now()
            self._probe_until_s = now_s + PROBE_FOR_S
            self._probe(now_s)

    # dialled connections

    def _on_wire(self, link: Link, connection: sockets.Wire) -> None:
        for _ in range(FRAMES_PER_ROUND):
            frame = connection.receive() if not link.down else None
            if frame is None:
                return
            self._on_frame(link, frame)

    def _on_wire_monitor(self, link: Link, connection: sockets.Wire) -> None:
        if connection.monitor.events():
            for _ in range(MAX_BACKLOG_BYTES // ACK_EVERY_BYTES):
                self._on_wire(link, connection)  # what came before the break, a goodbye perhaps
            self._table.down(link, "the connection closed")

    # frames

    def _on_frame(self, link: Link, frame: bytes) -> None:
        link.heard(self._local.clock.now())
        handler = self._handlers.get(frame[:1])
        if handler is None:
            self._table.down(link, f"broke the protocol: a frame of kind {frame[:1].hex() or 'nothing'}")
            return
        try:
            handler(link, frame)
        except RemoteProtocolError as exc:
            self._table.down(link, f"broke the protocol: {exc}")

    def _on_data(self, link: Link, frame: bytes) -> None:
        if len(frame) > MAX_FRAME_BYTES[Lane.CONTROL] + 1:
            raise RemoteProtocolError(f"A control frame of {len(frame)} bytes.")
        link.received_bytes += cost_bytes(frame) - 1
        if link.received_bytes - link.read_bytes > MAX_QUEUED_BYTES:
            raise RemoteProtocolError("It sends more than it may.")
        self._table.received(link, Lane.CONTROL, frame[1:])

    def _on_gossip(self, link: Link, frame: bytes) -> None:
        if len(frame) > MAX_FRAME_BYTES[Lane.GOSSIP] + 1:
            raise RemoteProtocolError(f"A gossip frame of {len(frame)} bytes.")
        link.relayed_in_bytes += cost_bytes(frame) - 1
        self.acknowledge(link)
        if link.gossip_queued_bytes - link.gossip_read_bytes < MAX_BACKLOG_BYTES // 4:
            link.gossip_queued_bytes += len(frame) - 1
            self._table.received(link, Lane.GOSSIP, frame[1:])

    def _on_ping(self, link: Link, frame: bytes) -> None:
        self._say(link, wire.encode_number(wire.PONG, wire.decode_number(frame)))

    def _on_pong(self, link: Link, frame: bytes) -> None:
        rtt_s = self._local.clock.now() - wire.decode_number(frame) / 1e9
        if 0 <= rtt_s <= self._local.timing.timeout_s:
            link.measured(rtt_s)

    def _on_ack(self, link: Link, frame: bytes) -> None:
        read_bytes = wire.decode_number(frame)
        if not link.acked_bytes <= read_bytes <= link.sent_bytes + link.relayed_bytes:
            raise RemoteProtocolError(f"It acknowledges {read_bytes} bytes that were not sent.")
        link.acked_bytes = read_bytes

    def _on_grant(self, link: Link, frame: bytes) -> None:
        self._table.granted(link, wire.decode_number(frame))

    def _on_widen(self, link: Link, frame: bytes) -> None:
        self._table.granted(link, wire.decode_number(frame), wider=True)

    def _on_plain(self, link: Link, frame: bytes) -> None:
        self.on_plain(link, *wire.decode_plain(frame))

    def _on_bye(self, link: Link, frame: bytes) -> None:
        self._table.down(link, f"the peer ended it: {wire.decode_bye(frame)}")

    def _ping(self, link: Link, now_s: float) -> None:
        link.asked_s = now_s
        self._say(link, wire.encode_number(wire.PING, int(now_s * 1e9)))

    def _say(self, link: Link, frame: bytes) -> bool:
        if link.down:
            return False
        if not link.way.send(frame):
            self._table.down(link, "the connection closed")
            return False
        return True


def usable_hosts(*hosts: str) -> tuple[str, ...]:
    """Addresses only, each once: libzmq looks up names on the thread that carries everybody's heartbeats."""
    return tuple(dict.fromkeys(host for host in hosts if is_ip(host)))


def dialable_address(hello: wire.Hello, peer: PeerId) -> Multiaddr | None:
    """The address in a HELLO; None when it has none, or one that is not its own."""
    if hello.address is None:
        return None
    try:
        address = parse_multiaddr(hello.address)
    except AtmoError:
        return None
    return address if address.peer == peer else None

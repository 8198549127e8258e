"""From an address to a link: knock at the door, be introduced, open the encrypted connection, say HELLO.

A dial has one deadline for all of it and ends in exactly one of three ways: the link comes up, `DialFailed` says why
not, or, when a link to this peer came up in another way meanwhile, in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import zmq

from atmo.errors import AtmoError, PeerUnreachable, Refused, RemoteProtocolError
from atmo.ids import Multiaddr, PeerId, format_peer
from atmo.keys import Passport
from atmo.transport import sockets, wire
from atmo.transport.base import DialFailed
from atmo.transport.control import MAX_CONTROL_BYTES, ControlLane, dialable_address, usable_hosts
from atmo.transport.door import read_introduction
from atmo.transport.doorway import Knock
from atmo.transport.link import Link
from atmo.transport.local import LinkTable, Local
from atmo.transport.reactor import Reactor
from atmo.transport.zap import AllowList

# Dials at the same time; more wait for nobody and fail at once. A guess: ten meshes of full view.
MAX_DIALS = 256


@dataclass(eq=False)
class Dial:
    """`host` is the address's host as an IP address. `greeting` is there once the peer is introduced."""

    address: Multiaddr
    host: str
    deadline_s: float
    knock: Knock | None = None
    greeting: sockets.Wire | None = None
    passport: Passport | None = None
    introduction: wire.Introduction | None = None
    own_sequence: int = 0

    @property
    def peer(self) -> PeerId | None:
        return self.passport.peer if self.passport is not None else self.address.peer


class Dialling:
    """Belongs to the IO thread."""

    def __init__(
        self, local: Local, reactor: Reactor, table: LinkTable, allowed: AllowList, context: sockets.Context
    ) -> None:
        self._local = local
        self._reactor = reactor
        self._table = table
        self._allowed = allowed
        self._context = context
        self._dials: set[Dial] = set()
        self._control: ControlLane | None = None

    def hand_over_to(self, control: ControlLane) -> None:
        self._control = control

    @property
    def busy(self) -> bool:
        return bool(self._dials)

    def dial(self, address: Multiaddr, host: str) -> None:
        """`host`: what the address's host resolves to."""
        if any(self._same(dial, address) for dial in self._dials) or address.peer in self._table.links:
            return
        if address.peer == self._local.peer or len(self._dials) >= MAX_DIALS:
            reason = "That is this node itself." if address.peer == self._local.peer else "Too many dials at once."
            self._table.failed(DialFailed(address, PeerUnreachable(f"Cannot reach {address}: {reason}")))
            return
        dial = Dial(address, host, self._local.clock.now() + self._local.timing.dial_s)
        self._dials.add(dial)
        frame = wire.encode_door(wire.Introduce(self._local.credential))
        failed = partial(self._fail, dial, hint=_DOOR_HINT)
        knock = Knock(host, address.port, frame, partial(self._introduced, dial), failed)
        dial.knock = knock
        self._reactor.watch(knock.socket.fileno(), partial(self._knocked, knock), writable=True)

    def _knocked(self, knock: Knock) -> None:
        knock.on_writable()
        if knock.connected:
            self._reactor.watch(knock.socket.fileno(), knock.on_readable)

    def contest(self, peer: PeerId) -> bool:
        """A greeting of `peer` came in: True if it may become the link, in which case a dial to the same peer ends."""
        for dial in list(self._dials):
            if dial.peer == peer:
                if dial.greeting is not None and self._local.peer < peer:
                    return False
                self._end(dial)
        return True

    def tick(self, now_s: float) -> None:
        for dial in [dial for dial in self._dials if now_s > dial.deadline_s]:
            waited = f"within {self._local.timing.dial_s:g} s"
            if dial.passport is not None:
                self._fail(dial, f"The peer was introduced and then did not answer {waited}.", _PORTS_HINT)
            else:
                self._fail(dial, f"No answer {waited}.", "Is the address right, and does a firewall let it through?")

    def close(self) -> None:
        for dial in list(self._dials):
            self._end(dial)

    @staticmethod
    def _same(dial: Dial, address: Multiaddr) -> bool:
        if address.peer is not None and dial.peer == address.peer:
            return True
        return (dial.address.host, dial.address.port) == (address.host, address.port)

    def _introduced(self, dial: Dial, frame: bytes) -> None:
        self._close_knock(dial)
        try:
            passport, introduction = read_introduction(
                frame, self._local.trust, dial.address.peer, self._local.clock.wall()
            )
        except (RemoteProtocolError, Refused) as exc:
            self._fail(dial, exc.message, exc.hint, exc if isinstance(exc, Refused) else None)
            return
        if passport.peer == self._local.peer:
            self._fail(dial, "That is this node itself.")
        elif passport.peer in self._table.links or any(d is not dial and d.peer == passport.peer for d in self._dials):
            self._end(dial)
        else:
            dial.passport, dial.introduction = passport, introduction
            self._allowed.admit(passport)
            self._greet(dial, passport, introduction)

    def _greet(self, dial: Dial, passport: Passport, introduction: wire.Introduction) -> None:
        timing = self._local.timing
        connection = sockets.Wire(
            self._context,
            dial.host,
            introduction.control_port,
            max_frame_bytes=MAX_CONTROL_BYTES,
            curve=(self._local.keys, passport.curve),
            heartbeat_s=(timing.zmtp_heartbeat_s, timing.zmtp_timeout_s),
        )
        dial.greeting = connection
        self._reactor.watch(connection.socket, partial(self._on_greeting, dial, connection))
        self._reactor.watch(connection.monitor.socket, partial(self._on_monitor, dial, connection))
        dial.own_sequence, hello = self._local.next_hello()
        connection.send(hello)

    def _on_greeting(self, dial: Dial, connection: sockets.Wire) -> None:
        frame = connection.receive()
        if frame is None:
            return
        if frame[:1] == wire.BYE:
            self._fail(dial, f"The peer declined: {wire.decode_bye(frame)}")
            return
        try:
            hello = wire.decode_hello(frame)
        except RemoteProtocolError as exc:
            self._fail(dial, exc.message, exc.hint)
            return
        if dial.passport is None or hello.peer != dial.passport.peer:
            self._fail(dial, "The peer's HELLO names another peer than its curve key belongs to.")
            return
        self._succeed(dial, dial.passport, connection, hello)

    def _succeed(self, dial: Dial, passport: Passport, connection: sockets.Wire, hello: wire.Hello) -> None:
        assert self._control is not None
        dial.greeting = None  # the connection outlives the dial
        self._end(dial)
        address = Multiaddr(dial.address.host, dial.address.port, passport.peer)
        own = dialable_address(hello, passport.peer)
        hosts = usable_hosts(dial.host, own.host if own is not None else dial.host)
        link = Link(
            passport.peer, passport, True, address, hosts, hello.gossip_port, hello.bulk_port, hello.instance,
            hello.sequence, dial.own_sequence, self._local.clock.now(), connection,
        )  # fmt: skip
        self._control.adopt(connection, link)

    def _on_monitor(self, dial: Dial, connection: sockets.Wire) -> None:
        events = connection.monitor.events()
        if not events:
            return
        self._on_greeting(dial, connection)  # a goodbye may have come before the end
        if dial not in self._dials:
            return
        if zmq.EVENT_HANDSHAKE_FAILED_AUTH in events:
            self._fail(dial, "The peer did not admit this node's curve key.")
        else:
            self._fail(dial, "The peer was introduced, but its control port does not answer.", _PORTS_HINT)

    def _fail(self, dial: Dial, reason: str, hint: str = "", refused: Refused | None = None) -> None:
        if dial not in self._dials:
            return
        self._end(dial)
        address = dial.address
        who = f"{address.host} port {address.port}" + (f" ({format_peer(address.peer)})" if address.peer else "")
        said = f"Cannot reach {who}: {reason}"
        error: AtmoError = PeerUnreachable(said, hint=hint)
        if refused is not None:
            error = Refused(said, why=refused.why, by_peer=refused.by_peer, hint=hint)
        self._table.failed(DialFailed(address, error))

    def _end(self, dial: Dial) -> None:
        self._dials.discard(dial)
        self._close_knock(dial)
        if dial.greeting is not None:
            self._reactor.forget(dial.greeting.socket)
            self._reactor.forget(dial.greeting.monitor.socket)
            dial.greeting.close()
            dial.greeting = None

    def _close_knock(self, dial: Dial) -> None:
        if dial.knock is not None:
            self._reactor.forget(dial.knock.socket.fileno())
            dial.knock.close()
            dial.knock = None


_DOOR_HINT = "Does a node run there, and is this the port that its `atmo node status` shows?"
_PORTS_HINT = "A firewall blocks its other ports: let TCP from the mesh's machines through, not the one port alone."

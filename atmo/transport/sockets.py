"""Sockets as this package wants them: encrypted, bounded, never blocking, never reconnecting on their own.

ZeroMQ's own reconnection is off everywhere: it would go on for ever, and to whatever program listens on a reused port
later. Whoever lost a link decides above whether to dial again.
"""

from __future__ import annotations

import errno
import itertools
import struct

import zmq

from atmo.errors import PortInUse, TransportError
from atmo.keys import CurveKeys
from atmo.transport import zap
from atmo.transport.base import Frame

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

# Milliseconds a closing socket may take to flush its last words (BYE). A guess: several round trips on a continent.
LINGER_MS = 200
# A plain TCP program that never speaks ZMTP holds a connection this long. libzmq's default is 30 s.
HANDSHAKE_MS = 5000
# libzmq compares its limit with the encrypted size: "\x07MESSAGE", nonce, flags and authenticator come to 33 bytes.
CURVE_BYTES = 33
BACKLOG = 256  # connections the kernel queues while the IO thread is busy; a guess

_BROKEN = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_serial = itertools.count()


def set_common(socket: Socket, *, max_frame_bytes: int, host: str) -> None:
    socket.linger = LINGER_MS
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame_bytes + CURVE_BYTES if max_frame_bytes >= 0 else -1)
    socket.setsockopt(zmq.SNDTIMEO, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.IPV6, int(":" in host))


def set_heartbeat(socket: Socket, every_s: float, timeout_s: float) -> None:
    """ZMTP's own heartbeat, answered by the peer's kernel of libzmq: without it a stopped peer is unnoticed for
    ever."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, int(every_s * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(timeout_s * 1000))


def set_unlimited(socket: Socket) -> None:
    """No high-water mark: PUB and ROUTER drop there in silence. The caller bounds bytes by acknowledgement instead."""
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)


def make_curve_server(socket: Socket, keys: CurveKeys) -> None:
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    socket.setsockopt(zmq.ZAP_DOMAIN, zap.DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def make_curve_client(socket: Socket, keys: CurveKeys, server_key: bytes) -> None:
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)


def endpoint(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def bind(socket: Socket, host: str, port: int) -> int:
    """Listen on `port` (0: the kernel chooses) and return the port. Raises PortInUse, TransportError."""
    try:
        socket.bind(endpoint(host, port) if port else endpoint(host, 0).replace(":0", ":*"))
    except zmq.ZMQError as exc:
        raise _bind_error(exc, host, port) from exc
    last = socket.getsockopt(zmq.LAST_ENDPOINT)
    return int(bytes(last).rstrip(b"\0").rpartition(b":")[2])


def _bind_error(error: zmq.ZMQError, host: str, port: int) -> TransportError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"Port {port} on {host} is taken by another program.",
            hint="Is it a node (`atmo node status`)? Otherwise choose another with --port; 0 takes any free one.",
        )
    if error.errno == errno.EACCES:
        return TransportError(f"This user may not listen on port {port}.", hint="Choose a port above 1023 with --port.")
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.EINVAL):
        return TransportError(f"{host} is not an address of this machine.", hint="Choose one of its own with --host.")
    return TransportError(f"Cannot listen on {endpoint(host, port)}: {error}.")


def about(frame: zmq.Frame, name: str) -> str:
    """A property libzmq attached to a received frame, such as `User-Id` or `Peer-Address`; empty when there is none."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


class Monitor:
    """Tells when a socket's connections break."""

    def __init__(self, socket: Socket, events: int = _BROKEN) -> None:
        name = f"inproc://monitor-{next(_serial)}"
        self._watched = socket
        socket.monitor(name, events)
        self.socket: Socket = socket.context.socket(zmq.PAIR)
        self.socket.linger = 0
        self.socket.connect(name)

    def events(self) -> list[int]:
        """What happened since the last call, as `zmq.EVENT_*`."""
        found: list[int] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return found
            found.append(int(struct.unpack_from("=H", frames[0])[0]))

    def close(self) -> None:
        if not self._watched.closed:
            self._watched.disable_monitor()
        self.socket.close()


class Wire:
    """A DEALER with one connection, and its monitor. Without `curve` it is unencrypted: for the plain lane only,
    which `ticket` opens."""

    def __init__(
        self,
        context: Context,
        host: str,
        port: int,
        *,
        max_frame_bytes: int,
        curve: tuple[CurveKeys, bytes] | None,
        ticket: str = "",
        heartbeat_s: tuple[float, float] | None = None,
    ) -> None:
        self.socket: Socket = context.socket(zmq.DEALER)
        set_common(self.socket, max_frame_bytes=max_frame_bytes, host=host)
        set_unlimited(self.socket)
        if curve is not None:
            make_curve_client(self.socket, *curve)
        if ticket:
            self.socket.setsockopt(zmq.PLAIN_USERNAME, zap.PLAIN_NAME)
            self.socket.setsockopt(zmq.PLAIN_PASSWORD, ticket.encode())
        if heartbeat_s is not None:
            set_heartbeat(self.socket, *heartbeat_s)
        self.monitor = Monitor(self.socket)
        self.name = endpoint(host, port)
        self.socket.connect(self.name)

    def send(self, frame: bytes) -> bool:
        """False when the connection is gone."""
        try:
            self.socket.send(frame, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def send_large(self, frame: Frame) -> bool:
        """The same without a copy: ZeroMQ holds the frame until it has left."""
        try:
            self.socket.send(frame, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        return True

    def receive(self) -> bytes | None:
        """The next frame; None when there is none. Frames of several parts are nobody's protocol here: the first
        counts."""
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)[0]
        except zmq.Again:
            return None

    def close(self) -> None:
        self.monitor.close()
        self.socket.close()

    def __repr__(self) -> str:
        return f"<Wire to {self.name}>"


class Route:
    """The way back to one connection of a ROUTER."""

    __slots__ = ("_router", "routing_id")

    def __init__(self, router: Socket, routing_id: bytes) -> None:
        self._router = router
        self.routing_id = routing_id

    def send(self, frame: bytes) -> bool:
        """False when the connection is gone (ROUTER_MANDATORY says so)."""
        try:
            self._router.send_multipart((self.routing_id, frame), zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def send_large(self, frame: Frame) -> bool:
        """The same without a copy."""
        try:
            self._router.send_multipart((self.routing_id, frame), zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<Route {self.routing_id.hex()}>"

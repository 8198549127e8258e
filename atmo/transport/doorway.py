"""The door's sockets: who answers it and who knocks.

It is a STREAM socket, plain TCP under ZeroMQ's hand, and not the ROUTER one would expect. A stranger may send a ROUTER
a message of endlessly many parts: no limit counts them before the last has come, so its memory grows until the process
dies (measured: 300 MiB sent, 600 MiB resident, nothing to read). Here every byte passes through `wire.Unpacker`, which
holds one frame of at most 4 KiB per connection; and a STREAM socket can hang up on a connection, which a ROUTER
cannot.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from atmo.clock import Clock
from atmo.errors import RemoteProtocolError
from atmo.transport import sockets, wire
from atmo.transport.door import Doorkeeper

# A connection at the door takes one round trip; after this it is closed. A guess, generous to a slow network.
VISIT_S = 5.0
MAX_VISITORS = 512
CHUNKS_PER_ROUND = 64
# STREAM hands over what it read in pieces of at most 8 KiB; more of them wait in the kernel.
_CHUNKS_QUEUED = 16


@dataclass(slots=True)
class _Visitor:
    since_s: float
    unpacker: wire.Unpacker = field(default_factory=wire.Unpacker)


class Doorway:
    """Listens at the advertised port and lets the doorkeeper answer, one frame per connection."""

    def __init__(self, context: sockets.Context, clock: Clock) -> None:
        self._clock = clock
        self._visitors: OrderedDict[bytes, _Visitor] = OrderedDict()
        self._keeper: Doorkeeper | None = None
        self.socket: sockets.Socket = context.socket(zmq.STREAM)

    def bind(self, host: str, port: int) -> int:
        """Raises PortInUse."""
        sockets.set_common(self.socket, max_frame_bytes=-1, host=host)
        self.socket.setsockopt(zmq.RCVHWM, _CHUNKS_QUEUED)
        return sockets.bind(self.socket, host, port)

    def open(self, keeper: Doorkeeper) -> None:
        """Begin to answer. Strangers that came earlier have waited."""
        self._keeper = keeper

    def on_readable(self) -> None:
        for _ in range(CHUNKS_PER_ROUND):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._on_chunk(frames[0].bytes, frames[-1])

    def tick(self, now_s: float) -> None:
        """Hang up on who stays too long."""
        while self._visitors:
            routing_id, visitor = next(iter(self._visitors.items()))
            if now_s - visitor.since_s < VISIT_S:
                return
            self._hang_up(routing_id)

    def _on_chunk(self, routing_id: bytes, chunk: zmq.Frame) -> None:
        visitor = self._visitors.get(routing_id)
        if len(chunk) == 0:  # STREAM's way to say that a connection opened or closed
            if visitor is None:
                self._welcome(routing_id)
            else:
                del self._visitors[routing_id]
            return
        if visitor is None or self._keeper is None:
            return
        try:
            frame = visitor.unpacker.feed(chunk.bytes)
        except RemoteProtocolError:
            self._hang_up(routing_id)
            return
        if frame is not None:
            self._answer(self._keeper, routing_id, frame, sockets.about(chunk, "Peer-Address"))

    def _answer(self, keeper: Doorkeeper, routing_id: bytes, frame: bytes, source: str) -> None:
        answer = keeper.answer(source, frame, now_s=self._clock.now(), wall_s=self._clock.wall())
        if answer is None:
            self._hang_up(routing_id)
        else:
            self._send(routing_id, wire.enclose(answer))  # the visitor hangs up when it has read it

    def _welcome(self, routing_id: bytes) -> None:
        self._visitors[routing_id] = _Visitor(self._clock.now())
        if len(self._visitors) > MAX_VISITORS:
            self._hang_up(next(iter(self._visitors)))

    def _hang_up(self, routing_id: bytes) -> None:
        self._visitors.pop(routing_id, None)
        self._send(routing_id, b"")

    def _send(self, routing_id: bytes, data: bytes) -> None:
        try:
            self.socket.send_multipart((routing_id, data), zmq.NOBLOCK)
        except zmq.ZMQError:
            self._visitors.pop(routing_id, None)  # gone, or does not read four KiB: nobody to answer

    def close(self) -> None:
        self.socket.close(linger=0)


class Knock:
    """One visit to somebody's door, over a plain TCP socket. Calls `on_answer(frame)` or `on_failure(reason)`, once.

    Not a STREAM socket: when its connection closes, libzmq throws away what had come in before, the answer perhaps.
    """

    def __init__(
        self, host: str, port: int, frame: bytes, on_answer: Callable[[bytes], None], on_failure: Callable[[str], None]
    ) -> None:
        self._packet = wire.enclose(frame)
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._unpacker = wire.Unpacker()
        self.connected = False
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self._problem = self.socket.connect_ex((host, port))  # usually EINPROGRESS, and `on_writable` follows

    def on_writable(self) -> None:
        """The connection stands, or does not."""
        started = self._problem in (0, errno.EINPROGRESS)
        problem = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if started else self._problem
        if problem == errno.ECONNREFUSED:
            self._on_failure("Nothing listens there.")
        elif problem:
            self._on_failure(f"{os.strerror(problem)}.")
        else:
            self.connected = True
            self.socket.send(self._packet)  # 500 bytes into a fresh connection: they fit

    def on_readable(self) -> None:
        try:
            chunk = self.socket.recv(wire.MAX_DOOR_FRAME_BYTES + wire.LENGTH_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._on_failure("What listens there hung up; it does not speak Atmosphere's protocol.")
            return
        try:
            frame = self._unpacker.feed(chunk)
        except RemoteProtocolError:
            self._on_failure("What listens there does not speak Atmosphere's protocol.")
            return
        if frame is not None:
            self._on_answer(frame)

    def close(self) -> None:
        self.socket.close()

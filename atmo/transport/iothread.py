"""The IO thread: owns every ZeroMQ socket, and trades in batches with the event loop.

Plain pyzmq on asyncio wakes the loop for each message (56k messages/s); a thread that drains what is there and hands it
over in one `call_soon_threadsafe` reaches five times that (measured). The other way, commands are callables in two
deques, bulk sends apart from all else so that a thousand chunks in the queue do not delay a heartbeat.

Each round: wait for sockets, serve them, run commands, tick, hand over what happened.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import zmq

from atmo.errors import PortInUse
from atmo.ids import Multiaddr, short
from atmo.keys import Credential
from atmo.transport import sockets
from atmo.transport.base import DialFailed, Frame
from atmo.transport.bulk import BulkLane
from atmo.transport.control import PROBE_EVERY_S, ControlLane
from atmo.transport.dialling import Dialling
from atmo.transport.door import Doorkeeper, Ports
from atmo.transport.doorway import Doorway
from atmo.transport.gossip import GossipLane
from atmo.transport.link import Link
from atmo.transport.local import Happening, LinkTable, Local
from atmo.transport.plain import PlainLane, Tickets
from atmo.transport.reactor import Reactor
from atmo.transport.zap import AllowList, ZapHandler

COMMANDS_PER_ROUND = 256
BULK_COMMANDS_PER_ROUND = 4
# ZeroMQ's own threads that encrypt and decrypt chunks; each connection belongs to one, which does 1 GB/s (measured).
BULK_IO_THREADS = 2
# With nothing to watch over, the thread wakes this often to drop expired keys.
IDLE_TICK_S = 1.0
# A round that comes later than it should by this share of the timeout means that this process did not run.
PAUSE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to bind, and the host that peers are told. Port 0: the kernel chooses, for the door after
    `default_port`."""

    host: str
    advertise_host: str
    door_port: int
    default_port: int
    lane_ports: Ports
    plain_lane: bool = False


class _Parts:
    """All that owns sockets. Built, used and closed on the IO thread."""

    def __init__(self, local: Local, reactor: Reactor, table: LinkTable, *, plain_lane: bool) -> None:
        self.context: sockets.Context = zmq.Context()
        self.bulk_context: sockets.Context = zmq.Context(BULK_IO_THREADS)
        self.allowed = AllowList(local.trust)
        tickets = Tickets()
        self._zap = [ZapHandler(context, self.allowed, tickets) for context in (self.context, self.bulk_context)]
        for handler in self._zap:
            reactor.watch(handler.socket, handler.on_readable)
        self.dialling = Dialling(local, reactor, table, self.allowed, self.context)
        self.control = ControlLane(local, reactor, table, self.allowed, self.context, self.dialling.contest)
        self.dialling.hand_over_to(self.control)
        self.gossip = GossipLane(local, reactor, table, self.allowed, self.context, self.control)
        self.bulk = BulkLane(local, reactor, table, self.allowed, self.bulk_context, self.control)
        self.doorway = Doorway(self.context, local.clock)
        self.plain = PlainLane(local, reactor, table, tickets, self.bulk_context, self.control) if plain_lane else None
        table.owners = [*([self.plain] if self.plain else []), self.bulk, self.gossip, self.control]

    def bind(self, listen: Listen) -> tuple[int, Ports]:
        """The door's port and the lanes'. Raises PortInUse."""
        host, lanes = listen.host, listen.lane_ports
        door_port = self._bind_door(listen)
        if self.plain is not None:
            self.plain.bind(host, lanes.bulk + 1 if lanes.bulk else 0)
        return door_port, Ports(
            self.control.bind(host, lanes.control),
            self.gossip.bind(host, lanes.gossip),
            self.bulk.bind(host, lanes.bulk),
        )

    def _bind_door(self, listen: Listen) -> int:
        if listen.door_port == 0 and listen.default_port != 0:
            try:
                return self.doorway.bind(listen.host, listen.default_port)
            except PortInUse:
                pass  # a second node on this machine: any port will do, peers learn it from the address
        return self.doorway.bind(listen.host, listen.door_port)

    def close(self) -> None:
        self.dialling.close()
        self.doorway.close()
        if self.plain is not None:
            self.plain.close()
        self.bulk.close()
        self.gossip.close()
        self.control.close()
        for handler in self._zap:
            handler.socket.close()
        self.bulk_context.term()
        self.context.term()  # waits for goodbyes, at most sockets.LINGER_MS


class IoThread:
    """Public methods may be called from the event loop's thread; the rest runs inside."""

    def __init__(self, local: Local, listen: Listen, hand_over: Callable[[Sequence[Happening]], None]) -> None:
        self._local = local
        self._listen = listen
        self._hand_over = hand_over
        self._reactor = Reactor()
        self._table = LinkTable()
        self._commands: deque[Callable[[], None]] = deque()
        self._bulk_commands: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._next_tick_s = self._awake_s = local.clock.now()
        self.bound: Future[None] = Future()
        self.ended: Future[None] = Future()
        self.is_over = False  # as `ended.done()`, without a lock for each frame
        self._thread = threading.Thread(target=self._run, name=f"atmo-io-{short(local.peer)}", daemon=True)

    def start(self) -> None:
        """`bound` tells when the sockets listen, or why they do not; `ended` when all are closed."""
        self._thread.start()

    def dial(self, address: Multiaddr, host: str) -> None:
        self._post(lambda: self._parts.dialling.dial(address, host))

    def fail(self, event: DialFailed) -> None:
        """A dial that ended before it got here, told in order with all else."""
        self._post(lambda: self._table.failed(event))

    def renew(self, credential: Credential) -> None:
        self._post(partial(self._renew, credential))

    def send(self, link: Link, frame: bytes) -> None:
        self._post(partial(self._parts.control.send, link, frame))

    def publish(self, frame: bytes) -> None:
        self._post(partial(self._parts.gossip.publish, frame))

    def acknowledge(self, link: Link) -> None:
        self._post(partial(self._parts.control.acknowledge, link))

    def send_bulk(self, link: Link, frame: Frame, plain: bool = False) -> None:
        self._bulk_commands.append(partial(self._parts.bulk.send, link, frame, plain))
        self._reactor.wake()

    def release_bulk(self, link: Link, size_bytes: int) -> None:
        self._post(partial(self._parts.bulk.release, link, size_bytes))

    def widen_bulk(self, link: Link, window_bytes: int) -> None:
        self._post(partial(self._parts.bulk.widen, link, window_bytes))

    def hang_up(self, link: Link, reason: str) -> None:
        self._post(partial(self._table.down, link, reason))

    def stop(self) -> None:
        """End all links, close all sockets. What was posted before is done first."""
        self._post(self._stop)

    def join(self) -> None:
        """Wait for the thread's end, which `ended` has announced. May be called twice."""
        self._thread.join()
        self._reactor.close()

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._reactor.wake()

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        """The thread. It ends with every socket closed, whatever happened; a bug shows up in `bound` or `ended`."""
        self._parts = _Parts(self._local, self._reactor, self._table, plain_lane=self._listen.plain_lane)
        try:
            self._open()
            self.bound.set_result(None)
            while not self._stopping:
                self._round()
        except BaseException as exc:  # handed to whoever waits, not swallowed
            self.is_over = True  # before anybody hears of it
            (self.ended if self.bound.done() else self.bound).set_exception(exc)
        finally:
            for link in list(self._table.links.values()):
                self._table.down(link, "the node closed")
            self._hand_over_happened()
            self._parts.close()
            self.is_over = True
            if not self.ended.done():
                self.ended.set_result(None)

    def _open(self) -> None:
        local = self._local
        door_port, ports = self._parts.bind(self._listen)
        local.ports = ports
        local.address = Multiaddr(self._listen.advertise_host, door_port, local.peer)
        doorway = self._parts.doorway
        self._keeper = Doorkeeper(local.credential, local.trust, ports, self._parts.allowed.admit, local.clock.now())
        doorway.open(self._keeper)
        self._reactor.watch(doorway.socket, doorway.on_readable)

    def _renew(self, credential: Credential) -> None:
        self._local.credential = credential
        self._keeper.renew(credential)

    def _round(self) -> None:
        waiting = self._commands or self._bulk_commands
        wait_s = 0.0 if waiting else max(0.0, self._next_tick_s - self._local.clock.now())
        self._reactor.run_once(wait_s)
        now_s = self._local.clock.now()
        if now_s - self._awake_s - wait_s > PAUSE_SHARE * self._local.timing.timeout_s:
            self._parts.control.forgive(now_s)
        self._awake_s = now_s
        self._run_commands()
        if now_s >= self._next_tick_s:
            self._tick(now_s)
            self._next_tick_s = now_s + IDLE_TICK_S
        self._next_tick_s = min(self._next_tick_s, now_s + self._cadence_s())
        self._hand_over_happened()

    def _cadence_s(self) -> float:
        if self._parts.control.probing:
            return PROBE_EVERY_S
        return self._local.timing.tick_s if self._table.links or self._parts.dialling.busy else IDLE_TICK_S

    def _run_commands(self) -> None:
        for queue, budget in ((self._commands, COMMANDS_PER_ROUND), (self._bulk_commands, BULK_COMMANDS_PER_ROUND)):
            for _ in range(min(len(queue), budget)):
                queue.popleft()()

    def _tick(self, now_s: float) -> None:
        self._expire(self._local.clock.wall())
        self._parts.control.tick(now_s)
        self._parts.dialling.tick(now_s)
        self._parts.gossip.tick(now_s)
        self._parts.doorway.tick(now_s)

    def _expire(self, wall_s: float) -> None:
        self._parts.allowed.drop_expired(wall_s)
        for link in [link for link in self._table.links.values() if link.passport.not_after_s < wall_s]:
            self._table.down(link, "the peer's certificate has expired")

    def _hand_over_happened(self) -> None:
        happened = self._table.take_happened()
        if not happened:
            return
        try:
            self._hand_over(happened)
        except RuntimeError:
            self._stopping = True  # the event loop was closed under us: nobody is left to tell

"""`ZmqTransport`: the transport over ZeroMQ, as the event loop sees it.

What happens on the wire is the IO thread's business (iothread.py, and door, control, gossip, bulk beside it). Here is
the loop's side: frames are accepted or refused at once, credits are kept, events are delivered in batches, and what the
layer above has seen is acknowledged.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future

from atmo.clock import Clock, SystemClock
from atmo.errors import FrameTooLarge, PeerUnreachable, RemoteProtocolError, TransportError
from atmo.ids import MeshId, Multiaddr, PeerId, format_peer, short
from atmo.keys import Credential, CurveKeys
from atmo.transport.base import (
    MAX_BACKLOG_BYTES,
    MAX_BULK_WINDOW_BYTES,
    MAX_FRAME_BYTES,
    Deliver,
    DialFailed,
    Frame,
    Lane,
    LinkDown,
    LinkUp,
    Received,
    TransportEvent,
)
from atmo.transport.control import ACK_EVERY_BYTES
from atmo.transport.door import Ports
from atmo.transport.hosts import is_ip, reachable_host
from atmo.transport.iothread import IoThread, Listen
from atmo.transport.link import Link, LinkStats, LinkTiming, cost_bytes
from atmo.transport.local import BulkGranted, Happening, Local
from atmo.trust import Trust

KERNEL_PORTS = Ports(0, 0, 0)


class ZmqTransport:
    """Implements `atmo.transport.base.Transport`.

    `host` is the address to bind, `port` the door's; port 0 takes `default_port` if that is free and otherwise, or with
    none given, the kernel's choice. The lanes' ports are the kernel's choice unless `lane_ports` names them, for a
    firewall. `advertise` is the host that peers are told; by default `host`, or for a wildcard this machine's address
    on its network. `trust` knows who was revoked; without it nobody is. With `dialable=False` peers are told that
    they cannot dial here, as behind NAT. `plain_lane`: see plain.py; its port follows the lanes' where these are named.
    """

    def __init__(
        self,
        peer: PeerId,
        curve: CurveKeys,
        credential: Credential,
        mesh: MeshId,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        default_port: int = 0,
        clock: Clock | None = None,
        advertise: str = "",
        lane_ports: Ports = KERNEL_PORTS,
        dialable: bool = True,
        timing: LinkTiming | None = None,
        trust: Trust | None = None,
        plain_lane: bool = False,
    ) -> None:
        clock = clock if clock is not None else SystemClock()
        self._local = Local(
            peer,
            curve,
            credential,
            trust or Trust(mesh),
            clock,
            timing if timing is not None else LinkTiming(),
            dialable=dialable,
        )
        self._listen = Listen(host, advertise or reachable_host(host), port, default_port, lane_ports, plain_lane)
        self._links: dict[PeerId, Link] = {}
        self._deliver: Deliver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: IoThread | None = None
        self._resolving: set[asyncio.Task[None]] = set()

    @property
    def peer(self) -> PeerId:
        return self._local.peer

    @property
    def address(self) -> Multiaddr:
        if self._local.address is None:
            raise TransportError("The transport has not started, so it has no address yet.")
        return self._local.address

    async def start(self, deliver: Deliver) -> None:
        if self._thread is not None:
            raise TransportError("The transport was started already.")
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._thread = IoThread(self._local, self._listen, self._hand_over)
        self._thread.ended.add_done_callback(self._on_ended)
        self._thread.start()
        try:
            await asyncio.wrap_future(self._thread.bound)
        except BaseException:
            await self.close()
            raise

    def dial(self, address: Multiaddr) -> None:
        thread = self._running()
        if is_ip(address.host):
            thread.dial(address, address.host)
        else:
            task = asyncio.get_running_loop().create_task(self._resolve_and_dial(thread, address))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve_and_dial(self, thread: IoThread, address: Multiaddr) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as exc:
            error = PeerUnreachable(f"Cannot reach {address}: the name does not resolve ({exc.strerror}).")
            thread.fail(DialFailed(address, error))
            return
        thread.dial(address, str(found[0][4][0]))

    def send(self, peer: PeerId, frame: bytes) -> None:
        link = self._require(peer, frame, Lane.CONTROL)
        link.sent_bytes += cost_bytes(frame)
        if link.backlog_bytes > MAX_BACKLOG_BYTES:
            self._give_up(link, f"does not read: {link.backlog_bytes >> 20} MiB wait for it")
        else:
            self._running().send(link, frame)

    def publish(self, frame: bytes) -> None:
        check_size(frame, Lane.GOSSIP)
        if self._links:
            self._running().publish(frame)

    async def send_bulk(self, peer: PeerId, frame: Frame, *, plain: bool = False) -> None:
        link = self._require(peer, frame, Lane.BULK)
        thread = self._running()
        await link.outbox.send(frame, lambda ready: thread.send_bulk(link, ready, plain))

    def release_bulk(self, peer: PeerId, frame_bytes: int) -> None:
        link = self._links.get(peer)
        if link is None or self._thread is None:
            return
        link.bulk_released_bytes += frame_bytes
        if link.bulk_released_bytes * 2 >= link.bulk_window_bytes:  # before that nothing would be granted (credit.py)
            released_bytes, link.bulk_released_bytes = link.bulk_released_bytes, 0
            self._thread.release_bulk(link, released_bytes)

    def bulk_in_flight(self, peer: PeerId) -> int:
        link = self._links.get(peer)
        return link.outbox.in_flight if link is not None else 0

    def widen_bulk(self, peer: PeerId, window_bytes: int) -> None:
        link, window_bytes = self._links.get(peer), min(window_bytes, MAX_BULK_WINDOW_BYTES)
        if link is not None and self._thread is not None and window_bytes > link.bulk_window_bytes:
            link.bulk_window_bytes = window_bytes
            self._thread.widen_bulk(link, window_bytes)

    def avoid_plain(self, peer: PeerId) -> None:
        self._local.plain_avoided.add(peer)

    def hang_up(self, peer: PeerId, reason: str) -> None:
        link = self._links.get(peer)
        if link is not None:
            self._give_up(link, reason)

    def renew(self, credential: Credential) -> None:
        """Show this one from now on. Links that stand end with the old one, and are dialled again."""
        self._running().renew(credential)

    def linked(self) -> frozenset[PeerId]:
        return frozenset(self._links)

    def rtt_s(self, peer: PeerId) -> float | None:
        """Smoothed round-trip time of the link's pings; None without a link or before its first answer."""
        link = self._links.get(peer)
        return link.rtt_s if link is not None else None

    def stats(self) -> dict[PeerId, LinkStats]:
        """A snapshot of every link."""
        now_s = self._local.clock.now()
        return {peer: link.stats(now_s) for peer, link in self._links.items()}

    async def close(self) -> None:
        for task in list(self._resolving):
            task.cancel()
        thread = self._thread
        if thread is None:
            return
        thread.stop()
        ended = asyncio.wrap_future(thread.ended)
        await asyncio.wait({ended})
        ended.exception()  # told already, by `_on_ended`
        thread.join()
        await asyncio.sleep(0)  # the last batch, with each link's LinkDown, was handed over before the end

    def _running(self) -> IoThread:
        if self._thread is None or self._thread.is_over:
            raise TransportError("The transport is not running.")
        return self._thread

    def _require(self, peer: PeerId, frame: Frame, lane: Lane) -> Link:
        check_size(frame, lane)
        link = self._links.get(peer)
        if link is None or link.hung_up:
            raise PeerUnreachable(f"There is no link to peer {format_peer(peer)}.")
        return link

    def _give_up(self, link: Link, reason: str) -> None:
        if not link.hung_up:
            link.hung_up = True
            self._running().hang_up(link, reason)

    def _hand_over(self, happened: Sequence[Happening]) -> None:
        """Called on the IO thread. Raises RuntimeError when the loop is closed."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._on_happened, happened)

    def _on_ended(self, ended: Future[None]) -> None:
        """Called on the IO thread. It should end only when told to; a bug that ends it must not go unnoticed."""
        error = ended.exception()
        if error is not None and self._loop is not None and not self._loop.is_closed():
            context = {"message": f"The IO thread of {self!r} failed", "exception": error}
            self._loop.call_soon_threadsafe(self._loop.call_exception_handler, context)

    def _on_happened(self, happened: Sequence[Happening]) -> None:
        events = [event for link, event in happened if self._account(link, event)]
        assert self._deliver is not None
        try:
            if events:
                self._deliver([event for event in events if not isinstance(event, BulkGranted)])
        finally:
            self._acknowledge(happened)

    def _account(self, link: Link | None, event: TransportEvent | BulkGranted) -> bool:
        """Keep the loop's books; False for what the layer above does not see."""
        if link is None or isinstance(event, Received | DialFailed):
            return True
        if isinstance(event, LinkUp):
            self._links[link.peer] = link
        elif isinstance(event, LinkDown):
            if self._links.get(link.peer) is link:
                del self._links[link.peer]
            link.outbox.end(PeerUnreachable(f"The link to {format_peer(link.peer)} went down: {event.reason}."))
        else:
            self._refill(link, event)
            return False
        return True

    def _refill(self, link: Link, granted: BulkGranted) -> None:
        try:
            (link.outbox.widen if granted.wider else link.outbox.refill)(granted.size_bytes)
        except RemoteProtocolError as exc:
            self._give_up(link, f"broke the protocol: {exc}")

    def _acknowledge(self, happened: Sequence[Happening]) -> None:
        for link, event in happened:
            if link is None or not isinstance(event, Received):
                continue
            if event.lane is Lane.CONTROL:
                link.read_bytes += cost_bytes(event.frame)
                if link.read_bytes - link.ack_asked_bytes >= ACK_EVERY_BYTES:
                    link.ack_asked_bytes = link.read_bytes
                    self._running().acknowledge(link)
            elif event.lane is Lane.GOSSIP:
                link.gossip_read_bytes += len(event.frame)

    def __repr__(self) -> str:
        if self._thread is None:
            state = "not started"
        elif self._thread.ended.done():
            state = "closed"
        else:
            count = len(self._links)
            state = f"at {self._local.address}, {count} link{'s' if count != 1 else ''}"
        return f"<ZmqTransport {short(self.peer)} {state}>"


def check_size(frame: Frame, lane: Lane) -> None:
    """Raises FrameTooLarge."""
    if len(frame) > MAX_FRAME_BYTES[lane]:
        raise FrameTooLarge(
            f"A frame of {len(frame)} bytes is too large for the {lane.name.lower()} lane, "
            f"which takes {MAX_FRAME_BYTES[lane]}."
        )

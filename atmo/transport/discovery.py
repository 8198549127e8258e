"""Discovery on the local network: DNS-SD over multicast DNS (RFC 6762, 6763), by the `zeroconf` library.

A node announces `<peer id>._atmo._tcp.local.` with its mesh, host and port, and browses for others. Names are not
probed for conflicts first, which alone takes 1.1 s (measured): a peer id is unique. What is heard here is a hint and
no more: an address to dial, where the door will check who answers.

Discovery that finds nobody and says nothing is what users complain about elsewhere. So everything that can be known to
be wrong is kept as a `DiscoveryProblem`: no network, a multicast port taken by another program, and packets that do
not come back. The last is the common case, a firewall or a wireless network that swallows multicast, and is noticed
because a node always hears its own announcement where multicast works.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atmo.errors import AtmoError
from atmo.ids import MeshId, Multiaddr, PeerId, format_peer, parse_multiaddr, parse_peer
from atmo.transport.hosts import WILDCARDS, is_ip
from atmo.transport.wire import PROTOCOL_VERSION

if TYPE_CHECKING:
    from zeroconf import Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

MDNS_GROUP, MDNS_PORT = "224.0.0.251", 5353  # RFC 6762
SERVICE = "_atmo._tcp.local."
# A node hears itself within 0.1 s where multicast works; announcements go out at 0, 0.2 and 0.5 s. A guess with room.
ECHO_WITHIN_S = 3.0
REQUEST_MS = 1500


@dataclass(frozen=True, slots=True)
class DiscoveryProblem:
    """Why discovery on the local network does not work, and what to do."""

    text: str
    hint: str

    def __str__(self) -> str:
        return f"{self.text} {self.hint}"


_NO_ECHO = DiscoveryProblem(
    "Multicast packets on this network do not come back, so nodes cannot find each other by themselves.",
    "Open UDP port 5353 in the firewall, or name a peer with --seed.",
)

_NO_INTERFACE = DiscoveryProblem(
    "No network interface is up that can do multicast.", "Nodes can still be named with --seed."
)


class LanDiscovery:
    """Announces one node and browses for others. Never raises for what the network does: see `problem`.

    `bound_host` says where: bound to a loopback address, it stays on the loopback interface. `found` is called with
    each address and its mesh, again when they change, `lost` when a node has gone or was not heard for two minutes.
    """

    def __init__(
        self,
        address: Multiaddr,
        mesh: MeshId,
        bound_host: str,
        found: Callable[[Multiaddr, MeshId], None],
        lost: Callable[[PeerId], None],
    ) -> None:
        assert address.peer is not None
        self._address = address
        self._mesh = mesh
        self._bound_host = bound_host
        self._found = found
        self._lost = lost
        self._own_name = f"{format_peer(address.peer)}.{SERVICE}"
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self.problem: DiscoveryProblem | None = None
        self.heard_itself = asyncio.Event()

    async def start(self) -> None:
        """Begin to announce and browse. What goes wrong is in `problem`, now or within ECHO_WITHIN_S."""
        try:
            await self._start()
        except OSError as exc:
            await self.close()
            self.problem = explain(exc)
        except RuntimeError:  # zeroconf's word for it
            await self.close()
            self.problem = _NO_INTERFACE

    async def _start(self) -> None:
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        probe_multicast(self._bound_host)
        self._zeroconf = AsyncZeroconf(interfaces=interfaces(self._bound_host))
        zeroconf = self._zeroconf.zeroconf
        await zeroconf.async_wait_for_start()
        self._browser = AsyncServiceBrowser(zeroconf, SERVICE, handlers=[self._on_change])
        announcing = await self._zeroconf.async_register_service(self._service(), cooperating_responders=True)
        self._keep(asyncio.ensure_future(announcing))
        self._keep(asyncio.create_task(self._listen_for_itself()))

    def _service(self) -> AsyncServiceInfo:
        from zeroconf.asyncio import AsyncServiceInfo

        host = self._address.host
        words = {"mesh": format_peer(self._mesh), "host": host, "v": str(PROTOCOL_VERSION)}
        server = f"{self._own_name.partition('.')[0]}.local."
        return AsyncServiceInfo(
            SERVICE,
            self._own_name,
            port=self._address.port,
            properties=words,
            server=server,
            parsed_addresses=[host] if is_ip(host) else [],
        )

    async def close(self) -> None:
        """Say goodbye to the network. May be called twice."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None
        if self._zeroconf is not None:
            zeroconf, self._zeroconf = self._zeroconf, None
            await zeroconf.async_close()

    async def _listen_for_itself(self) -> None:
        await asyncio.sleep(ECHO_WITHIN_S)
        if not self.heard_itself.is_set():
            self.problem = _NO_ECHO

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        from zeroconf import ServiceStateChange

        if name == self._own_name:
            self.heard_itself.set()
            self.problem = None
        elif state_change is ServiceStateChange.Removed:
            peer = peer_of(name)
            if peer is not None:
                self._lost(peer)
        elif len(self._tasks) < 256:
            self._keep(asyncio.get_running_loop().create_task(self._look_up(zeroconf, name)))

    async def _look_up(self, zeroconf: Zeroconf, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(SERVICE, name)
        if info.load_from_cache(zeroconf) or await info.async_request(zeroconf, REQUEST_MS):
            seen = read_announcement(name, info.port, info.properties)
            if seen is not None:
                self._found(*seen)

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def __repr__(self) -> str:
        state = self.problem or ("works" if self.heard_itself.is_set() else "starting")
        return f"<LanDiscovery {state}>"


def read_announcement(name: str, port: int | None, words: dict[bytes, bytes | None]) -> tuple[Multiaddr, MeshId] | None:
    """The address and mesh in an announcement; None for one that is not in order. Anybody may have sent it."""
    peer = peer_of(name)
    host, mesh = words.get(b"host") or b"", words.get(b"mesh") or b""
    if peer is None or not port or len(host) > 253 or len(mesh) > 80:
        return None
    try:
        text_host = host.decode("ascii")
        address = parse_multiaddr(str(Multiaddr(text_host, port, peer)))
        return address, MeshId(parse_peer(mesh.decode("ascii")))
    except (AtmoError, UnicodeDecodeError):
        return None


def peer_of(name: str) -> PeerId | None:
    """The peer that an instance name names."""
    try:
        return parse_peer(name.removesuffix(f".{SERVICE}"))
    except AtmoError:
        return None


def interfaces(bound_host: str) -> Any:
    """What zeroconf should use: the one address that is bound, or all."""
    from zeroconf import InterfaceChoice

    if bound_host in WILDCARDS or not is_ip(bound_host):
        return InterfaceChoice.All
    return [bound_host]


def probe_multicast(bound_host: str) -> None:
    """Raises the OSError that zeroconf would run into, which then leaves its sockets open."""
    interface = bound_host if is_ip(bound_host) and ":" not in bound_host else "0.0.0.0"  # noqa: S104 - any interface
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("", MDNS_PORT))
        if interface != "0.0.0.0":  # noqa: S104 - compared, not bound
            membership = socket.inet_aton(MDNS_GROUP) + socket.inet_aton(interface)
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)


def hear_oneself(bound_host: str, within_s: float = 0.5) -> DiscoveryProblem | None:
    """Send a packet to the group and wait for it to come back: what keeps discovery from working, without a node.

    It goes to a port of its own, so that nobody else has to read it; a firewall that blocks port 5353 alone is found
    by a node that runs.
    """
    interface = bound_host if is_ip(bound_host) and ":" not in bound_host else "0.0.0.0"  # noqa: S104 - any interface
    try:
        probe_multicast(bound_host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            ear.bind(("", 0))
            membership = socket.inet_aton(MDNS_GROUP) + socket.inet_aton(interface)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
            ear.settimeout(within_s)
            ear.sendto(b"atmo", (MDNS_GROUP, ear.getsockname()[1]))
            ear.recv(16)
    except TimeoutError:
        return _NO_ECHO
    except OSError as exc:
        return explain(exc)
    return None


def explain(error: OSError) -> DiscoveryProblem:
    """In a user's words, why the multicast sockets could not be opened."""
    seeds = _NO_INTERFACE.hint
    if error.errno == errno.EADDRINUSE:
        return DiscoveryProblem("Another program holds UDP port 5353 for itself.", seeds)
    if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ENETDOWN):
        return _NO_INTERFACE
    if error.errno in (errno.EPERM, errno.EACCES):
        return DiscoveryProblem("This user may not use multicast here.", seeds)
    return DiscoveryProblem(f"The local network cannot be searched: {error.strerror or error}.", seeds)

"""How a node finds others: the user's runtime folder and the local network.

Whatever is found is only a hint, passed on as an address to dial; the door decides who is let in. What does not work
is kept as a sentence for `atmo node status` and `atmo doctor`: nobody should wonder why nobody is found.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import structlog

from atmo.config import Config
from atmo.ids import MeshId, Multiaddr, PeerId, short
from atmo.problems import Problem
from atmo.transport.discovery import LanDiscovery
from atmo.transport.hosts import is_loopback
from atmo.transport.neighbours import Neighbours, NodeCard

log = structlog.get_logger("atmo.discovery")

# A link on one machine takes a few milliseconds; what is not linked by then is not there.
SETTLE_S = 1.0


class Discovery:
    """`found` is called with each address that may be a peer of this mesh, again when it comes back."""

    def __init__(
        self,
        config: Config,
        peer: PeerId,
        address: Multiaddr | None,
        mesh: MeshId,
        api_socket: str,
        found: Callable[[Multiaddr], None],
    ) -> None:
        self._config = config
        self._mesh = mesh
        self._found = found
        self._neighbours = Neighbours(config.runtime)
        self._card = NodeCard(peer, mesh, address, os.getpid(), config.node.name, api_socket)
        self._lan = self._make_lan(address) if address is not None and config.discovery.lan else None
        self._others: set[PeerId] = set()
        self._foreign: set[PeerId] = set()

    async def start(self) -> None:
        """Show this node and, unless it keeps to itself, begin to look. Raises ConfigError for a runtime folder that is
        not the user's alone."""
        self._neighbours.announce(self._card)
        if self._card.address is None:
            return
        for card in self._neighbours.list():
            self._neighbour(card)
        self._neighbours.watch(self._neighbour, lambda card: self._others.discard(card.peer))
        if self._lan is not None:
            await self._lan.start()

    async def settled(self, linked: Callable[[], frozenset[PeerId]]) -> None:
        """Return when the neighbours found on this machine are linked, or have had the time to be."""
        ends_s = asyncio.get_running_loop().time() + SETTLE_S
        while not self._others <= linked() and asyncio.get_running_loop().time() < ends_s:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def problems(self, links: int) -> list[Problem]:
        """Why nobody, or not everybody, is found. Empty when there is nothing to say."""
        told = []
        if self._lan is not None and self._lan.problem is not None:
            told.append(Problem(self._lan.problem.text, self._lan.problem.hint, serious=False))
        if self._foreign and not links:
            told.append(
                Problem(
                    f"{len(self._foreign)} nodes on the local network belong to other meshes.",
                    "To be in one of those, ask its owner for a token: atmo mesh join TOKEN",
                    serious=False,
                )
            )
        return told

    def alone(self) -> str:
        """Where was looked, for somebody who wonders why nobody is there."""
        here = "No other node of this mesh runs on this machine"
        if self._card.address is None:
            return "This node keeps to itself: it runs in standalone mode."
        if is_loopback(self._config.transport.host):
            return f"{here}, and others cannot see this one: it listens on {self._config.transport.host} only (--host)."
        if self._lan is None:
            return f"{here}; the local network is not searched, since discovery.lan is off."
        return f"{here}, and none has answered on the local network."

    async def close(self) -> None:
        await self._neighbours.close()
        if self._lan is not None:
            await self._lan.close()

    def _make_lan(self, address: Multiaddr) -> LanDiscovery:
        return LanDiscovery(address, self._mesh, self._config.transport.host, self._announced, lambda peer: None)

    def _neighbour(self, card: NodeCard) -> None:
        if card.mesh == self._mesh and card.peer != self._card.peer and card.address is not None:
            self._others.add(card.peer)
            self._found(card.address)

    def _announced(self, address: Multiaddr, mesh: MeshId) -> None:
        if mesh == self._mesh:
            self._found(address)
        elif address.peer is not None and address.peer not in self._foreign:
            self._foreign.add(address.peer)
            log.info("a node of another mesh", peer=short(address.peer), address=str(address))

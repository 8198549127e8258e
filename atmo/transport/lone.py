"""The transport of a node that keeps to itself: no socket, no peer, no address."""

from __future__ import annotations

from atmo.errors import PeerUnreachable
from atmo.ids import Multiaddr, PeerId
from atmo.transport.base import Deliver, DialFailed, Frame
from atmo.transport.link import LinkStats

_ALONE = "This node runs in standalone mode."


class LoneTransport:
    """Implements `atmo.transport.base.Transport`. Whatever needs a peer fails as it does where nobody is linked."""

    def __init__(self, peer: PeerId) -> None:
        self._peer = peer
        self._deliver: Deliver | None = None

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def address(self) -> Multiaddr | None:
        return None

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def dial(self, address: Multiaddr) -> None:
        if self._deliver is not None:
            self._deliver([DialFailed(address, PeerUnreachable(_ALONE))])

    def send(self, peer: PeerId, frame: bytes) -> None:
        raise PeerUnreachable(_ALONE)

    def publish(self, frame: bytes) -> None:
        return

    async def send_bulk(self, peer: PeerId, frame: Frame, *, plain: bool = False) -> None:
        raise PeerUnreachable(_ALONE)

    def release_bulk(self, peer: PeerId, frame_bytes: int) -> None:
        return

    def bulk_in_flight(self, peer: PeerId) -> int:
        return 0

    def widen_bulk(self, peer: PeerId, window_bytes: int) -> None:
        return

    def avoid_plain(self, peer: PeerId) -> None:
        return  # nothing is unencrypted here

    def hang_up(self, peer: PeerId, reason: str) -> None:
        return

    def rtt_s(self, peer: PeerId) -> float | None:
        return None

    def stats(self) -> dict[PeerId, LinkStats]:
        return {}

    def linked(self) -> frozenset[PeerId]:
        return frozenset()

    async def close(self) -> None:
        self._deliver = None

    def __repr__(self) -> str:
        return "<LoneTransport>"

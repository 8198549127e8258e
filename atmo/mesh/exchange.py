"""Where a node's transfers of models hang on to its mesh: who is told of what their peers say."""

from __future__ import annotations

from typing import Protocol

from atmo.ids import PeerId
from atmo.mesh.messages import Bring, Brought, Chunk, ManifestPart, SwarmMessage


class Exchange(Protocol):
    """All methods are called on the event loop's thread and return at once."""

    def receive(self, peer: PeerId, message: SwarmMessage | Bring | Brought) -> None:
        """From the control lane."""

    def bulk(self, peer: PeerId, message: Chunk | ManifestPart, frame_bytes: int, *, plain: bool) -> None:
        """From the bulk lane. Whoever takes it calls the transport's `release_bulk` when it is done with it. plain: a
        chunk that came unencrypted, so perhaps not from this peer."""

    def linked(self, peer: PeerId) -> None:
        """There is a link to the peer now."""

    def lost(self, peer: PeerId) -> None:
        """And now there is not."""


class NoExchange:
    """Of a node that moves no models."""

    def receive(self, peer: PeerId, message: SwarmMessage | Bring | Brought) -> None:
        pass

    def bulk(self, peer: PeerId, message: Chunk | ManifestPart, frame_bytes: int, *, plain: bool) -> None:
        pass

    def linked(self, peer: PeerId) -> None:
        pass

    def lost(self, peer: PeerId) -> None:
        pass

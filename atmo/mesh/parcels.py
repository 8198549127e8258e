"""Requests that are larger than a frame: cut into parcels, carried on the bulk lane, put together again.

Theory of operation. A request with pictures, or with a whole book, is encoded like any other and its bytes are cut.
Parcels of one request travel in order on a lane that does not delay heartbeats, and whose window bounds what is on its
way. The receiver puts up with a bounded number of requests in pieces, and of bytes in them, from each peer; whoever
exceeds that, or sends pieces that do not belong together, loses that request and is told by silence (its deadline), or
by the decoder, for what does not decode is an error of the peer like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atmo.errors import FrameTooLarge, RemoteProtocolError
from atmo.ids import PeerId, short
from atmo.mesh.codec import decode_large, encode_large
from atmo.mesh.limits import MAX_PARCEL_BYTES, MAX_PARCELS
from atmo.mesh.messages import Ask, Parcel

# Of one peer: requests in pieces, and after how long without a piece one of them is given up. Guesses.
MAX_OPEN = 8
PATIENCE_S = 30.0


def cut(ask: Ask) -> list[Parcel]:
    """The request in pieces. Raises FrameTooLarge for one that would need too many."""
    data = encode_large(ask)
    total = -(-len(data) // MAX_PARCEL_BYTES)
    if total > MAX_PARCELS:
        raise FrameTooLarge(
            f"The request has {len(data):,} bytes, {MAX_PARCELS * MAX_PARCEL_BYTES:,} are allowed.",
            hint="Send smaller images or less text.",
        )
    pieces = (data[at * MAX_PARCEL_BYTES : (at + 1) * MAX_PARCEL_BYTES] for at in range(total))
    return [Parcel(ask.id, ask.attempt, at, total, piece) for at, piece in enumerate(pieces)]


@dataclass(slots=True)
class _Heap:
    total: int
    touched_s: float
    pieces: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Parcels:
    """Requests of all peers that are not complete yet."""

    _open: dict[tuple[PeerId, bytes, int], _Heap] = field(default_factory=dict)

    def receive(self, peer: PeerId, parcel: Parcel, now_s: float) -> Ask | None:
        """The request, once it is whole. Raises RemoteProtocolError for pieces that make none."""
        self._forget(now_s)
        key = peer, parcel.id, parcel.attempt
        heap = self._open.get(key)
        if heap is None:
            if parcel.at or sum(owner == peer for owner, _, _ in self._open) >= MAX_OPEN:
                return None  # of a request that was given up
            heap = self._open[key] = _Heap(parcel.total, now_s)
        if parcel.at != len(heap.pieces) or parcel.total != heap.total or parcel.at >= parcel.total:
            del self._open[key]
            raise RemoteProtocolError(f"{short(peer)} sent parcel {parcel.at} where {len(heap.pieces)} was due.")
        heap.pieces.append(parcel.data)
        heap.touched_s = now_s
        if len(heap.pieces) < heap.total:
            return None
        del self._open[key]
        message = decode_large(b"".join(heap.pieces))
        if not isinstance(message, Ask) or (message.id, message.attempt) != (parcel.id, parcel.attempt):
            raise RemoteProtocolError(f"{short(peer)} sent parcels that hold no request, or another one.")
        return message

    def drop(self, peer: PeerId) -> None:
        """The peer is gone."""
        self._open = {key: heap for key, heap in self._open.items() if key[0] != peer}

    def cancel(self, peer: PeerId, request_id: bytes, attempt: int) -> None:
        self._open.pop((peer, request_id, attempt), None)

    def _forget(self, now_s: float) -> None:
        late = [key for key, heap in self._open.items() if now_s - heap.touched_s > PATIENCE_S]
        for key in late:
            del self._open[key]

    def __repr__(self) -> str:
        return f"<Parcels of {len(self._open)} requests>"

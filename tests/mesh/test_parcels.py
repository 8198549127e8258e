"""A request larger than a frame arrives whole or not at all, and pieces cost bounded memory."""

from __future__ import annotations

import msgspec
import pytest

from atmo.errors import FrameTooLarge, RemoteProtocolError
from atmo.generation import Task, Turn
from atmo.ids import PeerId
from atmo.mesh.limits import MAX_PARCEL_BYTES, MAX_PARCELS
from atmo.mesh.messages import Ask
from atmo.mesh.parcels import MAX_OPEN, PATIENCE_S, Parcels, cut

ANNA = PeerId(b"a" * 32)


def book(pages: int, number: int = 0) -> Ask:
    text = "x" * (pages * MAX_PARCEL_BYTES)
    return Ask(number.to_bytes(16, "big"), 0, "atmo:chat:nano", Task((Turn("user", text),)), 60.0, 64, ())


def test_a_book_arrives_as_it_was_sent() -> None:
    parcels, ask = Parcels(), book(3)
    pieces = cut(ask)
    assert len(pieces) == 4
    assert [parcels.receive(ANNA, piece, 0.0) for piece in pieces] == [None, None, None, ask]


@pytest.mark.parametrize("order", [(0, 2), (0, 0), (0, 1, 1)])
def test_a_piece_out_of_order_ends_it(order: tuple[int, ...]) -> None:
    parcels, pieces = Parcels(), cut(book(3))
    for at in order[:-1]:
        parcels.receive(ANNA, pieces[at], 0.0)
    with pytest.raises(RemoteProtocolError, match="was due"):
        parcels.receive(ANNA, pieces[order[-1]], 0.0)
    assert parcels.receive(ANNA, pieces[1], 0.0) is None, "the rest of it is passed over"


def test_pieces_of_another_request_under_its_name_are_refused() -> None:
    parcels = Parcels()
    *first, last = [msgspec.structs.replace(piece, id=bytes(16)) for piece in cut(book(2, number=2))]
    for piece in first:
        parcels.receive(ANNA, piece, 0.0)
    with pytest.raises(RemoteProtocolError, match="hold no request, or another"):
        parcels.receive(ANNA, last, 0.0)


def test_what_is_never_completed_is_bounded_and_forgotten() -> None:
    parcels = Parcels()
    for number in range(100):
        parcels.receive(ANNA, cut(book(2, number))[0], 0.0)
    assert repr(parcels) == f"<Parcels of {MAX_OPEN} requests>"
    parcels.receive(ANNA, cut(book(2, 1000))[0], PATIENCE_S + 1.0)
    assert repr(parcels) == "<Parcels of 1 requests>"
    parcels.drop(ANNA)
    assert repr(parcels) == "<Parcels of 0 requests>"


def test_a_request_beyond_all_bounds_is_told_to_its_sender() -> None:
    with pytest.raises(FrameTooLarge, match="allowed"):
        cut(book(MAX_PARCELS))

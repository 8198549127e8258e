"""Stop strings: the answer ends before the first, nothing of one is shown, and nothing else is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atmo.generation import Piece
from atmo.inference.engines.stops import StopFilter


def run(text: list[str], *stops: str) -> tuple[list[Piece], bool]:
    stop_filter = StopFilter(stops)
    shown: list[Piece] = []
    for at, part in enumerate(text):
        shown += stop_filter.push(Piece(part, (at,)))
    return [*shown, *stop_filter.flush()], stop_filter.hit


def test_without_stop_strings_everything_passes_at_once() -> None:
    assert StopFilter(()).push(Piece("a", (1,))) == [Piece("a", (1,))]
    assert StopFilter(("",)).push(Piece("a", (1,))) == [Piece("a", (1,))]


def test_a_stop_string_across_pieces_is_cut_out_with_all_that_follows() -> None:
    shown, hit = run(["one ", "EN", "D two"], "END")
    assert shown == [Piece("one ", (0,))]
    assert hit


def test_a_piece_that_holds_the_end_is_cut() -> None:
    shown, _ = run(["one END two"], "END")
    assert shown == [Piece("one ", (0,))]


def test_what_only_looks_like_a_stop_string_is_shown_when_that_is_clear() -> None:
    stop_filter = StopFilter(("END",))
    assert stop_filter.push(Piece("EN", (0,))) == []
    assert stop_filter.push(Piece("T", (1,))) == [Piece("EN", (0,)), Piece("T", (1,))]
    assert stop_filter.push(Piece("E", (2,))) == []
    assert stop_filter.flush() == [Piece("E", (2,))]


def test_ids_without_text_keep_their_place() -> None:
    shown, _ = run(["a", "", "é"], "END")
    assert [piece.token_ids for piece in shown] == [(0,), (1,), (2,)]


@given(
    text=st.lists(st.text("abc", max_size=3), max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_equals_cutting_the_whole_text(text: list[str], stops: list[str]) -> None:
    """However the text is cut into pieces, what is shown ends before a stop string and is a beginning of the text."""
    shown, hit = run(text, *stops)
    said = "".join(piece.text for piece in shown)
    whole = "".join(text)
    assert whole.startswith(said)
    assert not any(stop in said for stop in stops)
    assert hit == any(stop in whole for stop in stops)
    if not hit:
        assert said == whole
        assert [token for piece in shown for token in piece.token_ids] == list(range(len(text)))

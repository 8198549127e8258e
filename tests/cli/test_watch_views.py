"""The live view without a terminal: what is drawn, and what keys do."""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from atmo.cli.watch import demo
from atmo.cli.watch.canvas import Canvas
from atmo.cli.watch.cells import Frame, bar, clean, fit, spark
from atmo.cli.watch.frame import frame, still
from atmo.cli.watch.keys import Reader
from atmo.cli.watch.story import REQUESTS_KEPT, Story
from atmo.cli.watch.view import PAGES, View, listed, press
from tests.cli import screens


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clocks on the screen show UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def keys(view: View, story: Story, *pressed: str) -> View:
    for key in pressed:
        view = press(view, key, story)
    return view


# What is drawn


def test_every_screen_looks_as_it_was_approved() -> None:
    """After a change that is wanted: `python -m tests.cli.screens`, and look at the difference."""
    drawn = screens.draw()
    assert {f"{name}.txt" for name in drawn} == {file.name for file in screens.FOLDER.glob("*.txt")}
    for name, text in drawn.items():
        assert text == (screens.FOLDER / f"{name}.txt").read_text(), name


@pytest.mark.parametrize("count", [1, 3, 200])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40), (40, 10), (20, 5), (300, 90)])
def test_a_screen_is_exactly_as_large_as_the_terminal(count: int, width: int, height: int) -> None:
    story = demo.story(count)
    for name, view in screens.views(story).items():
        drawn = frame(story, view, width, height)
        assert len(drawn.lines) == height, name
        for line in drawn.lines:
            assert sum(cell_len(segment.text) for segment in line) == width, name


def test_names_with_wide_letters_keep_the_columns_straight() -> None:
    story = demo.story(3)
    story.report["nodes"][1]["name"] = "机器人実験室のとても長い名前"
    for line in frame(story, View(), 80, 24).lines:
        assert sum(cell_len(segment.text) for segment in line) == 80


def test_what_other_nodes_say_cannot_move_the_cursor() -> None:
    """A name, label or reason with an escape sequence in it is shown, not carried out."""
    story, evil = demo.story(3), "\x1b[2J\x1b]0;owned\x07\r\n\u202e"
    story.report["nodes"][1].update(name=evil, mode=evil, labels={evil: evil}, cpu=evil, addresses=[evil])
    story.report["nodes"][1]["capabilities"][0].update(id=evil, model=evil, description=evil)
    story.report["problems"], story.report["alone"] = [evil], evil
    story.moved([{**each, "root": evil, "model": evil, "error": evil} for each in demo.transfers()[:1]])
    story.seen(story.report)
    story.happened({"seq": 99, "at_s": demo.AT_S, "event": evil, "peer": "x", "name": evil, "detail": evil})
    story.happened({"seq": 100, "at_s": demo.AT_S, "event": "failed", "request_id": "f", "capability": evil,
                    "peer": demo.peer(2), "detail": evil})  # fmt: skip
    story.trouble = evil
    looks = [View(page=page, filter="") for page in PAGES]
    looks += [View(looking=("nodes", story.report["nodes"][1]["peer"])), View(looking=("capabilities", evil))]
    looks += [View(looking=("requests", "f/asked")), View(looking=("transfers", f"in/{evil}"))]
    for view in looks:
        for line in frame(story, view, 140, 40).lines:
            assert all(segment.text.isprintable() for segment in line), view
    assert all(segment.text.isprintable() for line in still(story, 100).lines for segment in line)


def test_without_colours_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves the words; what was coloured has a word, too."""
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24)
    console.print(frame(demo.story(200), View(page="nodes", filter="suspect"), 80, 24))
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"):
        assert code not in out.getvalue()
    assert "suspect" in out.getvalue()


def test_two_hundred_nodes_scroll() -> None:
    story, view = demo.story(200), View(page="nodes")
    assert "node-199" not in frame(story, view, 80, 24).text
    assert "node-199" in frame(story, keys(view, story, "end", "up"), 80, 24).text
    assert "laptop" in frame(story, keys(view, story, "end", "home"), 80, 24).text.splitlines()[3]
    assert "11/201" in frame(story, keys(view, story, "page-down"), 80, 24).text


def test_one_picture_for_a_pipe_shows_all_nodes() -> None:
    text = still(demo.story(200), 100).text
    assert all(f"node-{number:03d}" in text for number in range(3, 200))
    assert "desk ✗" not in text
    assert "attic ✗ → desk" in text


def test_trouble_is_said_in_the_first_line() -> None:
    story = demo.story(3)
    story.trouble = "No node named 'laptop' is running. Reconnecting."
    assert story.trouble in frame(story, View(), 80, 24).text.splitlines()[0]
    assert "live" not in frame(story, View(), 80, 24).text.splitlines()[0]


def test_before_the_first_word_it_says_what_it_waits_for() -> None:
    for page in PAGES:
        assert "Waiting for the node" in frame(Story(), View(page=page), 80, 24).text
    assert keys(View(), Story(), "down", "enter", "s", "tab", "down", "/", "x", "enter").filter == "x"


def test_a_sparkline_shows_rest_as_blank_and_the_most_as_full() -> None:
    assert spark([0, 0, 5, 10], 6) == "    ▄█"
    assert spark([], 3) == "   "
    assert spark([1, 2, 3, 4], 2) == "▆█"
    assert spark([1], 1, top=10.0) == "▁"
    assert bar(0.5, 4) == "██░░"
    assert bar(7.0, 4) == "████"


def test_text_fits_its_cell() -> None:
    assert fit("desk", 6) == "desk  "
    assert fit("desk", 6, True) == "  desk"
    assert fit("a long name", 6) == "a lon…"
    assert cell_len(fit("机器人機", 6)) == 6
    assert clean("a\x1bb") == "a·b"


# What keys do


def test_the_order_follows_the_chosen_column() -> None:
    story, view = demo.story(200), View(page="nodes")
    assert [node["name"] for node in listed("nodes", story, view)[:3]] == ["laptop", "attic", "desk"]
    by_name = keys(view, story, "s")
    names = [node["name"] for node in listed("nodes", story, by_name)]
    assert names == sorted(names)
    assert [node["name"] for node in listed("nodes", story, keys(by_name, story, "r"))] == names[::-1]
    worst_first = listed("nodes", story, keys(view, story, "s", "s"))
    assert [node["state"] for node in worst_first[:4]] == ["dead", "suspect", "suspect", "self"]
    round_trip = keys(view, story, *"sssssssss")
    assert listed("nodes", story, round_trip) == listed("nodes", story, view), "after the last column its own order"


def test_a_filter_keeps_what_has_all_its_words() -> None:
    story = demo.story(200)
    view = keys(View(page="nodes"), story, "/", *"residency=ch provider", "backspace", "enter")
    found = listed("nodes", story, view)
    assert found
    assert all(node["labels"]["residency"] == "ch" and node["mode"] == "provider" for node in found)
    assert "filter: residency=ch provide" in frame(story, view, 80, 24).text
    assert keys(view, story, "escape").filter == ""
    assert keys(view, story, "/", "q", "escape").filter == "", "while typing q is a letter, and Escape takes all back"


def test_the_chosen_node_stays_chosen_when_the_order_changes() -> None:
    story = demo.story(200)
    view = keys(View(page="nodes"), story, "down", "down")
    chosen = view.chosen["nodes"]
    story.seen({**story.report, "nodes": [*story.report["nodes"][::-1]]})
    looked = keys(view, story, "s", "s", "s", "enter")
    assert looked.looking == ("nodes", chosen)
    story.seen({**story.report, "nodes": [n for n in story.report["nodes"] if n["peer"] != chosen]})
    assert "is not known at present" in frame(story, looked, 80, 24).text
    assert keys(looked, story, "escape").looking is None


def test_the_newest_stays_chosen_until_one_moves_away() -> None:
    story, view = demo.story(3), View(page="events")
    newest = {"seq": 99, "at_s": demo.AT_S, "event": "dead", "peer": demo.peer(1), "name": "desk", "detail": ""}
    moved = keys(view, story, "down", "down", "up")
    story.happened(newest)
    assert keys(view, story, "enter").looking == ("nodes", demo.peer(1))
    assert keys(moved, story, "enter").looking == ("nodes", demo.peer(2)), "one that was chosen stays chosen"
    assert keys(moved, story, "home", "enter").looking == ("nodes", demo.peer(1))


def test_pages_and_panes_go_round() -> None:
    story = demo.story(3)
    assert [keys(View(), story, str(n)).page for n in range(1, 8)] == list(PAGES)
    assert keys(View(), story, "8").page == "overview"
    assert keys(View(), story, "left").page == "transfers"
    assert keys(View(), story, *["right"] * 7).page == "overview"
    assert keys(View(), story, "tab", "tab").at == "events"
    assert keys(View(), story, "tab", "tab", "tab").at == "nodes"
    assert keys(View(page="nodes"), story, "tab").page == "capabilities"


def test_details_scroll_no_further_than_their_end() -> None:
    story = demo.story(3)
    view = keys(View(page="nodes"), story, "enter", *["page-down"] * 9)
    assert keys(view, story, "home").scroll == 0
    assert view.scroll < 40
    assert keys(View(), story, "?", "x") == View(), "any key leaves the help"


def test_leaving() -> None:
    story = demo.story(3)
    assert keys(View(), story, "q").left
    assert keys(View(typing=True), story, "ctrl-c").left
    assert not keys(View(typing=True), story, "q").left
    assert keys(View(), story, "p").paused
    assert keys(replace(View(), paused=True), story, " ") == View()


# What is told


def test_a_request_that_is_tried_elsewhere_is_one_request() -> None:
    story = demo.story(3)
    (request,) = (r for r in story.requests.values() if r.id.endswith("3"))
    assert [story.name(peer) for peer in request.peers] == ["attic", "desk"]
    assert request.state == "running"
    failed = {"seq": 50, "at_s": demo.AT_S + 50, "event": "failed", "request_id": request.id,
              "capability": request.capability, "peer": request.peers[-1], "detail": "It is over."}  # fmt: skip
    story.happened(failed)
    assert request.state == "failed"
    assert "It is over." in frame(story, View(page="requests"), 80, 24).text


def test_a_request_to_oneself_is_asked_and_not_served_twice() -> None:
    """Asked here and asked by another are two things, even with one id."""
    story = Story()
    at = {"request_id": "1", "capability": "atmo:chat:x", "peer": "p", "name": "n", "at_s": 1.0}
    story.happened({"seq": 1, "event": "asked", **at})
    story.happened({"seq": 2, "event": "serving", **at})
    assert set(story.requests) == {"1/asked", "1/served"}


def test_a_request_whose_end_was_missed_does_not_run_for_ever() -> None:
    story = demo.story(3)
    assert any(request.state == "running" for request in story.requests.values())
    story.happened({"seq": 99, "at_s": demo.AT_S, "event": "gap"})
    assert not any(request.state == "running" for request in story.requests.values())
    assert "its end was missed" in frame(story, View(page="requests"), 140, 40).text


def test_answers_too_short_for_a_look_are_seen_in_the_speed() -> None:
    """A node rests at every look, and answers in between: what was written counts, a long answer by its own speed."""
    story = demo.story(3)
    resting = {**story.report, "nodes": [{**node, "tps": 0.0} for node in story.nodes]}
    story.seen(resting)
    at = {"seq": 90, "at_s": demo.AT_S, "capability": "atmo:chat:x", "name": "", "detail": ""}
    for request, tokens, total_s in (("a", 30, 0.2), ("b", 900, 30.0)):
        story.happened({**at, "event": "asked", "request_id": request, "peer": demo.peer(1)})
        story.happened({**at, "event": "answered", "request_id": request, "peer": demo.peer(1),
                        "output_tokens": tokens, "total_s": total_s})  # fmt: skip
    story.happened({**at, "event": "serving", "request_id": "c", "peer": demo.peer(1)})
    story.happened({**at, "event": "served", "request_id": "c", "peer": demo.peer(1), "output_tokens": 7})
    story.seen(resting)
    assert (story.tps(demo.peer(1)), story.tps(demo.peer(0))) == (60.0, 7.0)
    assert "67 tok/s" in frame(story, View(), 80, 24).text
    story.seen(resting)
    assert story.total[-1] == 0.0


def test_a_transfer_goes_on_between_two_looks() -> None:
    """Events say how far it is, and are not listed one by one; what it has from whom comes with the next look."""
    story = demo.story(3)
    (fetched,) = (t for t in story.transfers.values() if t["state"] == "running" and t["direction"] == "in")
    at: dict[str, Any] = {name: fetched[name] for name in ("root", "model", "direction", "bytes_total")}
    at |= {"seq": 90, "at_s": demo.AT_S, "bytes_per_s": 9_000_000}
    listed_before = len(story.events)
    half = fetched["bytes_total"] // 2
    story.happened({**at, "event": "transfer_progress", "bytes_done": half})
    assert len(story.events) == listed_before
    drawn = frame(story, View(page="transfers"), 80, 24).text
    assert " 50%" in drawn
    assert "9.0 MB/s" in drawn
    assert "desk, att" in drawn
    story.happened({**at, "event": "transfer_failed", "bytes_done": half, "detail": "Nobody has it."})
    assert "not fetched" in frame(story, View(page="events"), 80, 24).text
    looked = frame(story, keys(View(page="transfers", filter="nobody has"), story, "enter"), 80, 24).text
    assert "failed" in looked
    assert "Nobody has it." in looked
    story.happened({**at, "event": "transfer_began", "root": "ab" * 32, "model": "new-model", "bytes_done": 0})
    assert "new-model" in frame(story, View(), 80, 24).text, "the overview shows what travels"


def test_only_the_last_requests_are_kept() -> None:
    story = Story()
    for number in range(REQUESTS_KEPT + 5):
        story.happened({"seq": number, "at_s": 1.0, "event": "asked", "request_id": str(number), "capability": "c",
                        "peer": "p", "name": "n", "detail": ""})  # fmt: skip
    assert len(story.requests) == REQUESTS_KEPT
    assert "0/asked" not in story.requests


def test_events_of_a_later_version_are_shown_as_they_are() -> None:
    story = demo.story(3)
    story.happened({"seq": 99, "at_s": demo.AT_S, "event": "promoted"})
    assert "promoted" in frame(story, View(page="events"), 80, 24).text
    assert isinstance(frame(story, View(page="events", orders={"events": (2, False)}), 80, 24), Frame)


# The keyboard


def test_keys_are_told_apart_in_whatever_pieces_they_come() -> None:
    typed = b"a\x1b[A\x1bOB\x1b[5~\x1b[1;5C\r\t\x7f\x03\xc3\xa4"
    expected = ["a", "up", "down", "page-up", "enter", "tab", "backspace", "ctrl-c", "ä"]
    whole, split = Reader(), Reader()
    assert whole.feed(typed) == expected
    assert [key for byte in typed for key in split.feed(bytes([byte]))] == expected


def test_an_escape_that_nothing_follows_is_the_escape_key() -> None:
    reader = Reader()
    assert (reader.feed(b"\x1b"), reader.pending) == ([], True)
    assert (reader.flush(), reader.pending) == (["escape"], False)
    assert reader.feed(b"\x1bq") == ["escape", "q"]
    assert reader.feed(b"\x1b[") == []
    assert reader.flush() == ["escape", "["]


def test_of_a_frame_only_what_differs_is_written_and_the_screen_is_the_frame() -> None:
    out, screen = io.StringIO(), [""] * 24
    canvas, story, view = Canvas(Console(file=out, force_terminal=True, width=80, height=24)), demo.story(200), View()

    def drawn(size: tuple[int, int] = (80, 24)) -> int:
        """How many lines were written."""
        out.seek(0)
        out.truncate()
        canvas.draw(picture := frame(story, view, *size), size)
        lines = re.findall(r"\x1b\[(\d+)H(.*?)(?=\x1b\[\d+H|\Z)", out.getvalue())
        for row, text in lines:
            screen[int(row) - 1] = re.sub(r"\x1b\[[\d;]*m", "", text).rstrip()
        assert "\n".join(screen[: size[1]]) == picture.text
        return len(lines)

    assert drawn() == 24
    assert drawn() == 0
    assert out.getvalue() == ""
    for key in ("down", "3", "end", "/", "x", "escape", "1", "?"):
        view = keys(view, story, key)
        assert drawn() > 0, key
    story.seen(demo.report(200, random.Random(3)))  # the same nodes with other numbers
    assert 0 < drawn() < 24
    assert drawn((80, 20)) == 20

"""What other machines say cannot steer this one's terminal."""

from __future__ import annotations

from atmo.cli import output

TITLE = "\x1b]0;you were here\x07"
CLEAR = "\x1b[2J\x9b31m\r"


def test_what_steers_a_terminal_is_shown_as_something_unknown() -> None:
    assert output.harmless(f"node{TITLE}") == "node\ufffd]0;you were here\ufffd"
    assert not set(output.harmless(CLEAR)) & {"\x1b", "\x9b", "\r"}


def test_words_of_any_language_and_their_layout_stay() -> None:
    for text in ("Grüße,\n\t世界", "👩\u200d🔬", "שלום", "नमस्ते"):
        assert output.harmless(text) == text


def test_whole_reports_are_made_harmless() -> None:
    report = {"nodes": [{"name": f"a{CLEAR}", "rtt_ms": 1.5, "labels": {"x": [TITLE, None]}}]}
    shown = output.harmless(report)
    assert "\x1b" not in str(shown)
    assert shown["nodes"][0]["rtt_ms"] == 1.5
    assert report["nodes"][0]["name"] == f"a{CLEAR}", "the report itself is as it was, for --json"

"""`atmo eval routing`: a person measures with files of their own, without a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Outcome, atmo

OFFERS = [
    {
        "id": "translator",
        "type": "translation",
        "description": "Translates texts between languages.",
        "examples": ["translate this letter into French", "how do you say good morning in Japanese"],
    },
    {
        "id": "handbook",
        "type": "project",
        "description": "The employee handbook: leave, working time, expenses, remote work.",
        "examples": ["how many days of leave do I get", "who approves travel expenses"],
    },
]
INTENTS = [
    {"text": "Translate 'where is the station' into Spanish", "expect": ["translator"], "hard": False},
    {"text": "How many days of vacation leave do new employees get?", "expect": ["handbook"], "hard": True},
    {"text": "Translate the handbook's page on leave into French", "expect": ["translator", "handbook"], "hard": True},
]
NEVER_RIGHT = {"text": "Translate 'good night' into Polish", "expect": ["handbook"], "hard": True}


@pytest.fixture(autouse=True)
def _no_node(environ: dict[str, str]) -> None:
    """Nothing of the person's own home takes part."""


def evaluate(folder: Path, offers: Any, intents: Any, *flags: str) -> Outcome:
    """Objects are written as JSON, and a list of intents as lines; text is written as it is."""
    lines = intents if isinstance(intents, str) else "".join(json.dumps(line) + "\n" for line in intents)
    (folder / "caps.json").write_text(offers if isinstance(offers, str) else json.dumps(offers), "utf-8")
    (folder / "intents.jsonl").write_text(lines, "utf-8")
    return atmo(
        *("eval", "routing", "--capabilities", str(folder / "caps.json")),
        *("--intents", str(folder / "intents.jsonl"), *flags),
    )


def test_it_says_how_often_the_right_one_is_found_and_shows_each_miss(tmp_path: Path) -> None:
    found = evaluate(tmp_path, OFFERS, [*INTENTS, NEVER_RIGHT], "--json").json
    assert (found["n"], found["accuracy"]) == (4, 0.75)
    assert (found["hard_n"], found["accuracy_hard"]) == (3, pytest.approx(0.6667))
    assert found["nothing_fits"] == {"n": 0, "recall": None, "precision": None}
    assert 0 < found["ms"]["p50"] <= found["ms"]["p95"] <= found["ms"]["p99"]
    [miss] = found["misses"]
    assert (miss["text"], miss["expect"], miss["chosen"]) == (NEVER_RIGHT["text"], ["handbook"], "translator")
    first, second = miss["best"]
    assert (first["id"], second["id"]) == ("translator", "handbook")
    assert first["relevance"] > second["relevance"]
    assert miss["probability"] == first["probability"] > second["probability"] >= 0


def test_for_people_it_is_a_summary_and_a_table_of_misses(tmp_path: Path) -> None:
    said = evaluate(tmp_path, OFFERS, [*INTENTS, NEVER_RIGHT]).out
    assert "75.0%" in said
    assert "Polish" in said
    assert "p50 / p95 / p99" in said
    assert "Polish" not in evaluate(tmp_path, OFFERS, INTENTS).out


def test_a_text_that_nothing_fits_is_right_where_nothing_is_expected(tmp_path: Path) -> None:
    found = evaluate(tmp_path, OFFERS, [{"text": "zzxq 0x7f 0x7f qqv", "expect": [], "hard": False}], "--json").json
    assert found["nothing_fits"] == {"n": 1, "recall": 1.0, "precision": 1.0}
    assert (found["accuracy"], found["accuracy_hard"], found["misses"]) == (1.0, None, [])


@pytest.mark.parametrize(
    ("offers", "intents", "words"),
    [
        ("{", INTENTS, ("caps.json", "is no list of capabilities")),
        ([], INTENTS, ("caps.json", "holds no capability")),
        ([{"id": "a", "type": "b"}], INTENTS, ("caps.json", "description")),
        ([*OFFERS, OFFERS[0]], INTENTS, ("two capabilities", "translator")),
        (OFFERS, "", ("intents.jsonl", "holds no intent")),
        (OFFERS, '{"text": "hi"}\n', ("intents.jsonl, line 1", "expect")),
        (OFFERS, '{"text": "hi", "expect": []}\nhello\n', ("intents.jsonl, line 2",)),
        (OFFERS, [{"text": "hi", "expect": ["chef"]}], ("line 1", "'chef'", "not among the capabilities")),
        (OFFERS, [{"text": "  ", "expect": []}], ("line 1", "empty text")),
    ],
)
def test_a_file_that_is_not_right_is_one_clear_line(
    tmp_path: Path, offers: object, intents: object, words: tuple[str, ...]
) -> None:
    outcome = evaluate(tmp_path, offers, intents)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 2
    for word in words:
        assert word in outcome.err


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    outcome = atmo("eval", "routing", "--capabilities", str(tmp_path / "none.json"), "--intents", "x", "--json")
    assert outcome.code == 2
    assert "none.json cannot be read" in json.loads(outcome.out)["error"]["message"]

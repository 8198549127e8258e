"""The evaluation of relevance is fair: nothing of it was trained on, and half of it misleads."""

from __future__ import annotations

import json
from pathlib import Path

from atmo.relevance import read_intents, read_offers

EVALUATION = Path(__file__).parents[2] / "bench" / "eval"
TRAINING = Path(__file__).parents[2] / "tools" / "encoder" / "data"


def trained(pattern: str) -> list[str]:
    return [path.read_text("utf-8") for path in sorted(TRAINING.glob(pattern))]


def test_no_capability_and_no_text_of_it_was_trained_on() -> None:
    offers = read_offers(EVALUATION / "caps.json")
    known = {entry["id"] for text in trained("capabilities-?.json") for entry in json.loads(text)}
    texts = {
        json.loads(line)["text"].strip().lower() for file in trained("intents-?.jsonl") for line in file.splitlines()
    }
    assert len(known) > 150
    assert len(texts) > 8000
    assert not known & {offer.id for offer in offers}
    for half in ("dev", "test"):
        asked = {intent.text.strip().lower() for intent in read_intents(EVALUATION / f"{half}.jsonl", offers)}
        assert not texts & asked


def test_its_halves_are_alike_and_share_nothing() -> None:
    offers = read_offers(EVALUATION / "caps.json")
    first, second = (read_intents(EVALUATION / f"{half}.jsonl", offers) for half in ("dev", "test"))
    assert len(offers) == 40
    assert len(first) == len(second) == 240
    assert not {intent.text for intent in first} & {intent.text for intent in second}
    for half in (first, second):
        assert sum(intent.hard for intent in half) >= 80
        assert sum(not intent.expect for intent in half) == 20
        assert {name for intent in half for name in intent.expect} == {offer.id for offer in offers}

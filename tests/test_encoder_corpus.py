"""What the text encoder is trained with: read from the files as they are, held against the benchmark that judges it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.encoder.corpus import HELD_OUT, Corpus, Intent, Target, judged, read_corpus
from tools.encoder.overlaps import OVERLAPS, SPECIALISTS

EVALUATION = Path(__file__).parents[1] / "bench" / "eval"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus()


def test_every_name_in_the_corpus_is_that_of_a_capability(corpus: Corpus) -> None:
    known = {target.name for target in corpus.targets}
    named = {name for intent in corpus.intents for name in (intent.right, *intent.near) if name}
    listed = {name for table in (OVERLAPS, SPECIALISTS) for key, others in table.items() for name in (key, *others)}

    assert (named | listed | HELD_OUT) - known == set()


def test_no_intent_is_written_twice(corpus: Corpus) -> None:
    texts = [intent.text.strip().lower() for intent in corpus.intents if intent.family in "ef"]

    assert len(texts) == len(set(texts))


def test_nothing_of_the_benchmark_is_trained(corpus: Corpus) -> None:
    trained = {text.strip().lower() for text in corpus_texts(corpus)}

    assert {text for text in evaluation_texts() if text.strip().lower() in trained} == set()


def test_a_specialist_is_no_mistake_for_a_general_text_but_the_reverse_is() -> None:
    general, specialist = Target("general-chat", "a", "", ()), Target("recipe-finding", "e", "", ())

    assert not judged(Intent("what can I cook with leeks", "a", "general-chat", ()), specialist)
    assert judged(Intent("what can I cook with leeks", "e", "recipe-finding", ()), general)


def test_a_text_that_nothing_fits_says_nothing_of_capabilities_written_later() -> None:
    earlier, later = Target("chess", "c", "", ()), Target("weather-forecast", "e", "", ())

    assert judged(Intent("hang out the washing", "c", "", ()), earlier)
    assert not judged(Intent("hang out the washing", "c", "", ()), later)


def corpus_texts(corpus: Corpus) -> Iterator[str]:
    yield from (intent.text for intent in corpus.intents)
    for target in corpus.targets:
        yield target.description
        yield from target.examples


def evaluation_texts() -> Iterator[str]:
    for capability in json.loads((EVALUATION / "caps.json").read_text("utf-8")):
        yield capability["description"]
        yield from capability["examples"]
    for name in ("dev.jsonl", "test.jsonl"):
        for line in (EVALUATION / name).read_text("utf-8").splitlines():
            yield json.loads(line)["text"]

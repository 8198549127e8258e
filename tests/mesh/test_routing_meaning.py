"""The real encoder on capabilities such as a small office has: plain requests find their capability.

The bar is for plain wordings; docs/routing.md says how the same does on misleading ones.
"""

from __future__ import annotations

import pytest

from atmo.inference.encoder import Encoder
from atmo.mesh.capability import Capability, Descriptor
from atmo.mesh.query import Query
from atmo.mesh.routing import decide
from atmo.mesh.views import views_of
from tests.mesh.routing_support import Town

OFFERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "chat": (
        "A friendly assistant for everyday questions, explanations and conversation.",
        (
            "why is the sky blue",
            "tell me something about Portugal",
            "hello, how are you?",
            "what should I cook tonight",
        ),
    ),
    "code": (
        "Writes, explains and debugs source code and answers programming questions.",
        ("write a python function that sorts a list", "why does this loop never end", "fix this stack trace"),
    ),
    "translate": (
        "Translates texts between languages.",
        ("translate this letter into French", "how do you say good morning in Japanese", "auf Englisch, bitte"),
    ),
    "mood": (
        "Classifies the sentiment of a review or message as positive or negative.",
        ("is this review positive or negative", "how angry is this customer", "sentiment of: the food was awful"),
    ),
    "handbook": (
        "The employee handbook: leave, working time, expenses, remote work.",
        ("how many days of leave do I get", "who approves travel expenses", "may I work from home on Fridays"),
    ),
}

PLAIN = [
    ("What is the capital of Australia?", "chat"),
    ("hi there!", "chat"),
    ("Tell me something interesting about whales", "chat"),
    ("Write a Python script that renames all files in a folder", "code"),
    ("My C program crashes with a segmentation fault in this loop", "code"),
    ("explain what this javascript function does", "code"),
    ("Translate 'where is the station' into Spanish", "translate"),
    ("How do I say thank you in Korean?", "translate"),
    ("please translate the following paragraph to German", "translate"),
    ("Is this comment positive or negative: best purchase of the year!", "mood"),
    ("sentiment of: I will never come back to this hotel", "mood"),
    ("How many vacation days do new employees have?", "handbook"),
    ("Can I claim my train ticket as an expense?", "handbook"),
    ("rules for remote work", "handbook"),
]


@pytest.fixture(scope="module")
def office() -> tuple[Town, Encoder]:
    town, encoder = Town(), Encoder.load()
    for name, (description, examples) in OFFERS.items():
        descriptor = Descriptor(id=f"atmo:chat:{name}", type="chat", description=description, examples=examples)
        views = views_of(description, examples, encoder.encode)
        town.node(name, Capability(descriptor, encoder.encoder_id, views))
    return town, encoder


def test_plain_requests_find_their_capability(office: tuple[Town, Encoder]) -> None:
    town, encoder = office
    misses = []
    for text, expected in PLAIN:
        query = Query(local=town.home, vector=encoder.encode(text))
        chosen = decide(town.table, town.field, query, town.now, town.rng).chosen
        if chosen.node != expected:
            misses.append((text, chosen.node, chosen.relevance))

    assert not misses


def test_an_example_itself_fits_best_of_all(office: tuple[Town, Encoder]) -> None:
    town, encoder = office
    for name, (_, examples) in OFFERS.items():
        for text in examples:
            query = Query(local=town.home, vector=encoder.encode(text))
            assert decide(town.table, town.field, query, town.now, town.rng).chosen.node == name

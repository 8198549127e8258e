"""Tasks whose answers stand in the question: repeat a text, and find something in a few short sentences.

They are small skills of their own, and they teach the network early to look back and copy, on which sums (the operands)
and summaries rest: without them neither was learned within the run.
"""

from __future__ import annotations

import random

from tools.nano.corpus.reader import read_table, wordings, words

NAMES = words(
    "Ann Bob Carl Dora Emma Felix Gina Hans Ida Jack Kate Leo Mia Nick Olga Paul Rosa Sam Tina Uwe Vera Will Yara Zoe"
    " Max Anna Tom Maria Peter Lena Julia David Sarah Jonas Laura Simon Eva Mark Nina Oscar"
)
REPEAT = wordings(
    "Repeat: {t}|Repeat after me: {t}|Say: {t}|Copy this: {t}|Echo: {t}|Write down: {t}|Please repeat: {t}|Print: {t}"
    '|Say "{t}"|Repeat this: {t}|Copy: {t}|Say this: {t}|Repeat these words: {t}|Type this: {t}|Repeat the text: {t}'
)
REPEAT_HELD_OUT = wordings("Can you repeat this text? {t}|Please copy the following: {t}")
COLOURS = words("red blue green yellow black white brown grey pink orange purple")
THINGS = words(
    "car bike house book lamp cup chair table dog cat bird ball hat coat bag pen phone boat key ring clock box bed door"
)
PLACES = words("garden kitchen school office park forest library station market harbour tower cellar museum church")
PLURALS = words("apples books coins stones pens cards eggs cups hats keys balls shells stamps plums nuts cakes")


def draw(rng: random.Random) -> tuple[str, str]:
    """(question, answer) of one copying or finding task."""
    if rng.random() < 0.6:
        return repeated(rng, rng.choice(REPEAT))
    return found(rng)


def repeated(rng: random.Random, template: str) -> tuple[str, str]:
    text = _text(rng)
    return template.format(t=text), text


_WORDS = sorted(
    {w for row in read_table("terms.txt") for w in row[-1].split()} | set(NAMES + THINGS + PLACES + PLURALS)
)


def _text(rng: random.Random) -> str:
    """Random words, numbers, or a mix of both."""
    kind, length = rng.random(), rng.randrange(1, 13)
    if kind < 0.25:
        return " ".join(str(rng.randrange(rng.choice((10, 100, 1000)))) for _ in range(length))
    numbers = 0.15 if kind < 0.5 else 0.0
    return " ".join(str(rng.randrange(100)) if rng.random() < numbers else rng.choice(_WORDS) for _ in range(length))


def found(rng: random.Random) -> tuple[str, str]:
    """Two or three people who have or are something, and a question about one of them."""
    people = rng.sample(NAMES, rng.choice((2, 2, 3)))
    about = rng.randrange(len(people))
    who = people[about]
    kind = rng.randrange(3)
    if kind == 0:
        thing, counts = rng.choice(PLURALS), [rng.randrange(2, 100) for _ in people]
        told = [f"{p} has {n} {thing}" for p, n in zip(people, counts, strict=True)]
        asked = rng.choice((f"How many {thing} does {who} have?", f"How many {thing} has {who}?"))
    elif kind == 1:
        had = [f"a {rng.choice(COLOURS)} {t}" for t in rng.sample(THINGS, len(people))]
        told = [f"{p} has {h}" for p, h in zip(people, had, strict=True)]
        asked = rng.choice((f"What does {who} have?", f"What has {who}?", f"Tell me what {who} has."))
    else:
        told = [f"{p} is in the {place}" for p, place in zip(people, rng.sample(PLACES, len(people)), strict=True)]
        asked = rng.choice((f"Where is {who}?", f"Where can I find {who}?", f"In which place is {who}?"))
    joined = (". ".join(told) if rng.random() < 0.6 else " and ".join(told)) + "."
    return f"{joined} {asked}", f"{told[about]}."

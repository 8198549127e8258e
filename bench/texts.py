"""Seeded texts: capabilities that resemble each other as real ones do, prompts for them, and texts of a given length.

A capability is a task in a field ("translate", "medicine"); 40 tasks times 25 fields make 1,000. Those that share a
task or a field lie close together, so a decision has several classes to weigh, as in a mesh where many offer nearly the
same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TASKS = _words(
    """
    translate summarise explain review classify rewrite answer draft extract compare plan correct simplify
    outline grade criticise forecast schedule label transcribe proofread structure paraphrase check estimate
    recommend diagnose document annotate organise teach debate research verify improve shorten convert interpret
    analyse score
    """
)
FIELDS = _words(
    """
    medicine law chemistry cooking finance poetry history physics gardening music football astronomy biology
    carpentry geography marketing mathematics philosophy photography psychology sailing statistics textiles
    architecture beekeeping
    """
)
OBJECTS = _words(
    """
    report question letter article table note lecture contract recipe experiment poem message list case chapter
    """
)
WORDS = _words(
    """
    time year people way day man thing woman life child world school state family student group country problem
    hand part place case week company system program question work number night point home water room mother
    area money story fact month lot right study book eye job word business issue side kind head house service
    friend father power hour game line end member law car city name team minute idea kid body back parent face
    others level office door health person art war history party result change morning reason research girl guy
    moment air teacher force education
    """
)


@dataclass(frozen=True, slots=True)
class Offer:
    """One capability in words."""

    name: str
    description: str
    examples: tuple[str, ...]


def offers(count: int, chance: random.Random, examples: int = 6) -> list[Offer]:
    """`count` different capabilities, at most 1,000 of them."""
    places = [(task, about) for task in TASKS for about in FIELDS]
    if count > len(places):
        raise ValueError(f"there are {len(places)} capabilities, not {count}")
    return [_offer(task, about, chance, examples) for task, about in chance.sample(places, count)]


def _offer(task: str, about: str, chance: random.Random, examples: int) -> Offer:
    text = f"I {task} texts on {about}: {', '.join(chance.sample(OBJECTS, 3))} and the like."
    return Offer(f"{task}-{about}", text, tuple(prompt(task, about, chance) for _ in range(examples)))


def prompt(task: str, about: str, chance: random.Random) -> str:
    """Somebody asking for the task in the field; no two are alike but by accident."""
    thing, number, detail = chance.choice(OBJECTS), chance.randint(2, 99), " ".join(chance.sample(WORDS, 2))
    forms = (
        f"Please {task} this {thing} on {about} about {detail}",
        f"I need someone to {task} {number} pages of {about} for a {thing} on {detail}",
        f"{task.capitalize()} my {about} {thing}, it is about {detail}",
        f"Can you {task} the {about} part of my {thing} on {detail}?",
    )
    return chance.choice(forms)


def prompts(chance: random.Random) -> Iterator[str]:
    """Endless."""
    while True:
        yield prompt(chance.choice(TASKS), chance.choice(FIELDS), chance)


def of_length(tokens: int, count: Callable[[str], int], chance: random.Random) -> str:
    """A text that `count` finds to have exactly `tokens` tokens. Raises ValueError if common words cannot make it."""
    frame = count(chance.choice(WORDS)) - 1  # tokens that are not the text's own, at its start and end
    words = [chance.choice(WORDS) for _ in range(tokens - frame)]
    for _ in range(100):
        length = count(" ".join(words))
        if length == tokens:
            return " ".join(words)
        words = words[: len(words) - (length - tokens)] if length > tokens else [*words, chance.choice(WORDS)]
    raise ValueError(f"no text of {tokens} tokens was found")

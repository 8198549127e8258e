"""The training corpus as one task: for each intent, which of all capabilities are right, wrong, or not to be judged.

The families were written apart. In `-a`, `-c` and `-e` an intent names a type, and every capability of that type is
right. In `-b`, `-d` and `-f` it names one capability of an organisation, or one of five general types that were offered
beside them. An intent of one family was never weighed against the capabilities of those written after it, and a few of
them would serve it as well: `overlaps.py` lists them, and such pairs count neither as right nor as wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tools.encoder.overlaps import GENERAL_CHAT as GENERAL_CHAT
from tools.encoder.overlaps import overlapping

DATA = Path(__file__).parent / "data"
TYPES, PROJECTS = ("a", "c", "e"), ("b", "d", "f")

# Family of a text that nothing fits -> the families whose capabilities it was held against.
HELD_AGAINST = {"a": ("a", "c"), "c": ("a", "c"), "e": TYPES, "b": ("b", "d"), "d": ("b", "d"), "f": PROJECTS}

# Whole capabilities and types that training never sees, neither as right nor as wrong: for validation and calibration.
HELD_OUT = frozenset(
    {
        *("music-theory", "speech-to-text"),
        *("kestrel-wire-monitor", "kestrel-style-guide", "kestrel-fact-checker"),
        *("rothenau-scouting-reports", "rothenau-gps-vests", "rothenau-membership-desk"),
        *("ecb-currency", "pathology-archive", "log-search", "mail-drafts"),
        *("speaker-diarisation", "topic-classification", "regex-building", "air-quality", "todo-lists"),
        *("shift-rostering", "fraud-scoring", "image-captioning", "contract-review", "flashcards", "ev-charging"),
        *("plant-disease", "crossword-solving", "network-monitoring", "gift-advice"),
        *("kalder-furnace-sensors", "kalder-heat-records", "kalder-rolling-plan", "kalder-scrap-desk"),
        *("kalder-shift-safety", "tamarack-claims", "tamarack-cover", "tamarack-quotes", "tamarack-damage-photos"),
        *("tamarack-storm-map",),
    }
)

HELD_OUT_NOTHING = 5


@dataclass(frozen=True)
class Target:
    """A capability's texts. name: what intents call it, its type in the families of types, else its id."""

    name: str
    family: str
    description: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Intent:
    """right: the name of the targets that serve it, "" where nothing does; near: names of look-alikes."""

    text: str
    family: str
    right: str
    near: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    targets: tuple[Target, ...]
    intents: tuple[Intent, ...]

    def part(self, *, held_out: bool) -> Corpus:
        """The training part, or the part that it never sees; every fifth of the texts that nothing fits is in that."""
        nothing = [intent.text for intent in self.intents if not intent.right]
        unseen = set(nothing[::HELD_OUT_NOTHING])
        targets = tuple(target for target in self.targets if (target.name in HELD_OUT) == held_out)
        intents = tuple(
            intent
            for intent in self.intents
            if (intent.right in HELD_OUT or (not intent.right and intent.text in unseen)) == held_out
        )
        return Corpus(targets, intents)


def with_examples(corpus: Corpus) -> Corpus:
    """The capabilities' examples are intents too."""
    asked = {
        example: Intent(example, target.family, target.name, ())
        for target in corpus.targets
        for example in target.examples
    }
    return Corpus(corpus.targets, (*corpus.intents, *asked.values()))


def judged(intent: Intent, target: Target) -> bool:
    """Whether the target may count as wrong for the intent. Texts that nothing fits were only held against some
    families and general chat, and only that may be concluded from them."""
    if intent.right == target.name:
        return False
    if not intent.right:
        return target.family in HELD_AGAINST[intent.family] or target.name in GENERAL_NAMES.values()
    return not overlapping(intent.right, target.name)


def read_corpus(folder: Path = DATA) -> Corpus:
    """All families found in `folder`. Raises OSError, ValueError."""
    targets, intents = [], []
    for family in sorted(path.stem[-1] for path in folder.glob("capabilities-?.json")):
        for entry in json.loads((folder / f"capabilities-{family}.json").read_text("utf-8")):
            name = entry["type"] if family in TYPES else entry["id"]
            targets.append(Target(name, family, entry["description"], tuple(entry["examples"])))
        for line in (folder / f"intents-{family}.jsonl").read_text("utf-8").splitlines():
            intents.append(_intent(json.loads(line), family))
    return Corpus(tuple(targets), tuple(intents))


# What the organisations' intents call the general models that were offered beside them.
GENERAL_NAMES = {
    "general chat": GENERAL_CHAT,
    "coding": "coding",
    "summarisation": "summarisation",
    "translation": "translation",
    "rewriting": "rewriting",
}


def _intent(line: dict[str, object], family: str) -> Intent:
    right = line["type"] if family in TYPES else line["capability"]
    near = line.get("near") or []
    names = near if isinstance(near, list) else [near]
    return Intent(str(line["text"]), family, _name(right), tuple(_name(name) for name in names))


def _name(name: object) -> str:
    return GENERAL_NAMES.get(str(name), str(name)) if name else ""

"""Texts to calibrate and to verify with: the intents in `data/`, and what people also paste.

Both sets are drawn from the same files without overlap in the intents they use: every third text calibrates, the
others verify. Seeded, so that a run can be repeated.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

DATA = Path(__file__).parent / "data"
ODD = (
    *("a", "?", "...", "🙂", "0", "日本", "42", "ok", ". . . . . . . .", "C++", "<br/>", "привет", "how?", "NULL"),
    "x" * 120,
)


def intents() -> list[str]:
    files = (DATA / "intents-a.jsonl", DATA / "intents-b.jsonl")
    return [json.loads(line)["text"] for file in files for line in file.read_text("utf-8").splitlines()]


def calibration_texts() -> list[str]:
    return varied(intents()[::3], seed=1)


def verification_texts(count: int) -> list[str]:
    """`count` of the intents that calibration did not see, and as many texts made from them as `varied` adds."""
    unseen = [text for index, text in enumerate(intents()) if index % 3]
    return varied(random.Random(2).sample(unseen, count), seed=3)


def varied(texts: list[str], seed: int) -> list[str]:
    """`texts`, then single words, fragments, several texts pasted together (up to the window), shouting, and odd
    inputs."""
    rng = random.Random(seed)
    words = [word for text in texts for word in text.split()]
    made = rng.sample(sorted(set(words)), 60)
    made += [" ".join(rng.sample(words, rng.randint(2, 5))) for _ in range(60)]
    made += ["\n".join(rng.sample(texts, rng.randint(2, 6))) for _ in range(120)]
    made += [text.upper() for text in rng.sample(texts, 20)]
    made += ["!".join(text.split()) for text in rng.sample(texts, 10)]
    return [*texts, *made, *ODD]

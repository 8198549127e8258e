"""The command line of `atmo ask`, read without Typer, whose import takes longer than all else until the first word.

Typer is the definition, and a test holds the tables below against it. What is read here means the same there; whatever
is not plain (another command, a mistake, `--help`, an option written otherwise) is left to Typer.
"""

from __future__ import annotations

import os
from typing import Any

COMMAND = "ask"
FLAGS = {
    "--explain": "explain",
    "--private": "private",
    "--yes": "yes",
    "--plain": "plain",
    "--json": "as_json",
}
TEXTS = {"--model": "model", "-m": "model", "--type": "kind", "--system": "system", "--node": "node"}
LISTS = {"--file": "file", "-f": "file", "--where": "where", "-w": "where"}
# With the least and the most that is allowed.
WHOLE = {"--max-tokens": ("max_tokens", 0.0, None), "--seed": ("seed", -1.0, None)}
REAL = {"--temperature": ("temperature", 0.0, 5.0), "--timeout": ("timeout", 0.001, None)}


def read(words: list[str]) -> dict[str, Any] | None:
    """What the command is called with: options that are given, and `text`. None: ask Typer."""
    if words[:1] != [COMMAND] or "_ATMO_COMPLETE" in os.environ:
        return None
    said: dict[str, Any] = {"text": []}
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            said["text"].append(word)
        elif word in FLAGS:
            said[FLAGS[word]] = True
        elif not _take(said, word, next(rest, "-")):
            return None
    return said


def _take(said: dict[str, Any], option: str, value: str) -> bool:
    """Put an option's value among what is said. False for what is not plain."""
    if value.startswith("-"):
        return False
    if option in TEXTS:
        said[TEXTS[option]] = value
    elif option in LISTS:
        said.setdefault(LISTS[option], []).append(value)
    elif option in WHOLE and _is_plain(value):
        return _within(said, *WHOLE[option], int(value))
    elif option in REAL and _is_plain(value.replace(".", "", 1)) and value[0] != "." != value[-1]:
        return _within(said, *REAL[option], float(value))
    else:
        return False
    return True


def _is_plain(number: str) -> bool:
    """Digits that mean the same to everybody."""
    return number.isascii() and number.isdecimal() and len(number) < 16


def _within(said: dict[str, Any], name: str, least: float, most: float | None, value: float) -> bool:
    said[name] = value
    return least <= value and (most is None or value <= most)

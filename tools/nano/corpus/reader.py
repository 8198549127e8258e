"""The corpus files and how they are read.

A fact file (`atmosphere.txt`, `smalltalk.txt`, `code.txt`) is a list of blocks:

    @ key :: keyword; other keyword/its alternative
    ? a wording | another wording          (trained on)
    ! a wording kept for the score         (never trained on)
    = one line of the answer               (several lines make a longer answer)

The keywords are what a right answer must hold: all groups between `;`, of each group one alternative between `/`,
case ignored. Table files (`terms.txt`, `yesno.txt`, `poems.txt`, `summaries.txt`) have one row a line with `|` between
the cells. Lines that begin with `# ` are comments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

Message = tuple[str, str]  # role, text
Must = tuple[tuple[str, ...], ...]  # all groups, one alternative of each


@dataclass(frozen=True)
class Fact:
    """One thing to know: several wordings of the question, one answer."""

    topic: str
    key: str
    asked: tuple[str, ...]  # trained on
    held_out: tuple[str, ...]  # never trained on
    answer: str
    must: Must = ()


@dataclass(frozen=True)
class Question:
    """One held-out question and what its answer must hold."""

    topic: str
    key: str
    text: str
    answer: str
    must: Must


def wordings(text: str) -> tuple[str, ...]:
    """The wordings or names between `|`."""
    return tuple(text.split("|"))


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def parse_must(text: str) -> Must:
    groups = (tuple(a.strip().lower() for a in g.split("/") if a.strip()) for g in text.split(";"))
    return tuple(g for g in groups if g)


def _of_line(line: str) -> list[str]:
    return [w.strip() for w in line[1:].split(" | ") if w.strip()]


def lines_of(name: str) -> list[str]:
    text = (HERE / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("# ")]


def _block(topic: str, lines: list[str]) -> Fact:
    key, _, must = lines[0][1:].partition("::")
    asked = [w for line in lines if line.startswith("?") for w in _of_line(line)]
    held = [w for line in lines if line.startswith("!") for w in _of_line(line)]
    answer = "\n".join(line[2:] for line in lines if line.startswith("="))
    if not asked or not answer:
        raise ValueError(f"{topic}: block '{key.strip()}' lacks a wording or an answer")
    return Fact(topic, key.strip(), tuple(asked), tuple(held), answer, parse_must(must))


def read_facts(name: str, topic: str) -> list[Fact]:
    """All blocks of a fact file. Raises ValueError where a block has no wording or no answer."""
    blocks: list[list[str]] = []
    for line in lines_of(name):
        if line.startswith("@"):
            blocks.append([])
        if line.strip():
            blocks[-1].append(line)
    return [_block(topic, b) for b in blocks]


def read_table(name: str) -> list[list[str]]:
    """Rows of a table file, cells stripped."""
    return [[c.strip() for c in line.split("|")] for line in lines_of(name) if line.strip()]


def read_unknown() -> tuple[list[str], list[str]]:
    """Out-of-domain prompts: (trained on, held out)."""
    lines = [line.strip() for line in lines_of("unknown.txt") if line.strip()]
    return [x for x in lines if not x.startswith("!")], [x[1:].strip() for x in lines if x.startswith("!")]

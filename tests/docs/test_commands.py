"""Every command line that a text or a message names can be typed: the command is there, and so are its options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from atmo.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])
CODE = sorted((ROOT / "atmo").rglob("*.py"))
SHELL = ("", "sh", "bash", "console")
# What may stand before a program: settings, and programs that run another one.
BEFORE = re.compile(r"\w+=.*|sudo|env|exec|then|do|time")
ATMO: Any = get_command(app)


def lines_of(text: str) -> Iterator[str]:
    """Command lines in blocks of shell, fenced or indented, and in backquotes."""
    text = re.sub(r"\\\n", " ", text)
    parts = re.split(r"^ *```(.*)$", text, flags=re.MULTILINE)  # prose, language, block, nothing, prose, ...
    for language, block in zip(parts[1::4], parts[2::4], strict=True):
        yield from block.splitlines() if language.strip() in SHELL else ()
    prose = "\n".join(parts[::4])
    indented = (line.strip() for line in prose.splitlines() if line.startswith("    "))
    yield from (line for line in indented if "─" not in line)  # that is a picture
    yield from re.findall(r"`(atmo [^`]+)`", re.sub(r"^    .*$", "", prose, flags=re.MULTILINE).replace("\n", " "))


def calls(line: str) -> Iterator[list[str]]:
    """The words after each `atmo` that stands where a program does."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:  # a quote that ends on another line, or no shell at all
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word and not word.strip("|&;<>()"):
            while command and BEFORE.fullmatch(command[0]):
                command.pop(0)
            if command and command[0].rpartition("/")[2] == "atmo":
                yield command[1:]
            command = []
        else:
            command.append(word)


def wrong(words: list[str]) -> str:
    """What of a command line is not there; empty if all is."""
    command, path = ATMO, "atmo"
    words = [word.strip("[]") for word in words]
    while words and getattr(command, "commands", None) and not words[0].startswith("-"):
        if words[0] in ("...", "…"):
            return ""
        if words[0] not in command.commands:
            return f"there is no {path} {words[0]}"
        path += f" {words[0]}"
        command = command.commands[words.pop(0)]
    return _wrong_options(command, path, words)


def _wrong_options(command: Any, path: str, words: list[str]) -> str:
    options = {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options |= {"--help": None}
    most = sum(99 if each.nargs < 0 else each.nargs for each in command.params if each.param_type_name == "argument")
    rest = iter(words)
    for word in rest:
        name, with_value, _ = word.partition("=")
        if not word.startswith("-"):
            most -= 1
        elif name not in options:
            return f"{path} has no {name}"
        elif options[name] is not None and not options[name].is_flag and not with_value:
            next(rest, "")  # its value; prose names an option without one
    return f"{path} takes fewer words than {' '.join(words)!r}" if most < 0 else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_of_the_texts_is_one(page: Path) -> None:
    found = [words for line in lines_of(page.read_text()) for words in calls(line)]
    assert not [f"{shlex.join(words)}: {why}" for words in found if (why := wrong(words))]


def test_every_command_line_that_a_message_names_is_one() -> None:
    named = {line for file in CODE for line in re.findall(r"`(atmo [a-z][^`{]*)`", file.read_text())}
    assert len(named) > 20
    assert not [f"{line}: {why}" for line in sorted(named) for words in calls(line) if (why := wrong(words))]


def test_what_is_no_command_line_is_found() -> None:
    assert wrong(["mesh", "wach"]) == "there is no atmo mesh wach"
    assert wrong(["ask", "--modle", "x"]) == "atmo ask has no --modle"
    assert wrong(["ask", "--model", "--nothing", "--nonsense"]) == "atmo ask has no --nonsense"
    assert wrong(["keys", "revoke", "a", "b"]) == "atmo keys revoke takes fewer words than 'a b'"
    fenced = "```sh\natmo d \\\n e\n```\n\n```python\natmo f\n```\n"
    text = f"Do:\n\n    X=1 atmo a | tee b && /opt/atmo b  # atmo c\n\n{fenced}`atmo\ng` h"
    assert [words for line in lines_of(text) for words in calls(line)] == [["d", "e"], ["a"], ["b"], ["g"]]

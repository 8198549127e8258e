"""Every line of docs/faults.md names a test or a benchmark that exists, in the file it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
NAMED = re.findall(r"`(\w+)`\s+(?:is\s+)?(tests/[\w/]+\.py)", PAGE)  # `F` is tests/mesh/test_failures.py
SHORT = dict(NAMED)
REFERENCE = re.compile(
    r"(?P<file>(?:tests|bench)/[\w/]+\.\w+)|`(?P<test>[a-z0-9_]+)(?:\.\.\.)?`|\b(?P<short>[A-Z]\w*)(?=\s+`)"
)


def rows(page: str) -> list[str]:
    """Of all tables, without their heads."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [line for line in lines if "held by" not in line and not line.startswith("|---")]


def unfounded(row: str, short: dict[str, str]) -> list[str]:
    """What the last cell names and is not there. Names of tests follow that of their file."""
    held_by, file, missing, named = row.rsplit("|", 2)[1], "", list[str](), "bench" in row.rsplit("|", 2)[1]
    for found in REFERENCE.finditer(held_by):
        test = found["test"]
        if test is None:
            file, named = found["file"] or short.get(found["short"], ""), True
            if not file or not (ROOT / file).is_file():
                missing.append(found[0])
        elif not file or f"def test_{test}" not in (ROOT / file).read_text():
            missing.append(f"{file or 'no file'}: {test}")
    return missing if named else [*missing, "nothing is named"]


@pytest.mark.parametrize("row", rows(PAGE), ids=lambda row: row.split("|")[1].strip()[:60])
def test_what_holds_a_line_is_there(row: str) -> None:
    assert unfounded(row, SHORT) == []


def test_a_short_name_means_one_file() -> None:
    assert len(SHORT) == len(NAMED) > 10


def test_what_is_not_there_is_found() -> None:
    short = {"F": "tests/docs/test_faults.py"}
    assert unfounded("| x | y | F `what_holds_a_line...`, `what_is_not_there_is_found`; bench |", short) == []
    assert unfounded("| x | y | bench/scenarios/failover.toml |", {}) == []
    for held_by in ("F `what_holds_a_lion...`", "G `x`", "`what_holds_a_line...`", "tests/no/test_file.py", "hope"):
        assert unfounded(f"| x | y | {held_by} |", short) != [], held_by

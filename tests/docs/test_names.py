"""Every variable, setting, metric and piece of configuration that a text names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atmo.config import Config, load
from atmo.errors import AtmoError
from tests.docs.test_commands import PAGES, ROOT

DEPLOYED = [ROOT / "Dockerfile", *(file for file in sorted((ROOT / "deploy").rglob("*")) if file.is_file())]
SECTIONS = {name: kind for name, kind in Config.__annotations__.items() if str(kind).endswith("Section")}
# Fenced, or indented.
WRITTEN = re.compile(r"^```toml\n([\s\S]*?)^```|^(    \[+\w+\]+.*\n(?:    .*\n|\n(?=    ))*)", re.MULTILINE)


def known(page: str, pattern: str) -> set[str]:
    """What a page that is written from the program names."""
    return set(re.findall(pattern, (ROOT / "docs" / page).read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", [*PAGES, *DEPLOYED], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_variable_of_the_texts_is_one(page: Path) -> None:
    variables = set(re.findall(r"\bATMO_[A-Z_]*[A-Z]\b", page.read_text()))
    assert variables - known("configuration.md", r"`(?:\$)?(ATMO_[A-Z_]+)") == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_and_metric_of_the_texts_is_one(page: Path) -> None:
    text = page.read_text()
    settings = re.findall(rf"`({'|'.join(SECTIONS)})\.(\w+)(?!\w*\.)", text)
    own = load(environ={})
    assert [f"{section}.{key}" for section, key in settings if not hasattr(getattr(own, section), key)] == []
    quoted = " ".join(re.findall(r"`([^`\n]+)`", text))
    metrics = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in re.findall(r"\batmo_[a-z_]+", quoted)}
    assert metrics - known("metrics.md", r"^\| `(atmo_\w+)`") == set()


def test_every_configuration_of_the_texts_is_one(tmp_path: Path) -> None:
    found = [
        (page, fenced or re.sub("(?m)^    ", "", indented))
        for page in PAGES
        for fenced, indented in WRITTEN.findall(page.read_text())
    ]
    assert len(found) > 5
    for page, text in found:
        (tmp_path / "config.toml").write_text(text)
        try:
            load({"home": str(tmp_path)}, environ={})
        except AtmoError as error:
            pytest.fail(f"{page.relative_to(ROOT)}: {error}\n{text}")

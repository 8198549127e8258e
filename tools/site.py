"""What the documentation's site needs besides mkdocs.yml: a navigation that follows the files that are there, and a
search that finds what to do before why it is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# How much a hit counts, by folder or page. How things are done comes before how they were decided.
BOOSTS = {"how-to": 4.0, "tutorials": 2.0, "decisions": 0.1, "configuration.md": 2.0}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    parts = Path(page.file.src_uri).parts
    page.meta["search"] = {"boost": BOOSTS.get(parts[0], 1.0)}
    return markdown


def on_config(config: Any) -> Any:
    """A page of the navigation that does not exist is left out, and a folder becomes its pages."""
    config["nav"] = _present(config["nav"], Path(config["docs_dir"]))
    return config


def _present(entries: list[Any], docs: Path) -> list[Any]:
    kept: list[Any] = []
    for entry in entries:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(target, list):
            kept.append({title: _present(target, docs)})
        elif (docs / target).is_dir():
            kept.append({title: [str(page.relative_to(docs)) for page in sorted((docs / target).glob("*.md"))]})
        elif (docs / target).is_file():
            kept.append(entry)
    return kept

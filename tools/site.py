"""What the documentation's site needs besides mkdocs.yml: a navigation that follows the files that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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

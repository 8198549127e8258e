"""docs/cli.md from the program's own help, and other pages from its settings and metrics. `python -m tools.docs` writes
them, `--check` says if they are up to date."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(COLUMNS="100", TERMINAL_WIDTH="100", NO_COLOR="1")

HEAD = """# Command line

Written by `make docs` from the program's own help; do not edit. Every command exits with 0 when it did what it says.

| exit code | means |
|---|---|
| 1 | something failed that should not have, or `doctor` found something to mend |
| 2 | a mistake in the command, the configuration or the request |
| 3 | no node is running |
| 4 | the network or a socket |
| 5 | no node can serve the request |
| 6 | the request was routed and then failed |
| 7 | a model or its engine |
| 130 | interrupted with Ctrl-C |
"""


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def reference() -> str:
    from typer.main import get_command
    from typer.testing import CliRunner

    from atmo.cli.main import app

    runner = CliRunner()
    parts = [HEAD]
    for path, _ in commands(get_command(app), ("atmo",)):
        shown = runner.invoke(app, [*path[1:], "--help"], prog_name="atmo", terminal_width=100)
        parts.append(f"## `{' '.join(path)}`\n\n```\n{shown.output.strip()}\n```\n")
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """Every page that is written from the program."""
    from tools import configuration, metrics

    return {
        "cli.md": reference(),
        "configuration.md": configuration.reference(),
        "metrics.md": metrics.reference(),
    }


def main() -> int:
    folder = Path(__file__).parent.parent / "docs"
    stale = [
        name for name, text in pages().items() if not (folder / name).exists() or (folder / name).read_text() != text
    ]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/{name} is out of date: run `make docs`.")
        return 1 if stale else 0
    for name, text in pages().items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

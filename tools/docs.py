"""docs/cli.md from the program's own help. `python -m tools.docs` writes it, `--check` says if it is up to date."""

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
| 8 | the disk: full, failing, or a stored model that is damaged or in use |
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


def main() -> int:
    file = Path(__file__).parent.parent / "docs" / "cli.md"
    text = reference()
    if "--check" in sys.argv:
        if not file.exists() or file.read_text() != text:
            print("docs/cli.md is out of date: run `make docs`.")
            return 1
        return 0
    file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

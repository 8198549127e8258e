"""docs/cli.md from the program's own help, docs/json.md from the types in atmo/cli/shapes, docs/configuration.md
from its settings, docs/metrics.md from its metrics. `python -m tools.docs` writes them, `--check` says if they are up
to date."""

from __future__ import annotations

import io
import os
import sys
import types
import typing
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import msgspec

if __name__ == "__main__":  # before anything is imported that looks
    os.environ.update(COLUMNS="100", TERMINAL_WIDTH="100", NO_COLOR="1")

HEAD = """# Command line

Written by `make docs` from the program's own help; do not edit. Every command exits with 0 when it did what it says,
also when whoever reads its output through a pipe has enough.

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

The answer goes to standard output, what is said about it to standard error: `atmo ask ... > file` holds the answer
alone. Colours, progress and who answered are for people: they are left out where standard output is no terminal, and
colours with `NO_COLOR`, too. Every command takes `--json`; [what it prints](json.md) is described by types. Tab
completes commands, options, nodes and models after `atmo --install-completion` (bash, zsh, fish).
"""

JSON_HEAD = """# What `--json` prints

Written by `make docs` from `atmo/cli/shapes`; do not edit. Tests hold what a real node says against the same types.

Every command prints one object; `node logs`, `chat` and `mesh watch` print one a line. A command that fails prints

    {"error": {"code": "...", "message": "...", "hint": "..."}}

with the [exit code](cli.md) that belongs to it. Fields may be added; none is removed or changes its meaning but in a
new major version. Times end in `_s` (seconds; since 1970 where it is a moment) or `_ms`, sizes in `_bytes`; peers and
meshes are written as `12D3KooW...`; `null` stands for what is not known.
"""


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    children = getattr(command, "commands", {})
    for name in command.list_commands(None) if children else []:
        yield from commands(children[name], (*path, name))


def reference() -> str:
    from atmo.cli import typed

    whole, parts = typed.command(), [HEAD]
    for path, _ in commands(whole, ("atmo",)):
        with redirect_stdout(io.StringIO()) as shown:
            whole.main([*path[1:], "--help"], prog_name="atmo", terminal_width=100, standalone_mode=False)
        parts.append(f"## `{' '.join(path)}`\n\n```\n{shown.getvalue().strip()}\n```\n")
    return "\n".join(parts)


def json_reference() -> str:
    """Commands with the objects they print, then the objects these are made of."""
    from atmo.cli.shapes import COMMANDS, ELSEWHERE

    parts, within = [JSON_HEAD], dict[str, type]()
    for name, shape in COMMANDS.items():
        parts.append(f"## `atmo {name}`\n\n{_described(shape, within)}")
    parts += [
        f"## `atmo {name}`\n\nEvents, one object a line: see [watching]({Path(page).name}).\n"
        for name, page in ELSEWHERE.items()
    ]
    parts.append("# Objects\n")
    done: set[str] = set()
    while rest := [name for name in within if name not in done]:
        for name in rest:
            done.add(name)
            parts.append(f"## {name}\n\n{_described(within[name], within)}")
    return "\n".join(parts)


def _described(shape: type, within: dict[str, type]) -> str:
    hints = typing.get_type_hints(shape)
    rows = [
        f"| `{field.encode_name}` | {_type(hints[field.name], within)} |" for field in msgspec.structs.fields(shape)
    ]
    told = " ".join((shape.__doc__ or "").split())
    return "\n".join([told, "", "| field | type |", "|---|---|", *rows, ""])


def _type(kind: Any, within: dict[str, type]) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(each, within) for each in inner)
    if origin is list:
        return f"list of {_type(inner[0], within)}"
    if origin is tuple:
        return f"pair of {_type(inner[0], within)}"
    if origin is dict:
        return f"object of {_type(inner[1], within)}"
    if kind is type(None):
        return "null"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        within[kind.__name__] = kind
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(kind, "anything")


def pages() -> dict[str, str]:
    """Every page that is written from the program."""
    from tools import configuration, metrics

    return {
        "cli.md": reference(),
        "json.md": json_reference(),
        "configuration.md": configuration.reference(),
        "metrics.md": metrics.reference(),
    }


def main() -> int:
    folder = Path(__file__).parent.parent / "docs"
    texts = pages()
    stale = [
        name for name, text in texts.items() if not (folder / name).exists() or (folder / name).read_text() != text
    ]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/{name} is out of date: run `make docs`.")
        return 1 if stale else 0
    for name in stale:
        (folder / name).write_text(texts[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())

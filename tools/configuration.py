"""docs/configuration.md from atmo/config.py: every key, its variable, its default, and what its section says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from atmo import config
from atmo.environment import SHORT_NAMES, variable

HEAD = """# Configuration

Written by `make docs` from `atmo/config.py`; do not edit. Nothing needs to be configured; what is, is read once, when a
node starts. Defaults < `config.toml` < `ATMO_*` in the environment < options of the command. `config.toml` is in
`$ATMO_HOME`. Unknown keys and variables are errors, and say what was probably meant.

| variable | option | what it is | without it |
|---|---|---|---|
| `ATMO_HOME` | `--home` | folder for keys, models and all that a node keeps | `~/.atmo` |
| `ATMO_RUNTIME` | | folder where the running nodes of a user find each other; the user's alone | \
`$XDG_RUNTIME_DIR/atmo`, or one in the system's folder for temporary files |
| `ATMO_CONFIG` | `--config` | another file than `$ATMO_HOME/config.toml` | |

In the environment, lists are written with commas (`ATMO_DISCOVERY_SEEDS=/dns4/a/tcp/4600,/dns4/b/tcp/4600`) and tables
as `key=value` with commas (`ATMO_NODE_LABELS=residency=eu,tier=lab`). `[[serve]]` and `[[runtimes]]`, of which there
may be several, are in the file alone; for models without more to say about them there is `ATMO_MODEL_PATH`.

## Short names

For containers and services. Each is another name of one setting; setting both is an error.

| variable | the same as |
|---|---|
"""
SERVE = "the `model` of one or several `[[serve]]`, with commas; all others of the file are left out"
EXAMPLE = """
## An example

```toml
[node]
labels = { residency = "eu" }

[transport]
host = "0.0.0.0"

[[serve]]
model = "qwen2.5-coder-7b-q4.gguf"
description = "Writes, explains and debugs source code in Python, TypeScript and Rust."
examples = ["Why does this function leak memory?", "Write a regex that matches an IPv4 address"]

[[runtimes]]
url = "http://10.0.0.7:8000"
```
"""
_LISTS = {"serve": config.ServeSection, "runtimes": config.RuntimeSection}


def reference() -> str:
    """The whole page."""
    parts = [HEAD, *(f"| `{name}` | {_same(setting)} |\n" for name, setting in SHORT_NAMES.items())]
    for name, field in config.Config.__annotations__.items():
        section = getattr(config, field, None)
        if isinstance(section, type) and issubclass(section, config.Section):
            parts.append(_section(f"[{name}]", section, name))
    parts += [_section(f"[[{name}]]", section, "") for name, section in _LISTS.items()]
    return "".join([*parts, EXAMPLE])


def _same(setting: str) -> str:
    return SERVE if setting == "serve" else f"`{variable(setting)}`"


def _section(title: str, section: type[msgspec.Struct], environment: str) -> str:
    opening, told = described(section)
    lines = [f"\n## `{title}`\n\n", f"{opening}\n\n" if opening else ""]
    lines.append(
        f"| key | {'variable | ' if environment else ''}default | |\n|---|---|---|{'---|' if environment else ''}\n"
    )
    for field in msgspec.structs.fields(section):
        name = f"`{variable(f'{environment}.{field.name}')}` | " if environment else ""
        lines.append(f"| `{field.name}` | {name}{_default(field)} | {told[field.name]} |\n")
    return "".join(lines)


def described(section: type[msgspec.Struct]) -> tuple[str, dict[str, str]]:
    """What comes before the first key in a section's docstring, and what is said of each key. Raises ValueError for one
    of which nothing is said."""
    text = " ".join((section.__doc__ or "").split())
    names = section.__struct_fields__
    parts = re.split(rf"(?:^|(?<=[;.] ))({'|'.join(names)}): ", text)
    told = {name: _sentence(what) for name, what in _pairs(parts[1:])}
    if missing := [name for name in names if name not in told]:
        raise ValueError(f"The docstring of {section.__name__} says nothing of {', '.join(missing)}.")
    return parts[0].strip(), told


def _pairs(parts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(parts[::2], parts[1::2], strict=True)


def _sentence(what: str) -> str:
    return what.strip().rstrip(";.").replace("|", "\\|")


def _default(field: Any) -> str:
    if field.required:
        return "needed"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value in ("", (), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"

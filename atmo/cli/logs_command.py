"""`atmo node logs`."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from atmo.cli import output
from atmo.config import Config, load
from atmo.errors import ConfigError

# How soon a new line is shown. A guess: below what a person notices as late.
POLL_S = 0.2
# The end of a log is looked for in no more than this.
TAIL_BYTES = 8 << 20


def logs(name: str | None, home: str | None, *, lines: int, follow: bool, as_json: bool) -> None:
    config = load({"node.name": name, "home": home})
    file = config.log_file
    try:
        with file.open("rb") as log:
            for line in _last(log, lines):
                _print(line, as_json)
            if follow:
                _follow(log, file, as_json)
    except FileNotFoundError:
        raise ConfigError(f"No node named {config.node.name!r} has ever run here.", hint=_known(config)) from None


def _known(config: Config) -> str:
    names = sorted(folder.name for folder in (config.home / "nodes").glob("*") if folder.is_dir())
    return f"There are logs of: {', '.join(names)}." if names else "Start one: atmo node start"


def _last(log: IO[bytes], count: int) -> Iterator[bytes]:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - TAIL_BYTES))
    if size > TAIL_BYTES:
        log.readline()  # the rest of a line
    yield from deque(log, count)


def _follow(log: IO[bytes], file: Path, as_json: bool) -> None:
    """Until Ctrl-C. A log that was put in another's place, or cut, is read from its beginning."""
    while True:
        line = log.readline()
        if line:
            _print(line, as_json)
            continue
        time.sleep(POLL_S)
        if file.exists() and file.stat().st_size < log.tell():
            log.seek(0)


def _print(line: bytes, as_json: bool) -> None:
    text = line.decode(errors="replace").rstrip("\n")
    if as_json:
        output.print_json_line({"line": text})
    else:
        sys.stdout.write(f"{output.harmless(text) if sys.stdout.isatty() else text}\n")
        sys.stdout.flush()

"""What the command line prints: one style for tables, errors and JSON, colours only where a person reads.

Rich is imported when something is drawn: an answer into a pipe must not wait for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atmo.errors import AtmoError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

# What takes longer than this says what it is doing.
PATIENCE_S = 0.7
# Terminals on which nothing can be drawn, as rich counts them.
DUMB = ("dumb", "unknown")


# All that steers a terminal and is no character: C0 and C1 but line feed and tab.
_CONTROL = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")


def console() -> Console:
    """Standard output; rich leaves colours out when it is no terminal or NO_COLOR is set."""
    from atmo.cli.consoles import OUT

    return OUT


def aside() -> Console:
    """Standard error, for what is said about an answer rather than in it."""
    from atmo.cli.consoles import ASIDE

    return ASIDE


def to_people() -> bool:
    """Is the answer read by a person, and so is what is said about it?"""
    return sys.stdout.isatty() and sys.stderr.isatty()


def harmless(value: Any) -> Any:
    """Text, or JSON with text in it, that cannot steer a terminal: names and answers come from other machines."""
    if isinstance(value, str):
        return value.translate(_CONTROL)
    if isinstance(value, dict):
        return {key: harmless(each) for key, each in value.items()}
    return [harmless(each) for each in value] if isinstance(value, list) else value


def fail(error: AtmoError) -> int:
    """Say what, why and what to do, on standard error. Returns the exit code."""
    from rich.markup import escape

    aside().print(f"[bold red]atmo:[/] {escape(harmless(error.message))}", soft_wrap=True)
    if error.hint:
        aside().print(f"      [dim]{escape(harmless(error.hint))}[/]", soft_wrap=True)
    return error.exit_code


def fail_json(error: AtmoError) -> int:
    print_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    return error.exit_code


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """One of many, on a line of its own."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(*columns: str, title: str = "") -> Table:
    """A table in the house style: no vertical lines, dim head."""
    from rich.table import Table

    made = Table(title=title or None, title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        name, _, align = column.partition("|")
        made.add_column(name, justify="right" if align == "right" else "left", no_wrap=align == "right")
    return made


class Busy:
    """A line at the bottom that says what is being done. `done` takes it away, which is safe to call twice."""

    def __init__(self, what: str) -> None:
        import threading

        self._what = what
        self._status: Status | None = None
        self._lock = threading.Lock()
        self._over = False
        self._timer = threading.Timer(PATIENCE_S, self._show)
        self._timer.daemon = True
        self._timer.start()

    def say(self, what: str) -> None:
        with self._lock:
            self._what = what
            if self._status is not None:
                self._status.update(what)

    def done(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._status is not None:
                self._status.stop()
                self._status = None

    def _show(self) -> None:
        with self._lock:
            if not self._over and aside().is_terminal:
                self._status = aside().status(self._what, spinner="dots", spinner_style="dim")
                self._status.start()


@contextmanager
def busy(what: str) -> Iterator[Busy | None]:
    """Say `what` on standard error while the body takes longer than a moment; None where nobody would see it."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "").lower() in DUMB:
        yield None
        return
    shown = Busy(what)
    try:
        yield shown
    finally:
        shown.done()

"""A pane: a table of columns over entries of the story. What its cells say is told by functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from atmo.cli.watch.cells import GREEN, PLAIN, RED, YELLOW, Cell
from atmo.cli.watch.story import Story

Entry = Any
"""A node, event, link or transfer is JSON, a request a `Request`, a capability a pair of its id and who offers it."""

STANDS = {"good": GREEN, "doubt": YELLOW, "bad": RED, "plain": PLAIN}


@dataclass(frozen=True, slots=True)
class Column:
    """least, most: width in cells; what is left over goes to the first columns that may have more. cell(entry, story,
    width). order: what it sorts by, None if it does not. wide: shown from this width of the pane on."""

    head: str
    least: int
    most: int
    cell: Callable[[Entry, Story, int], Cell]
    order: Callable[[Entry, Story], Any] | None = None
    right: bool = False
    wide: int = 0


@dataclass(frozen=True, slots=True)
class Pane:
    """entries: in their own order; key: what an entry is known by from one frame to the next; words: what a filter
    looks at; newest: the order is by time, and new ones come on top."""

    title: str
    columns: tuple[Column, ...]
    entries: Callable[[Story], list[Entry]]
    key: Callable[[Entry], str]
    words: Callable[[Entry, Story], str]
    newest: bool = False

    @property
    def orders(self) -> list[Column]:
        return [column for column in self.columns if column.order is not None]


def clock(at_s: float) -> str:
    """Seconds since 1970 as local time of day."""
    return _clock(int(at_s))


@lru_cache(maxsize=1024)
def _clock(at_s: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_s))


def milliseconds(value: float) -> str:
    return f"{value:.1f}ms" if value < 100 else f"{value:.0f}ms" if value < 10_000 else f"{value / 1000:.0f}s"

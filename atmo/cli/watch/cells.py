"""Text in cells of fixed width: the ground on which the live view draws.

A frame is drawn ten times a second, so lines are made of rich's `Segment` directly, a few for each line: rich's own
`Table` measures and wraps every cell, which takes ten times as long. Invariant: a line made here is exactly as wide as
it was asked to be, and holds nothing that moves the cursor, whatever names other nodes gave themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

Line = list[Segment]

PLAIN = Style()
DIM = Style(dim=True)
BOLD = Style(bold=True)
GREEN = Style(color="green")
YELLOW = Style(color="yellow")
RED = Style(color="red")
CYAN = Style(color="cyan")
REVERSE = Style(reverse=True)
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    style: Style = PLAIN


def clean(text: str) -> str:
    """Without anything that is no visible character: names and reasons are other people's words."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "·" for c in text)


@lru_cache(maxsize=8192)
def fit(text: str, width: int, right: bool = False) -> str:
    """The text in exactly so many cells, with an ellipsis where it is too long."""
    text = clean(text)
    length = len(text) if text.isascii() else cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    padding = " " * (width - length)
    return padding + text if right else text + padding


def line(parts: Iterable[tuple[str, Style]], width: int, over: Style | None = None) -> Line:
    """One line from texts, cropped or filled to the width. over: one style instead of all the others."""
    made: Line = []
    run: list[str] = []  # texts of one style in a row become one segment
    last, left = over or PLAIN, width
    for text, style in parts:
        text = clean(text)
        length = len(text) if text.isascii() else cell_len(text)
        if length > left:
            text, length = fit(text, left), left
        left -= length
        shown = over or style
        if shown is not last and run:
            made.append(Segment("".join(run), last))
            run.clear()
        run.append(text)
        last = shown
        if not left:
            break
    made.append(Segment("".join(run), last))
    if left:
        made.append(Segment(" " * left, over or PLAIN))
    return made


def plain(text: str, width: int, style: Style = PLAIN) -> Line:
    return line([(text, style)], width)


def beside(left: Sequence[Line], right: Sequence[Line], width: int) -> list[Line]:
    """Two blocks of equal height, with a line between them. width: of the left one."""
    blank: Line = [Segment(" " * width, PLAIN)]
    height = max(len(left), len(right))
    between = Segment("│ ", DIM)
    return [
        [*(left[row] if row < len(left) else blank), between, *(right[row] if row < len(right) else [])]
        for row in range(height)
    ]


def spark(values: Sequence[float], width: int, top: float = 0.0) -> str:
    """The newest values as bars, right-aligned. top: what a full bar means, the largest value if that is more.

    Nothing is a blank, so that a node at rest is seen to rest.
    """
    shown = list(values)[-width:]
    most = max(top, *shown, 1e-9) if shown else 1.0
    bars = "".join(" " if value <= 0 else BARS[min(7, int(value / most * 7.999))] for value in shown)
    return bars.rjust(width)


def bar(share: float, width: int) -> str:
    """A share of 1 as a bar."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole screen: lines of one width. A renderable."""

    lines: tuple[Line, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        last = len(self.lines) - 1
        for number, made in enumerate(self.lines):
            yield from made
            if number < last:
                yield Segment.line()

    @property
    def text(self) -> str:
        """Without styles, for tests and pipes."""
        return "\n".join("".join(segment.text for segment in made).rstrip() for made in self.lines)

"""The terminal as the live view draws on it: of a frame only the lines that are not there already.

A frame comes ten times a second and differs from the last in a few lines. To print all of it would cost the view, the
way to the terminal and the terminal several times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest

from rich.color import ColorSystem
from rich.console import COLOR_SYSTEMS, Console
from rich.segment import Segment

from atmo.cli.watch.cells import Frame, Line

# What somebody else wrote over the picture stands no longer than so many frames: ten seconds. A guess.
WHOLE_EACH = 100
HOME = "\x1b[H"


class Canvas:
    """The whole of a terminal, which nobody else draws on. rich knows what the terminal can."""

    def __init__(self, console: Console) -> None:
        self._file = console.file
        self._colours = COLOR_SYSTEMS.get(console.color_system or "")
        self._plain = console.no_color
        self._size = (0, 0)
        self._lines: Sequence[Line] = ()
        self._frames = 0

    def draw(self, fresh: Frame, size: tuple[int, int]) -> None:
        """size: of the terminal. All is drawn when it has changed: terminals move what they hold."""
        self._frames += 1
        if size != self._size or self._frames % WHOLE_EACH == 0:
            self._size, self._lines = size, ()
        changed = [
            f"\x1b[{row}H{_written(tuple(line), self._colours, self._plain)}"
            for row, (was, line) in enumerate(zip_longest(self._lines, fresh.lines), 1)
            if line is not None and line != was
        ]
        self._lines = fresh.lines
        if changed:
            self._file.write(HOME + "".join(changed))
            self._file.flush()


@lru_cache(maxsize=512)
def _written(line: tuple[Segment, ...], colours: ColorSystem | None, plain: bool) -> str:
    """A line as the terminal wants it. Most that move on the screen were on it before."""
    made = []
    for text, style, _ in line:
        if style is not None and plain:
            style = style.without_color
        made.append(style.render(text, color_system=colours) if style is not None else text)
    return "".join(made)

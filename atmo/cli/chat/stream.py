"""Markdown while it comes.

Markdown is made of blocks, and a block that is complete never changes again. So what is complete is printed for good,
and only the block that is still being written is drawn anew, at the bottom, where the terminal can take it back. A
block ends with an empty line outside of a code fence; a list goes on over empty lines, so what follows one waits for a
line that is no part of it. Of a block that is higher than the screen the end is shown; all of it is printed when it is
complete.
"""

from __future__ import annotations

import re
import time

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

# A terminal over a slow line keeps up with this, and so does rich: a block takes some milliseconds. A guess.
FRAME_S = 0.1

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LIST = re.compile(r" {0,3}([-*+]|\d{1,9}[.)])(\s|$)")


def settled(text: str) -> int:
    """How many characters at the beginning of `text` are whole blocks."""
    done = at = 0
    fence = ""
    listed = empty = False
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if not fence and empty and line.strip() and not (listed and _continues(line)):
            done, listed = at, False
        if mark and not fence:
            fence = mark[1]
        elif mark and fence and mark[1].startswith(fence) and not line[mark.end() :].strip():
            fence = ""
        if not fence:
            listed = listed or _LIST.match(line) is not None
            empty = not line.strip() and line.endswith("\n")
        else:
            empty = False
        at += len(line)
    return done


def _continues(line: str) -> bool:
    """Is this line part of the list before the empty line?"""
    return line.startswith((" ", "\t")) or _LIST.match(line) is not None


class MarkdownStream:
    """Shows text as it is fed. Use as a context; the end prints what is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = ""
        self._drawn_s = 0.0
        self._first = True
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> MarkdownStream:
        self._live.start()
        return self

    def feed(self, text: str) -> None:
        self._text += text
        done = settled(self._text)
        if done:
            self._print(self._text[:done])
            self._text = self._text[done:]
        if time.monotonic() - self._drawn_s >= FRAME_S:
            self._drawn_s = time.monotonic()
            self._live.update(_Tail(rendered(self._text), self._console.height - 2), refresh=True)

    def _print(self, text: str) -> None:
        self._live.update("", refresh=True)
        if text.strip():
            if not self._first:
                self._console.print()
            self._console.print(rendered(text))
            self._first = False

    def __exit__(self, *exc: object) -> None:
        self._live.update("", refresh=True)
        self._live.stop()
        self._print(self._text)


def rendered(text: str) -> Markdown:
    """Links show where they go: an answer comes from a model."""
    return Markdown(text.strip("\n"), hyperlinks=False, code_theme="ansi_dark")


class _Tail:
    """The last lines of something."""

    def __init__(self, whole: Markdown, height: int) -> None:
        self._whole, self._height = whole, max(1, height)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options, pad=False)[-self._height :]
        for line in lines:
            yield from line
            yield Segment.line()

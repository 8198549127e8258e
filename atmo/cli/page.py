"""Where an answer is shown as it comes: as it is for programs, with Markdown for people at a terminal."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from atmo.cli import output

if TYPE_CHECKING:
    from atmo.cli.chat.stream import MarkdownStream


class Page:
    """`close` ends it with a line feed, where something was shown that does not end with one; it is safe to call twice.

    plain: without Markdown, also at a terminal.
    """

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain or not sys.stdout.isatty()
        self._stream: MarkdownStream | None = None
        self._ended = True

    @functools.cached_property
    def drawn(self) -> bool:
        """With Markdown, and then whatever else is printed meanwhile goes through the same console."""
        return not self._plain and output.console().is_terminal and not output.console().is_dumb_terminal

    def prepare(self) -> None:
        """Import what draws. To be called when the node has been asked: the answer comes meanwhile."""
        if self.drawn:
            import atmo.cli.chat.stream  # noqa: F401

    def feed(self, text: str) -> None:
        if self.drawn:
            self._page().feed(output.harmless(text))
            return
        sys.stdout.write(output.harmless(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
        self._ended = text.endswith("\n") if text else self._ended

    def close(self) -> None:
        if self._stream is not None:
            self._stream.__exit__(None, None, None)
            self._stream = None
        if not self._ended:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._ended = True

    def _page(self) -> MarkdownStream:
        """Begun with the first word: until then others draw on the screen."""
        if self._stream is None:
            from atmo.cli.chat.stream import MarkdownStream

            self._stream = MarkdownStream(output.console())
            self._stream.__enter__()
        return self._stream

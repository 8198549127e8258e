"""A terminal for tests: tmux with a server of its own, which nobody else can see and which is gone at the end."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import eventually

ROOT = Path(__file__).parents[2]
ATMO = shlex.join([sys.executable, "-m", "atmo"])


class Terminal:
    """A shell in a terminal of a given size."""

    def __init__(self, folder: Path, columns: int, rows: int) -> None:
        own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self._environ = {**own, "TMUX_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        self._folder = folder
        self._size = str(columns), str(rows)

    def start(self) -> None:
        columns, rows = self._size
        self.tmux("new-session", "-d", "-x", columns, "-y", rows, "-c", str(self._folder), "sh")

    def tmux(self, *words: str) -> str:
        told = ["tmux", "-f", "/dev/null", *words]
        return subprocess.run(told, env=self._environ, capture_output=True, text=True, check=True).stdout

    def run(self, command: str) -> None:
        """Type a command; when it ends the shell says so with its exit code."""
        self.tmux("send-keys", "-l", f"{command}; echo ended with $?")
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: characters, Enter, Escape, Down, C-c."""
        self.tmux("send-keys", *keys)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def shows(self, *words: str, patience_s: float = 40.0) -> str:
        """Wait until all the words are on the screen at once; returns the screen."""
        last = ""

        def there() -> bool:
            nonlocal last
            last = self.screen()
            return all(word in last for word in words)

        try:
            eventually(there, f"{words} on the screen", patience_s)
        except AssertionError as missing:
            raise AssertionError(f"{missing}\n{last}") from None
        return last

    def resize(self, columns: int, rows: int, *words: str) -> str:
        """Until the words are shown: a busy tmux may tell its program of the first size alone."""
        for patience_s in (10.0, 10.0, 40.0):
            self.tmux("resize-window", "-x", str(columns - 1), "-y", str(rows))
            self.tmux("resize-window", "-x", str(columns), "-y", str(rows))
            try:
                return self.shows(*words, patience_s=patience_s)
            except AssertionError:
                if patience_s == 40.0:
                    raise
        raise AssertionError("never reached")

    @property
    def full_screen(self) -> bool:
        """Is the alternate screen shown?"""
        return self.tmux("display-message", "-p", "#{alternate_on}").strip() == "1"


@contextmanager
def terminal(folder: Path, columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    """folder: short, empty; tmux puts its socket there."""
    opened = Terminal(folder, columns, rows)
    opened.start()
    try:
        yield opened
    finally:
        opened.tmux("kill-server")

"""The keyboard: a terminal that hands over each key at once, and names for the keys that are no characters."""

from __future__ import annotations

import codecs
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

# What terminals send (ECMA-48; xterm and VT220 for those with ~, both cursor modes).
SEQUENCES = {
    "\x1b[A": "up", "\x1bOA": "up",
    "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[C": "right", "\x1bOC": "right",
    "\x1b[D": "left", "\x1bOD": "left",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "\x1b[7~": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end", "\x1b[8~": "end",
    "\x1b[5~": "page-up", "\x1b[6~": "page-down",
    "\x1b[Z": "left",
}  # fmt: skip
SINGLE = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x03": "ctrl-c"}
MAX_SEQUENCE = 8


class Reader:
    """From bytes to keys. Bytes may come in any pieces; an escape that nothing follows is the Escape key."""

    def __init__(self) -> None:
        self._left = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bool:
        """An escape was read that may be the beginning of something: call `flush` when nothing follows at once."""
        return bool(self._left)

    def feed(self, data: bytes) -> list[str]:
        self._left += self._decoder.decode(data)
        keys = []
        while self._left:
            key, taken = _first(self._left)
            if not taken:
                break
            self._left = self._left[taken:]
            if key:
                keys.append(key)
        return keys

    def flush(self) -> list[str]:
        """Nothing came after the escape."""
        left, self._left = self._left, ""
        return ["escape", *self.feed(left[1:].encode())] if left else []


def _first(text: str) -> tuple[str, int]:
    """The first key and its length; length 0 where more has to come, no key where a sequence means nothing here."""
    if text[0] != "\x1b":
        return SINGLE.get(text[0], text[0]), 1
    if len(text) == 1:
        return "", 0
    if text[1] not in "[O":
        return "escape", 1
    for end in range(2, min(len(text), MAX_SEQUENCE)):
        if text[end].isalpha() or text[end] == "~":
            return SEQUENCES.get(text[: end + 1], ""), end + 1
    return ("", 0) if len(text) < MAX_SEQUENCE else ("", MAX_SEQUENCE)


@contextmanager
def raw_keyboard() -> Iterator[int]:
    """The keyboard's file descriptor, each key at once and unseen; Ctrl-C still interrupts. Put right at the end."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def read(keyboard: int) -> bytes:
    """What was typed; empty when the terminal is gone."""
    try:
        return os.read(keyboard, 1024)
    except OSError:
        return b""

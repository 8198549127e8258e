"""Finds tool calls in what a model writes, piece by piece.

Theory of operation. Text is shown until the mark that opens a call could have begun; from there pieces are held. If
what follows the mark names one of the tools, it is a call: its name is told at once and its arguments as they are
written, up to the end of their JSON. If it does not, the held pieces are text like any other. A piece of which not all
is shown brings what was written as `raw`, so that another engine can go on from exactly there: it reads what was
written before (`begin`) and is in the same state, in the middle of a call if need be.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from atmo.generation import CallDelta, Piece
from atmo.inference.engines.tools import CallFormat

_LONGEST_HEAD = 300  # characters from the mark to the arguments; names have up to 64
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*(?:,\s*"(?:arguments|parameters)"\s*:\s*|(\}))', re.S)
_MAY_BE_HEAD = re.compile(r'\s*(\{\s*("[^"]{0,80}("\s*(:\s*("([^"\\]|\\.){0,80}("[\s,:"a-z]*)?)?)?)?)?)?\Z', re.S)


@dataclass(slots=True)
class _Held:
    """A piece that is not let go yet. left: its text that is not decided on; shown: what of it is text."""

    piece: Piece
    left: str
    shown: str = ""
    calls: list[CallDelta] = field(default_factory=list)
    swallowed: bool = False
    old: bool = False  # it was told by the engine before


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class CallFilter:
    """names: of the tools that may be called. `calls` counts those that were begun."""

    def __init__(self, known: CallFormat, names: Sequence[str], new_id: Callable[[], str] = new_call_id) -> None:
        self._format = known
        self._names = set(names)
        self._new_id = new_id
        self._held: list[_Held] = []
        self._state: Callable[[str], bool] = self._at_start if known.bare else self._outside
        self._json = _JsonEnd()
        self.calls = 0

    def begin(self, text: str) -> None:
        """What was written before and told by another engine."""
        self._held.append(_Held(Piece(text), text, old=True))
        self._go_on()

    def push(self, piece: Piece) -> list[Piece]:
        """What may be told now."""
        self._held.append(_Held(piece, piece.text))
        return self._go_on()

    def flush(self) -> list[Piece]:
        """What is held when the model ends: no call came of it."""
        self._move(len(self._pending), shown=True)
        return self._released()

    def _go_on(self) -> list[Piece]:
        while self._state(self._pending):
            pass
        return self._released()

    @property
    def _pending(self) -> str:
        return "".join(held.left for held in self._held)

    # States: each decides on some of the pending text and says whether there is more to decide

    def _outside(self, text: str) -> bool:
        at = text.find(self._format.opens) if self._format.opens else -1
        if at < 0:
            self._move(len(text) - _open_end(text, self._format.opens), shown=True)
            return False
        self._move(at, shown=True)
        self._state = self._at_head
        return True

    def _at_start(self, text: str) -> bool:
        """A bare call is the whole answer: it begins with a brace or not at all."""
        if not text.strip():
            return False
        self._state = self._at_head if text.lstrip().startswith("{") else self._outside
        return True

    def _at_head(self, text: str) -> bool:
        """Behind the mark: is this a call of one of the tools?"""
        opens = self._format.opens if text.startswith(self._format.opens) else ""
        body = text[len(opens) :]
        opening = re.match(r"\s*\[" if self._format.name == "mistral" and opens else "", body)
        skipped = len(opens) + (opening.end() if opening else 0)
        if opening is None and not body.strip():
            return False
        head = _HEAD.match(text, skipped)
        if head is not None and _name(head[1]) in self._names:
            self._begin_call(_name(head[1]), head.end(), whole=bool(head[2]))
            return True
        if head is None and len(text) < _LONGEST_HEAD and _MAY_BE_HEAD.match(text, skipped):
            return False
        self._move(max(1, len(opens)), shown=True)
        self._state = self._outside
        return True

    def _begin_call(self, name: str, head_chars: int, *, whole: bool) -> None:
        delta = CallDelta(self.calls, self._new_id(), name, "{}" if whole else "")
        self.calls += 1
        self._move(head_chars - whole, shown=False, call=delta)  # a brace that ends the call is left for `_behind`
        self._json = _JsonEnd()
        self._state = self._behind if whole else self._in_arguments

    def _in_arguments(self, text: str) -> bool:
        blank = not self._json.begun
        taken = self._json.read(text)
        for held in self._held:
            part = held.left[:taken]
            taken -= len(part)
            if part:
                told = part.lstrip() if blank else part
                blank = blank and not told
                held.calls += [CallDelta(self.calls - 1, arguments=told)] if told else []
                held.left, held.swallowed = held.left[len(part) :], True
        if self._json.ended:
            self._state = self._behind
        return self._json.ended

    def _behind(self, text: str) -> bool:
        """Between the end of the arguments and what comes after the call."""
        if self._format.name == "mistral":
            end, more = re.match(r"\s*\}\s*\]\s*", text), re.match(r"\s*\}\s*,", text)
        else:
            end, more = re.match(r"\s*\}\s*" + re.escape(self._format.closes), text), None
        found = end or more
        if found is None and len(text) < _LONGEST_HEAD:
            return False
        self._move(found.end() if found else len(text), shown=False)
        self._state = self._at_head if more else self._after_call
        return True

    def _after_call(self, text: str) -> bool:
        """Blanks between calls, and behind the last, say nothing."""
        blanks = len(text) - len(text.lstrip())
        self._move(blanks, shown=False)
        if len(text) == blanks:
            return False
        self._state = self._outside
        return True

    # Pieces

    def _move(self, chars: int, *, shown: bool, call: CallDelta | None = None) -> None:
        """Decide on the next `chars` characters; a call is told with the last of them."""
        for held in self._held:
            part = held.left[:chars]
            chars -= len(part)
            held.left = held.left[len(part) :]
            held.shown += part if shown else ""
            held.swallowed = held.swallowed or (not shown and bool(part))
            if part and chars == 0:
                if call is not None:
                    held.calls.append(call)
                return

    def _released(self) -> list[Piece]:
        """The pieces that are decided on to their end."""
        found: list[Piece] = []
        while self._held and not self._held[0].left:
            held = self._held.pop(0)
            if not held.old:
                found.append(_told(held))
        return found


def _told(held: _Held) -> Piece:
    if not held.swallowed:
        return held.piece
    return msgspec.structs.replace(held.piece, text=held.shown, calls=tuple(held.calls), raw=held.piece.text)


def _name(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""


def _open_end(text: str, mark: str) -> int:
    """How many characters at the end of `text` could be the beginning of the mark."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)


class _JsonEnd:
    """Finds the end of a JSON value in a text that comes in parts."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escaped = self.begun = False
        self.ended = False

    def read(self, text: str) -> int:
        """How many characters of `text` belong to the value."""
        for at, char in enumerate(text):
            if not self._quoted and self._depth == 0 and self.begun and char in ",}] \n\t\r":
                self.ended = True  # a number, a word or a string ended before this character
                return at
            self._step(char)
            if self.ended:
                return at + 1
        return len(text)

    def _step(self, char: str) -> None:
        if self._quoted:
            self._quoted = self._escaped or char != '"'
            self._escaped = char == "\\" and not self._escaped
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self.ended = self._depth <= 0
        self.begun = self.begun or not char.isspace()

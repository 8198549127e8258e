"""Grammars in llama.cpp's notation (GBNF): read, checked, and gone on with in the middle of an answer.

Theory of operation. A grammar is read into rules: a rule is a choice of sequences, a sequence is made of sets of
characters and of references to rules. Groups and repetitions become rules of their own. An answer that was begun
elsewhere is matched as llama.cpp does it, with a set of stacks: a stack is what is still to come, its first element
always a set of characters, and each character of the text keeps the stacks that take it and replaces them by what may
follow. What is left of the stacks is a choice of sequences, so it is a grammar again: the one for the rest.

llama.cpp says nothing of what is wrong with a grammar, and it follows a deeply nested one until its own stack ends; so
a stranger's grammar is read here first. Notation: github.com/ggml-org/llama.cpp, grammars/README.md, without tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from atmo.errors import UsageError

MAX_GRAMMAR_CHARS = 256 << 10  # a guess: a schema of a hundred properties makes 20,000
MAX_REPEATS = 1000  # llama.cpp gives up at 2,000 elements of one rule
_MAX_NESTING = 64  # a guess
_MAX_MADE = 50_000  # rules made of groups and repetitions; a guess
_MAX_STACKS = 10_000  # a guess: real grammars have fewer than a hundred at once
_LAST_CHAR = 0x10FFFF
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "^": "^", "-": "-", "/": "/"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these ranges, or one of no range when `negated`."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def takes(self, char: str) -> bool:
        return any(low <= ord(char) <= high for low, high in self.ranges) != self.negated


@dataclass(frozen=True, slots=True)
class Ref:
    name: str


Element: TypeAlias = Chars | Ref
Sequence: TypeAlias = tuple[Element, ...]


@dataclass(slots=True)
class Grammar:
    rules: dict[str, list[Sequence]] = field(default_factory=dict)

    def after(self, text: str) -> str:
        """The grammar of what may follow `text`. Raises UsageError when the text does not fit."""
        stacks = self._open({(Ref("root"),)})
        for at, char in enumerate(text):
            stacks = self._open({stack[1:] for stack in stacks if stack and _takes(stack[0], char)})
            if not stacks:
                raise UsageError(f"The answer that was begun leaves the grammar at character {at + 1}.")
        whole = _unused("whole", " ".join(self.rules))  # what was the root, should a rule name it
        rules = {"root": sorted(stacks, key=len)}
        rules |= {whole if name == "root" else name: choice for name, choice in self.rules.items()}
        return "\n".join(f"{name} ::= {_choice(choice, whole)}" for name, choice in rules.items())

    def _open(self, stacks: set[Sequence]) -> set[Sequence]:
        """The same stacks with a set of characters first, or nothing."""
        found: set[Sequence] = set()
        seen = set(stacks)
        todo = list(stacks)
        while todo:
            stack = todo.pop()
            if not stack or isinstance(stack[0], Chars):
                found.add(stack)
                continue
            for sequence in self.rules[stack[0].name]:
                longer = sequence + stack[1:]
                if longer not in seen:
                    seen.add(longer)
                    todo.append(longer)
            if len(seen) > _MAX_STACKS:
                raise UsageError("The grammar is too ambiguous.", hint="Use a simpler one.")
        return found


def read_grammar(text: str) -> Grammar:
    """Raises UsageError with what is wrong and where."""
    if len(text) > MAX_GRAMMAR_CHARS:
        raise UsageError(f"The grammar has {len(text)} characters; {MAX_GRAMMAR_CHARS} are allowed.")
    grammar = _Reader(text).grammar()
    _check_names(grammar)
    _check_left_recursion(grammar)
    return grammar


class _Reader:
    """Reads forward through a grammar's text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._grammar = Grammar()
        self._made = 0
        self._prefix = _unused("part", text)  # of the rules made here

    def grammar(self) -> Grammar:
        self._space(newlines=True)
        while self._at < len(self._text):
            name = self._name()
            self._space()
            if not self._take("::="):
                raise self._wrong(f"'::=' is missing after {name!r}")
            if name in self._grammar.rules:
                raise self._wrong(f"the rule {name!r} is there twice")
            self._grammar.rules[name] = []
            self._space(newlines=True)
            self._grammar.rules[name] = self._choice(0)
            self._space(newlines=True)
        return self._grammar

    def _choice(self, depth: int) -> list[Sequence]:
        """Sequences with `|` between them, up to `)` or the end of the rule."""
        if depth > _MAX_NESTING:
            raise self._wrong(f"groups are nested deeper than {_MAX_NESTING}")
        found = [self._sequence(depth)]
        while self._take("|"):
            self._space(newlines=True)
            found.append(self._sequence(depth))
        return found

    def _sequence(self, depth: int) -> Sequence:
        found: list[Element] = []
        while (part := self._part(depth)) is not None:
            found += self._repeated(part)
            self._space(newlines=depth > 0)
        return tuple(found)

    def _part(self, depth: int) -> Sequence | None:
        """One literal, set, dot, group or name; None where the sequence ends."""
        char = self._peek()
        if char == '"':
            return self._literal()
        if char == "[":
            return (self._set(),)
        if self._take("."):
            return (Chars(((0, _LAST_CHAR),)),)
        if self._take("("):
            return (self._group(depth),)
        if _in_name(char):
            return (Ref(self._name()),)
        if not char or char in "|)\r\n":
            return None
        raise self._wrong("tokens are not supported" if char in "<!" else f"{char!r} is not expected")

    def _group(self, depth: int) -> Ref:
        self._space(newlines=True)
        inner = self._choice(depth + 1)
        if not self._take(")"):
            raise self._wrong("a ')' is missing")
        return self._rule_of(inner)

    def _repeated(self, part: Sequence) -> Sequence:
        """The part with the `*`, `+`, `?` or `{m,n}` that follows it."""
        least, most = self._times()
        if (least, most) == (1, 1):
            return part
        if len(part) > 1:
            part = (self._rule_of([part]),)
        if most is None:
            again = self._rule_of([()])
            self._grammar.rules[again.name] = [(*part, again), ()]
            return (*part * least, again)
        tail: Sequence = ()
        for _ in range(most - least):
            tail = (self._rule_of([(*part, *tail), ()]),)
        return (*part * least, *tail)

    def _times(self) -> tuple[int, int | None]:
        signs: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        for sign, times in signs.items():
            if self._take(sign):
                return times
        if not self._take("{"):
            return 1, 1
        low, comma, high = self._until("}").partition(",")
        if not low.strip().isdigit() or (high.strip() and not high.strip().isdigit()):
            raise self._wrong("a repetition is written {m}, {m,} or {m,n}")
        least = int(low)
        most = int(high) if high.strip() else None if comma else least
        if max(least, most or 0) > MAX_REPEATS or (most is not None and most < least):
            raise self._wrong(f"a repetition has up to {MAX_REPEATS} times, the lower number first")
        return least, most

    def _rule_of(self, choice: list[Sequence]) -> Ref:
        self._made += 1
        if self._made > _MAX_MADE:
            raise self._wrong("there are too many repetitions")
        name = f"{self._prefix}{self._made}"
        self._grammar.rules[name] = choice
        return Ref(name)

    def _literal(self) -> Sequence:
        self._at += 1
        found: list[Element] = []
        while not self._take('"'):
            char = ord(self._char("a literal"))
            found.append(Chars(((char, char),)))
        return tuple(found)

    def _set(self) -> Chars:
        self._at += 1
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            low = high = ord(self._char("a set of characters"))
            if self._peek() == "-" and self._peek(1) != "]":
                self._at += 1
                high = ord(self._char("a set of characters"))
            ranges.append((low, high))
        return Chars(tuple(ranges), negated)

    def _char(self, where: str) -> str:
        char = self._peek()
        if not char or char == "\n":
            raise self._wrong(f"{where} does not end")
        self._at += 1
        if char != "\\":
            return char
        kind = self._peek()
        self._at += 1
        if kind in _ESCAPES:
            return _ESCAPES[kind]
        digits = self._text[self._at : self._at + _HEX_DIGITS.get(kind, 0)]
        self._at += len(digits)
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise self._wrong(f"\\{kind}{digits} is no character") from None

    def _name(self) -> str:
        start = self._at
        while _in_name(self._peek()):
            self._at += 1
        if start == self._at:
            raise self._wrong("the name of a rule is missing")
        return self._text[start : self._at]

    def _until(self, sign: str) -> str:
        end = self._text.find(sign, self._at, self._at + 32)
        if end < 0:
            raise self._wrong(f"a {sign!r} is missing")
        found, self._at = self._text[self._at : end], end + 1
        return found

    def _peek(self, ahead: int = 0) -> str:
        return self._text[self._at + ahead : self._at + ahead + 1]

    def _take(self, sign: str) -> bool:
        found = self._text.startswith(sign, self._at)
        self._at += len(sign) if found else 0
        return found

    def _space(self, *, newlines: bool = False) -> None:
        """Over blanks and comments, and over the ends of lines where a rule may go on behind them."""
        while (char := self._peek()) and char in (" \t\r\n#" if newlines else " \t#"):
            if char == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                self._at += 1

    def _wrong(self, what: str) -> UsageError:
        line = self._text.count("\n", 0, self._at) + 1
        return UsageError(f"The grammar is not right in line {line}: {what}.")


def _check_names(grammar: Grammar) -> None:
    if "root" not in grammar.rules:
        raise UsageError("The grammar has no rule 'root'.", hint="Its answer begins there.")
    for name, choice in grammar.rules.items():
        for part in (part for sequence in choice for part in sequence):
            if isinstance(part, Ref) and part.name not in grammar.rules:
                raise UsageError(f"The grammar's rule {name!r} names {part.name!r}, which is no rule.")


def _check_left_recursion(grammar: Grammar) -> None:
    """A rule that can reach itself before any character would be followed for ever."""
    empty = _possibly_empty(grammar)
    done: set[str] = set()
    for start in grammar.rules:
        path = [] if start in done else [(start, _first_rules(grammar, start, empty))]
        on_path = {start}
        while path:
            name, nexts = path[-1]
            following = next(nexts, None)
            if following is None:
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif following in on_path:
                raise UsageError(f"The grammar's rule {following!r} begins with itself: it would never end.")
            elif following not in done:
                path.append((following, _first_rules(grammar, following, empty)))
                on_path.add(following)


def _first_rules(grammar: Grammar, name: str, empty: set[str]) -> Iterator[str]:
    """The rules that a rule may begin with."""
    for sequence in grammar.rules[name]:
        for part in sequence:
            if isinstance(part, Chars):
                break
            yield part.name
            if part.name not in empty:
                break


def _possibly_empty(grammar: Grammar) -> set[str]:
    found: set[str] = set()
    grown = True
    while grown:
        more = {
            name
            for name, choice in grammar.rules.items()
            if any(all(isinstance(part, Ref) and part.name in found for part in sequence) for sequence in choice)
        }
        grown, found = more != found, more
    return found


def _takes(element: Element, char: str) -> bool:
    return isinstance(element, Chars) and element.takes(char)


def _in_name(char: str) -> bool:
    return bool(char) and (char == "-" or (char.isascii() and char.isalnum()))


def _unused(name: str, text: str) -> str:
    """A name that does not occur in `text`."""
    while name in text:
        name += "x"
    return name


def _choice(choice: list[Sequence], whole: str) -> str:
    return " | ".join(_written(sequence, whole) for sequence in choice)


def _written(sequence: Sequence, whole: str) -> str:
    return " ".join(_element_text(each, whole) for each in sequence) or '""'


def _element_text(element: Element, whole: str) -> str:
    if isinstance(element, Ref):
        return whole if element.name == "root" else element.name
    ranges = [f"\\U{low:08X}" + (f"-\\U{high:08X}" if high > low else "") for low, high in element.ranges]
    return f"[{'^' if element.negated else ''}{''.join(ranges)}]"

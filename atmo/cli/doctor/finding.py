"""What was found."""

from __future__ import annotations

from dataclasses import dataclass

from atmo.errors import AtmoError


@dataclass(frozen=True, slots=True)
class Finding:
    """check: what was looked at, one word; state: `ok`, `note` (works, but you may want to know) or `bad`."""

    check: str
    state: str
    what: str
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check, "ok", what)


def note(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, "note", what, remedy)


def bad(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, "bad", what, remedy)


def failed(check: str, error: AtmoError) -> Finding:
    return bad(check, error.message, error.hint)

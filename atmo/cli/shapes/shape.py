"""What all of them have, and what a command prints that fails."""

from __future__ import annotations

import msgspec


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all of them."""


class Failure(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What went wrong. code: one word for programs; hint: what to do, may be empty."""

    code: str
    message: str
    hint: str


class Failed(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Instead of all below when a command fails; the exit code says the same."""

    error: Failure

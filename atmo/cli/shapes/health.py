"""What `atmo doctor` finds, and the version of the program."""

from __future__ import annotations

from atmo.cli.shapes.shape import Shape


class Finding(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """check: what was looked at, one word; state: `ok`, `note` (works, but worth knowing) or `bad`."""

    check: str
    state: str
    what: str
    remedy: str


class Health(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """healthy: nothing is bad; the exit code is 1 otherwise."""

    healthy: bool
    findings: list[Finding]


class Version(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the program."""

    version: str

"""Versions of capabilities, compared as people expect: `2.10` is newer than `2.9`, `v3` is `3.0`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from atmo.errors import UsageError

_RULE = re.compile(r"(>=|<=|==|!=|>|<|=)?\s*v?(\d+(?:\.\d+)*)")
_NUMBERS = re.compile(r"v?(\d+(?:\.\d+)*)")
Version = tuple[int, ...]
_COMPARE: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
}


def satisfies(version: str, rule: str) -> bool:
    """Does `version` meet every part of `rule`, such as `>=3.0` or `>=2.1, <4`? A version without numbers meets none.

    Raises UsageError for a rule that is not one.
    """
    found = _NUMBERS.match(version.strip())
    meets = found is not None
    for part in rule.split(","):
        match = _RULE.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"{rule!r} is not a version rule.", hint="Write it as >=3.0 or >=2.1,<4.")
        if found is not None:
            compare = _COMPARE[match[1] or "=="]
            meets = meets and compare(_key(found[1]), _key(match[2]))
    return meets


def _key(numbers: str) -> Version:
    parts = [int(part[:18]) for part in numbers.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()  # 3 and 3.0 are the same
    return tuple(parts)

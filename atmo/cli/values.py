"""Words and plain numbers of a command line, read without the library that Typer reads all values with, whose import
takes a tenth of a second: as long as all else. What is not plain is left to Typer, mistakes and their messages, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

_NUMBERS = {int: re.compile(r"-?[0-9]{1,15}"), float: re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")}


def read_plainly(parameter: Any) -> None:
    """Let an option's or argument's value be read here first."""
    parameter.get_runtime_param = partial(_Reader, parameter.type_descriptor, parameter.get_runtime_param)


class _Reader:
    """Stands where Typer has the reader of a parameter; `typers` makes that one."""

    def __init__(self, descriptor: Any, typers: Callable[[], Any]) -> None:
        self._kind = descriptor.annotation
        self._least, self._most = descriptor.parameter_info.min, descriptor.parameter_info.max
        self._typers = typers

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._kind is str and isinstance(value, str):
            return value
        if self._kind == list[str] and all(isinstance(each, str) for each in value):
            return list(value)
        if self._kind in _NUMBERS and _NUMBERS[self._kind].fullmatch(str(value)):
            number = self._kind(value)
            if (self._least is None or self._least <= number) and (self._most is None or number <= self._most):
                return number
        return self._typers().coerce(value, param=param, ctx=ctx)

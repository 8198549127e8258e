"""The command line within this process: a hundred commands take the time of one that is started."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

from typer.main import get_command

from atmo.cli import running
from atmo.cli.main import app
from tests.cluster import Outcome


def inside(*arguments: str, given: str | bytes = "", **environ: str) -> Outcome:
    """As `tests.cluster.atmo`, but for what only a process of its own has: signals, streams that are closed."""
    out, err = io.StringIO(), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(given.encode() if isinstance(given, str) else given))
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "200", **environ}),
        mock.patch.object(sys, "argv", ["atmo", *arguments]),
        mock.patch.object(sys, "stdin", stdin),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = running.execute()
    return Outcome(code, out.getvalue(), err.getvalue())


def leaves(command: Any = None) -> dict[str, Any]:
    """Every command that does something, by its words: groups that show their state included."""
    return dict(_leaves(command or get_command(app), ()))


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if path and (not children or command.invoke_without_command):
        yield " ".join(path), command
    for name, child in children.items():
        yield from _leaves(child, (*path, name))


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]

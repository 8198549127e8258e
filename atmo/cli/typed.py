"""The command line as Typer reads it, with its errors and its help in our words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from typer import Context
from typer.exceptions import Abort, Exit, TyperException
from typer.main import get_command

from atmo.cli.main import app
from atmo.cli.running import INTERRUPTED
from atmo.cli.values import read_plainly
from atmo.errors import UsageError


def run() -> int:
    """The exit code. Raises UsageError, BrokenPipeError, and what the command raises."""
    try:
        return int(command()(prog_name="atmo", standalone_mode=False) or 0)
    except SystemExit as exc:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # Typer met a broken pipe
            raise BrokenPipeError from exc
        raise
    except Exit as exc:
        return exc.exit_code
    except Abort:
        return INTERRUPTED
    except TyperException as exc:
        if type(exc).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{exc.format_message()}\n")
            return UsageError.exit_code
        raise _misused(exc) from None


def command() -> Any:
    """`atmo` and all commands below it."""
    made = get_command(app)
    for parameter in _parameters(made):
        read_plainly(parameter)
        if parameter.param_type_name == "argument":
            _write_plainly(parameter)
    return made


def _parameters(made: Any) -> Iterator[Any]:
    yield from made.get_params(Context(made))  # `--help` is among these
    for child in getattr(made, "commands", {}).values():
        yield from _parameters(child)


def _write_plainly(argument: Any) -> None:
    """In help an argument is its name, as man pages have it: `TOKEN`, `[MODEL...]`; not what it is in Python."""
    name = argument.metavar
    usage = name if argument.required or name.startswith("[") else f"[{name}]"
    argument.get_usage_pieces = lambda ctx: [usage]
    argument.display_type_rich = lambda ctx: None


def _misused(exc: TyperException) -> UsageError:
    """What Typer says of a wrong command line, in our form."""
    context = getattr(exc, "ctx", None)
    message = exc.format_message()
    path = context.command_path if context is not None else "atmo"
    hint = f"See: {path} --help"
    possible = getattr(exc, "possibilities", None)
    if possible:
        message = exc.message
        hint = f"Did you mean {possible[0]!r}? {hint}"
    elif " Did you mean " in message:
        message, _, near = message.partition(" Did you mean ")
        hint = f"Did you mean {near} {hint}"
    return UsageError(message if message.endswith((".", "!", "?")) else f"{message}.", hint=hint)

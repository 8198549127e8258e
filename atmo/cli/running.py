"""Runs the program: every way in which a command can end becomes an exit code and, at most, one clear message.

Invariant: no traceback reaches a user, whatever the command line, the node or the terminal do. Only a bug in a program
that was started with `python -X dev` shows one.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from typing import Any, NoReturn

from atmo.cli import quick
from atmo.errors import AtmoError

INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended


def run() -> NoReturn:
    """Run the command of `sys.argv` and exit."""
    _open_streams()
    code = 0
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = execute()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        _mute(sys.stdout)
    except OSError as exc:  # the disk, or whatever standard output is, is full
        _mute(sys.stdout)
        code = _fail(AtmoError(f"The output could not be written: {exc.strerror}."), as_json=False)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def execute() -> int:
    """The command's exit code; errors in the writing of its output are left to the caller."""
    try:
        return _command()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    except AtmoError as error:
        return _fail(error)
    except BrokenPipeError:
        raise
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EBADF, errno.EIO) and exc.filename is None:
            raise
        return _fail(AtmoError(f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}."))
    except Exception as exc:
        if sys.flags.dev_mode:
            raise
        return _fail(_bug(exc))


def _command() -> int:
    asked = quick.read(sys.argv[1:])
    if asked is not None:
        from atmo.cli import ask_commands

        _imported()
        ask_commands.asked(**asked)
        return 0
    from atmo.cli import typed

    _imported()
    return typed.run()


def _imported() -> None:
    """What is there stays to the end: garbage is looked for in what comes now."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _bug(exc: Exception) -> AtmoError:
    last = exc.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last is not None else "?"
    return AtmoError(
        f"This is a bug: {type(exc).__name__}: {exc} ({place}).",
        hint="Please report it, with what PYTHONDEVMODE=1 prints when you run the command again.",
    )


def _fail(error: AtmoError, *, as_json: bool | None = None) -> int:
    """Say it, as JSON where that was asked for and not decided otherwise. Returns the exit code."""
    from atmo.cli import output

    try:
        return output.fail_json(error) if as_json is not False and "--json" in sys.argv else output.fail(error)
    except OSError:
        _mute(sys.stdout)
        return error.exit_code


def _open_streams() -> None:
    """A closed standard stream becomes the null device: else the next file to be opened would take its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _mute(stream: Any) -> None:
    """Nothing more goes there, not even what is still in its buffer: Python writes that when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)

"""The node's own process: runs until it is told to stop. Started by `atmo node start`, directly or in the background.

In the background it gets a pipe on which it writes one line of JSON when it is ready, or its error.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import structlog

from atmo.config import Config, load
from atmo.errors import AtmoError
from atmo.heap import keep_freed


def run(config: Config, ready_fd: int | None = None) -> int:
    """Returns the exit code. Reports over `ready_fd` if there is one, else on the terminal."""
    import uvloop

    try:
        return uvloop.run(_live(config, ready_fd))
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        structlog.get_logger("atmo.node").exception("the node failed")
        return _report_failure(
            AtmoError(f"The node failed: {type(exc).__name__}: {exc}.", hint=f"See {config.log_file}."), ready_fd
        )


async def _live(config: Config, ready_fd: int | None) -> int:
    from atmo.node import Node

    node = Node(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        await node.start()
        await node.settled()
    except AtmoError as error:
        await node.stop()
        return _report_failure(error, ready_fd)
    keep_freed()
    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it for garbage took 49 ms each time (measured)
    _report(node.status(), ready_fd)
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(node.stop_wanted())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await node.stop()
    return 0


def _report(status: dict[str, Any], ready_fd: int | None) -> None:
    if ready_fd is None:
        from atmo.cli import output, views

        output.console().print(views.started(status))
    else:
        _write(ready_fd, status)


def _report_failure(error: AtmoError, ready_fd: int | None) -> int:
    if ready_fd is None:
        from atmo.cli import output

        return output.fail(error)
    _write(ready_fd, {"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    return error.exit_code


def _write(ready_fd: int, value: dict[str, Any]) -> None:
    try:
        os.write(ready_fd, json.dumps(value).encode() + b"\n")
        os.close(ready_fd)
    except OSError:
        pass  # whoever started us has gone; the node lives on


def _from_arguments(arguments: list[str]) -> int:
    ready_fd, handover = int(arguments[0]), json.loads(arguments[1])
    try:
        config = load(handover["flags"], file=Path(handover["file"]) if handover["file"] else None)
    except AtmoError as error:
        return _report_failure(error, ready_fd)
    return run(config, ready_fd)


if __name__ == "__main__":
    sys.exit(_from_arguments(sys.argv[1:]))
